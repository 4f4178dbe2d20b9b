"""Measures qwen-edge beside its peers: ``python -m benchmarks.peers.run [PART...]``.

Without names all parts run. Each writes benchmarks/results/peers-PART.json with every sample;
benchmarks/report.py makes RESULTS.md of them. benchmarks/peers/setup.sh and ``python -m
benchmarks.peers.models`` come first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median

from benchmarks.peers.parts import PARTS
from benchmarks.peers.processes import PROCESS_PARTS
from benchmarks.peers.same_weights import same_weights
from benchmarks.peers.systems import Place, default_place
from benchmarks.peers.turns import measure

RESULTS = Path(__file__).resolve().parents[1] / "results"


OTHER_PARTS = {"same-weights": same_weights, **PROCESS_PARTS}
NAMES = (*PARTS, *OTHER_PARTS)


def run(name: str, place: Place) -> dict[str, object]:
    """Measures a part of either kind."""
    if name in OTHER_PARTS:
        return OTHER_PARTS[name](place)
    return measure(PARTS[name](place), place)


def show(record: dict[str, object]) -> None:
    """Prints medians and ranges of a part."""
    values, failed = record["values"], record["failed"]
    assert isinstance(values, dict)
    assert isinstance(failed, dict)
    print(f"{record['part']}: {record['seconds']} s")
    for label, samples in values.items():
        middle = median(samples)
        print(f"  {label:28} {middle:10.4g}  ({min(samples):.4g} to {max(samples):.4g})")
    for label, reason in failed.items():
        print(f"  {label:28} not measured: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(NAMES))
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder of the results")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(NAMES)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for name in arguments.parts or NAMES:
        record = run(name, default_place())
        show(record)
        path = arguments.output / f"peers-{name}.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
