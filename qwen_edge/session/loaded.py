"""A model ready to answer: file mapped, tokenizer and engine set up, memory capped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_edge.engine.speculation import CallCosts
from qwen_edge.errors import MemoryLimitError, UsageError
from qwen_edge.host.sizes import format_size
from qwen_edge.model.closing import Closing
from qwen_edge.session.answer import AnswerOptions, ChatModel
from qwen_edge.session.engines import adaptable, create_engine, load_packages, prefixes
from qwen_edge.session.governing import Governing
from qwen_edge.session.lora import Lora, apply_lora, find_lora
from qwen_edge.session.memory import memory_errors
from qwen_edge.session.opened import open_tokenizer
from qwen_edge.session.plan import Plan, make_plan, sampling_params, select_for
from qwen_edge.session.prompt_cache import PromptCache, PromptFile, SystemPrompts
from qwen_edge.session.reason import Reason

if TYPE_CHECKING:
    from qwen_edge.engine.watcher import Watcher


class LoadedModel(Closing):
    """Everything of a model that is needed to talk with it; use it as a context manager.

    Args:
        plan: what to load and how; its model is closed together with this.
        prompt_file: holds the prompt's keys and values between two runs of the program.
        keep_all: whether all that was said goes into that file in the end.
        watcher: is told what setting the engine up takes.
        tell: is told what the governor does; without it, or where the settings say so, there is
            none.
        turns: whether more than one answer is going to be asked for.

    Attributes:
        plan: likewise.
        engine: the engine.
        tokenizer: the tokenizer.
        chat: what answers need of it.
        prompt_file: what became of the file; None if there is none.
        lora: the adapter in use, or None.
        governing: the governor, or None.

    Raises:
        DamagedModelError: the model or its adapter cannot be used.
        MemoryLimitError: it does not fit into the memory cap.
        UsageError: the prompt file is something else, which must not be overwritten; or the engine
            does not do what is asked of it.
        QwenEdgeError: the engine's packages do not load.
    """

    def __init__(
        self,
        plan: Plan,
        prompt_file: Path | None = None,
        *,
        keep_all: bool = False,
        watcher: Watcher | None = None,
        tell: Callable[[Reason], None] | None = None,
        turns: bool = False,
    ) -> None:
        self.plan = plan
        self.prompt_file: PromptFile | None = None
        self.governing: Governing | None = None
        with contextlib.ExitStack() as stack:
            stack.callback(plan.model.close)
            if prompt_file is not None:
                _check_prompt_file(plan)
            load_packages(plan.choice, watcher)
            cap = stack.enter_context(plan.memory_cap())
            with memory_errors():
                self.tokenizer = open_tokenizer(plan.model)
                self.engine = create_engine(plan, watcher)
                stack.callback(self.engine.close)
                self.lora = plan.lora
                if plan.lora is not None:
                    adapting = adaptable(self.engine, plan.choice)
                    apply_lora(adapting, plan.lora, plan.model.config)
            prompts = self._prompt_cache(prompt_file, keep_all=keep_all)
            if prompts is not None:
                stack.callback(prompts.close)
            costs = CallCosts()
            poll: Callable[[], float | None] = cap.watch.poll
            if tell is not None and plan.settings.get("governor") != "off":
                self.governing = Governing(plan, self.engine, costs, tell, turns=turns)
                stack.callback(self.governing.close)
                poll = _both(poll, self.governing.poll)
            self.chat = ChatModel(
                engine=self.engine,
                tokenizer=self.tokenizer,
                template=plan.model.chat_template,
                stop_ids=frozenset(plan.model.generation.stop_ids),
                costs=costs,
                prompts=prompts,
                poll=poll,
            )
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Frees everything; a second call does nothing."""
        self._stack.close()

    def _prompt_cache(self, file: Path | None, *, keep_all: bool) -> PromptCache | None:
        """What keeps prompts on disk; system prompts quietly stay out where the engine cannot."""
        engine, limit = prefixes(self.engine), self.plan.settings.get("prompt-cache-size")
        if engine is None:
            return None
        if file is not None:
            self.prompt_file = PromptFile(engine, file, everything=keep_all)
            return self.prompt_file
        return SystemPrompts(engine, self.tokenizer, limit) if isinstance(limit, int) else None

    def set_lora(self, path: Path | None, scale: float = 1.0) -> Lora | None:
        """Answers with another adapter from now on, or with none.

        What the engine computed so far is forgotten; the next answer reads its prompt anew. After
        an error all is as before.

        Raises:
            ModelNotFoundError: there is no such adapter.
            DamagedModelError: it cannot be used with this model.
            UsageError: it is of an unsupported kind, or the engine takes none.
            MemoryLimitError: it does not fit beside the model and the present adapter.
        """
        plan = self.plan
        engine = adaptable(self.engine, plan.choice)
        lora = None if path is None else find_lora(path, scale, plan.model.config)
        if lora is not None and plan.budget is not None:
            held = plan.runtime.predicted_peak - (plan.lora.memory if plan.lora else 0)
            left = plan.budget - held - (self.lora.memory if self.lora else 0)
            if lora.memory > left:
                raise MemoryLimitError(
                    "The adapter {path} needs {needed} of memory, and {left} are left.",
                    "Turn the present one off first, or begin anew with a smaller --context.",
                    path=lora.path,
                    needed=format_size(lora.memory),
                    left=format_size(max(left, 0)),
                )
        with memory_errors():
            apply_lora(engine, lora, plan.model.config)
        self.lora = lora
        return lora

    def answer_options(self, thinking: bool | None = None) -> AnswerOptions:
        """How this model answers on this device with the user's settings.

        Args:
            thinking: overrides the setting, and with it the defaults that depend on it.
        """
        plan, runtime = self.plan, self.plan.runtime
        if thinking is not None and thinking != runtime.thinking:
            wishes = replace(
                plan.settings.wishes(),
                thinking=thinking,
                context=runtime.context,
                kv_type=runtime.kv_type,
                threads=runtime.threads,
                prefill_threads=runtime.prefill_threads,
            )
            runtime = select_for(plan.choice, plan.profile, plan.facts, wishes)
        return AnswerOptions(
            sampling=sampling_params(runtime, plan.settings),
            max_tokens=runtime.max_new_tokens,
            thinking=runtime.thinking,
        )

    def governed(self, options: AnswerOptions) -> AnswerOptions:
        """What the governor leaves of them for the answer that comes now.

        Raises:
            DeviceLimitError, MemoryLimitError: it lets none come.
        """
        return options if self.governing is None else self.governing.options(options)


