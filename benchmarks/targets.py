"""What was aimed at, and whether the results reach it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.engines import COMPILED, NATIVE, NF4, decode_ratio, samples
from benchmarks.records import MissingError, Records
from benchmarks.spread import Spread, plain, spread

OURS = "qwen-edge INT8 KV"
OURS_INT4 = "qwen-edge INT4 KV"
LLAMA_TYPES = ("llama.cpp Q4_0, Q4_0 head", "llama.cpp Q4_0", "llama.cpp Q4_K_M")
LLAMA = "llama.cpp default"
LLAMA_BEST = "llama.cpp -fa 0, f16 KV"
OPENVINO = "OpenVINO GenAI INT4"


@dataclass(frozen=True)
class Target:
    """One thing aimed at.

    Attributes:
        what: for people.
        sign: ``>=``, ``<=`` or ``<``.
        bound: of the median.
        unit: ``x``, ``%``, ``ms``, ``s``, ``MB``.
        figure: the measured median and range, and against what, if that is not in ``what``.
    """

    what: str
    sign: str
    bound: float
    unit: str
    figure: Callable[[Records], tuple[Spread, str]]


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    what: str
    wanted: str
    measured: str
    verdict: str


SIGNS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


def outcome(target: Target, records: Records) -> Outcome:
    """Holds a target against the results; ``not measured`` says why."""
    unit = f" {target.unit}"
    wanted = f"{target.sign} {target.bound:g}{unit}"
    try:
        figure, note = target.figure(records)
    except MissingError as error:
        return Outcome(target.what, wanted, f"not measured ({error})", "open")
    met = SIGNS[target.sign](figure.middle, target.bound)
    measured = figure.text(unit=unit) + (f", {note}" if note else "")
    return Outcome(target.what, wanted, measured, "met" if met else "**missed**")


def _against(part: str, ours: str, *theirs: str) -> Callable[[Records], tuple[Spread, str]]:
    """The ratio to the best of several; its label is the note when there was a choice."""

    def figure(records: Records) -> tuple[Spread, str]:
        best = records.best(part, theirs)
        return records.ratio(part, ours, best), f"to {best}" if len(theirs) > 1 else ""

    return figure


def _scaled(values: Spread, factor: float) -> Spread:
    return Spread(values.middle * factor, values.low * factor, values.high * factor)


def _share(part: str, depth: int = 0, tokens: int = 128) -> Callable[[Records], tuple[Spread, str]]:
    """Percent of the bandwidth that decoding uses: weights, and the KV read on average."""

    def figure(records: Records) -> tuple[Spread, str]:
        weights = records.opened(part, OURS, "weight_bytes")
        cache = records.opened(part, OURS, "kv_bytes_per_token") * (depth + tokens / 2)
        around = median(records.record(f"peers-{part}")["bandwidth"][OURS])
        share = records.bandwidth_share(part, OURS, weights + cache)
        return _scaled(share, 100), f"of {plain(around / 1e9)} GB/s"

    return figure


def _peak_share(part: str) -> Callable[[Records], tuple[Spread, str]]:
    """Percent of the INT8 peak that a prefill's linear layers use; all else counts as loss."""

    def figure(records: Records) -> tuple[Spread, str]:
        weights = records.opened(part, OURS, "linear_weights")
        peak = records.record(f"peers-{part}")["peak"]
        rates = records.samples(part, OURS)
        share = spread([100 * r * weights / p for r, p in zip(rates, peak, strict=True)])
        return share, f"of {plain(median(peak) / 1e12)} T multiply-adds a second"

    return figure


def _memory_over(records: Records) -> tuple[Spread, str]:
    record = records.record("peers-peak-memory")
    floor = record["weight_bytes"] + record["kv_bytes"]
    over = [(peak - floor) / 1e6 for peak in records.samples("peak-memory", OURS)]
    return spread(over), f"weights and tokenizer {plain(record['weight_bytes'] / 1e6)} MB, KV " + (
        f"{plain(record['kv_bytes'] / 1e6)} MB"
    )


def _nf4_memory(records: Records) -> tuple[Spread, str]:
    memory = records.record("peers-transformers")["memory"]
    if "bitsandbytes NF4" not in memory:
        raise MissingError("bitsandbytes NF4 was not measured")
    ours, theirs = (memory[label]["VmHWM"] for label in (OURS, "bitsandbytes NF4"))
    return spread([ours / theirs]), ""


def _sampler(records: Records) -> tuple[Spread, str]:
    return _scaled(records.spread("sampler", "qwen-edge"), 1e3), ""


def _lookup(copies: bool) -> Callable[[Records], tuple[Spread, str]]:
    """The task of its kind that gains the least from drafts."""

    def figure(records: Records) -> tuple[Spread, str]:
        # Those of the 0.6B shape have a prompt; the demo model's are for the table alone.
        tasks = records.record("lookup")["tasks"]
        tasks = [t for t in tasks if t["copies"] == copies and "prompt" in t]
        least = min(tasks, key=lambda task: median(task["ratios"]))
        return spread(least["ratios"]), f"least of {len(tasks)} tasks: {least['task']}"

    return figure


