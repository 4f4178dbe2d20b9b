"""The larger sizes: memory and speed of an answer, with the context empty and filled.

    python -m benchmarks.larger --size qwen3-4b [--model FILE] [--output FILE.json]

``qwen-edge run`` answers twice in processes of their own, after a prompt of 15 tokens and after one
that, with its answer, fills the context of 2,048. The peak is what the kernel reports of the
process at its end, mapped weights included; the prediction is the program's own. The read bandwidth
is measured before and after each answer. Without ``--model`` a model of random weights is made in a
temporary folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.convert_memory import merge_table
from benchmarks.predicted_peak import Case, measure, prompt_of
from qwen_edge.engine.bandwidth import read_bandwidth
from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.memory_estimate import kv_bytes_per_token
from qwen_edge.model.packed import open_model
from qwen_edge.model.synthetic import CONFIGS, make_synthetic
from qwen_edge.session.footprint import facts_of, predict_peak

CONTEXT = 2048
KV = "int8"
BUFFER_BYTES = 256 << 20


def answer_row(size: str, model: Path, case: Case, home: Path) -> dict[str, Any]:
    """Runs a case; returns its figures in bytes and seconds."""
    with open_model(model) as opened:
        facts, prompt = facts_of(opened), prompt_of(opened, case.prompt)
    before = read_bandwidth(BUFFER_BYTES, case.threads, passes=3)
    peak, answer = measure(model, case, prompt, home)
    after = read_bandwidth(BUFFER_BYTES, case.threads, passes=3)
    usage, timings = answer["usage"], answer["timings"]
    used = usage["prompt_tokens"] + usage["completion_tokens"]
    engine = EngineConfig(case.context, case.kv, case.threads, case.threads)
    return {
        "size": size,
        "prompt_tokens": usage["prompt_tokens"],
        "answer_tokens": usage["completion_tokens"],
        "threads": case.threads,
        "date": date.today().isoformat(),
        "context": case.context,
        "kv": case.kv,
        "model_bytes": facts.weight_bytes,
        "kv_bytes_per_token": kv_bytes_per_token(facts.config, case.kv),
        "peak_bytes": peak,
        "predicted_bytes": predict_peak(facts, engine, used),
        "load_seconds": timings["load_seconds"],
        "first_token_seconds": timings["first_token_seconds"],
        "prefill_tokens_per_second": timings["prefill_tokens_per_second"],
        "decode_tokens_per_second": timings["decode_tokens_per_second"],
        "bandwidth": [before, after],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(CONFIGS), default="qwen3-4b")
    parser.add_argument("--model", type=Path, help="a .qedge file of that size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write, by default the system's /tmp")
    parser.add_argument("--output", type=Path, help="a file of results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        home = Path(name)
        model = arguments.model or make_synthetic(arguments.size, home / "synthetic.qedge")
        for prompt, tokens in ((15, 33), (CONTEXT - 48, 48)):
            case = Case(CONTEXT, KV, prompt, tokens, arguments.threads)
            row = answer_row(arguments.size, model, case, home)
            print(json.dumps(row, indent=1), flush=True)
            if arguments.output:
                names = ("size", "prompt_tokens", "answer_tokens", "threads")
                merge_table(arguments.output, "answers", [row], names)


if __name__ == "__main__":
    main()