def _both(
    first: Callable[[], object], second: Callable[[], float | None]
) -> Callable[[], float | None]:
    def poll() -> float | None:
        first()
        return second()

    return poll


def _check_prompt_file(plan: Plan) -> None:
    if not plan.engine.keep_cache:
        raise UsageError("--prompt-cache and --no-kv-cache exclude each other.")
    if not plan.choice.keeps_prompts:
        raise UsageError(
            "The engine {engine} keeps no prompts on disk.",
            "Leave --prompt-cache out, or use --engine native.",
            engine=plan.choice.name,
        )


def load_model(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    prompt_file: Path | None = None,
    *,
    keep_all: bool = False,
    watcher: Watcher | None = None,
    tell: Callable[[Reason], None] | None = None,
    turns: bool = False,
) -> LoadedModel:
    """Finds a model, decides how to run it here, and loads it.

    Args:
        flags: setting key -> value, None where the user did not give it.
        environ: the environment variables.
        prompt_file: see ``LoadedModel``.
        keep_all, watcher, tell, turns: likewise.

    Raises:
        UsageError: a bad setting or prompt file.
        ModelNotFoundError: there is no such model.
        DamagedModelError: the model cannot be used.
        MemoryLimitError: it does not fit.
    """
    plan = make_plan(flags, environ)
    return LoadedModel(
        plan, prompt_file, keep_all=keep_all, watcher=watcher, tell=tell, turns=turns
    )
