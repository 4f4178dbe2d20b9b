"""transformers as a measured system, in bf16 or with bitsandbytes NF4.

``python -m benchmarks.peers.serve_transformers``, with torch, transformers and bitsandbytes.
"""

from __future__ import annotations

import time

import torch
import transformers

from benchmarks.peers.pipe import serve


def load(model: str, kind: str) -> torch.nn.Module:
    """The model as ``from_pretrained`` loads it; ``kind`` is ``nf4`` or ``bf16``."""
    options: dict[str, object] = {"dtype": torch.bfloat16}
    if kind == "nf4":
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    return transformers.AutoModelForCausalLM.from_pretrained(model, **options).eval()


class Handlers:
    """The requests."""

    def open(self, model: str, threads: int, kind: str) -> dict[str, object]:
        """Loads the model; returns seconds and versions."""
        torch.set_num_threads(threads)
        start = time.perf_counter()
        self.model = load(model, kind)
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        if kind == "nf4":
            import bitsandbytes

            versions["bitsandbytes"] = bitsandbytes.__version__
        return {"seconds": time.perf_counter() - start, **versions}

    @torch.inference_mode()
    def decode(self, depth: int, tokens: int) -> float:
        """Seconds of ``tokens`` steps of one row with logits, after ``depth`` tokens."""
        past = transformers.DynamicCache()
        if depth:
            ids = torch.tensor([[11 + i % 199 for i in range(depth)]])
            self.model(input_ids=ids, past_key_values=past, use_cache=True)
        start = time.perf_counter()
        for i in range(tokens):
            ids = torch.tensor([[11 + i]])
            self.model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - start

    @torch.inference_mode()
    def prefill(self, tokens: int) -> float:
        """Seconds of a prompt of so many tokens, from an empty cache."""
        ids = torch.tensor([[11 + i % 199 for i in range(tokens)]])
        start = time.perf_counter()
        self.model(input_ids=ids, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - start


if __name__ == "__main__":
    handlers = Handlers()
    names = ("open", "decode", "prefill")
    serve({name: getattr(handlers, name) for name in names})
