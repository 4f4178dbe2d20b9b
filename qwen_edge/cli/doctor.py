"""``qwen-edge doctor``: what this device is, what would run on it and how, and what is amiss."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwen_edge.cli.awake import release_left_behind
from qwen_edge.cli.terminal import note, out
from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.host.sizes import format_size
from qwen_edge.session.diagnosis import Diagnosis, Finding, diagnose

app = typer.Typer(
    help="Look at this device and say what it can run.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def doctor_command(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Name or path of the model to check."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    with_torch: Annotated[
        bool,
        typer.Option("--torch", help="Load torch and its operators, too, which takes seconds."),
    ] = False,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write what a bug report needs as JSON, nothing private in it; - is the terminal.",
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure which threads and cores are best for the model, and use them from now "
            "on; takes half a minute.",
        ),
    ] = False,
    clear_cache: Annotated[
        bool,
        typer.Option(
            "--clear-cache", help="Delete what was compiled for torch; it is compiled again."
        ),
    ] = False,
) -> None:
    """Check this device, the model and the setup, and show what would run."""
    if clear_cache:
        if model is not None or as_json or with_torch or report is not None or calibrate:
            raise UsageError("--clear-cache goes alone.")
        _clear_cache()
        return
    if calibrate:
        if as_json or with_torch or report is not None:
            raise UsageError("--calibrate goes with --model alone.")
        from qwen_edge.cli.calibrate_view import calibrate as measure

        measure({"model": model})
        return
    result = diagnose({"model": model})
    release_left_behind()
    if with_torch:
        _try_torch(result)
    if report is not None:
        if as_json:
            raise UsageError("--report and --json do not go together.")
        _write_report(result, report)
        return
    if as_json:
        import json

        from qwen_edge.cli.doctor_table import as_table

        out(json.dumps(as_table(result), indent=2, ensure_ascii=False, default=str))
        return
    from qwen_edge.cli.doctor_view import show_diagnosis

    show_diagnosis(result)


def _write_report(result: Diagnosis, target: str) -> None:
    """Writes what a bug report needs to a file, or to standard output for ``-``."""
    import json

    from qwen_edge.cli.crash_log import read_log
    from qwen_edge.session.bug_report import bug_report

    text = json.dumps(bug_report(result, read_log()), indent=2, ensure_ascii=False)
    if target == "-":
        out(text)
        return
    from qwen_edge.model.replacing_file import ReplacingFile

    data = (text + "\n").encode("utf-8", "replace")
    with ReplacingFile(Path(target), len(data)) as file:
        file.write(data, 0)
        file.commit(lambda _: None)
    note("{path} has what a bug report needs; look through it before you send it.", path=target)


def _try_torch(result: Diagnosis) -> None:
    """Loads torch as the engine does, and notes what came of it."""
    from qwen_edge.cli.setup_view import SetupView
    from qwen_edge.session.torch_facts import try_torch

    assert result.torch is not None
    try:
        result.torch = try_torch(result.torch, SetupView())
    except QwenEdgeError as error:
        result.findings.append(Finding.of(error))


def _clear_cache() -> None:
    from qwen_edge.host.torch_cache import clear_torch_cache, read_torch_cache

    cache = read_torch_cache()
    size = format_size(cache.size)
    note("Compiled for torch: {size} in {path}.", size=size, path=cache.folder)
    clear_torch_cache(cache)
    if cache.size:
        note("It is deleted.")
