"""A benchmark's result as a drawing: SVG by hand, PNG where matplotlib is there."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from qwen_edge.cli.bench_values import BARS, amount, article_rows, subject
from qwen_edge.cli.language import translate
from qwen_edge.errors import UsageError
from qwen_edge.model.replacing_file import ReplacingFile
from qwen_edge.session.bench_result import Report

_WIDTH, _LINE, _BAR, _MARGIN, _LABEL = 640, 22, 14, 24, 60
_LONGEST = _WIDTH - 2 * _MARGIN - _LABEL - 170
_COLORS = ("#2f6f9f", "#3f8f5f", "#9f6f2f")


class Bar(NamedTuple):
    """One bar: what it stands for, its median with least and greatest, and the text beside it."""

    label: str
    value: float
    least: float
    greatest: float
    text: str


def check_path(path: Path) -> Path:
    """Returns the path if a drawing can be written there.

    Raises:
        UsageError: the ending is another, the folder is not there, or PNG cannot be drawn here.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise UsageError("{path} ends in neither .svg nor .png.", "Name a .svg file.", path=path)
    if not path.absolute().parent.is_dir():
        raise UsageError(
            "There is no folder {path}.", "Make it first.", path=path.absolute().parent
        )
    if path.suffix.lower() == ".png" and importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "Drawing a PNG needs matplotlib, which is not installed.", "Name a .svg file."
        )
    return path


def write_plot(report: Report, path: Path) -> None:
    """Draws a result.

    Raises:
        QwenEdgeError: the file cannot be written.
    """
    data = draw_svg(report).encode() if path.suffix.lower() == ".svg" else _draw_png(report)
    with ReplacingFile(path, len(data)) as file:
        file.write(data, 0)
        file.commit(lambda _: None)


def groups(report: Report) -> list[tuple[str, list[Bar]]]:
    """Titles in the user's language, and their bars."""
    if report.kind == "article":
        speeds = report.find("answer-speed")
        samples = speeds.samples if speeds else ()
        bars = [
            Bar(str(i + 1), value, value, value, amount("tokens/s", value))
            for i, value in enumerate(samples)
        ]
        return [(translate("The repeats, tokens/s"), bars)] if bars else []
    found = []
    for title, key in BARS:
        bars = []
        for one in (one for one in report.measures if one.key == key):
            text = amount("tokens/s", one.median)
            share = report.find("decode-share", one.size) if key == "decode" else None
            if share is not None:
                text += f" ({share.median:.0f} %)"
            least, greatest = min(one.samples), max(one.samples)
            bars.append(Bar(f"{one.size:,}", one.median, least, greatest, text))
        if bars:
            found.append((translate(title), bars))
    return found


def draw_svg(report: Report) -> str:
    """The result as an SVG document: bars with their ranges as whiskers."""
    parts: list[str] = []
    y = _MARGIN + 8
    for line, text in enumerate(_captions(report)):
        parts.append(_text(_MARGIN, y, text, size=16 if line == 0 else 12))
        y += _LINE
    for number, (title, bars) in enumerate(groups(report)):
        y += _LINE // 2
        parts.append(_text(_MARGIN, y, title, size=14))
        y += _LINE // 2
        parts += _bars(bars, y, _COLORS[number % len(_COLORS)])
        y += _LINE * len(bars) + _LINE // 2
    height = y + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _captions(report: Report) -> list[str]:
    lines = subject(report)
    if report.kind == "article":
        rows = [f"{translate(name)}: {value}" for name, value in article_rows(report)]
        return [*lines, *rows]
    return lines


def _bars(bars: Sequence[Bar], top: int, color: str) -> list[str]:
    scale = _LONGEST / (max(bar.greatest for bar in bars) or 1.0)
    left, parts = _MARGIN + _LABEL, []
    for number, bar in enumerate(bars):
        y = top + number * _LINE
        middle, end = y + _BAR / 2, left + bar.value * scale
        parts.append(_text(left - 8, y + 11, bar.label, anchor="end"))
        parts.append(
            f'<rect x="{left}" y="{y}" width="{bar.value * scale:.1f}" height="{_BAR}" '
            f'fill="{color}"/>'
        )
        if bar.greatest > bar.least:
            end = max(end, left + bar.greatest * scale)
            parts.append(
                f'<path d="M{left + bar.least * scale:.1f} {middle}H{end:.1f}" stroke="#222"/>'
            )
        parts.append(_text(end + 8, y + 11, bar.text))
    return parts


def _text(x: float, y: float, text: str, size: int = 12, anchor: str = "start") -> str:
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Characters that no XML document may hold.
    plain = "".join(c for c in plain if c >= " " and not "\ud800" <= c <= "\udfff")
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" text-anchor="{anchor}">{plain}</text>'


def _draw_png(report: Report) -> bytes:
    """The same bars by matplotlib."""
    figures = importlib.import_module("matplotlib.figure")
    found = groups(report)
    heights = [len(bars) + 1 for _, bars in found] or [1]
    figure = figures.Figure(figsize=(8, 1.4 + 0.4 * sum(heights)), layout="constrained")
    figure.suptitle("\n".join(_captions(report)), fontsize=9)
    axes = figure.subplots(len(found), squeeze=False, height_ratios=heights) if found else []
    for (title, bars), (axis,), color in zip(found, axes, _COLORS, strict=False):
        labels, values = [bar.label for bar in bars], [bar.value for bar in bars]
        whiskers = [[b.value - b.least for b in bars], [b.greatest - b.value for b in bars]]
        drawn = axis.barh(labels, values, xerr=whiskers, color=color)
        axis.bar_label(drawn, [bar.text for bar in bars], padding=6, fontsize=8)
        axis.invert_yaxis()
        axis.set_title(title, loc="left", fontsize=10)
        axis.margins(x=0.2)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
