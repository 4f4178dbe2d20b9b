"""``qwen-edge convert``: a checkpoint or GGUF file to one model file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwen_edge.cli.awake import staying_awake
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
    report_error,
    run_conversion,
)
from qwen_edge.cli.file_progress import file_progress
from qwen_edge.cli.terminal import note, out
from qwen_edge.errors import ModelNotFoundError, UsageError
from qwen_edge.host.sizes import format_size
from qwen_edge.model.export_checkpoint import export_checkpoint
from qwen_edge.model.export_gguf import export_gguf
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.quant.methods import BEST_CODEBOOK
from qwen_edge.session.models import SUFFIX, resolve, store_path
from qwen_edge.session.setting_table import SETTINGS, parse_value

KINDS = ("gguf", "safetensors")
DTYPES = ("bf16", "f16", "f32")

app = typer.Typer(
    help="Turn a checkpoint into a model file.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def convert_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder with a Hugging Face checkpoint, or a GGUF file; with --to, a model.",
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
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="KIND",
            help="Turn a model file into gguf (for llama.cpp) or safetensors (for transformers).",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="With --to: all matrices as bf16, f16 or f32; safetensors has bf16 by default.",
        ),
    ] = None,
    aot: Annotated[
        bool,
        typer.Option(
            "--aot", help="Compile a model file ahead of time for --engine torch on this device."
        ),
    ] = False,
    kv: Annotated[
        str | None,
        typer.Option("--kv", metavar="TYPE", help="With --aot: type of the KV cache."),
    ] = None,
) -> None:
    """Turn a checkpoint or GGUF file of a dense Qwen3 model into a model file, or back.

    An existing FILE is replaced once the new one is complete; breaking off leaves it as it was.
    """
    making = Making(bits, group, method, codebook, override, calibration, threads)
    if aot:
        others = (output, name, to, dtype, lora, lora_scale)
        if making != Making() or any(other is not None for other in others):
            raise UsageError("--aot takes no other option than --kv.")
        with staying_awake():
            _compile(source, kv)
        return
    if kv is not None:
        raise UsageError("--kv goes with --aot.")
    making.checked()
    if to is not None:
        if bits is not None or name is not None or lora:
            raise UsageError("--to takes neither --bits nor --name nor --lora.")
        with staying_awake():
            _export(source, to, output, dtype, threads)
        return
    if dtype is not None:
        raise UsageError("--dtype goes with --to.")
    path = _source(source)
    adapters = _adapters(lora or [], lora_scale or [])
    own = path.stem if path.is_file() else path.resolve().name
    title = name or "-".join([own, *(adapter.resolve().name for adapter in lora or ())])
    if output is not None:
        target = output
    elif path.is_file() and bits is None:
        # A GGUF file's name says already how it was quantized.
        target = store_path(title)
    else:
        target = default_output(path, title, bits)
    check_target(target)
    with staying_awake():
        report_conversion(run_conversion(path, target, title, making, adapters=adapters))


def _compile(source: str, kv: str | None) -> None:
    """Compiles a model for the torch engine as a run with these settings would use it."""
    from qwen_edge.cli.setup_view import SetupView
    from qwen_edge.session.engine_choice import TORCH
    from qwen_edge.session.engines import load_packages
    from qwen_edge.session.plan import make_plan

    view = SetupView()
    plan = make_plan({"model": source, "engine": TORCH, "kv": kv})
    model = plan.model
    assert isinstance(model, PackedModel)
    with model:
        load_packages(plan.choice, view)
        from qwen_edge.engine.torch_aot import build_package

        try:
            path = build_package(model, plan.engine, view)
        finally:
            view.end()
    out(str(path))
    note(
        "{size}; --engine torch starts from it with every model of this shape.",
        size=format_size(path.stat().st_size),
    )


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


def _source(source: str) -> Path:
    path = Path(source)
    if path.suffix == SUFFIX and path.is_file():
        raise UsageError(
            "{path} is a model file already.",
            "`--to gguf` and `--to safetensors` turn it into something else; --aot compiles it.",
            path=path,
        )
    if not path.exists():
        raise ModelNotFoundError(
            "There is no checkpoint folder or GGUF file {path}.",
            "Give the folder that holds config.json and the safetensors files.",
            path=path,
        )
    return path


def _export(source: str, to: str, output: Path | None, dtype: str | None, threads: int) -> None:
    """Writes a model as the file or folder of another program."""
    if to not in KINDS:
        raise UsageError("--to takes gguf or safetensors, not {value}.", value=to)
    if dtype not in (None, *DTYPES):
        raise UsageError("--dtype takes bf16, f16 or f32, not {value}.", value=dtype)
    found = resolve(source)
    target = output or Path(f"{found.name}.gguf" if to == "gguf" else found.name)
    with open_model(found.path) as model, file_progress("Converting") as progress:
        if to == "gguf":
            made = export_gguf(model, target, floats=dtype, threads=threads, progress=progress)
        else:
            floats = dtype or "bf16"
            made = export_checkpoint(
                model, target, floats=floats, threads=threads, progress=progress
            )
    out(str(made.path))
    report_error(made)
