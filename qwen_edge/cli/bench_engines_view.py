"""Engines side by side: a row for each, on the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.cli.bench_values import amount, remark_text, subject
from qwen_edge.cli.language import localized, translate
from qwen_edge.cli.report import heading, markdown_table, paragraph
from qwen_edge.cli.terminal import out, table
from qwen_edge.session.bench_ratio import engines_of, prefill_size, ratio_to_first
from qwen_edge.session.bench_result import Report

_TITLES = ("engine", "ready", "1st token", "prefill", "decode", "ratio", "memory", "packages")


def show_engines(report: Report) -> None:
    """Writes the table, blocks of lines where it does not fit, and what was left out."""
    for line in subject(report):
        paragraph(line)
    heading("Engines side by side")
    table(_rows(report), _TITLES)
    out("")
    for line in _notes(report):
        paragraph(line)
    for remark in report.remarks:
        paragraph(remark_text(remark), 2, "-")


def engines_markdown(report: Report) -> None:
    """Writes the same as Markdown."""
    for line in subject(report):
        out(f"{line}  ")
    out("")
    markdown_table(_TITLES, _rows(report))
    out("")
    out(" ".join(_notes(report)))
    for remark in report.remarks:
        out("")
        out(f"- {remark_text(remark)}")


def _rows(report: Report) -> list[Sequence[str]]:
    prefill = prefill_size(report)
    rows: list[Sequence[str]] = []
    for engine in engines_of(report):
        parts = (
            ("ready", None), ("first-token-cold", None), ("prefill", prefill), ("decode", 0),
        )  # fmt: skip
        cells = [_cell(report, key, size, engine) for key, size in parts]
        ratio = ratio_to_first(report, engine)
        cells.append("-" if ratio is None else f"{ratio:.{2 if ratio >= 0.1 else 3}f}")
        cells += [_cell(report, key, None, engine) for key in ("process-peak", "packages")]
        rows.append((translate(engine), *cells))
    return rows


def _cell(report: Report, key: str, size: int | None, engine: str) -> str:
    measure = report.find(key, size, engine)
    return "-" if measure is None else amount(measure.quantity.unit, measure.median)


def _notes(report: Report) -> list[str]:
    """What the columns mean."""
    engines, prefill = engines_of(report), prefill_size(report)
    if not engines:
        return []
    bandwidth = report.find("bandwidth")
    lines = [
        localized(
            "ready, 1st token: from the start of a process. prefill ({tokens} tokens), decode: "
            "tokens/s. ratio: decode, turn by turn, to {first}. memory: the process's peak. "
            "packages: on this disk.",
            {"tokens": prefill or "-", "first": translate(engines[0])},
        )
    ]
    if bandwidth is not None:
        speed = amount("bytes/s", bandwidth.median)
        lines.append(localized("Read bandwidth between the turns: {speed}.", {"speed": speed}))
    return lines
