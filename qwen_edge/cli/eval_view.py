"""An evaluation's result on the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from qwen_edge.cli.language import localized, translate
from qwen_edge.cli.report import heading, markdown_table, named_values, paragraph
from qwen_edge.cli.terminal import out, table
from qwen_edge.host.sizes import format_size
from qwen_edge.session.eval_result import (
    Choices,
    Divergence,
    Estimate,
    Perplexity,
    Report,
    Tally,
    interval,
)

_TITLES = ("category", "right", "accuracy", "95 %")


def as_text(report: Report) -> str:
    """The report as JSON."""
    return json.dumps(report.as_json(), indent=1, ensure_ascii=False, allow_nan=False)


def write_json(report: Report, path: Path) -> None:
    """Writes the report to a file, which appears when it is whole.

    Raises:
        QwenEdgeError: it cannot be written.
    """
    from qwen_edge.model.replacing_file import ReplacingFile

    data = (as_text(report) + "\n").encode()
    with ReplacingFile(path, len(data)) as file:
        file.write(data, 0)
        file.commit(lambda path: None)


def show_report(report: Report) -> None:
    """Writes headings and figures that fit the terminal."""
    for line in _subject(report):
        paragraph(line)
    if report.perplexity is not None:
        heading("Perplexity")
        named_values(_perplexity_rows(report.perplexity))
    if report.divergence is not None:
        heading("Against the reference")
        paragraph(_reference_line(report.divergence))
        named_values(_divergence_rows(report.divergence))
    if report.choices is not None:
        heading("Accuracy")
        named_values(_choice_rows(report.choices))
        categories = _category_rows(report.choices)
        if categories:
            out("")
            table(categories, _TITLES)


def show_markdown(report: Report) -> None:
    """Writes what was evaluated and tables of the figures."""
    for line in _subject(report):
        out(f"{line}  ")
    rows: list[tuple[str, str]] = []
    if report.perplexity is not None:
        rows += _perplexity_rows(report.perplexity)
    if report.divergence is not None:
        out(f"{_reference_line(report.divergence)}  ")
        rows += _divergence_rows(report.divergence)
    if report.choices is not None:
        rows += _choice_rows(report.choices)
    out("")
    markdown_table(("what", "value"), [(translate(name), value) for name, value in rows])
    categories = _category_rows(report.choices) if report.choices is not None else []
    if categories:
        out("")
        markdown_table(_TITLES, categories)


def _subject(report: Report) -> list[str]:
    """What was evaluated, and how: lines without a break."""
    model, settings, source = report.model, report.settings, report.source
    quantization = model.get("quantization")
    values = {
        "model": model.get("name"),
        "file": model.get("file"),
        "bits": quantization.get("bits", "?") if isinstance(quantization, dict) else "?",
        "size": format_size(int(str(model.get("bytes", 0)))),
        **settings,
        **source,
    }
    lines = [
        localized("{file}: {model}, {bits} bits, {size}", values),
        localized("KV {kv}, activations {activations}, {isa}", values),
    ]
    if "adapter" in model:
        lines.insert(1, localized("with the adapter {adapter}", model))
    if report.choices is not None:
        lines.append(localized("{questions} questions, scoring: {scoring}", values))
    elif settings.get("stride"):
        lines.append(
            localized(
                "{tokens:,} tokens, windows of {context:,}, {stride:,} apart: {windows_done:,} of "
                "{windows:,}",
                values,
            )
        )
    else:
        lines.append(
            localized(
                "{tokens:,} tokens, windows of {context:,}, second halves scored: "
                "{windows_done:,} of {windows:,}",
                values,
            )
        )
    return lines


def _perplexity_rows(found: Perplexity) -> list[tuple[str, str]]:
    return [
        ("perplexity", _with_error(found.perplexity)),
        ("nats a token", _with_error(found.nats)),
        ("tokens scored", f"{found.tokens:,}"),
    ]


def _reference_line(found: Divergence) -> str:
    about = {"file": "?", "model": "?", "kv": "?", "activations": "?", **found.reference}
    if "adapter" in about:
        return localized(
            "{file}: {model} with the adapter {adapter}, KV {kv}, activations {activations}", about
        )
    return localized("{file}: {model}, KV {kv}, activations {activations}", about)


def _divergence_rows(found: Divergence) -> list[tuple[str, str]]:
    low, high = interval(found.same_top, found.positions)
    return [
        ("KL divergence, nats", _with_error(found.mean)),
        ("KL median", _figure(found.median)),
        ("KL 90th percentile", _figure(found.p90)),
        ("KL 99th percentile", _figure(found.p99)),
        ("KL maximum", _figure(found.largest)),
        (
            "same first choice",
            f"{found.same_top / found.positions:.2%} ({low:.2%} – {high:.2%})",
        ),
        ("its perplexity", _with_error(found.perplexity.perplexity)),
        ("perplexity ratio", _with_error(found.ratio)),
        ("change, nats a token", _with_error(found.change, signed=True)),
    ]


def _choice_rows(found: Choices) -> list[tuple[str, str]]:
    total = found.total
    return [
        ("right answers", f"{total.right:,} / {total.asked:,}"),
        ("accuracy", f"{total.accuracy:.1%} ({_interval(total)})"),
        ("guessing", f"{found.guessing:.1%}"),
    ]


def _category_rows(found: Choices) -> list[tuple[str, ...]]:
    return [
        (name, f"{tally.right:,}/{tally.asked:,}", f"{tally.accuracy:.1%}", _interval(tally))
        for name, tally in found.categories().items()
    ]


def _interval(tally: Tally) -> str:
    low, high = interval(tally.right, tally.asked)
    return f"{low:.1%} – {high:.1%}"


def _with_error(found: Estimate, *, signed: bool = False) -> str:
    """A figure to the place where its error begins, and one more."""
    if found.error == 0.0:
        # Of one sample, or of samples that are all alike.
        return f"{found.value:.6g}"
    value = f"{found.value:+.{_places(found)}f}" if signed else _figure(found.value, found)
    return f"{value} ± {_figure(found.error, found)}"


def _figure(value: float, found: Estimate | None = None) -> str:
    if value == 0.0:
        return "0"
    places = _places(found or Estimate(value, abs(value) / 100))
    return f"{value:,.{places}f}"


def _places(found: Estimate) -> int:
    """Digits behind the point: two of the error's own, from 2 to 6."""
    places = 2
    while places < 6 and found.error * 10.0**places < 9.5:
        places += 1
    return places
