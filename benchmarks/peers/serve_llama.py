"""llama.cpp as a measured system: ``python -m benchmarks.peers.serve_llama``, with llama_cpp.

Through the C interface, not the Llama class of llama_cpp, whose Python costs more than a token.
The counterpart of serve_qwen_edge.py, request for request.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import llama_cpp as api

from benchmarks.peers.pipe import serve

FLASH = {"auto": -1, "off": 0, "on": 1}
KV = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2}
FTYPES = {
    "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_m": 12, "q4_k_m": 15,
    "q5_k_m": 17, "q6_k": 18, "iq4_nl": 25, "iq4_xs": 30,
}  # fmt: skip


class Handlers:
    """The requests; one context at a time."""

    def open(
        self,
        model: str,
        context: int,
        threads: int,
        kv: str = "f16",
        flash: str = "auto",
        sequences: int = 1,
        repack: bool = True,
    ) -> dict[str, object]:
        """Loads the model; returns seconds and what the build can do."""
        start = time.perf_counter()
        api.llama_backend_init()
        settings = api.llama_model_default_params()
        settings.use_extra_bufts = repack
        self.model = api.llama_model_load_from_file(model.encode(), settings)
        params = api.llama_context_default_params()
        # Without a unified cache the context is divided among the sequences.
        params.n_ctx = context * sequences
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH[flash]
        params.type_k = params.type_v = KV[kv]
        self.context = api.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp made no context")
        self.memory = api.llama_get_memory(self.context)
        self.vocabulary = api.llama_model_get_vocab(self.model)
        self.vocab = api.llama_vocab_n_tokens(self.vocabulary)
        self.batch_size = params.n_batch
        self.buffer = api.llama_batch_init(self.batch_size, 0, 1)
        self.cached = 0
        return {
            "seconds": time.perf_counter() - start,
            "version": api.__version__,
            "build": api.llama_print_system_info().decode().strip(" |"),
            "weight_bytes": api.llama_model_size(self.model),
        }

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Computes rows of (sequence, position, token, wants logits)."""
        b = self.buffer
        b.n_tokens = len(rows)
        for i, (sequence, position, token, wanted) in enumerate(rows):
            b.token[i], b.pos[i], b.logits[i] = token, position, wanted
            b.n_seq_id[i], b.seq_id[i][0] = 1, sequence
        if api.llama_decode(self.context, b):
            raise RuntimeError("llama_decode failed")
        # Waits for the result, as reading the logits would.
        api.llama_synchronize(self.context)

    def _prefill(self, tokens: int) -> None:
        for first in range(self.cached, tokens, self.batch_size):
            rows = range(first, min(first + self.batch_size, tokens))
            self._decode([(0, i, 11 + i % 199, i == tokens - 1) for i in rows])
        self.cached = max(self.cached, tokens)

    def prefill(self, tokens: int) -> float:
        """Seconds of a prompt of so many tokens, from an empty cache."""
        api.llama_memory_clear(self.memory, True)
        self.cached = 0
        start = time.perf_counter()
        self._prefill(tokens)
        return time.perf_counter() - start

    def fill(self, depth: int, state: str = "") -> None:
        """Makes the cache hold exactly ``depth`` tokens; not a measurement.

        ``state`` names a file that keeps the filled cache from one run to the next.
        """
        if state and self.cached < depth and Path(state).exists():
            room = (ctypes.c_int32 * depth)()
            count = ctypes.c_size_t()
            if api.llama_state_seq_load_file(
                self.context, state.encode(), 0, room, depth, ctypes.byref(count)
            ):
                self.cached = depth
        api.llama_memory_seq_rm(self.memory, 0, depth, -1)
        fresh = self.cached < depth
        self._prefill(depth)
        self.cached = depth
        if fresh and state:
            ids = (ctypes.c_int32 * depth)(*(11 + i % 199 for i in range(depth)))
            api.llama_state_seq_save_file(self.context, state.encode(), 0, ids, depth)

    def decode(self, depth: int, tokens: int) -> float:
        """Seconds of ``tokens`` steps of one row with logits, after ``depth`` tokens."""
        self.fill(depth)
        start = time.perf_counter()
        for i in range(tokens):
            self._decode([(0, depth + i, 11 + i, True)])
        seconds = time.perf_counter() - start
        self.cached = depth + tokens
        return seconds

    def batch(self, sequences: int, tokens: int) -> float:
        """Seconds of ``tokens`` steps, each with a row of every sequence, from 1 token each."""
        api.llama_memory_clear(self.memory, True)
        self.cached = 0
        self._decode([(s, 0, 11, True) for s in range(sequences)])
        start = time.perf_counter()
        for i in range(tokens):
            self._decode([(s, 1 + i, 11 + i, True) for s in range(sequences)])
        return time.perf_counter() - start

    def sample(self, draws: int) -> float:
        """Seconds a draw with top-k 20 and top-p 0.95 from the logits of one step."""
        self.prefill(1)
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        for part in (
            api.llama_sampler_init_top_k(20),
            api.llama_sampler_init_top_p(0.95, 1),
            api.llama_sampler_init_temp(0.6),
            api.llama_sampler_init_dist(1),
        ):
            api.llama_sampler_chain_add(chain, part)
        start = time.perf_counter()
        for _ in range(draws):
            api.llama_sampler_sample(chain, self.context, -1)
        seconds = time.perf_counter() - start
        api.llama_sampler_free(chain)
        return seconds / draws

    def logits(self, ids: list[int], output: str) -> None:
        """Writes the fp32 logits of every position, [len(ids), vocab], to a file."""
        api.llama_memory_clear(self.memory, True)
        self.cached = 0
        with open(output, "wb") as file:
            for i, token in enumerate(ids):
                self._decode([(0, i, token, True)])
                row = api.llama_get_logits_ith(self.context, 0)
                file.write(ctypes.string_at(row, 4 * self.vocab))

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text in which control tokens count as such."""
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 8))()
        count = api.llama_tokenize(self.vocabulary, data, len(data), room, len(room), False, True)
        return room[:count]

    def greedy(self, ids: list[int], tokens: int) -> list[int]:
        """The most likely token after the ids, ``tokens`` times over."""
        api.llama_memory_clear(self.memory, True)
        self.cached = 0
        self._decode([(0, i, token, i == len(ids) - 1) for i, token in enumerate(ids)])
        found: list[int] = []
        while True:
            logits = api.llama_get_logits_ith(self.context, -1)
            found.append(max(range(self.vocab), key=logits[: self.vocab].__getitem__))
            if len(found) == tokens:
                return found
            self._decode([(0, len(ids) + len(found) - 1, found[-1], True)])

    def quantize(self, source: str, output: str, kind: str, threads: int) -> None:
        """llama-quantize to one of FTYPES, everything else as by default."""
        params = api.llama_model_quantize_default_params()
        params.ftype = FTYPES[kind]
        params.nthread = threads
        if api.llama_model_quantize(source.encode(), output.encode(), ctypes.byref(params)):
            raise RuntimeError("llama_model_quantize failed")


if __name__ == "__main__":
    # Kept in a variable: the library does not hold on to it.
    silence = api.llama_log_callback(lambda *_: None)
    api.llama_log_set(silence, None)
    handlers = Handlers()
    names = (
        "open", "prefill", "fill", "decode", "batch", "sample", "logits", "tokenize", "greedy",
        "quantize",
    )  # fmt: skip
    serve({name: getattr(handlers, name) for name in names})
