"""How an answer in the making is shown: text, thoughts, progress, statistics."""

from __future__ import annotations

import sys
from dataclasses import replace

from qwen_edge.cli.interrupts import StopRequest
from qwen_edge.cli.language import localized
from qwen_edge.cli.terminal import Progress, err, is_terminal, note, out
from qwen_edge.engine.stats import GenerationStats
from qwen_edge.session.answer import AnswerText, ChatModel, Event, ThinkingText
from qwen_edge.session.governing import Governing
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session.plan import Plan
from qwen_edge.session.reason import Reason

# Seconds of reading a prompt before a progress bar appears.
_PATIENCE = 0.5


class AnswerView:
    """Writes the answer to standard output and the thoughts, dim, to standard error.

    Args:
        thoughts: whether thoughts are shown.
    """

    def __init__(self, *, thoughts: bool) -> None:
        self._thoughts = thoughts
        self._thinking = False
        self._line_open = False

    def show(self, event: Event) -> None:
        """Shows an event as it comes.

        Raises:
            BrokenPipeError: the reader of standard output is gone.
        """
        if isinstance(event, ThinkingText):
            if self._thoughts:
                self._thinking = True
                err(event.text, end="", style="dim")
        elif isinstance(event, AnswerText):
            self._end_thoughts()
            out(event.text, end="")
            self._line_open = not event.text.endswith("\n")

    def interrupt(self) -> None:
        """Ends the line on the terminal, so that something else may follow on it."""
        open_line = self._line_open and is_terminal(sys.stdout)
        if is_terminal(sys.stderr) and (self._thinking or open_line):
            err("")

    def finish(self) -> None:
        """Ends the last line."""
        self._end_thoughts()
        if self._line_open:
            self._line_open = False
            out("")

    def _end_thoughts(self) -> None:
        if self._thinking:
            self._thinking = False
            err("\n" if is_terminal(sys.stderr) else "")


class GovernorView:
    """Tells what the governor does, a dim line each; give it to a model as ``tell``.

    Attributes:
        answer, progress: what is on the screen, if anything: it makes room first.
    """

    def __init__(self) -> None:
        self.answer: AnswerView | None = None
        self.progress: PrefillProgress | None = None

    def __call__(self, step: Reason) -> None:
        """Tells of a step."""
        if self.answer is not None:
            self.answer.interrupt()
        if self.progress is not None:
            self.progress.clear()
        note(step.sentence, **step.values)


class PrefillProgress:
    """A bar while a long prompt is read; give it to an answer as ``on_prefill``."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        """Tells how much of the prompt is read."""
        if self._bar is None:
            self._bar = Progress("Reading the prompt", total, str, _PATIENCE)
        if done < total:
            self._bar.update(done)
        else:
            self.clear()

    def clear(self) -> None:
        """Takes the bar off the screen."""
        if self._bar is not None:
            self._bar.clear()


def stoppable(model: ChatModel, stop: StopRequest) -> ChatModel:
    """The model with answers that end when Ctrl-C is pressed."""

    def poll() -> float | None:
        stop.check()
        return model.poll()

    return replace(model, poll=poll)


def introduce(plan: Plan) -> None:
    """Says that the demo stands in unasked."""
    if plan.found.note_due:
        note(
            "This is the tiny demo model, which is not clever. "
            "Get a real one with `qwen-edge pull qwen3-0.6b`."
        )


def show_stats(stats: GenerationStats, load_seconds: float | None = None) -> None:
    """Writes what an answer cost to standard error."""
    from qwen_edge.host.memory_facts import own_memory
    from qwen_edge.host.sizes import format_size

    note(
        "prompt: {tokens} tokens ({cached} cached), {seconds:.2f} s, {speed:.1f} tokens/s",
        tokens=stats.prompt_tokens,
        cached=stats.cached_tokens,
        seconds=stats.prefill_seconds,
        speed=stats.prefill_tokens_per_second,
    )
    note(
        "answer: {tokens} tokens, first after {first:.2f} s, then {speed:.1f} tokens/s ({reason})",
        tokens=stats.generated_tokens,
        first=stats.first_token_seconds,
        speed=stats.decode_tokens_per_second,
        reason=stats.finish_reason,
    )
    if stats.paused_seconds:
        note("paused for {seconds:.0f} s", seconds=stats.paused_seconds)
    if stats.drafted_tokens:
        note(
            "lookup: {accepted} of {drafted} drafted tokens accepted",
            accepted=stats.accepted_tokens,
            drafted=stats.drafted_tokens,
        )
    if load_seconds is not None:
        note("loading: {seconds:.2f} s", seconds=load_seconds)
    peak = own_memory().peak
    if peak is not None:
        note("peak memory: {size}", size=format_size(peak))


def show_governor(governing: Governing | None, since: float = 0.0) -> None:
    """Writes what the governor did to standard error, if anything.

    Args:
        governing: the governor, or None.
        since: seconds from when on.
    """
    for step in governing.steps if governing else ():
        if step.seconds >= since:
            told = localized(step.reason.sentence, dict(step.reason.values))
            note("after {seconds:.0f} s: {step}", seconds=step.seconds, step=told)


def tell_of_prompt_file(loaded: LoadedModel) -> None:
    """Says why the file of ``--prompt-cache`` was not used or not written."""
    problem = loaded.prompt_file.problem if loaded.prompt_file else None
    if problem is not None:
        note(problem.sentence, **problem.values)


def explain_cut(stats: GenerationStats, context: int, *, spared: bool = False) -> None:
    """Says why an answer ends early, if it does.

    Args:
        stats: of the answer.
        context: of the engine.
        spared: whether the governor had it shorter than it would have been.
    """
    if stats.finish_reason != "length":
        return
    if stats.prompt_tokens + stats.generated_tokens >= context:
        note("The context of {context} tokens is full; --context sets its size.", context=context)
    elif spared:
        note("The answer was cut off after {tokens} tokens.", tokens=stats.generated_tokens)
    else:
        note(
            "The answer was cut off after {tokens} tokens; --max-tokens allows more.",
            tokens=stats.generated_tokens,
        )
