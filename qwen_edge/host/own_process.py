"""Starting this very program, or a module of it, once more."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_SOURCES = Path(__file__).resolve().parents[2]


def own_command(module: str, *arguments: str) -> list[str]:
    """The command line of a module of this program, with this interpreter."""
    # Without -P a package of the same name in the working folder would be taken for this one.
    return [sys.executable, "-P", "-m", module, *arguments]


def own_environment() -> dict[str, str]:
    """The environment in which the modules of this program are found where this one was."""
    paths = [str(_SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
