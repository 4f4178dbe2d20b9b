"""What the governor costs: between two tokens, each look at the device, and the first look.

    python -m benchmarks.governor_cost MODEL.qedge [--repeats 50] [--output FILE.json]

The model is loaded as ``chat`` loads it. Between two tokens the governor only compares clocks;
every other second it looks at memory, processor time, placement and battery. The first look
imports what it needs.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from pathlib import Path
from unittest.mock import patch

from benchmarks.spread import spread
from qwen_edge.session import governing
from qwen_edge.session.loaded import load_model

# Calls between two tokens that are timed together, since one is shorter than the clock's own cost.
BATCH = 1000
MICROSECONDS = 1e6


def measure(model: Path, repeats: int) -> dict[str, list[float]]:
    """Microseconds of each kind of call, a list of repeats.

    Raises:
        RuntimeError: the governor is switched off.
    """
    found: dict[str, list[float]] = {"between_tokens": [], "look": [], "first_look": []}

    def timed(kind: str, calls: int = 1) -> None:
        start = time.perf_counter()
        for _ in range(calls):
            keeper.poll()
        found[kind].append((time.perf_counter() - start) / calls * MICROSECONDS)

    flags = {"model": str(model)}
    with load_model(flags, tell=lambda reason: None, turns=True) as loaded:
        if loaded.governing is None:
            raise RuntimeError("the governor is switched off, in the configuration file say")
        keeper = loaded.governing
        with patch.object(governing, "INTERVAL", 0.0):
            keeper.poll()
            timed("first_look")
            for _ in range(repeats):
                timed("look")
        with patch.object(governing, "INTERVAL", 3600.0):
            keeper.poll()
            for _ in range(repeats):
                timed("between_tokens", BATCH)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    samples = measure(arguments.model, arguments.repeats)
    for name, values in samples.items():
        print(f"{name:15} {spread(values).text()} us")
    if arguments.output:
        record = {"date": date.today().isoformat(), "samples": samples}
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
