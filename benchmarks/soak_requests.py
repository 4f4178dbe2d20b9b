"""The requests of a soak: everything that is asked of an engine, well-formed or not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import Row, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.prefix_file import PrefixError, PrefixFile, write_prefix
from qwen_edge.errors import UsageError
from qwen_edge.model.packed import PackedModel
from qwen_edge.text.chat_template import encode_chat
from qwen_edge.text.tokenizer import Tokenizer

SEQUENCES = 4
CONTEXT = 1024


class Cancelled(Exception):
    """Raised by a request on itself, as an interrupt would."""


class Requests:
    """Draws and runs requests.

    Args:
        model: open, with a tokenizer.
        engine: with SEQUENCES sequences of CONTEXT positions.
        seed: the same one draws the same requests.
        file: where prompt caches are written.
    """

    def __init__(self, model: PackedModel, engine: NativeEngine, seed: int, file: Path) -> None:
        self._engine = engine
        self._random = random.Random(seed)
        self._template = model.chat_template
        table = model.tensors["tokenizer"]
        address = model.address("tokenizer")
        self._tokenizer = Tokenizer.from_blob(address, table.nbytes, owner=model)
        self._messages: list[dict[str, object]] = []
        self._file = file
        self._identity = engine.prefix_identity()
        self._kinds = (
            self.answer, self.chat, self.copy, self.cancel, self.fork, self.truncate, self.batch,
            self.cache, self.overflow, self.mistake,
        )  # fmt: skip

    def any(self) -> None:
        """Runs one request of a kind drawn at random."""
        self._random.choice(self._kinds)()

    def all(self) -> None:
        """Runs a request of each kind."""
        for kind in self._kinds:
            kind()

    def _ids(self, length: int) -> list[int]:
        return [self._random.randrange(self._engine.vocab_size) for _ in range(length)]

    def _sampling(self) -> SamplingParams:
        r = self._random
        return SamplingParams(
            temperature=r.choice((0.0, 0.6, 1.5)),
            top_k=r.choice((0, 1, 20, 200)),
            top_p=r.choice((0.5, 0.95, 1.0)),
            min_p=r.choice((0.0, 0.1)),
            repetition_penalty=r.choice((1.0, 1.2)),
            presence_penalty=r.choice((0.0, 0.5)),
            seed=r.randrange(1 << 32),
        )

    def answer(self) -> None:
        """A prompt of up to half of the context and up to 64 tokens of answer."""
        prompt = self._ids(self._random.randint(1, CONTEXT // 2))
        tokens = self._random.randint(1, 64)
        sequence = self._random.randrange(SEQUENCES)
        generation = Generation(
            self._engine, prompt, self._sampling(),
            max_tokens=tokens, stop_ids=(), sequence=sequence,
            logprobs=self._random.choice((None, 0, 5)),
        )  # fmt: skip
        for _ in generation:
            pass

    def chat(self) -> None:
        """The next turn of a chat, which begins anew when it gets long."""
        text = " ".join(self._random.choices(("where", "cache", "记忆", "the", "?"), k=12))
        self._messages.append({"role": "user", "content": text})
        ids = encode_chat(self._tokenizer, self._template, self._messages, enable_thinking=False)
        generation = Generation(
            self._engine, ids, self._sampling(), max_tokens=32, stop_ids=(), sequence=0
        )
        answer = [step.id for step in generation]
        content = self._tokenizer.decode(answer)
        self._messages.append({"role": "assistant", "content": content})
        if len(ids) + len(answer) > CONTEXT // 2:
            self._messages.clear()

    def copy(self) -> None:
        """An answer to a prompt that repeats itself, which drafts are made from."""
        prompt = self._ids(self._random.randint(4, 32)) * self._random.randint(2, 8)
        greedy = SamplingParams(temperature=0)
        for _ in Generation(self._engine, prompt, greedy, max_tokens=64, stop_ids=()):
            pass

    def cancel(self) -> None:
        """An answer that is broken off, in its prompt or after some tokens."""
        after = self._random.randint(0, 8)

        def on_prefill(done: int, todo: int) -> None:
            if after == 0 and done < todo:
                raise Cancelled

        prompt = self._ids(self._random.randint(1, CONTEXT // 2))
        generation = Generation(
            self._engine, prompt, self._sampling(),
            max_tokens=32, stop_ids=(), on_prefill=on_prefill,
        )  # fmt: skip
        try:
            for count, _ in enumerate(generation):
                if count >= after:
                    raise Cancelled
        except Cancelled:
            return

    def fork(self) -> None:
        """One sequence begins as part of another."""
        source, target = self._random.sample(range(SEQUENCES), 2)
        length = self._random.randint(0, len(self._engine.cached_ids(source)))
        self._engine.fork(source, target, length)

    def truncate(self) -> None:
        """A sequence forgets its end."""
        sequence = self._random.randrange(SEQUENCES)
        held = len(self._engine.cached_ids(sequence))
        self._engine.truncate(self._random.randint(0, held), sequence)

    def batch(self) -> None:
        """Steps of all sequences that have room, in one call each."""
        for _ in range(self._random.randint(1, 16)):
            rows = [
                Row(s, len(self._engine.cached_ids(s)), self._ids(1)[0], True)
                for s in range(SEQUENCES)
                if len(self._engine.cached_ids(s)) < CONTEXT
            ]
            if rows:
                self._engine.forward(rows)

    def cache(self) -> None:
        """A prompt's keys and values go to a file and come back from it, whole or damaged."""
        self._engine.truncate(0)
        self._prefill(self._ids(self._random.randint(1, 200)))
        ids = list(self._engine.cached_ids())
        write_prefix(self._engine, self._identity, len(ids), self._file, durable=False)
        damaged = self._random.random() < 0.25
        if damaged:
            with open(self._file, "r+b") as file:
                file.seek(-1, 2)
                last = file.read(1)[0]
                file.seek(-1, 2)
                file.write(bytes([last ^ 1]))
        self._engine.truncate(0)
        try:
            with PrefixFile(self._file) as saved:
                saved.load(self._engine, saved.prefix(self._engine, self._identity), len(ids))
        except PrefixError:
            if not damaged:
                raise
        else:
            if damaged:
                raise AssertionError("a damaged prompt cache was taken")

    def overflow(self) -> None:
        """A prompt that does not fit, and an answer that runs into the context's end."""
        greedy = SamplingParams(temperature=0)
        sequence = self._random.randrange(SEQUENCES)
        fitting = Generation(
            self._engine, self._ids(CONTEXT - self._random.randint(1, 8)), greedy,
            max_tokens=64, stop_ids=(), sequence=sequence,
        )  # fmt: skip
        for _ in fitting:
            pass
        prompt = self._ids(CONTEXT)
        self._refused(lambda: Generation(self._engine, prompt, greedy, max_tokens=1, stop_ids=()))

    def mistake(self) -> None:
        """Calls that no engine can take."""
        held = len(self._engine.cached_ids())
        self._refused(lambda: self._engine.forward([Row(0, held + 7, 1, True)]))
        self._refused(lambda: self._engine.forward([Row(SEQUENCES, 0, 1, True)]))
        self._refused(lambda: self._engine.forward([Row(0, held, -1, True)]))
        self._refused(lambda: self._engine.truncate(held + 1))

    @staticmethod
    def _refused(call: Callable[[], object]) -> None:
        try:
            call()
        except UsageError:
            return
        raise AssertionError("a wrong call was not refused")

    def _prefill(self, ids: list[int]) -> None:
        rows = self._engine.config.prefill_rows
        for begin in range(0, len(ids), rows):
            part = ids[begin : begin + rows]
            self._engine.forward([Row(0, begin + i, token) for i, token in enumerate(part)])

    def empty(self) -> None:
        """All sequences forget everything."""
        for sequence in range(SEQUENCES):
            self._engine.truncate(0, sequence)

    def fill(self) -> None:
        """All sequences at their longest, once: what memory is kept then is no leak."""
        for sequence in range(SEQUENCES):
            for begin in range(0, CONTEXT, 64):
                self._engine.forward([Row(sequence, begin + i, 1 + i, i == 63) for i in range(64)])
