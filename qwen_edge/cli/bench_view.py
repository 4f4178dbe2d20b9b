"""A benchmark's result on the terminal and as Markdown, and two results side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qwen_edge.cli.bench_values import (
    BARS,
    LISTS,
    amount,
    article_rows,
    figure,
    part_name,
    remark_text,
    spread,
    subject,
    value_range,
)
from qwen_edge.cli.language import translate
from qwen_edge.cli.report import heading, markdown_table, paragraph
from qwen_edge.cli.terminal import note, out, table, width
from qwen_edge.cli.text_cells import cell_width, padded
from qwen_edge.session.bench_compare import compare
from qwen_edge.session.bench_result import Measure, Report

# From this width on ranges are written out rather than as a percentage.
_WIDE = 72
_SHORTEST_BAR, _LONGEST_BAR = 6, 40


def show_report(report: Report) -> None:
    """Writes the result as headings, bars and figures that fit the terminal."""
    for line in subject(report):
        paragraph(line)
    if report.kind == "article":
        _show_article(report)
    else:
        _show_list(*LISTS[0], report)
        for title, key in BARS:
            _show_bars(title, [m for m in report.measures if m.key == key], report)
        for title, keys in LISTS[1:]:
            _show_list(title, keys, report)
    if report.remarks:
        out("")
    for remark in report.remarks:
        paragraph(remark_text(remark), 2, "-")


def _show_article(report: Report) -> None:
    heading("One question, ten answers of 256 tokens")
    rows = [(translate(name), value) for name, value in article_rows(report)]
    _aligned([(name, value, "") for name, value in rows])
    speeds = report.find("answer-speed")
    if speeds is not None:
        heading("The repeats, tokens/s")
        unit = speeds.quantity.unit
        lines = [(f"{i + 1}", value, amount(unit, value)) for i, value in enumerate(speeds.samples)]
        _bars(lines)


def _show_list(title: str, keys: Sequence[str], report: Report) -> None:
    measures = [m for m in report.measures if m.key in keys]
    if not measures:
        return
    heading(title)
    wide = width() >= _WIDE
    rows = []
    for measure in measures:
        more = value_range(measure) if wide else spread(measure)
        rows.append((part_name(measure.part), figure(measure), more))
    _aligned(rows)


def _aligned(rows: Sequence[tuple[str, str, str]]) -> None:
    """Names, values and what else is known; values below the names where it is narrow."""
    names = max(cell_width(name) for name, _, _ in rows)
    values = max(cell_width(value) for _, value, _ in rows)
    columns = width()
    for name, value, more in rows:
        right = " " * (values - cell_width(value)) + value
        if names + 2 + values > columns:
            out(name)
            out(f"  {value}  {more}".rstrip())
            continue
        line = f"{padded(name, names)}  {right}"
        fits = more and cell_width(line) + 2 + cell_width(more) <= columns
        out(f"{line}  {more}" if fits else line)


def _show_bars(title: str, measures: Sequence[Measure], report: Report) -> None:
    if not measures:
        return
    heading(title)
    wide = width() >= _WIDE
    lines = []
    sizes = max(len(amount("tokens/s", m.median)) for m in measures)
    for measure in measures:
        figures = amount("tokens/s", measure.median).rjust(sizes)
        share = report.find("decode-share", measure.size) if measure.key == "decode" else None
        if share is not None:
            figures += f" {share.median:3.0f}%"
        more = value_range(measure) if wide else spread(measure)
        lines.append((f"{measure.size:,}", measure.median, f"{figures} {more}".rstrip()))
    _bars(lines)
    if any(m.key == "decode" for m in measures) and report.find("bandwidth"):
        paragraph(translate("%: bytes of weights and cache, as a share of the read bandwidth"))


def _bars(lines: Sequence[tuple[str, float, str]]) -> None:
    """Label, value, figures: the figures after a bar as long as the value."""
    labels = max(len(label) for label, _, _ in lines)
    figures = max(cell_width(text) for _, _, text in lines)
    room = width() - labels - figures - 3
    longest = min(max(room, _SHORTEST_BAR), _LONGEST_BAR)
    greatest = max(value for _, value, _ in lines) or 1.0
    for label, value, text in lines:
        out(label.rjust(labels), end=" ")
        out(padded(_bar(value / greatest * longest), longest), end=" ", style="cyan")
        out(text)


def _bar(length: float) -> str:
    """A bar to half a character where the terminal can show it."""
    halves = max(round(2 * length), 1)
    encoding = (sys.stdout.encoding or "").lower().replace("-", "") if sys.stdout else ""
    if encoding.startswith("utf"):
        return "█" * (halves // 2) + "▌" * (halves % 2)
    return "#" * max(halves // 2, 1)


def show_markdown(report: Report) -> None:
    """Writes the result as Markdown: the subject, a table, what was left out."""
    for line in subject(report):
        out(f"{line}  ")
    out("")
    if report.kind == "article":
        markdown_table(
            ("what", "value"), [(translate(name), value) for name, value in article_rows(report)]
        )
        speeds = report.find("answer-speed")
        if speeds is not None:
            out("")
            repeats = ", ".join(amount("tokens/s", speed) for speed in speeds.samples)
            out(f"{translate('The repeats, tokens/s')}: {repeats}")
    else:
        markdown_table(("what", "median", "range", "samples"), [_row(m) for m in report.measures])
    for remark in report.remarks:
        out("")
        out(f"- {remark_text(remark)}")


def _row(measure: Measure) -> tuple[str, ...]:
    name = part_name(measure.part)
    return name, figure(measure), value_range(measure).strip("()"), str(len(measure.samples))


def show_comparison(
    names: Sequence[str], first: Report, second: Report, *, as_markdown: bool
) -> None:
    """Writes two results side by side, with a verdict where they differ beyond the noise."""
    for name, report in zip(("A", "B"), (first, second), strict=True):
        model, settings = report.model, report.settings
        paragraph(
            f"{name}: {names[0] if name == 'A' else names[1]}: {model.get('name')}, "
            f"{settings.get('threads')} × {settings.get('isa')}, KV {settings.get('kv')}, "
            f"qwen-edge {report.version}"
        )
    out("")
    rows = []
    for line in compare(first, second):
        known = line.first or line.second
        assert known is not None
        rows.append(
            (
                part_name(known.part),
                _value(line.first),
                _value(line.second),
                "" if line.change is None else f"{line.change:+.0%}",
                translate(_VERDICTS[line.verdict]),
            )
        )
    titles = ("what", "A", "B", "change", "verdict")
    if as_markdown:
        markdown_table(titles, rows)
    elif width() >= _WIDE:
        table(rows, titles)
    else:
        for what, a, b, change, verdict in rows:
            out(f"{what}: {verdict}" if verdict else what)
            out(f"  {a} → {b}  {change}".rstrip())
    _comparison_notes(first, second)


# What a comparison finds, in words; what is within the noise is not marked.
_VERDICTS = {
    "": "",
    "noise": "",
    "unclear": "too few samples",
    "faster": "faster",
    "slower": "slower",
    "less": "less",
    "more": "more",
}


def _value(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    return f"{amount(measure.quantity.unit, measure.median)} {spread(measure)}".rstrip()


def _comparison_notes(first: Report, second: Report) -> None:
    """Says what makes the two results differ beside the thing that is compared."""
    note("B against A; what has no verdict is within the noise.")
    if first.kind != second.kind:
        note("The results are of different procedures: their rows differ.")
    if first.model.get("name") != second.model.get("name"):
        note("The models differ.")
    machine = [
        tuple(report.device.get(key) for key in ("name", "processor", "cores", "memory"))
        for report in (first, second)
    ]
    if machine[0] != machine[1]:
        note("The machines differ: this compares them as much as anything else.")
    if dict(first.settings) != dict(second.settings):
        note("The settings differ.")
    a, b = first.find("bandwidth"), second.find("bandwidth")
    if a and b and a.median and abs(b.median / a.median - 1) >= 0.05:
        note(
            "The machine's read bandwidth was {change:+.0%} in B: as much of a difference may be "
            "the machine's.",
            change=b.median / a.median - 1,
        )
    if not (first.complete and second.complete):
        note("A result was broken off before its end.")
