"""``python -m qwen_edge`` and the ``qwen-edge`` program."""

from __future__ import annotations

import sys

_INTERRUPTED = 130


def main() -> None:
    """Runs the command line and exits with its code."""
    try:
        from qwen_edge.cli.app import run_program

        code = run_program(sys.argv[1:])
    except KeyboardInterrupt:
        # Ctrl-C while modules are imported, or while an error is told.
        code = _INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
