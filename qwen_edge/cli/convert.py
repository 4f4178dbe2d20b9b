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
from qwen_edge.errors import ModelNotFoundError, UsageError
from qwen_edge.quant.methods import BEST_CODEBOOK
from qwen_edge.session.setting_table import SETTINGS, parse_value

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
    lora: Annotated[
        list[Path] | None,
        typer.Option(
            "--lora",
            metavar="ADAPTER",
            help="A LoRA adapter (PEFT's folder) to merge first; may be repeated.",
        ),
    ] = None,
    lora_scale: Annotated[
        list[float] | None,
        typer.Option(
            "--lora-scale",
            metavar="X",
            help="A factor for the adapter's own scale: one for all, or one for each --lora.",
        ),
    ] = None,
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
    adapters = _adapters(lora or [], lora_scale or [])
    title = name or "-".join(path.resolve().name for path in (directory, *(lora or ())))
    target = output or default_output(directory, title, bits)
    check_target(target)
    report_conversion(run_conversion(directory, target, title, making, adapters=adapters))


def _adapters(paths: list[Path], scales: list[float]) -> list[tuple[Path, float]]:
    if len(scales) not in (0, 1, len(paths)) or (scales and not paths):
        raise UsageError(
            "There are {adapters} --lora and {scales} --lora-scale.",
            "Give one --lora-scale for all of them, or one for each, in the same order.",
            adapters=len(paths),
            scales=len(scales),
        )
    for scale in scales:
        parse_value(SETTINGS["lora-scale"], str(scale), "--lora-scale")
    each = scales if len(scales) == len(paths) else (scales or [1.0]) * len(paths)
    return list(zip(paths, each, strict=True))
