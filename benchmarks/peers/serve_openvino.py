"""OpenVINO GenAI as a measured system: ``python -m benchmarks.peers.serve_openvino``.

Its pipeline has no single steps: prefill is the time to the first token, decode what the pipeline
itself reports for the tokens after it.
"""

from __future__ import annotations

import numpy as np
import openvino
import openvino_genai

from benchmarks.peers.pipe import serve


class Handlers:
    """The requests."""

    def open(self, model: str, threads: int) -> dict[str, object]:
        """Loads the exported model; returns versions."""
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self.pipeline = openvino_genai.LLMPipeline(model, "CPU", **options)
        return {"version": openvino_genai.__version__, "runtime": openvino.__version__}

    def _run(self, prompt: int, answer: int) -> openvino_genai.PerfMetrics:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = answer
        config.ignore_eos = True
        config.do_sample = False
        # Never the same beginning twice: the pipeline keeps what it has computed.
        self.calls = getattr(self, "calls", 0) + 1
        ids = np.array([[11 + (i + 7 * self.calls) % 1999 for i in range(prompt)]], np.int64)
        tensor = openvino.Tensor(ids)
        inputs = openvino_genai.TokenizedInputs(tensor, openvino.Tensor(np.ones_like(ids)))
        return self.pipeline.generate(inputs, config).perf_metrics

    def prefill(self, tokens: int) -> float:
        """Seconds from a prompt of so many tokens to its first token."""
        return self._run(tokens, 1).get_ttft().mean / 1e3

    def decode(self, depth: int, tokens: int) -> float:
        """Seconds of ``tokens`` tokens after ``depth`` and one more."""
        return self._run(max(depth, 1), tokens + 1).get_tpot().mean / 1e3 * tokens


if __name__ == "__main__":
    handlers = Handlers()
    serve({name: getattr(handlers, name) for name in ("open", "prefill", "decode")})
