"""``qwen-edge run``: one prompt, one answer."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from qwen_edge.cli.answer_view import (
    AnswerView,
    GovernorView,
    PrefillProgress,
    explain_cut,
    introduce,
    show_governor,
    show_stats,
    stoppable,
    tell_of_prompt_file,
)
from qwen_edge.cli.awake import awake
from qwen_edge.cli.interrupts import StopRequest
from qwen_edge.cli.model_options import MODEL_OPTIONS, PROMPT_FILE, flags_of, prompt_file
from qwen_edge.cli.move_model import plan_for
from qwen_edge.cli.options import Option, Values
from qwen_edge.cli.prompt import read_prompt
from qwen_edge.cli.setup_view import SetupView
from qwen_edge.cli.terminal import is_terminal, note, out, table
from qwen_edge.cli.voice import COPY, LISTEN, SPEAK, Voice, copy_answer, listen, speaking
from qwen_edge.errors import UsageError
from qwen_edge.host.sizes import format_size
from qwen_edge.session.answer import Answer, AnswerOptions
from qwen_edge.session.conversation import SYSTEM, USER, Message, encode_messages
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session.plan import Plan

_MOST_LOGPROBS = 100

OPTIONS = (
    Option("prompt", (), "The prompt; what is piped in comes after it.", "PROMPT", many=True),
    *MODEL_OPTIONS,
    PROMPT_FILE,
    SPEAK,
    LISTEN,
    COPY,
    Option("system", ("-s", "--system"), "How the model should behave.", "TEXT"),
    Option("think_budget", ("--think-budget",), "The most tokens to think for.", "N"),
    Option("stop", ("--stop",), "Text that ends the answer; can be repeated.", "TEXT", many=True),
    Option("raw", ("--raw",), "Take the prompt as it is, without chat template."),
    Option("json", ("--json",), "Write one JSON object with text, ids, usage and timings."),
    Option("logprobs", ("--logprobs",), "With --json: the N likeliest tokens at each step.", "N"),
    Option("stats", ("--stats",), "Write speed and memory to standard error."),
    Option("explain", ("--explain",), "Write where each setting came from to standard error."),
)


def main(values: Values) -> int:
    """Answers the prompt; returns the exit code."""
    logprobs = _number(values, "logprobs", 0, _MOST_LOGPROBS)
    think_budget = _number(values, "think_budget", 1, 1 << 20)
    if logprobs is not None and not values.switch("json"):
        raise UsageError("--logprobs works with --json only.", "Add --json.")
    prompt = read_prompt(values.many("prompt"))
    if values.switch("listen"):
        prompt = "\n\n".join(filter(None, (prompt, listen())))
    # Settings can be explained without anything to answer.
    if not prompt and not values.switch("explain"):
        raise UsageError(
            "There is no prompt.",
            'Give it as an argument, `qwen-edge run "Hello"`, or pipe it in; '
            "`qwen-edge chat` is for talking.",
        )
    start = time.perf_counter()
    plan = plan_for(flags_of(values))
    governor = GovernorView()
    with (
        awake(plan.settings.get("wake-lock")) as working,
        working(),
        speaking(values.switch("speak")) as voice,
        LoadedModel(plan, prompt_file(values), watcher=SetupView(), tell=governor) as loaded,
    ):
        load_seconds = time.perf_counter() - start
        introduce(plan)
        if values.switch("explain"):
            _explain(plan)
        if not prompt:
            return 0
        wanted = loaded.answer_options()
        options = replace(
            loaded.governed(wanted),
            thinking_budget=think_budget,
            stop=tuple(values.many("stop")),
            logprobs=(logprobs or 0) if values.switch("json") else None,
            split_thinking=not values.switch("raw"),
        )
        ids = _prompt_ids(loaded, prompt, values, options)
        answer = _answer(loaded, governor, ids, options, values, load_seconds, voice)
        spared = options.max_tokens < wanted.max_tokens
        if spared or values["max_tokens"] is None:
            explain_cut(answer.stats, loaded.engine.config.context, spared=spared)
        if values.switch("copy"):
            copy_answer(answer.text)
    tell_of_prompt_file(loaded)
    return 0


def _number(values: Values, name: str, low: int, high: int) -> int | None:
    text = values.text(name)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise UsageError(
            "--{option} takes a number from {low} to {high}, not {value}.",
            option=name.replace("_", "-"),
            low=low,
            high=high,
            value=repr(text),
        )
    return number


def _explain(plan: Plan) -> None:
    from qwen_edge.cli.report import explained_rows

    lines = plan.settings.explain(plan.runtime)
    table(explained_rows(lines), ("setting", "value"), aside=True)
    if plan.choice.reason is not None:
        note(plan.choice.reason.sentence, **plan.choice.reason.values)
    if plan.lora is not None:
        note(
            "The adapter {name} has rank {rank} and takes {size} of the predicted peak of {peak}.",
            name=plan.lora.name,
            rank=plan.lora.rank,
            size=format_size(plan.lora.memory),
            peak=format_size(plan.runtime.predicted_peak),
        )


def _prompt_ids(
    loaded: LoadedModel, prompt: str, values: Values, options: AnswerOptions
) -> list[int]:
    if values.switch("raw"):
        # Who leaves the template out writes its control tokens by hand.
        return loaded.tokenizer.encode(prompt, allow_special=True)
    system = values.text("system")
    messages = [Message(SYSTEM, system)] if system else []
    return encode_messages(loaded.chat, [*messages, Message(USER, prompt)], options.thinking)


def _answer(
    loaded: LoadedModel,
    governor: GovernorView,
    ids: list[int],
    options: AnswerOptions,
    values: Values,
    load_seconds: float,
    voice: Voice | None,
) -> Answer:
    """Shows the answer as it comes, and returns it."""
    progress = PrefillProgress()
    as_json = values.switch("json")
    view = AnswerView(thoughts=is_terminal(sys.stderr) or values.switch("thinking"))
    governor.answer, governor.progress = view, progress
    with StopRequest() as stop:
        answer = Answer(stoppable(loaded.chat, stop), ids, options, progress)
        try:
            for event in answer:
                if not as_json:
                    view.show(event)
                if voice is not None:
                    voice.hear(event)
        finally:
            progress.clear()
            for event in answer.rest():
                if not as_json:
                    view.show(event)
            view.finish()
            if as_json:
                _write_json(answer, loaded, load_seconds)
            if values.switch("stats"):
                show_stats(answer.stats, load_seconds)
                show_governor(loaded.governing)
    return answer


def _write_json(answer: Answer, loaded: LoadedModel, load_seconds: float) -> None:
    import json

    from qwen_edge.host.memory_facts import own_memory

    stats = answer.stats
    timings = {
        key: value
        for key, value in stats.as_dict().items()
        if key.endswith(("_seconds", "_per_second"))
    }
    out(
        json.dumps(
            {
                "model": loaded.plan.model.name,
                "text": answer.text,
                "thinking": answer.thinking or None,
                "prompt_ids": answer.prompt_ids,
                "ids": answer.ids,
                "logprobs": [
                    {
                        "id": step.id,
                        "logprob": step.logprob,
                        "top": [{"id": token, "logprob": value} for token, value in step.top],
                    }
                    for step in answer.steps
                ],
                "finish_reason": stats.finish_reason,
                "usage": {
                    "prompt_tokens": stats.prompt_tokens,
                    "cached_tokens": stats.cached_tokens,
                    "completion_tokens": stats.generated_tokens,
                    "total_tokens": stats.prompt_tokens + stats.generated_tokens,
                    "drafted_tokens": stats.drafted_tokens,
                    "accepted_tokens": stats.accepted_tokens,
                },
                "timings": {"load_seconds": load_seconds, **timings},
                "memory": {"peak": own_memory().peak},
                "governor": _governor(loaded),
            },
            ensure_ascii=False,
        )
    )


def _governor(loaded: LoadedModel) -> dict[str, object]:
    """What the governor did, in English."""
    settings, governing = loaded.plan.settings, loaded.governing
    return {
        "mode": settings.get("governor"),
        "fallback": settings.get("fallback"),
        "steps": [
            {"seconds": step.seconds, "step": str(step.reason)}
            for step in (governing.steps if governing else ())
        ],
    }
