"""``qwen-edge eval``: how well a model predicts a text, or answers questions with given choices."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from qwen_edge.cli.answer_view import introduce
from qwen_edge.cli.awake import staying_awake
from qwen_edge.cli.interrupts import StopRequest
from qwen_edge.cli.language import translate
from qwen_edge.cli.model_options import ENGINE_OPTIONS, MODEL_OPTIONS, flags_of
from qwen_edge.cli.move_model import warn_of_storage
from qwen_edge.cli.options import Option, Values
from qwen_edge.cli.setup_view import SetupView
from qwen_edge.cli.terminal import Progress, is_terminal, note, out
from qwen_edge.errors import UsageError
from qwen_edge.host.sizes import format_size
from qwen_edge.session.eval_choice_run import ChoiceRun
from qwen_edge.session.eval_choices import LETTER, SCORINGS
from qwen_edge.session.eval_models import Precision
from qwen_edge.session.eval_questions import read_questions
from qwen_edge.session.eval_result import Report
from qwen_edge.session.eval_text_run import TextOptions, TextRun
from qwen_edge.session.eval_windows import DEFAULT_CONTEXT
from qwen_edge.session.plan import Plan
from qwen_edge.session.setting_table import parse_value, setting

_INTERRUPTED = 130
# A longer text than any that figures are published for; its ids have to be held in memory.
_LARGEST_FILE = 16 << 20
_ACTIVATIONS = {"int8": "int8", "f32": "f32", "fp32": "f32"}
_OWN = {"context", "kv"}
_LORA = {"lora", "lora_scale"}
_MODEL_OPTIONS = (
    *(option for option in ENGINE_OPTIONS if option.name not in _OWN),
    *(option for option in MODEL_OPTIONS if option.name in _LORA),
)

OPTIONS = (
    *_MODEL_OPTIONS,
    Option(
        "text",
        ("--text",),
        "Perplexity of this text; - is standard input, as is a pipe without --text.",
        "FILE",
    ),
    Option(
        "choices",
        ("--choices",),
        "Accuracy on the questions with choices in this file, a JSON object in each line.",
        "FILE",
    ),
    Option("context", ("-c", "--context"), "Tokens of a window of the text; 512 by default.", "N"),
    Option(
        "stride",
        ("--stride",),
        "Score each token once, with windows N tokens apart; else the second half of each window.",
        "N",
    ),
    Option("limit", ("--limit",), "At most N windows, or N questions.", "N"),
    Option(
        "special",
        ("--special",),
        "Take the text of control tokens, <|im_end|> say, for the tokens themselves.",
    ),
    Option("against", ("--against",), "Compare predictions with those of this model.", "MODEL"),
    Option(
        "save_reference",
        ("--save-reference",),
        "Keep the predictions in FILE: 2 bytes for each token scored and id of the vocabulary.",
        "FILE",
    ),
    Option(
        "reference",
        ("--reference",),
        "Compare with predictions that were kept; the file brings the text.",
        "FILE",
    ),
    Option(
        "scoring",
        ("--scoring",),
        "How choices are compared: letter (the default), or text, length-normalized.",
        "HOW",
    ),
    Option("kv", ("--kv",), "Type of the KV cache; f16 by default.", "TYPE"),
    Option(
        "activations",
        ("--activations",),
        "int8 (the default), or f32: exact, and many times slower.",
        "TYPE",
    ),
    Option("json", ("--json",), "Write the result as JSON."),
    Option("markdown", ("--markdown",), "Write the result as a Markdown table."),
    Option("output", ("-o", "--output"), "Write the result as JSON to FILE, too.", "FILE"),
)


def main(values: Values) -> int:
    """Evaluates; returns the exit code."""
    _check_together(values)
    with (
        staying_awake(),
        StopRequest() as stop,
        Progress("Evaluating", None, str, 0.0) as bar,
    ):
        watcher = _Watcher(bar, stop)
        run = (
            _choice_run(values, watcher) if _asks_questions(values) else _text_run(values, watcher)
        )
        try:
            run.run()
        except KeyboardInterrupt:
            report = run.report(complete=False)
        else:
            report = run.report(complete=True)
        bar.clear()
        if report.empty:
            raise KeyboardInterrupt
        _show(report, values)
        watcher.tell()
    return 0 if report.complete else _INTERRUPTED


def _asks_questions(values: Values) -> bool:
    return values.text("choices") is not None


def _check_together(values: Values) -> None:
    """Refuses options that make no sense together."""
    _exclude(values, "json", "markdown")
    for name in ("text", "against", "reference", "save_reference", "stride", "special"):
        _exclude(values, "choices", name)
    for name in ("text", "against", "save_reference", "context", "stride", "special"):
        _exclude(values, "reference", name)
    if values.text("scoring") is not None and not _asks_questions(values):
        raise UsageError("--scoring works with --choices only.", "Add --choices FILE.")


def _exclude(values: Values, first: str, second: str) -> None:
    if values[first] and values[second]:
        raise UsageError(
            "--{first} and --{second} exclude each other.",
            "Give one of them.",
            first=first.replace("_", "-"),
            second=second.replace("_", "-"),
        )


def _text_run(values: Values, watcher: _Watcher) -> TextRun:
    context = values.text("context")
    length = None if context is None else int(str(parse_value(setting("context"), context, "-c")))
    reference, save = values.text("reference"), values.text("save_reference")
    options = TextOptions(
        context=length,
        stride=_number(values, "stride", length or DEFAULT_CONTEXT),
        limit=_number(values, "limit", 1 << 30),
        special=values.switch("special"),
        against=values.text("against"),
        reference=None if reference is None else Path(reference),
        save=None if save is None else Path(save),
    )
    text = "" if reference is not None else _read(values.text("text"))
    flags = flags_of(values, _MODEL_OPTIONS)
    return TextRun(flags, text, options, _precision(values), watcher)


def _choice_run(values: Values, watcher: _Watcher) -> ChoiceRun:
    scoring = values.text("scoring") or LETTER
    if scoring not in SCORINGS:
        raise _no_choice("scoring", scoring, SCORINGS)
    context = values.text("context")
    length = None if context is None else int(str(parse_value(setting("context"), context, "-c")))
    questions = read_questions(_read(values.text("choices")), _number(values, "limit", 1 << 30))
    flags = flags_of(values, _MODEL_OPTIONS)
    return ChoiceRun(flags, questions, scoring, length, _precision(values), watcher)


def _precision(values: Values) -> Precision:
    named = values.text("activations") or "int8"
    if named.lower() not in _ACTIVATIONS:
        raise _no_choice("activations", named, ("int8", "f32"))
    activations = _ACTIVATIONS[named.lower()]
    kv = values.text("kv")
    if kv is None:
        wanted = values.text("activations") is not None
        return Precision("f32" if activations == "f32" else "f16", activations, wanted)
    return Precision(str(parse_value(setting("kv"), kv, "--kv")), activations, wanted=True)


def _no_choice(option: str, value: str, choices: tuple[str, ...]) -> UsageError:
    return UsageError(
        "{name} cannot be {value}.",
        "Use one of {choices}.",
        name=f"--{option}",
        value=value,
        choices=", ".join(choices),
    )


def _number(values: Values, name: str, high: int) -> int | None:
    text = values.text(name)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= high:
        raise UsageError(
            "--{option} takes a number from {low} to {high}, not {value}.",
            option=name,
            low=1,
            high=high,
            value=repr(text),
        )
    return number


def _read(name: str | None) -> str:
    """A file's text, or standard input's.

    Raises:
        UsageError: there is none, it cannot be read, is too long or no text.
    """
    if name is None and is_terminal(sys.stdin):
        raise UsageError(
            "There is nothing to evaluate.",
            "Give --text FILE, --choices FILE or --reference FILE, or pipe a text in.",
        )
    shown = translate("standard input") if name in (None, "-") else str(name)
    try:
        if name is None or name == "-":
            data = b"" if sys.stdin is None else sys.stdin.buffer.read(_LARGEST_FILE + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UsageError(
            "{path} cannot be read: {reason}.", path=shown, reason=reason or error
        ) from None
    if len(data) > _LARGEST_FILE:
        raise UsageError(
            "{path} is longer than {limit}.",
            "Give it a part.",
            path=shown,
            limit=format_size(_LARGEST_FILE),
        )
    if not data.strip():
        raise UsageError("{path} is empty.", path=shown)
    try:
        # Other characters in the place of wrong ones would change the figures silently.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            "{path} is not UTF-8 text: byte {place} is wrong.",
            "Convert it to UTF-8, with iconv say.",
            path=shown,
            place=error.start + 1,
        ) from None


class _Watcher:
    """Shows on standard error how far it is, and stops for Ctrl-C."""

    def __init__(self, bar: Progress, stop: StopRequest) -> None:
        self.setup = SetupView()
        self._bar, self._stop = bar, stop
        self._done = 0
        self._start = 0.0

    def loaded(self, plan: Plan) -> None:
        """See ``session.eval_run.Watcher``."""
        introduce(plan)
        warn_of_storage(plan)

    def begin(self, tokens: int) -> None:
        """See ``session.eval_run.Watcher``."""
        self._bar.describe(translate("Evaluating"), tokens)
        self._start = time.monotonic()

    def step(self, tokens: int) -> None:
        """See ``session.eval_run.Watcher``."""
        self._done += tokens
        self._bar.update(self._done)
        self._stop.check()

    def tell(self) -> None:
        """Says how long it took."""
        seconds = time.monotonic() - self._start
        note(
            "{tokens:,} tokens in {seconds:.1f} s, {speed:,.0f} tokens/s",
            tokens=self._done,
            seconds=seconds,
            speed=self._done / max(seconds, 1e-9),
        )


def _show(report: Report, values: Values) -> None:
    from qwen_edge.cli.eval_view import as_text, show_markdown, show_report, write_json

    path = values.text("output")
    if path is not None:
        write_json(report, Path(path))
    if values.switch("json"):
        out(as_text(report))
    else:
        (show_markdown if values.switch("markdown") else show_report)(report)
    if not report.complete:
        note("Broken off: this is what was measured until then.")
