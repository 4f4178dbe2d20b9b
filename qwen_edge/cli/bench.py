"""``qwen-edge bench``: how fast a model runs on this device, and what memory it takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from qwen_edge.cli.awake import staying_awake
from qwen_edge.cli.bench_values import part_name
from qwen_edge.cli.interrupts import StopRequest
from qwen_edge.cli.model_options import ENGINE_OPTIONS, flags_of
from qwen_edge.cli.options import Option, Values
from qwen_edge.cli.setup_view import SetupView
from qwen_edge.cli.terminal import Progress, note, out
from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.session.bench_result import Part, Report, read_report
from qwen_edge.session.setting_table import ENGINES

_INTERRUPTED = 130
_SYNTHETIC = "qwen3-0.6b"
_LONGEST_BUDGET = 24 * 3600

_ALL = "all"


def _engine_names(beginning: str) -> list[str]:
    return [name for name in (*ENGINES, _ALL) if name.startswith(beginning)]


_ENGINE = next(option for option in ENGINE_OPTIONS if option.name == "engine")._replace(
    help="What computes the answers; all sets everything that this device has side by side.",
    values=_engine_names,
)

OPTIONS = (
    Option(
        "words",
        (),
        "Nothing to measure; `compare A.json B.json` to set two results side by side.",
        "[compare A.json B.json]",
        many=True,
    ),
    *(_ENGINE if option.name == "engine" else option for option in ENGINE_OPTIONS),
    Option(
        "synthetic",
        ("--synthetic",),
        "Measure random weights of this shape: 0.6b, 1.7b or 4b; made and deleted again.",
        "SIZE",
    ),
    Option("quick", ("--quick",), "Take less than 40 seconds rather than 3 minutes."),
    Option("budget", ("--budget",), "Seconds that the measuring may take.", "SECONDS"),
    Option(
        "article",
        ("--article",),
        "The procedure of published articles: one question, ten answers of 256 tokens.",
    ),
    Option("json", ("--json",), "Write the result with every sample as JSON."),
    Option("markdown", ("--markdown",), "Write the result as a Markdown table."),
    Option("plot", ("--plot",), "Draw the result: a file that ends in .svg or .png.", "FILE"),
)


def main(values: Values) -> int:
    """Measures, or compares; returns the exit code."""
    words = values.many("words")
    if values.switch("json") and values.switch("markdown"):
        raise UsageError("--json and --markdown exclude each other.", "Give one of them.")
    if words:
        return _compare(words, as_markdown=values.switch("markdown"))
    _check_all(values)
    plot = _plot_path(values)
    with staying_awake(), StopRequest() as stop:
        report = _measured(values, stop)
        if not report.measures:
            raise _nothing(report)
        _show(report, values, plot)
    return 0 if report.complete else _INTERRUPTED


def _nothing(report: Report) -> BaseException:
    """What a result without any figures comes to: it was broken off, or nothing works."""
    if not (report.complete and report.remarks):
        return KeyboardInterrupt()
    from qwen_edge.cli.bench_values import remark_text

    return QwenEdgeError(
        "Nothing could be measured: {reason}", reason=remark_text(report.remarks[0])
    )


def _compare(words: list[str], *, as_markdown: bool) -> int:
    if words[0] != "compare" or len(words) != 3:
        raise UsageError(
            "bench measures, or compares two results.",
            "Write `qwen-edge bench`, or `qwen-edge bench compare A.json B.json`.",
        )
    from qwen_edge.cli.bench_view import show_comparison

    first, second = (read_report(Path(word)) for word in words[1:])
    show_comparison(words[1:], first, second, as_markdown=as_markdown)
    return 0


def _check_all(values: Values) -> None:
    if values.text("engine") != _ALL:
        return
    for name in ("article", "plot", "compile", "weights", "double_quant"):
        if values[name] is not None:
            raise UsageError(
                "--engine all and --{option} exclude each other.",
                "Leave --{option} out, or name one engine.",
                option=name.replace("_", "-"),
            )


def _plot_path(values: Values) -> Path | None:
    """The file to draw, after a look whether that will be possible: measuring takes minutes."""
    name = values.text("plot")
    if name is None:
        return None
    from qwen_edge.cli.bench_plot import check_path

    return check_path(Path(name))


def _measured(values: Values, stop: StopRequest) -> Report:
    """Runs the benchmark; what was found up to a Ctrl-C is a report, too."""
    from qwen_edge.session.bench import Bench
    from qwen_edge.session.bench_article import ArticleBench
    from qwen_edge.session.bench_engines import EnginesBench

    started = time.monotonic()
    quick = values.switch("quick")
    flags = flags_of(values, ENGINE_OPTIONS)
    kind: type[Bench] = ArticleBench if values.switch("article") else Bench
    if flags["engine"] == _ALL:
        # What a model is looked for with; the benchmark knows the engines itself.
        flags["engine"] = None
        kind = EnginesBench
    budget = _budget(values) or kind.budgets[quick]
    with _model(values, flags, stop) as model, Progress("Measuring", 1, _clock, 0.0) as bar:
        if model is not None:
            flags["model"] = str(model)
        watcher = _Watcher(bar, stop, started)
        bench = kind(flags, budget, watcher, quick=quick, started=started)
        try:
            bench.run()
        except KeyboardInterrupt:
            return bench.report(complete=False)
        return bench.report(complete=True)


def _budget(values: Values) -> float | None:
    text = values.text("budget")
    if text is None:
        return None
    try:
        seconds = int(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= _LONGEST_BUDGET:
        raise UsageError(
            "--{option} takes a number from {low} to {high}, not {value}.",
            option="budget",
            low=1,
            high=_LONGEST_BUDGET,
            value=repr(text),
        )
    return float(seconds)


@contextlib.contextmanager
def _model(values: Values, flags: dict[str, object], stop: StopRequest) -> Iterator[Path | None]:
    """A synthetic model where one is asked for, or where there is none to measure; else None."""
    from qwen_edge.host.paths import data_folder
    from qwen_edge.session.bench_model import synthetic_model
    from qwen_edge.session.models import SYNTHETIC_SUFFIX, find_exactly, resolve
    from qwen_edge.session.settings import Settings

    size = values.text("synthetic")
    if size is None:
        named = Settings.load(flags).values.get("model")
        if not resolve(str(named.value) if named else None).note_due:
            yield None
            return
        size = _SYNTHETIC
    elif flags["model"] is not None:
        raise UsageError("--synthetic and --model exclude each other.", "Give one of them.")
    size = size.lower() if size.lower().startswith("qwen3-") else f"qwen3-{size.lower()}"
    ready = find_exactly(size + SYNTHETIC_SUFFIX)
    if ready is not None:
        yield ready
        return
    note(
        "A model of the shape {size} with random weights is made for the measurement and deleted "
        "afterwards: its speed and memory are a real one's, its answers are noise.",
        size=size,
    )
    with contextlib.ExitStack() as stack:
        with _stoppable_progress(stop) as progress:
            path = stack.enter_context(synthetic_model(size, data_folder(), progress))
        yield path


@contextlib.contextmanager
def _stoppable_progress(stop: StopRequest) -> Iterator[Callable[[int, int, str], None]]:
    from qwen_edge.cli.file_progress import file_progress

    with file_progress("Writing") as progress:

        def update(done: int, total: int, name: str) -> None:
            stop.check()
            progress(done, total, name)

        yield update


class _Watcher:
    """Shows on standard error what is being measured, and stops for Ctrl-C."""

    def __init__(self, bar: Progress, stop: StopRequest, started: float) -> None:
        self.planned = 0.0
        self.setup = SetupView()
        self._bar, self._stop, self._started = bar, stop, started
        self._label = ""

    def begin(self, part: Part) -> None:
        """See ``session.bench.Watcher``."""
        self._label = part_name(part)
        self.poll()

    def poll(self) -> None:
        """See ``session.bench.Watcher``."""
        self._stop.check()
        passed = time.monotonic() - self._started
        self._bar.describe(self._label, max(round(self.planned), 1))
        self._bar.update(min(int(passed), round(self.planned)))


def _clock(seconds: int) -> str:
    return f"{seconds // 60}:{seconds % 60:02}"


def _show(report: Report, values: Values, plot: Path | None) -> None:
    if values.switch("json"):
        import json

        out(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    elif report.kind == "engines":
        from qwen_edge.cli.bench_engines_view import engines_markdown, show_engines

        (engines_markdown if values.switch("markdown") else show_engines)(report)
    else:
        from qwen_edge.cli.bench_view import show_markdown, show_report

        (show_markdown if values.switch("markdown") else show_report)(report)
    if plot is not None:
        from qwen_edge.cli.bench_plot import write_plot

        write_plot(report, plot)
        note("The plot is in {path}.", path=plot)
    if not report.complete:
        note("Broken off: this is what was measured until then.")
