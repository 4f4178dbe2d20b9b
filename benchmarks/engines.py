"""All engines side by side on the 0.6B shape: ``qwen-edge bench --engine all`` as a record.

    python -m benchmarks.engines [--model FILE.qedge] [--budget 240] [--output FILE.json]

Each engine is a process of its own, and all compute with the same random weights, transformers from
a checkpoint of bf16 that is made of them. The program's folder is a new one, so that the very first
process of each engine finds nothing compiled; the figures are of those after it. Without
``--model`` the weights are made in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.records import MissingError, Records
from benchmarks.spread import Spread, paired_ratio, plain, spread, table
from qwen_edge.model.synthetic import make_synthetic

SIZE = "qwen3-0.6b"
NATIVE, COMPILED, NF4 = "native", "torch compiled", "transformers NF4"
PACKAGES = ("torch", "transformers", "bitsandbytes")
# The columns behind the engine's name.
COLUMNS = {
    "first-token-ever": "first process, s",
    "ready": "ready, s",
    "first-token-cold": "first token, s",
    "prefill": "prefill, tokens/s",
    "decode": "decode, tokens/s",
}


def measure(model: Path, home: Path, budget: int) -> dict[str, Any]:
    """Runs the program; returns its result with the date and the libraries' versions."""
    command = (sys.executable, "-m", "qwen_edge", "bench", "--engine", "all", "--json")
    done = subprocess.run(
        [*command, "--model", str(model), "--budget", str(budget)],
        stdout=subprocess.PIPE,
        env=os.environ | {"QWEN_EDGE_HOME": str(home)},
        check=True,
    )
    versions = {name: found for name in PACKAGES if (found := _version(name))}
    return {"date": date.today().isoformat(), "versions": versions, **json.loads(done.stdout)}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def samples(records: Records, key: str, engine: str) -> Sequence[float]:
    """All samples of a measure of an engine, in the order of the turns.

    Raises:
        MissingError: there are none.
    """
    for one in records.record("engines")["measures"]:
        if (one["key"], one["engine"]) == (key, engine):
            return [float(sample) for sample in one["samples"]]
    raise MissingError(f"{engine or key} was not measured")


def decode_ratio(records: Records, engine: str, other: str) -> Spread:
    """Speeds of decoding, turn by turn, of the turns that both engines had.

    Raises:
        MissingError: one of them was not measured.
    """
    ours, theirs = (samples(records, "decode", name) for name in (engine, other))
    turns = min(len(ours), len(theirs))
    return paired_ratio(ours[:turns], theirs[:turns])


def engines_section(records: Records) -> list[str]:
    """The table of RESULTS.md."""
    record = records.record("engines")
    names = list(dict.fromkeys(one["engine"] for one in record["measures"] if one["engine"]))
    rows = []
    for name in names:
        cells = [_cell(records, key, name) for key in COLUMNS]
        ratio = decode_ratio(records, name, names[0]).text()
        sizes = [
            plain(samples(records, key, name)[0] / 1e6) for key in ("process-peak", "packages")
        ]
        rows.append((name, *cells, ratio, *sizes))
    head = ("engine", *COLUMNS.values(), f"decode over {names[0]}", "peak MB",
            "packages, MB")  # fmt: skip
    settings = record["settings"]
    versions = ", ".join(f"{name} {found}" for name, found in record["versions"].items())
    bandwidth = spread(samples(records, "bandwidth", "")).text(1e-9)
    note = (
        f"`python -m benchmarks.engines`, {record['date']}: `qwen-edge bench --engine all`, "
        f"{record['model']['name']}, {settings['threads']} thread(s), KV {settings['kv']} (of "
        f"transformers bf16); {versions}. Times are from the start of a process; the first one "
        "finds nothing compiled. Prefill is of "
        f"{_prefill(record)} tokens. Packages are what is installed for an engine, this program "
        f"included. Read bandwidth {bandwidth} GB/s."
    )
    lines = ["", "## Engines", "", note, "", *table(head, rows)]
    return lines + [f"\n{remark['text']}" for remark in record["remarks"]]


def _cell(records: Records, key: str, engine: str) -> str:
    try:
        return spread(samples(records, key, engine)).text()
    except MissingError:
        return "-"


def _prefill(record: dict[str, Any]) -> str:
    sizes = [one["size"] for one in record["measures"] if one["key"] == "prefill"]
    return f"{sizes[0]:,}" if sizes else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a .qedge file of the 0.6B shape")
    parser.add_argument("--budget", type=int, default=240, help="seconds for all of it")
    parser.add_argument("--output", type=Path, help="writes the result as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = arguments.model or make_synthetic(SIZE, home / f"{SIZE}-synthetic.qedge")
        record = measure(model, home, arguments.budget)
    for one in record["measures"]:
        print(f"{one['engine'] or '-':18} {one['key']:17} {one['median']:.4g} {one['unit']}")
    for remark in record["remarks"]:
        print(remark["text"])
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
