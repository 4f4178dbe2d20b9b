"""Compares the predicted with the measured peak memory of real runs of the 0.6B shape.

    python -m benchmarks.predicted_peak [--model FILE] [--context N] [--engines]
                                        [--output FILE.json]

Each case runs ``qwen-edge run`` in a process of its own; the measured peak is what the kernel
reports of it at its end, mapped weights included. With ``--context`` only the cases of that
context run. A stretched case takes the engine alone and repeats its first positions' keys and
values in memory of their own, where computing them would take minutes. Without ``--model`` a model
of random weights is made in a temporary folder. With ``--engines`` the cases of the engines run
that need torch, transformers on the same weights as a checkpoint of bf16. Exits with 1 if any
prediction is off by more than 10 %; only what the heap may or may not keep of quantizing to 4 bits
is predicted in full, and may be missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qwen_edge.model.export_checkpoint import export_checkpoint
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.model.packed_header import TOKENIZER
from qwen_edge.model.synthetic import make_synthetic
from qwen_edge.session.bench_process import engine_flags
from qwen_edge.session.footprint import predict_peak
from qwen_edge.session.plan import make_plan
from qwen_edge.text.tokenizer import Tokenizer

TOLERANCE = 0.10


class Case(NamedTuple):
    """A run: its settings, the length of its prompt and of its answer in tokens."""

    context: int
    kv: str
    prompt: int
    answer: int
    threads: int = 2
    stretched: bool = False
    engine: str = "native"
    compile: str = "off"
    weights: str = "bf16"

    @property
    def flags(self) -> dict[str, object]:
        """The settings, by key."""
        return {
            "context": self.context,
            "kv": None if self.engine == "transformers" else self.kv,
            "threads": self.threads,
            "prefill-threads": self.threads,
            # Noise gives no drafts, and their rows of logits would go unused.
            "lookup": "off",
            "engine": self.engine,
            "compile": self.compile,
            "weights": self.weights,
        }


CASES = (
    Case(512, "int8", 20, 16),
    Case(2048, "int8", 200, 56),
    Case(2048, "f16", 200, 56),
    Case(2048, "int8", 1900, 32),
    Case(2048, "f16", 1900, 32),
    Case(4096, "int8", 3900, 32),
    Case(32768, "int8", 32700, 32, stretched=True),
    Case(32768, "int4", 32700, 32, stretched=True),
    Case(32768, "f16", 32700, 32, stretched=True),
    Case(2048, "int8", 200, 56, threads=1),
)
ENGINE_CASES = (
    Case(2048, "f16", 200, 56, engine="torch"),
    Case(2048, "int8", 1900, 32, engine="torch"),
    Case(2048, "f16", 200, 56, engine="torch", compile="on"),
    *(
        Case(2048, "bf16", prompt, 16, engine="transformers", weights=weights)
        for weights in ("bf16", "f32", "nf4", "int8")
        for prompt in (200, 1500)
    ),
)


def prompt_of(model: PackedModel, tokens: int) -> str:
    """A text of so many tokens, the template's apart."""
    size = model.tensors[TOKENIZER].nbytes
    tokenizer = Tokenizer.from_blob(model.address(TOKENIZER), size, owner=model)
    words = len(tokenizer.encode("word " * 100)) / 100
    return "word " * round(tokens / words)


# Prints as much of the program's answer as is read of it.
STRETCHED = """
import json, sys
from pathlib import Path
from qwen_edge.engine.generate import extend
from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import open_model
path, context, kv, prompt, answer, threads, _ = sys.argv[1:]
config = EngineConfig(int(context), kv, int(threads), int(threads))
with open_model(Path(path)) as model, NativeEngine(model, config) as engine:
    extend(engine, list(range(config.prefill_rows)), 0, wants_logits=True)
    engine.stretch(int(prompt))
    for _ in range(int(answer)):
        extend(engine, [5], 0, wants_logits=True)
print(json.dumps({"usage": {"prompt_tokens": int(prompt), "completion_tokens": int(answer)}}))
"""


def program(model: Path, case: Case) -> list[str]:
    """The command line of a case that is computed."""
    return [
        *(sys.executable, "-m", "qwen_edge", "run", "--model", str(model), "--raw", "--json"),
        *("--max-tokens", str(case.answer), *engine_flags(case.flags)),
    ]


def measure(model: Path, case: Case, prompt: str, home: Path) -> tuple[int, dict[str, Any]]:
    """Runs a case; returns the peak resident bytes and what the program answered with ``--json``.

    Of a stretched case the answer has the ``usage`` alone.
    """
    if case.stretched:
        command = [sys.executable, "-c", STRETCHED, str(model), *map(str, case[:6])]
    else:
        command = program(model, case)
    environ = os.environ | {"QWEN_EDGE_HOME": str(home)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(prompt)
    process.stdin.close()
    answer = process.stdout.read()
    # Kilobytes; the kernel's own high-water mark of the process.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss * 1024, json.loads(answer)


def predict(model: Path, case: Case, used: int) -> tuple[int, int]:
    """Predicted peak with so many tokens in use, and what of it may be missing."""
    plan = make_plan({"model": str(model), "memory-cap": "off", **case.flags})
    with contextlib.closing(plan.model):
        predicted = predict_peak(plan.facts, plan.engine, used, plan.choice)
        return predicted, plan.facts.folder.temporary if plan.facts.folder else 0


def compare(
    model: Path, checkpoint: Path, home: Path, cases: Sequence[Case]
) -> list[dict[str, object]]:
    """Runs the cases; returns a row for each, sizes in MiB."""
    with open_model(model) as opened:
        prompts = {case: "" if case.stretched else prompt_of(opened, case.prompt) for case in cases}
        if any(case.engine == "transformers" for case in cases):
            export_checkpoint(opened, checkpoint)
    rows: list[dict[str, object]] = []
    for case in cases:
        path = checkpoint if case.engine == "transformers" else model
        peak, answer = measure(path, case, prompts[case], home)
        used = answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
        predicted, temporary = predict(path, case, used)
        error = predicted / peak - 1
        if error > 0 and temporary:
            error = max((predicted - temporary) / peak - 1, 0.0)
        row = {
            **case._asdict(),
            "tokens_in_use": used,
            "predicted_mib": round(predicted / 2**20, 1),
            "measured_mib": round(peak / 2**20, 1),
            "error": round(error, 4),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Parses the command line, runs, and exits with 1 if a prediction is too far off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a .qedge file of the 0.6B shape")
    parser.add_argument("--context", type=int, help="only the cases of this context")
    parser.add_argument("--engines", action="store_true", help="the engines that need torch")
    parser.add_argument("--output", type=Path, help="writes the rows as JSON")
    arguments = parser.parse_args()
    known = ENGINE_CASES if arguments.engines else CASES
    cases = [case for case in known if arguments.context in (None, case.context)]
    if not cases:
        parser.error(f"no case has a context of {arguments.context}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = arguments.model or make_synthetic("qwen3-0.6b", home / "synthetic.qedge")
        rows = compare(model, home / "checkpoint", home, cases)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n")
    worst = max(abs(float(str(row["error"]))) for row in rows)
    print(f"worst error {worst:.1%}, allowed {TOLERANCE:.0%}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
