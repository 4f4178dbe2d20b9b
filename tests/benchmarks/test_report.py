"""The report on results made up for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.records import MissingError, Records
from benchmarks.report import report
from benchmarks.targets import LLAMA_TYPES, OURS, outcome, targets

MACHINE = {
    "processor": "A processor",
    "family_model": "1/2",
    "flags": ["avx2"],
    "cores": 2,
    "virtual": True,
    "memory_gib": 8.0,
    "compiler": "a compiler",
    "kernel": "6.1",
}


def write(folder: Path, name: str, values: dict[str, list[float]], **more: object) -> None:
    record = {
        "part": name,
        "date": "2026-01-01",
        "seconds": 1.0,
        "threads": 2,
        "machine": MACHINE,
        "values": values,
        "bandwidth": {label: [40e9] * len(samples) for label, samples in values.items()},
        "failed": {},
        "memory": {},
        "opened": {},
        **more,
    }
    (folder / f"peers-{name}.json").write_text(json.dumps(record))


def decode_results(folder: Path, ours: float) -> None:
    values = {OURS: [ours, ours], LLAMA_TYPES[0]: [50.0, 50.0], LLAMA_TYPES[2]: [60.0, 60.0]}
    facts = {"weight_bytes": 335_000_000, "kv_bytes_per_token": 0}
    write(folder, "decode-2-threads", values, opened={OURS: facts})


def row_of(page: str, beginning: str) -> str:
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {beginning}"))
    return line


@pytest.mark.parametrize(("ours", "verdict"), [(120.0, "met"), (119.0, "**missed**")])
def test_targets_are_held_against_the_best_peer(tmp_path, ours, verdict):
    decode_results(tmp_path, ours)
    line = row_of(report(Records(tmp_path)), "decode: llama.cpp's best")
    assert line.endswith(f"to {LLAMA_TYPES[2]} | {verdict} |")


def test_share_of_the_bandwidth(tmp_path):
    decode_results(tmp_path, 100.0)
    line = row_of(report(Records(tmp_path)), "decode: read bandwidth")
    # 100 tokens/s of 335 MB are 33.5 of 40 GB/s.
    assert "83.8 % (83.8 to 83.8)" in line
    assert line.endswith("**missed** |")


def test_what_was_not_measured_is_open(tmp_path):
    decode_results(tmp_path, 100.0)
    records = Records(tmp_path)
    outcomes = {target.what: outcome(target, records) for target in targets()}
    assert outcomes["8 sequences: one sequence"].verdict == "open"
    assert "not measured" in outcomes["8 sequences: one sequence"].measured
    with pytest.raises(MissingError):
        records.samples("decode-2-threads", LLAMA_TYPES[1])


def test_failures_and_machine_are_told(tmp_path):
    write(tmp_path, "sampler", {"qwen-edge": [1e-5, 2e-5]}, failed={"llama.cpp": "no such file"})
    page = report(Records(tmp_path))
    assert "A processor" in page
    assert "| llama.cpp | not measured: no such file |" in page
    assert "| qwen-edge | 0.0150 (0.0100 to 0.0200) |" in page


def test_committed_results_make_a_report():
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    page = report(Records(folder / "results"))
    committed = (folder / "RESULTS.md").read_text(encoding="utf-8")
    titles = [line for line in page.splitlines() if line.startswith("#")]
    assert titles == [line for line in committed.splitlines() if line.startswith("#")]
