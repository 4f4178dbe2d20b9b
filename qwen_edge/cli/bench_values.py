"""How the figures of a benchmark are written, and what belongs together."""

from __future__ import annotations

from collections.abc import Mapping

from qwen_edge.cli.language import localized, translate
from qwen_edge.host.sizes import format_size
from qwen_edge.session.bench_result import QUANTITIES, Measure, Part, Remark, Report

# Headings and the measures under them; those with bars have their size as label.
BARS = (
    ("Prefill, tokens/s", "prefill"),
    ("Decode at depth, tokens/s", "decode"),
    ("Sequences at once, tokens/s", "batch"),
)
LISTS = (
    ("Start", ("load", "first-token-cold", "first-token-warm")),
    ("Memory", ("peak-memory", "memory-at-depth")),
    ("Stability", ("turn-speed", "speed-drift", "memory-growth", "leak")),
    ("Machine", ("bandwidth", "processor-share", "temperature")),
)


def part_name(part: Part) -> str:
    """A part in the user's language."""
    name = localized(QUANTITIES[part.key].name, {"size": part.size})
    return f"{translate(part.engine)}: {name}" if part.engine else name


def figure(measure: Measure) -> str:
    """The median with its unit."""
    unit = measure.quantity.unit
    value = amount(unit, measure.median)
    return f"{value} {translate('tokens/s')}" if unit == "tokens/s" else value


def amount(unit: str, value: float) -> str:
    """A value with its unit, two to four figures; without it where a heading has the unit."""
    if unit == "s":
        return f"{value * 1000:.{_places(value * 1000)}f} ms" if value < 1 else f"{value:.2f} s"
    if unit == "tokens/s":
        return f"{value:,.{_places(value)}f}"
    if unit == "bytes/s":
        return f"{value / 1e9:.1f} GB/s"
    if unit == "bytes":
        return format_size(round(value))
    if unit == "bytes/hour":
        return f"{format_size(round(value))}/h"
    return f"{value:.{_places(value)}f} {unit}"


def _places(value: float) -> int:
    return 0 if abs(value) >= 99.95 else 1


def spread(measure: Measure) -> str:
    """Half the range as a percentage; empty for a single sample."""
    return f"±{measure.spread:.0%}" if len(measure.samples) > 1 else ""


def value_range(measure: Measure) -> str:
    """Least and greatest sample; empty for a single sample."""
    if len(measure.samples) < 2:
        return ""
    unit = measure.quantity.unit
    return f"({amount(unit, min(measure.samples))} – {amount(unit, max(measure.samples))})"


def subject(report: Report) -> list[str]:
    """What was measured, on what and how: lines without a break."""
    model, settings, device = report.model, report.settings, report.device
    values = {
        "model": model.get("name"),
        "bits": _inner(model, "quantization").get("bits"),
        "size": _size(model.get("bytes")),
        "read": _size(model.get("bytes_per_token")),
        "processor": device.get("name") or device.get("processor") or device.get("machine"),
        "cores": device.get("cores"),
        "memory": _size(device.get("memory")),
        "threads": settings.get("threads"),
        "prefill_threads": settings.get("prefill_threads"),
        "isa": settings.get("isa"),
        "kv": settings.get("kv"),
    }
    lines = [
        localized("{model}, {bits} bits, {size}; {read} are read for a token", values),
        localized("{processor}, {cores} cores, {memory}", values),
        localized("{threads} threads ({prefill_threads} for prefill), {isa}, KV {kv}", values),
    ]
    if str(model.get("source", "")).startswith("random"):
        lines.append(
            translate("Random weights: the speed is a real model's, the answers are noise.")
        )
    return lines


def remark_text(remark: Remark) -> str:
    """A remark in the user's language."""
    return localized(
        remark.template, {key: _remarked(value) for key, value in remark.values.items()}
    )


def _remarked(value: object) -> object:
    if isinstance(value, Part):
        return part_name(value)
    return remark_text(value) if isinstance(value, Remark) else value


def article_rows(report: Report) -> list[tuple[str, str]]:
    """The rows of the published table: names (templates) and values."""
    speeds = report.find("answer-speed")
    rows = [
        ("load time", _median(report, "load")),
        ("first token latency", _median(report, "first-token-warm")),
    ]
    if speeds is not None:
        mean = sum(speeds.samples) / len(speeds.samples)
        for name, value in (
            ("mean speed", mean),
            ("least speed", min(speeds.samples)),
            ("greatest speed", max(speeds.samples)),
        ):
            rows.append((name, f"{value:.1f} {translate('tokens/s')}"))
    peak = report.find("peak-memory")
    if peak is not None:
        rows.append(("peak memory", amount("bytes", max(peak.samples))))
    rows.append(("processor share of all cores", _median(report, "processor-share")))
    warmth = report.find("temperature")
    if warmth is not None:
        rows.append(("battery", " → ".join(amount("°C", value) for value in warmth.samples)))
    return [(name, value) for name, value in rows if value]


def _median(report: Report, key: str) -> str:
    measure = report.find(key)
    return amount(measure.quantity.unit, measure.median) if measure else ""


def _inner(table: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = table.get(key)
    return found if isinstance(found, dict) else {}


def _size(value: object) -> str:
    return format_size(value) if isinstance(value, int) else "?"
