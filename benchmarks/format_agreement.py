"""Whether llama.cpp and qwen-edge say the same, each with the other's files.

    python -m benchmarks.format_agreement [--output FILE.json]

Reading: llama.cpp quantizes the demo model to each of its types; on the same file, llama.cpp and
qwen-edge (after a conversion) take the most likely token at 2,000 positions of text that the demo
model wrote at temperature 1. Writing: the demo model exported as GGUF; both continue prompts in
chat form greedily by 64 tokens, each with its own tokenizer. Needs numpy and ``llama`` of
peers/setup.sh.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.kv_error import QUESTIONS, TOKENIZER, all_logits, sampled_text
from benchmarks.peers.pipe import Peer
from benchmarks.peers.systems import Place, System, default_place, start
from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.convert import convert
from qwen_edge.model.export_gguf import export_gguf
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.session.models import demo_path
from qwen_edge.text.chat_template import render
from qwen_edge.text.tokenizer import Tokenizer

KINDS = (
    "q8_0", "q6_k", "q5_k_m", "q5_1", "q5_0", "q4_k_m", "q4_1", "q4_0", "iq4_nl", "iq4_xs",
    "q3_k_m", "q2_k",
)  # fmt: skip
POSITIONS = 2000
GREEDY = 64
CONTEXT = 512


def texts(model: PackedModel) -> list[list[int]]:
    """Token ids of dialogues, POSITIONS of them in all."""
    found: list[list[int]] = []
    while (missing := POSITIONS - sum(map(len, found))) > 0:
        question = QUESTIONS[len(found) % len(QUESTIONS)]
        found.append(sampled_text(model, question, len(found))[:missing])
    return found


def llama_logits(peer: Peer, ids: list[int], folder: Path) -> np.ndarray:
    """fp32 [tokens, vocab]."""
    output = folder / "logits"
    peer.ask("logits", ids=ids, output=str(output))
    return np.fromfile(output, np.float32).reshape(len(ids), -1)


def open_llama(place: Place, model: Path) -> Peer:
    """llama.cpp with an fp16 cache, as qwen-edge has it below."""
    options = (("context", CONTEXT), ("kv", "f16"))
    return start(System("llama.cpp", str(model), 2, options), place)[0]


def reading(place: Place, folder: Path) -> dict[str, dict[str, float]]:
    """By type: agreement, the relative difference of the logits, and what the weights are off."""
    with open_model(demo_path()) as model:
        dialogues = texts(model)
        export_gguf(model, folder / "f32.gguf", floats="f32")
    results = {}
    for kind in KINDS:
        file, packed = folder / f"{kind}.gguf", folder / f"{kind}.qedge"
        with Peer([place.python("llama"), "-m", "benchmarks.peers.serve_llama"], [0, 1]) as peer:
            peer.ask("quantize", source=str(folder / "f32.gguf"), output=str(file), kind=kind,
                     threads=2)  # fmt: skip
        made = convert(file, packed)
        with open_llama(place, file) as peer:
            theirs = np.concatenate([llama_logits(peer, ids, folder) for ids in dialogues])
        with open_model(packed) as model:
            ours = np.concatenate([all_logits(model, ids, "f16") for ids in dialogues])
        same = ours.argmax(axis=1) == theirs.argmax(axis=1)
        results[kind] = {
            "positions": len(same),
            "agreement": round(float(same.mean()), 5),
            "logits_off": round(float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)), 5),
            "weights_off": made.error.as_dict()["relative"],
            "taken_over": made.kept,
            "matrices": made.matrices,
        }
        print(kind, results[kind], flush=True)
    return results


def writing(place: Place, folder: Path) -> dict[str, object]:
    """How many prompts have equal ids, and equal greedy answers."""
    file = folder / "demo.gguf"
    with open_model(demo_path()) as model:
        made = export_gguf(model, file)
        table = model.tensors[TOKENIZER]
        tokenizer = Tokenizer.from_blob(model.address(TOKENIZER), table.nbytes, owner=model)
        equal_ids = equal_texts = 0
        config = EngineConfig(context=CONTEXT, kv_type="f16", prefill_rows=64)
        with open_llama(place, file) as peer, NativeEngine(model, config) as engine:
            for question in QUESTIONS:
                messages = [{"role": "user", "content": question}]
                prompt = render(model.chat_template, messages, enable_thinking=False)
                ids = tokenizer.encode(prompt, allow_special=True)
                equal_ids += peer.ask("tokenize", text=prompt) == ids
                engine.truncate(0)
                sampling = SamplingParams(temperature=0.0)
                stops = model.generation.stop_ids
                steps = Generation(engine, ids, sampling, max_tokens=GREEDY, stop_ids=stops)
                theirs = peer.ask("greedy", ids=ids, tokens=GREEDY)
                end = next((i for i, token in enumerate(theirs) if token in stops), GREEDY)
                ours = [step.id for step in steps if step.id not in stops]
                equal_texts += theirs[:end] == ours
    return {
        "prompts": len(QUESTIONS),
        "equal_ids": equal_ids,
        "equal_answers": equal_texts,
        "tokens": GREEDY,
        "weights_off": made.error.as_dict()["relative"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    place = default_place()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {"writing": writing(place, folder), "reading": reading(place, folder)}
    print(json.dumps(results, indent=1))
    if output:
        output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
