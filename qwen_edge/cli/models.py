"""``qwen-edge models``: the models on this device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from qwen_edge.cli.language import localized, translate
from qwen_edge.cli.report import named_values
from qwen_edge.cli.terminal import is_terminal, note, out, table
from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.host.paths import models_folder
from qwen_edge.host.sizes import format_size
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.session.footprint import facts_of
from qwen_edge.session.models import (
    SYNTHETIC_SUFFIX,
    demo_path,
    removable,
    resolve,
    store_files,
    store_path,
)
from qwen_edge.session.prompt_store import PromptStore

app = typer.Typer(
    help="List, inspect, move and remove the models on this device.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def models_command(context: typer.Context) -> None:
    """List, inspect, move and remove the models on this device."""
    if context.invoked_subcommand is None:
        list_command()


@app.command("list")
def list_command(as_json: JSON = False) -> None:
    """List the models, the one that is part of the program first."""
    demo = demo_path()
    paths = [*([demo] if demo.is_file() else []), *store_files()]
    rows = [_summary(path) for path in paths]
    if as_json:
        _print_json(rows)
        return
    table(
        [(row["name"], format_size(int(str(row["bytes"]))), row["weights"]) for row in rows],
        ("name", "size", "weights"),
    )
    note("Models lie in {folder}.", folder=models_folder())
    used = PromptStore(0).usage()
    if used.prompts:
        note(
            "Computed prompts: {prompts}, {size}; `qwen-edge models clear-cache` deletes them.",
            prompts=used.prompts,
            size=format_size(used.size),
        )


def _summary(path: Path) -> dict[str, object]:
    """One line of the list; a file that cannot be used is listed as such."""
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    row: dict[str, object] = {"name": path.stem, "bytes": size, "path": str(path)}
    try:
        with open_model(path) as model:
            bits = facts_of(model).bits
    except QwenEdgeError:
        return row | {"weights": translate("damaged"), "usable": False}
    return row | {"weights": localized("{bits} bits", {"bits": bits}), "usable": True}


@app.command("info")
def info_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or path of a model.")],
    as_json: JSON = False,
) -> None:
    """Show everything about one model."""
    found = resolve(name)
    with open_model(found.path) as model:
        facts = _facts(model)
    if as_json:
        _print_json(facts)
    else:
        named_values([(key, _shown(value)) for key, value in facts.items()])


def _facts(model: PackedModel) -> dict[str, object]:
    """All there is to tell about a model, in plain types."""
    config = model.config
    types: dict[str, int] = {}
    for tensor in model.tensors.values():
        types[tensor.type] = types.get(tensor.type, 0) + tensor.nbytes
    return {
        "name": model.name,
        "path": str(model.path),
        "bytes": model.size,
        "source": model.source,
        "quantization": dict(model.quantization),
        "bytes by type": types,
        "layers": config.layers,
        "hidden size": config.hidden_size,
        "intermediate size": config.intermediate_size,
        "heads": config.heads,
        "kv heads": config.kv_heads,
        "head size": config.head_dim,
        "vocabulary": config.vocab_size,
        "longest context": config.max_positions,
        "tied embedding": config.tied,
        "thinking": facts_of(model).can_think,
        "temperature": model.generation.temperature,
        "top-k": model.generation.top_k,
        "top-p": model.generation.top_p,
    }


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return translate("yes") if value else translate("no")
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


@app.command("rm")
def remove_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whole name of a model.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a model from this device."""
    path = removable(name)
    if not yes:
        if not is_terminal(sys.stdin):
            raise UsageError(
                "{name} is not deleted without being asked.",
                "Say --yes where there is no terminal.",
                name=path.stem,
            )
        size = format_size(path.stat().st_size)
        question = localized("Delete {name} ({size})?", {"name": path.stem, "size": size})
        typer.confirm(question, abort=True, err=True)
    try:
        path.unlink()
    except OSError as error:
        raise QwenEdgeError(
            "{path} cannot be deleted: {reason}.", path=path, reason=error.strerror or error
        ) from error
    note("{name} is deleted.", name=path.stem)


@app.command("move")
def move_command(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A model file, on shared storage say.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What it is called there.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Delete the original without asking.")
    ] = False,
) -> None:
    """Bring a model into the folder of models, where it is fast; the original goes if you agree."""
    from qwen_edge.cli.move_model import copy_with_progress, delete_original
    from qwen_edge.session.moving import copied_to, is_in_place

    target = copied_to(path, name)
    if is_in_place(path, target):
        out(str(target))
        note("It is there already.")
        return
    original = copy_with_progress(path, target)
    out(str(target))
    delete_original(original, target, yes=yes)


@app.command("clear-cache")
def clear_cache_command() -> None:
    """Delete the system prompts that were kept computed; they are computed again when needed."""
    removed = PromptStore(0).clear()
    note(
        "{prompts} computed prompts are deleted, {size}.",
        prompts=removed.prompts,
        size=format_size(removed.size),
    )


@app.command("make-synthetic")
def make_synthetic_command(
    size: Annotated[
        str, typer.Argument(metavar="SIZE", help="qwen3-0.6b, qwen3-1.7b or qwen3-4b.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to make."),
    ] = None,
    bits: Annotated[int, typer.Option("--bits", metavar="N", help="4 or 8.")] = 4,
    group: Annotated[
        int, typer.Option("--group", metavar="N", help="Columns that share a scale.")
    ] = 32,
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", metavar="FILE", help="Qwen3's tokenizer.json."),
    ] = None,
) -> None:
    """Make a model of a true size with random weights, to measure speed and memory."""
    from qwen_edge.cli.file_progress import file_progress
    from qwen_edge.model.synthetic import make_synthetic

    size = size.lower()
    target = output or store_path(size + SYNTHETIC_SUFFIX)
    with file_progress("Writing") as progress:
        path = make_synthetic(
            size, target, bits=bits, group=group, tokenizer_json=tokenizer, progress=progress
        )
    out(str(path))


def _print_json(value: object) -> None:
    import json

    out(json.dumps(value, indent=2, ensure_ascii=False, default=str))
