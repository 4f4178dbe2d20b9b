"""``qwen-edge convert``: a checkpoint folder to one model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwen_edge.cli.convert_options import (
    USUAL_GROUP,
    Bits,
    Calibration,
    Codebook,
    Group,
    Making,
    Method,
    Name,
    Output,
    Overrides,
    Threads,
    check_target,
    default_output,
    report_conversion,
    run_conversion,
)
from qwen_edge.errors import ModelNotFoundError
from qwen_edge.quant.methods import BEST_CODEBOOK

app = typer.Typer(
    help="Turn a checkpoint into a model file.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def convert_command(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A Hugging Face checkpoint: config, tokenizer, safetensors."
        ),
    ],
    output: Output = None,
    bits: Bits = None,
    group: Group = USUAL_GROUP,
    method: Method = None,
    codebook: Codebook = BEST_CODEBOOK,
    override: Overrides = None,
    calibration: Calibration = None,
    name: Name = None,
    threads: Threads = 0,
) -> None:
    """Turn a checkpoint of a dense Qwen3 model into a model file.

    An existing FILE is replaced once the new one is complete; breaking off leaves it as it was.
    """
    if not directory.is_dir():
        raise ModelNotFoundError(
            "There is no checkpoint folder {path}.",
            "Give the folder that holds config.json and the safetensors files.",
            path=directory,
        )
    making = Making(bits, group, method, codebook, override, calibration, threads)
    making.checked()
    title = name or directory.resolve().name
    target = output or default_output(directory, title, bits)
    check_target(target)
    report_conversion(run_conversion(directory, target, title, making))
