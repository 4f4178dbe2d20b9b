"""The program ``qwen-edge``: from a command line to an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from qwen_edge.cli.awake import release_left_behind
from qwen_edge.cli.commands import COMMANDS, PROGRAM, command_module
from qwen_edge.errors import MemoryLimitError, QwenEdgeError, UsageError

OK, FAILED, INTERRUPTED = 0, 1, 130


def run_program(argv: Sequence[str]) -> int:
    """Runs a command line.

    Args:
        argv: the arguments without the program's name.

    Returns:
        The exit code: 0 done (or the reader of standard output has gone away, having read what it
        wanted), 2 usage, 3 model not found, 4 out of memory, 5 damaged model, 6 network,
        129 the terminal was closed, 130 interrupted, 143 asked to end, 1 anything else.
    """
    from qwen_edge.cli.interrupts import Terminated, Writing, ending_tidily

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # A locale without Chinese must not turn an answer into a crash.
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        with ending_tidily():
            return _exit_code(argv)
    except Terminated as end:
        _discard_output(sys.stdout)
        if Writing.over:
            _discard_output(sys.stderr)
        return int(end.code or 0)


def _exit_code(argv: Sequence[str]) -> int:
    try:
        code = _dispatch(list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()
    except SystemExit:
        raise
    except BaseException as error:
        code = _ended_by(error)
    return code


def _dispatch(argv: list[str]) -> int:
    if argv == ["--version"]:
        return _print_version()
    # ``doctor`` tells of it first.
    if argv[:1] != ["doctor"]:
        release_left_behind()
    if "_QWEN_EDGE_COMPLETE" not in os.environ and argv and argv[0] in COMMANDS:
        module = command_module(argv[0])
        if hasattr(module, "OPTIONS"):
            from qwen_edge.cli.options import parse_plain

            values = parse_plain(argv[1:], module.OPTIONS)
            if values is not None:
                return int(module.main(values))
    return _dispatch_with_typer(argv or ["--help"])


def _dispatch_with_typer(argv: list[str]) -> int:
    import typer

    from qwen_edge.cli.typer_group import build_group

    group = build_group()
    if "_QWEN_EDGE_COMPLETE" in os.environ:
        group.main(args=argv, prog_name=PROGRAM)
    # Not ``group.main``: it has its own ideas of interrupts and closed pipes.
    try:
        with group.make_context(PROGRAM, argv) as context:
            result = group.invoke(context)
    except typer.Exit as end:
        return int(end.exit_code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # Typer brings its own copy of click since 0.26 and uses the real one before: the classes
        # have no common name, but all have this method.
        if not hasattr(error, "format_message"):
            raise
        raise _usage_error(error, argv) from None
    return result if isinstance(result, int) else OK


def _usage_error(error: Exception, argv: Sequence[str]) -> UsageError:
    named = [word for word in argv[:1] if word in COMMANDS]
    return UsageError(
        "{message}",
        "See `{command} --help`.",
        message=error.format_message(),  # type: ignore[attr-defined]
        command=" ".join([PROGRAM, *named]),
    )


def _print_version() -> int:
    from qwen_edge import __version__
    from qwen_edge.cli.terminal import out

    out(f"{PROGRAM} {__version__}")
    return OK


def _ended_by(error: BaseException) -> int:
    """Tells the user of whatever stopped the command; returns the exit code."""
    from qwen_edge.cli.terminal import show_error

    if isinstance(error, BrokenPipeError):
        _discard_output(sys.stdout)
        return OK
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, MemoryError):
        error = MemoryLimitError("Memory ran out.", "Close other apps, or use a smaller model.")
    if isinstance(error, QwenEdgeError):
        show_error(error)
        return error.exit_code
    show_error(_unexpected(error))
    return FAILED


def _discard_output(stream: TextIO | None) -> None:
    """Sends what is buffered for a closed pipe or terminal to nowhere, so that exiting is quiet."""
    if stream is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _unexpected(error: BaseException) -> QwenEdgeError:
    """Writes a traceback to a file; returns what the user is told."""
    from qwen_edge.cli.crash_log import write_log

    kind = type(error).__name__
    try:
        path = write_log(error)
    except OSError:
        return QwenEdgeError("Something unexpected happened: {kind}.", kind=kind)
    return QwenEdgeError(
        "Something unexpected happened: {kind}.",
        "The details are in {path}; please send them with a report.",
        kind=kind,
        path=path,
    )