def _depths() -> Iterator[Target]:
    for depth, tokens, bound in ((2048, 32, 2.0), (8192, 16, 2.2)):
        part = f"decode-depth-{depth}"
        where = f"decode at depth {depth:,}, INT8 KV"
        best = _against(part, OURS, LLAMA_BEST, LLAMA)
        yield Target(f"{where}: llama.cpp's best setting", ">=", bound, "x", best)
        if depth == 8192:
            yield Target(f"{where}: llama.cpp's default", ">=", 6, "x", _against(part, OURS, LLAMA))
        share = _share(part, depth, tokens)
        yield Target(f"{where}: bandwidth, weights and KV", ">=", 75, "%", share)
    int4 = _against("decode-depth-8192", OURS_INT4, OURS)
    yield Target("decode at depth 8,192: INT4 KV over INT8 KV", ">=", 1.2, "x", int4)


def _prefills() -> Iterator[Target]:
    for tokens in (512, 2048, 8192):
        part = f"prefill-{tokens}"
        best = _against(part, OURS, LLAMA, LLAMA_BEST)
        yield Target(f"prefill of {tokens:,}: llama.cpp's best setting", ">=", 2.3, "x", best)
        if tokens == 512:
            vino = _against(part, OURS, OPENVINO)
            yield Target(f"prefill of {tokens}: OpenVINO GenAI", ">=", 1.0, "x", vino)
            peak = _peak_share(part)
            yield Target(f"prefill of {tokens}: INT8 peak of the cores", ">=", 80, "%", peak)


def _engine_ratio(other: str) -> Callable[[Records], tuple[Spread, str]]:
    return lambda records: (decode_ratio(records, COMPILED, other), "")


def _engine_start(key: str) -> Callable[[Records], tuple[Spread, str]]:
    return lambda records: (spread(samples(records, key, COMPILED)), "")


def _engines() -> Iterator[Target]:
    yield Target(f"{COMPILED}, decode: {NATIVE}", ">=", 0.75, "x", _engine_ratio(NATIVE))
    nf4 = f"{COMPILED}, decode: transformers with bitsandbytes NF4"
    yield Target(nf4, ">=", 5, "x", _engine_ratio(NF4))
    first = f"{COMPILED}, process to first token: "
    yield Target(f"{first}nothing compiled", "<", 25, "s", _engine_start("first-token-ever"))
    yield Target(f"{first}compiled before", "<", 4, "s", _engine_start("first-token-cold"))


def targets() -> list[Target]:
    """All of them; two threads unless one is named."""
    memory = "peak memory, 2,048 tokens"
    two, one = "decode-2-threads", "decode-1-threads"
    best = (OURS, *LLAMA_TYPES)
    avx2 = "kernels for AVX2 and llama.cpp built for AVX2"
    return [
        Target("decode: llama.cpp's best 4-bit type", ">=", 2.0, "x", _against(two, *best)),
        Target("decode: read bandwidth", ">=", 85, "%", _share(two)),
        Target("decode, 1 thread: llama.cpp's best", ">=", 2.0, "x", _against(one, *best)),
        *_depths(),
        *_prefills(),
        Target(
            "8 sequences: one sequence", ">=", 4, "x",
            _against("batches", "qwen-edge, 8", "qwen-edge, 1"),
        ),
        Target(
            "8 sequences: llama.cpp with 8", ">=", 2.5, "x",
            _against("batches", "qwen-edge, 8", "llama.cpp, 8"),
        ),
        Target(
            "cold process to first token: llama.cpp's leanest", "<=", 0.5, "x",
            _against("first-token", "qwen-edge", "llama.cpp, leanest"),
        ),
        Target(
            f"{memory}: llama.cpp's default", "<=", 0.6, "x",
            _against("peak-memory", OURS, "llama.cpp, repacked (default)"),
        ),
        Target(
            f"{memory}: llama.cpp's leanest", "<=", 0.85, "x",
            _against("peak-memory", OURS, "llama.cpp, leanest"),
        ),
        Target(f"{memory}: beyond weights and KV", "<=", 60, "MB", _memory_over),
        Target("drafts where answers copy: without drafts", ">=", 1.8, "x", _lookup(True)),
        Target("drafts elsewhere: without drafts", ">=", 0.97, "x", _lookup(False)),
        Target("sampler, top-k 20, top-p 0.95, 151,936 logits", "<", 0.15, "ms", _sampler),
        Target(
            f"decode, {avx2}", ">=", 1.2, "x",
            _against("avx2", "qwen-edge avx2, decode", "llama.cpp AVX2, decode"),
        ),
        Target(
            f"prefill of 512, {avx2}", ">=", 1.2, "x",
            _against("avx2", "qwen-edge avx2, prefill", "llama.cpp AVX2, prefill"),
        ),
        Target(
            "decode: bitsandbytes NF4", ">=", 10, "x",
            _against("transformers", OURS, "bitsandbytes NF4"),
        ),
        Target("peak memory: bitsandbytes NF4", "<=", 0.2, "x", _nf4_memory),
        *_engines(),
    ]  # fmt: skip
