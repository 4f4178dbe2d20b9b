"""Measures everything anew and makes RESULTS.md: ``python -m benchmarks.all``.

Needs what benchmarks/peers/setup.sh and ``python -m benchmarks.peers.models`` make. Each step is a
command of its own; most take less than four minutes, the soak and the conversion of 4B half an
hour. After a failure or an interruption ``--from STEP`` goes on. ``--under COMMAND`` starts the
steps with another command, one that waits until the machine is idle, say.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peers.run import NAMES
from benchmarks.peers.systems import default_place

FOLDER = Path(__file__).resolve().parent


def steps() -> dict[str, list[str]]:
    """The commands by name, in order."""
    python = [sys.executable, "-m"]
    results = FOLDER / "results"
    found = {name: [*python, "benchmarks.peers.run", name] for name in NAMES}
    place = default_place()
    model, tokenizer = str(place.qedge), str(place.models / "hf" / "tokenizer.json")
    engines = [*python, "benchmarks.engines", "--model", model]
    found["engines"] = [*engines, "--output", str(results / "engines.json")]
    lookup = [*python, "benchmarks.lookup", model, "--tokenizer", tokenizer]
    found["lookup"] = [*lookup, "--output", str(results / "lookup.json")]
    cache = [*python, "benchmarks.prompt_cache", "--model", model]
    found["prompt-cache"] = [*cache, "--output", str(results / "prompt_cache.json")]
    error = [*python, "benchmarks.kv_error", "--model", model]
    found["kv-error"] = [*error, "--output", str(results / "kv_error.json")]
    lora = [*python, "benchmarks.lora", model]
    agreement = [*python, "benchmarks.format_agreement", "--output"]
    found["format-agreement"] = [*agreement, str(results / "format_agreement.json")]
    found["lora"] = [*lora, "--output", str(results / "lora.json")]
    codebooks = [*python, "benchmarks.codebooks"]
    found["codebooks"] = [*codebooks, "--output", str(results / "codebooks.json")]
    found["arm"] = [*python, "benchmarks.arm_cost", "--json", str(results / "arm_cost.json")]
    cores = [*python, "benchmarks.unequal_cores", model]
    found["unequal-cores"] = [*cores, "--output", str(results / "unequal_cores.json")]
    played = [*python, "benchmarks.played_cores", model]
    found["played-cores"] = [*played, "--output", str(results / "played_cores.json")]
    idle = [*python, "benchmarks.idle", model, "--output", str(results / "idle.json")]
    found["idle"] = idle
    governor = [*python, "benchmarks.governor_cost", model]
    found["governor"] = [*governor, "--output", str(results / "governor_cost.json")]
    conversion, larger = str(results / "convert.json"), str(results / "larger.json")
    for size in ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"):
        convert = [*python, "benchmarks.convert_memory", "--size", size, "--threads", "1"]
        convert += ["--method", "nearest", "gptq", "--output", conversion]
        found[f"convert-{size}"] = convert
    found["convert-kills"] = [*python, "benchmarks.convert_kills", "--output", conversion]
    for size in ("qwen3-1.7b", "qwen3-4b"):
        found[f"larger-{size}"] = [*python, "benchmarks.larger", "--size", size, "--output", larger]
    phone = [*python, "benchmarks.phone_chat", model]
    found["phone-chat"] = [*phone, "--output", str(results / "phone_chat.json")]
    found["soak"] = [*python, "benchmarks.soak", "--output", str(results / "soak.json")]
    found["report"] = [*python, "benchmarks.report"]
    return found


def main() -> None:
    commands = steps()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="first", choices=commands, help="skip the steps before it")
    parser.add_argument("--skip", nargs="*", default=[], choices=commands)
    parser.add_argument("--under", type=shlex.split, default=[], metavar="COMMAND")
    arguments = parser.parse_args()
    names = list(commands)
    names = names[names.index(arguments.first or names[0]) :]
    for name in names:
        if name in arguments.skip:
            continue
        start = time.monotonic()
        result = subprocess.run(
            [*arguments.under, *commands[name]],
            cwd=FOLDER.parent,
            env=os.environ | {"PYTHONPATH": str(FOLDER.parent)},
            check=False,
        )
        print(f"{name}: {time.monotonic() - start:.0f} s, status {result.returncode}", flush=True)
        if result.returncode:
            sys.exit(f"Go on with --from {name}.")


if __name__ == "__main__":
    main()
