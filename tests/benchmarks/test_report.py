"""The report on results made up for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.records import MissingError, Records
from benchmarks.report import report
from benchmarks.soak import MIB, Minute, judge
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


def test_qualities_come_in_order(tmp_path):
    rows = [
        {"weights": name, "bits": 4.5, "perplexity": 9.0, "increase": 0.0123, "deviation": 0.001,
         "divergence": divergence, "agreement": 0.987}
        for name, divergence in (("worse", 0.02), ("better", 0.01))
    ]  # fmt: skip
    model = {"model": "one", "note": "made up", "parameters": 5_000_000, "tokens": 1234,
             "perplexity": 8.5, "rows": rows}  # fmt: skip
    record = {"date": "2026-01-01", "calibration_bytes": 8655, "models": [model]}
    (tmp_path / "quality.json").write_text(json.dumps(record))
    decode_results(tmp_path, 100.0)
    page = report(Records(tmp_path))
    line = row_of(page, "better")
    assert line == "| better | 4.50 | +1.23 % ± 0.10 | 0.01000 | 98.7 % |"
    assert page.index(line) < page.index(row_of(page, "worse"))
    assert "5.0 M parameters (made up), 1,234 tokens, perplexity 8.5" in page


def test_committed_results_make_a_report():
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    page = report(Records(folder / "results"))
    committed = (folder / "RESULTS.md").read_text(encoding="utf-8")
    titles = [line for line in page.splitlines() if line.startswith("#")]
    assert titles == [line for line in committed.splitlines() if line.startswith("#")]


def test_unequal_cores_waiting_and_soak_are_told(tmp_path):
    speeds = {"first": [100.0, 100.0], "second": [50.0, 60.0], "both": [135.0, 144.0]}
    cores = {
        "turns": 2,
        "period_ms": 10.0,
        "date": "2026-01-01",
        "taken": {"0.5": [0.4, 0.5]},
        "speeds": {"prefill": {"0.5": speeds}},
    }
    (tmp_path / "unequal_cores.json").write_text(json.dumps(cores))
    names = ("idle_share", "after_call", "step", "step_after_pause", "busy_share")
    idle = {"threads": 2, "date": "2026-01-01", "samples": {n: [0.001] for n in names}}
    (tmp_path / "idle.json").write_text(json.dumps(idle))
    governor = {"between_tokens": [0.2], "look": [150.0], "first_look": [9000.0]}
    cost = {"date": "2026-01-01", "samples": governor}
    (tmp_path / "governor_cost.json").write_text(json.dumps(cost))
    minute = Minute(10, 100 * MIB, 20 * MIB, 8, 2, 3, 50.0, 1e9)
    soak = judge([minute] * 10, 30, True, 4, 0.8)
    (tmp_path / "soak.json").write_text(json.dumps(soak))
    page = report(Records(tmp_path))
    assert row_of(page, "prefill | 50 %") == (
        "| prefill | 50 % | 45 % | 100 | 55.0 | 140 | 90.0 (90.0 to 90.0) % |"
    )
    assert "uses 0.100 (0.100 to 0.100) % of a core" in page
    assert "0.200 (0.200 to 0.200) us between two tokens" in page
    assert "9.00 (9.00 to 9.00) ms for the first" in page
    assert "100 mixed requests" in page
    assert "8 open files" in page


def test_conversions_and_larger_models_are_told(tmp_path):
    case = {"size": "big", "method": "gptq", "codebook": "iq4_nl", "group": 32, "threads": 1,
            "peak_mb": 1061.4, "peak_anonymous_mb": 1051.6, "cpu_seconds": 57.7,
            "size_mb": 2264.2}  # fmt: skip
    kills = {"size": "small", "layers": 2, "method": "nearest", "kills": 3, "seed": 0,
             "found": {"no file": 2, "the old file": 1}}  # fmt: skip
    record = {"cases": [case], "kills": [kills]}
    (tmp_path / "convert.json").write_text(json.dumps(record))
    answer = {"size": "big", "prompt_tokens": 15, "answer_tokens": 33, "context": 2048,
              "peak_bytes": 2_000_000_000, "predicted_bytes": 2_100_000_000,
              "model_bytes": 2_000_000_000, "kv_bytes_per_token": 0, "load_seconds": 0.1,
              "first_token_seconds": 0.4, "prefill_tokens_per_second": 90.0,
              "decode_tokens_per_second": 18.0, "bandwidth": [40e9, 40e9]}  # fmt: skip
    (tmp_path / "larger.json").write_text(json.dumps({"answers": [answer]}))
    page = report(Records(tmp_path))
    assert row_of(page, "big | gptq") == (
        "| big | gptq | iq4_nl, groups of 32 | 1061 (1052) | 57.7 s, 1 thread(s) | 2264 MB |"
    )
    assert "left no file 2 times, the old file 1 times" in page
    assert row_of(page, "big | 48") == (
        "| big | 48 of 2,048 | 2000 | 2100 (+5.0 %) | 0.500 | 90.0 | 18.0 (90 %) |"
    )


def test_agreement_on_gguf_files(tmp_path):
    row = {
        "positions": 2000, "gguf_bits": 3.4, "our_bits": 4.5, "agreement": 0.98,
        "llama_and_witness": 0.985, "ours_and_witness": 0.991, "our_weights_and_witness": 0.9965,
        "ours_and_our_weights": 0.99, "logits_off": 0.02, "llama_logits_off": 0.0125,
        "our_logits_off": 0.0075, "our_weights_logits_off": 0.005, "weights_off": 0.04567,
        "taken_over": 13, "matrices": 36,
    }  # fmt: skip
    writing = {"prompts": 12, "equal_ids": 12, "equal_answers": 11, "tokens": 64}
    record = {"date": "2026-01-01", "reading": {"q3_k_m": row}, "writing": writing}
    (tmp_path / "format_agreement.json").write_text(json.dumps(record))
    decode_results(tmp_path, 100.0)
    page = report(Records(tmp_path))
    assert row_of(page, "q3").removeprefix("| q3\\_k\\_m | ") == (
        "3.40 to 4.50 | 13 of 36 | 4.6 % | 98.00 % | 98.50 % | 99.10 % | 99.65 % | 1.25 % | "
        "0.75 % |"
    )
    assert "2,000 positions" in page
    assert "12 prompts 12 have the same ids in llama.cpp, and 11 the same 64" in page


def test_codebooks_are_compared_turn_by_turn(tmp_path):
    rates = {
        "int4": {"decode": [100.0, 50.0, 80.0], "prefill": [400.0, 200.0, 300.0]},
        "iq4_nl": {"decode": [90.0, 50.0, 80.0], "prefill": [200.0, 120.0, 150.0]},
    }
    record = {
        "date": "2026-01-01",
        "threads": 2,
        "turns": 3,
        "bandwidth_gb_s": {"avx2": 40.0},
        "rates": {"avx2": rates},
    }
    (tmp_path / "codebooks.json").write_text(json.dumps(record))
    page = report(Records(tmp_path))
    (decode,) = (line for line in page.splitlines() if line.startswith("| avx2 | decode"))
    (prefill,) = (line for line in page.splitlines() if line.startswith("| avx2 | prefill"))
    assert decode.endswith("| 1.00 (0.900 to 1.00) |")
    assert prefill.endswith("| 150 (120 to 200) | 0.500 (0.500 to 0.600) |")
