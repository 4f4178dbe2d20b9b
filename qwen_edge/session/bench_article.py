"""The procedure that articles publish: one question, ten answers of 256 tokens."""

from __future__ import annotations

import time
from dataclasses import replace

from qwen_edge.host.memory_facts import own_memory
from qwen_edge.session.answer import Answer
from qwen_edge.session.bench import Bench
from qwen_edge.session.bench_facts import describe
from qwen_edge.session.bench_plan import plain
from qwen_edge.session.bench_result import Part
from qwen_edge.session.conversation import USER, Message, encode_messages
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session.plan import make_plan

QUESTION = "请简述相对论的基本原理"
REPEATS = 10
TOKENS = 256


class ArticleBench(Bench):
    """Runs the procedure, every repeat of which counts; takes as long as it takes.

    The answers are sampled as ``run`` samples them, with the seeds 1 to 10 unless one is set, and
    go on to 256 tokens even where the model would stop, a token a step without drafts. An answer's
    speed is its tokens over the whole time from the question to the last of them.
    """

    kind = "article"

    def run(self) -> None:
        """See ``Bench.run``."""
        start = time.monotonic()
        plan = make_plan(self._flags)
        plan = replace(plan, engine=plain(plan.engine))
        with LoadedModel(plan, watcher=self._watcher.setup) as loaded:
            self._record("load", None, time.monotonic() - start)
            self._facts = describe(loaded.plan)
            self._temperature()
            self._watcher.begin(Part("answer-speed", None))
            for repeat in range(REPEATS):
                began = time.monotonic()
                self._answer(loaded, repeat + 1)
                now = time.monotonic()
                self._watcher.planned = now - self._start + (REPEATS - repeat - 1) * (now - began)
        self._temperature()

    def _answer(self, loaded: LoadedModel, seed: int) -> None:
        options = loaded.answer_options()
        sampling = options.sampling
        if sampling.seed is None:
            sampling = replace(sampling, seed=seed)
        options = replace(options, sampling=sampling, max_tokens=TOKENS)

        def poll() -> None:
            self._watcher.poll()
            loaded.chat.poll()

        model = replace(loaded.chat, stop_ids=frozenset(), poll=poll)
        loaded.engine.truncate(0)
        processor, start = time.process_time(), time.monotonic()
        ids = encode_messages(model, [Message(USER, QUESTION)], options.thinking)
        answer = Answer(model, ids, options)
        for _ in answer:
            pass
        seconds = time.monotonic() - start
        processor = time.process_time() - processor
        self._record("first-token-warm", None, answer.stats.first_token_seconds)
        self._record("answer-speed", None, answer.stats.generated_tokens / seconds)
        cores = loaded.plan.profile.cores
        self._record("processor-share", None, 100 * processor / seconds / cores)
        peak = own_memory().peak
        if peak is not None:
            self._record("peak-memory", None, peak)
