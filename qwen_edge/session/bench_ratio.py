"""What a benchmark of several engines says when they are held against each other."""

from __future__ import annotations

from qwen_edge.session.bench_result import Report, median


def engines_of(report: Report) -> list[str]:
    """The engines with a result, in the order in which they took their turns."""
    return list(dict.fromkeys(one.engine for one in report.measures if one.engine))


def prefill_size(report: Report) -> int | None:
    """Tokens of the prompts that were measured; None if none was."""
    sizes = [one.size for one in report.measures if one.key == "prefill" and one.engine]
    return sizes[0] if sizes else None


def ratio_to_first(report: Report, engine: str) -> float | None:
    """An engine's speed of decoding over the first one's: the median of the turns' ratios."""
    engines = engines_of(report)
    first = report.find("decode", 0, engines[0]) if engines else None
    own = report.find("decode", 0, engine)
    if first is None or own is None:
        return None
    # One of them may have had fewer turns; those that both had count.
    pairs = zip(own.samples, first.samples, strict=False)
    return median([ours / theirs for ours, theirs in pairs])
