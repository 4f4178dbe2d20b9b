"""What each type of the KV cache costs in accuracy, against an fp16 cache.

    python benchmarks/kv_error.py [--model MODEL.qedge] [--output FILE.json]

The demo model answers questions at temperature 1; on that text, the Kullback-Leibler divergence of
its predictions and how often its most likely token stays the same are taken for each type. On a
model of Qwen3-0.6B's shape with random weights, which is made in a temporary folder unless one is
given, it is the relative L2 error of the logits over 256 positions. Random weights hand errors on
undiminished: that figure compares types, it does not predict a trained model's. Needs numpy.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, Row, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.model.synthetic import make_synthetic
from qwen_edge.native.instruction_sets import isa_name
from qwen_edge.session.models import demo_path
from qwen_edge.text.chat_template import encode_chat
from qwen_edge.text.tokenizer import Tokenizer

TOKENIZER = "tokenizer"
TYPES = ("int8", "int4")
QUESTIONS = (
    "Tell me a story.", "What is the capital of France?", "Explain gravity.", "Who are you?",
    "What is 17 + 25?", "Write a poem about the sea.", "What is the opposite of cold?",
    "What can you do?", "Count from one to ten.", "Translate good morning into Chinese.",
    "你好，你是谁？", "讲一个故事。",
)  # fmt: skip
ANSWER = 100
POSITIONS = 256
ROWS = 64


def sampled_text(model: PackedModel, question: str, seed: int) -> list[int]:
    """The question in chat form and an answer drawn at temperature 1."""
    table = model.tensors[TOKENIZER]
    tokenizer = Tokenizer.from_blob(model.address(TOKENIZER), table.nbytes, owner=model)
    messages = [{"role": "user", "content": question}]
    ids = encode_chat(tokenizer, model.chat_template, messages, enable_thinking=False)
    sampling = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, seed=seed)
    config = EngineConfig(context=len(ids) + ANSWER, kv_type="f16", prefill_rows=ROWS)
    with NativeEngine(model, config) as engine:
        steps = Generation(engine, ids, sampling, max_tokens=ANSWER, stop_ids=())
        return ids + [step.id for step in steps]


def all_logits(
    model: PackedModel, ids: Sequence[int], kv_type: str, activations: str = "int8"
) -> np.ndarray:
    """fp64 [tokens, vocab], computed over a cache of that type."""
    config = EngineConfig(
        context=len(ids), kv_type=kv_type, activations=activations, prefill_rows=ROWS
    )
    found = []
    with NativeEngine(model, config) as engine:
        for begin in range(0, len(ids), ROWS):
            part = ids[begin : begin + ROWS]
            rows = [Row(0, begin + i, token, True) for i, token in enumerate(part)]
            for logits in engine.forward(rows):
                values = (ctypes.c_float * logits.size).from_address(logits.address)
                found.append(np.array(values, np.float64))
    return np.stack(found)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural log probabilities, row by row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def demo_errors() -> dict[str, dict[str, float]]:
    """Mean divergence in nats and share of equal most likely tokens on the demo model."""
    divergence: dict[str, list[np.ndarray]] = {kv: [] for kv in TYPES}
    same: dict[str, list[np.ndarray]] = {kv: [] for kv in TYPES}
    with open_model(demo_path()) as model:
        for seed, question in enumerate(QUESTIONS):
            ids = sampled_text(model, question, seed)
            truth = log_softmax(all_logits(model, ids, "f16"))
            for kv in TYPES:
                ours = log_softmax(all_logits(model, ids, kv))
                divergence[kv].append((np.exp(truth) * (truth - ours)).sum(axis=1))
                same[kv].append(truth.argmax(axis=1) == ours.argmax(axis=1))
    return {
        kv: {
            "tokens": sum(len(part) for part in same[kv]),
            "kl": float(np.concatenate(divergence[kv]).mean()),
            "top_1": float(np.concatenate(same[kv]).mean()),
        }
        for kv in TYPES
    }


def shape_errors(path: Path) -> dict[str, float]:
    """Relative L2 error of the logits of a model of random weights."""
    with open_model(path) as model:
        random = np.random.default_rng(0)
        ids = [int(i) for i in random.integers(0, model.config.vocab_size, POSITIONS)]
        truth = all_logits(model, ids, "f16")
        return {
            kv: float(np.linalg.norm(all_logits(model, ids, kv) - truth) / np.linalg.norm(truth))
            for kv in TYPES
        }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or make_synthetic("qwen3-0.6b", Path(folder) / "model.qedge")
        result = {"isa": isa_name(), "demo": demo_errors(), "0.6b": shape_errors(path)}
    for kv in TYPES:
        demo = result["demo"][kv]
        print(
            f"{kv}: demo KL {demo['kl']:.5f} nats, same first choice {100 * demo['top_1']:.2f} % "
            f"of {demo['tokens']} tokens; 0.6B shape, random weights, logits off by "
            f"{100 * result['0.6b'][kv]:.2f} %"
        )
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
