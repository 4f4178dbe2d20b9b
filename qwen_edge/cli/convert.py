"""``qwen-edge convert``: a checkpoint folder to one model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwen_edge.cli.file_progress import file_progress
from qwen_edge.cli.terminal import note, out, warn
from qwen_edge.errors import ModelNotFoundError, UsageError
from qwen_edge.host.sizes import format_size
from qwen_edge.host.storage import storage_of
from qwen_edge.model.convert import convert, stored_bits
from qwen_edge.model.layout_choice import parse_override
from qwen_edge.quant.methods import BEST_CODEBOOK, BEST_METHOD, read_calibration
from qwen_edge.session.models import SUFFIX, store_path

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
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file to make; by default one among the models of this device.",
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            "--bits",
            metavar="N",
            help="Bits of a weight: 4, 8 or 16; by default the source's own, 4 for floats.",
        ),
    ] = None,
    group: Annotated[
        int,
        typer.Option("--group", metavar="N", help="Columns that share a scale: 32, 64 or 128."),
    ] = 32,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="How weights are rounded: nearest, aware or gptq; by default gptq to 4 bits.",
        ),
    ] = None,
    codebook: Annotated[
        str,
        typer.Option(
            "--codebook",
            metavar="NAME",
            help="What 4-bit codes stand for: iq4_nl, or int4, which is simpler to compute with.",
        ),
    ] = BEST_CODEBOOK,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            metavar="PATTERN=FORMAT",
            help="Another format for some matrices, such as lm_head=8; may be repeated.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="The text that the methods aware and gptq go by; by default one of their own.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What the model is called."),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", help="Threads; 0 means all cores.")
    ] = 0,
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
    if threads < 0:
        raise UsageError("threads is {value}; it cannot be less than 0.", value=threads)
    title = name or directory.resolve().name
    target = output or _default_output(directory, title, bits)
    if target.suffix != SUFFIX:
        warn("{path} does not end in {suffix}: it is found by its path only.",
             path=target, suffix=SUFFIX)  # fmt: skip
    if storage_of(target).shared:
        warn("{path} lies on shared storage, where it runs at a small part of its speed.",
             path=target)  # fmt: skip
    with file_progress("Converting") as progress:
        made = convert(
            directory,
            target,
            bits=bits,
            group=group,
            codebook=codebook,
            overrides=[parse_override(text, group) for text in override or ()],
            method=method or (BEST_METHOD if bits in (None, 4) else "nearest"),
            calibration=read_calibration(calibration) if calibration else None,
            threads=threads,
            progress=progress,
            name=title,
        )
    out(str(made.path))
    if made.kept:
        note(
            "{kept} of {matrices} matrices are taken over code for code; only their scales are "
            "rounded to fp16.",
            kept=made.kept,
            matrices=made.matrices,
        )
    note(
        "{size}; the weights are off by {error:.2%} in all, by {worst:.2%} in {name}.",
        size=format_size(made.size),
        error=made.error.relative,
        worst=made.worst_error.relative,
        name=made.worst_name,
    )


def _default_output(directory: Path, title: str, bits: int | None) -> Path:
    stored = stored_bits(directory, bits)
    return store_path(f"{title}-int{stored}" if stored < 16 else title)
