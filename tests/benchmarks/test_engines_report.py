"""The report's part about the engines, on results made up for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.engines import COMPILED, NATIVE, NF4, decode_ratio
from benchmarks.records import MissingError, Records
from benchmarks.report import report
from benchmarks.targets import outcome, targets
from qwen_edge.session.bench_contenders import CONTENDERS


def write(folder: Path, decode: dict[str, list[float]]) -> Records:
    def measure(key: str, engine: str, *samples: float) -> dict[str, object]:
        size = {"prefill": 512, "decode": 0}.get(key)
        return {"key": key, "engine": engine, "size": size, "samples": samples}

    measures = [measure("bandwidth", "", 40e9, 42e9)]
    for engine, speeds in decode.items():
        measures.append(measure("decode", engine, *speeds))
        measures.append(measure("first-token-cold", engine, 3.0, 3.5))
        measures.append(measure("process-peak", engine, 700e6))
        measures.append(measure("packages", engine, 900e6))
    record = {
        "date": "2026-01-01",
        "versions": {"torch": "2.13"},
        "model": {"name": "m"},
        "settings": {"threads": 2, "kv": "f16"},
        "measures": measures,
        "remarks": [{"text": "torch AOT is left out: it is tired."}],
    }
    (folder / "engines.json").write_text(json.dumps(record))
    return Records(folder)


def test_ratios_are_turn_by_turn_and_judged(tmp_path: Path) -> None:
    records = write(
        tmp_path, {NATIVE: [100.0, 50.0, 80.0], COMPILED: [80.0, 40.0], NF4: [8.0, 16.0]}
    )
    assert decode_ratio(records, COMPILED, NATIVE).middle == pytest.approx(0.8)
    rows = {row.what: row for row in (outcome(target, records) for target in targets())}
    assert rows[f"{COMPILED}, decode: {NATIVE}"].verdict == "met"
    slow = next(
        row for what, row in rows.items() if "bitsandbytes NF4" in what and COMPILED in what
    )
    # 10 and 2.5 times as fast.
    assert slow.verdict == "met"
    assert rows[f"{COMPILED}, process to first token: compiled before"].verdict == "met"
    assert rows[f"{COMPILED}, process to first token: nothing compiled"].verdict == "open"
    page = report(Records(Path(__file__).parents[2] / "benchmarks" / "results"))
    assert "## Engines" in page


def test_the_table_has_what_was_measured(tmp_path: Path) -> None:
    from benchmarks.engines import engines_section

    lines = engines_section(write(tmp_path, {NATIVE: [100.0, 50.0], COMPILED: [70.0, 40.0]}))
    row = next(line for line in lines if line.startswith(f"| {COMPILED} "))
    assert "| 55.0 (40.0 to 70.0) | 0.750 (0.700 to 0.800) | 700 | 900 |" in row
    assert "torch AOT is left out: it is tired." in "\n".join(lines)
    with pytest.raises(MissingError):
        decode_ratio(Records(tmp_path), COMPILED, NF4)


def test_names_are_those_of_the_program() -> None:
    assert {NATIVE, COMPILED, NF4} <= {one.name for one in CONTENDERS}
