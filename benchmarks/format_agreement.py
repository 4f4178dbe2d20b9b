"""Whether llama.cpp and qwen-edge say the same, each with the other's files.

    python -m benchmarks.format_agreement [--kinds KIND ...] [--output FILE.json]

Reading: llama.cpp quantizes the demo model to each of its types; on the same file, llama.cpp and
qwen-edge (after a conversion) take the most likely token at 2,000 positions of text that the demo
model wrote at temperature 1. Both round activations to 8 bits, llama.cpp those of k-quants by one
scale for 256, and qwen-edge rounds the weights of some types anew. With a FILE.json that is there,
the types that are measured replace theirs in it. Who is how far off is told by a
witness: transformers in fp32 with the weights that the gguf package reads from the file.
Writing: the demo model exported as GGUF; both continue prompts in chat form greedily by 64 tokens,
each with its own tokenizer. Needs numpy, gguf, torch, transformers and ``llama`` of peers/setup.sh.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3ForCausalLM

from benchmarks.kv_error import QUESTIONS, TOKENIZER, all_logits, sampled_text
from benchmarks.peers.pipe import Peer
from benchmarks.peers.systems import Place, System, default_place, start
from benchmarks.quality.llama import read_weights
from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.convert import convert
from qwen_edge.model.export_checkpoint import export_checkpoint
from qwen_edge.model.export_gguf import export_gguf
from qwen_edge.model.gguf_names import gguf_name
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.quant.methods import BEST_CODEBOOK, BEST_METHOD
from qwen_edge.session.models import demo_path
from qwen_edge.text.chat_template import render
from qwen_edge.text.tokenizer import Tokenizer

KINDS = (
    "q8_0", "q6_k", "q5_k_m", "q5_1", "q5_0", "q4_k_m", "q4_1", "q4_0", "iq4_nl", "iq4_xs",
    "q3_k_m", "q2_k",
)  # fmt: skip
# Types that go to fewer bits than would hold them exactly, or nearly so.
ALSO_IN_8_BITS = ("q3_k_m", "q2_k")
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


class Witness:
    """transformers in fp32 with the demo model's shape and norms."""

    def __init__(self, model: PackedModel, folder: Path) -> None:
        export_checkpoint(model, folder, floats="f32")
        self._names = {gguf_name(name): name for name in tensor_shapes(model.config)}
        self._model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def logits(self, file: Path, dialogues: Sequence[list[int]]) -> tuple[np.ndarray, float]:
        """fp32 [tokens, vocab] with a GGUF file's weights, and its bits a weight."""
        weights, bits = read_weights(file, self._names)
        self._model.load_state_dict(weights, strict=False)
        found = [self._model(torch.tensor([ids])).logits[0].numpy() for ids in dialogues]
        return np.concatenate(found), bits


def same(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the rows with the same most likely token."""
    return round(float((first.argmax(axis=1) == second.argmax(axis=1)).mean()), 5)


def off(values: np.ndarray, truth: np.ndarray) -> float:
    """L2 norm of the difference over that of the truth."""
    return round(float(np.linalg.norm(values - truth) / np.linalg.norm(truth)), 5)


def reading(
    place: Place, folder: Path, kinds: Sequence[str]
) -> Iterator[tuple[str, dict[str, object]]]:
    """By type: who agrees with whom, and what logits and weights are off by."""
    with open_model(demo_path()) as model:
        dialogues = texts(model)
        export_gguf(model, folder / "f32.gguf", floats="f32")
        witness = Witness(model, folder / "hf")
    for kind in kinds:
        file = folder / f"{kind}.gguf"
        with Peer([place.python("llama"), "-m", "benchmarks.peers.serve_llama"], [0, 1]) as peer:
            peer.ask("quantize", source=str(folder / "f32.gguf"), output=str(file), kind=kind,
                     threads=2)  # fmt: skip
        with open_llama(place, file) as peer:
            theirs = np.concatenate([llama_logits(peer, ids, folder) for ids in dialogues])
        truth, gguf_bits = witness.logits(file, dialogues)
        about_theirs = {
            "positions": len(truth),
            "gguf_bits": round(gguf_bits, 3),
            "llama_and_witness": same(theirs, truth),
            "llama_logits_off": off(theirs, truth),
        }
        yield kind, about_theirs | _read_by_us(file, None, dialogues, theirs, truth)
        if kind in ALSO_IN_8_BITS:
            yield f"{kind}, --bits 8", about_theirs | _read_by_us(file, 8, dialogues, theirs, truth)


def _read_by_us(
    file: Path,
    bits: int | None,
    dialogues: Sequence[list[int]],
    theirs: np.ndarray,
    truth: np.ndarray,
) -> dict[str, object]:
    packed = file.with_suffix(".qedge")
    # As the command line converts it.
    method = "nearest" if bits else BEST_METHOD
    made = convert(file, packed, bits=bits, codebook=BEST_CODEBOOK, method=method)
    with open_model(packed) as model:
        ours = np.concatenate([all_logits(model, ids, "f16") for ids in dialogues])
        exact = np.concatenate([all_logits(model, ids, "f32", "f32") for ids in dialogues])
        matrices = [info for info in model.tensors.values() if info.rows > 1]
    nbytes = sum(info.nbytes for info in matrices)
    return {
        "our_bits": round(8 * nbytes / sum(info.rows * info.cols for info in matrices), 3),
        "agreement": same(ours, theirs),
        "ours_and_witness": same(ours, truth),
        "our_weights_and_witness": same(exact, truth),
        "ours_and_our_weights": same(ours, exact),
        "logits_off": off(ours, theirs),
        "our_logits_off": off(ours, truth),
        "our_weights_logits_off": off(exact, truth),
        "weights_off": made.error.as_dict()["relative"],
        "taken_over": made.kept,
        "matrices": made.matrices,
    }


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
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    place, output = default_place(), arguments.output
    results: dict[str, Any] = {"reading": {}}
    if output and output.exists():
        results = json.loads(output.read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results |= {"date": date.today().isoformat(), "writing": writing(place, folder)}
        for kind, row in reading(place, folder, arguments.kinds):
            print(kind, row, flush=True)
            results["reading"][kind] = row
            if output:
                output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
