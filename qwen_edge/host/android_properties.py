"""Android's system properties, by the getprop command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from qwen_edge.host.limits import uncapped_children

_SYSTEM_GETPROP = Path("/system/bin/getprop")
# One line a property; values that span lines are not among the ones we want.
_LINE = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.MULTILINE)


def parse_properties(text: str) -> dict[str, str]:
    """Reads the ``[name]: [value]`` lines that getprop prints without arguments."""
    return dict(_LINE.findall(text))


def read_properties(timeout: float = 2.0) -> Mapping[str, str]:
    """Returns all system properties, or none where getprop is absent, fails or is too slow.

    Args:
        timeout: seconds to wait; under proot a process start alone can take a tenth of one.
    """
    # Only doctor comes here: the imports are not for the way to an answer.
    import shutil
    import subprocess

    command = shutil.which("getprop")
    if command is None and _SYSTEM_GETPROP.exists():
        command = str(_SYSTEM_GETPROP)
    if command is None:
        return {}
    try:
        with uncapped_children():
            result = subprocess.run(
                [command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_properties(result.stdout.decode("utf-8", "replace"))
