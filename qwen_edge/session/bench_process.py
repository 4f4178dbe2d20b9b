"""Measures what a user waits for: a process of this program, started afresh, to its first token."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.limits import uncapped_children
from qwen_edge.host.own_process import own_command, own_environment

# A question of some 15 tokens with the chat template around it.
QUESTION = "Who are you?"


class ColdStart(NamedTuple):
    """Of one process.

    Attributes:
        seconds: from its start to the first byte of its answer, which comes with the first token.
        prefill_rate: tokens a second of reading the short prompt.
        peak: highest resident bytes, or None where they are not shown.
    """

    seconds: float
    prefill_rate: float
    peak: int | None


def engine_flags(flags: Mapping[str, object]) -> list[str]:
    """Settings as flags of a command line."""
    words: list[str] = []
    for key, value in flags.items():
        if value is None or key == "model":
            continue
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
        else:
            words += [f"--{key}", str(value)]
    return words


def start_cold(model: Path, flags: Mapping[str, object]) -> ColdStart:
    """Starts ``qwen-edge run`` for one token and waits for its end.

    Args:
        model: the model file.
        flags: setting key -> value as on the command line.

    Raises:
        QwenEdgeError: the process failed.
    """
    command = own_command("qwen_edge", "run", "-m", str(model), *engine_flags(flags))
    command += ["--no-think", "-t", "0", "-n", "1", "--json", QUESTION]
    start = time.monotonic()
    with uncapped_children():
        process = subprocess.Popen(
            # Unbuffered, so that reading the first byte reads no more.
            command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=own_environment(),
        )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            first = process.stdout.read(1)
            seconds = time.monotonic() - start
            rest, said = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = said.decode("utf-8", "replace").splitlines()
        raise QwenEdgeError(
            "A fresh process of this program failed: {reason}",
            reason=_sentence(lines) or str(process.returncode),
        )
    answer = json.loads(first + rest)
    timings = answer["timings"]
    return ColdStart(seconds, timings["prefill_tokens_per_second"], answer["memory"]["peak"])


def _sentence(lines: Sequence[str]) -> str:
    return lines[0].partition(" ")[2] if lines else ""
