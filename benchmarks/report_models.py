"""What the report says of converting models, and of the larger ones."""

from __future__ import annotations

from statistics import median

from benchmarks.records import Records
from benchmarks.spread import plain, table


def conversion_section(records: Records) -> list[str]:
    """Memory and time of conversions, and what is left of those that are killed."""
    record = records.record("convert")
    rows = []
    for case in record["cases"]:
        weights = f"{case['codebook']}, groups of {case['group']}"
        peak = f"{plain(case['peak_mb'], 4)} ({plain(case['peak_anonymous_mb'], 4)})"
        seconds = f"{plain(case['cpu_seconds'])} s, {case['threads']} thread(s)"
        size = f"{plain(case['size_mb'], 4)} MB"
        rows.append((case["size"], case["method"], weights, peak, seconds, size))
    head = ("size", "method", "weights", "peak MB (its own)", "processor time", "model file")
    note = (
        "`python -m benchmarks.convert_memory --size SIZE --method METHOD`: whole models of random "
        "weights, bf16 to 4 bits. The peak counts mapped pages of the source; in parentheses what "
        "is the process's own."
    )
    lines = ["", "## Conversion", "", note, "", *table(head, rows)]
    for kills in record.get("kills", []):
        found = ", ".join(f"{what} {count} times" for what, count in kills["found"].items())
        lines += [
            "",
            f"`python -m benchmarks.convert_kills --size {kills['size']} --kills {kills['kills']} "
            f"--method {kills['method']}`: SIGKILL at {kills['kills']} random moments of a "
            f"conversion, every other time with an older file in its place, left {found}; each "
            "time a rerun made the same bytes as an undisturbed conversion and left no temporary "
            "file.",
        ]
    return lines


def larger_section(records: Records) -> list[str]:
    """Answers of the larger sizes."""
    rows = []
    for row in records.record("larger")["answers"]:
        used = row["prompt_tokens"] + row["answer_tokens"]
        peak, predicted = row["peak_bytes"], row["predicted_bytes"]
        # A token is decoded with half of the answer in the cache, in the middle.
        depth = used - row["answer_tokens"] / 2
        read = row["model_bytes"] + depth * row["kv_bytes_per_token"]
        share = row["decode_tokens_per_second"] * read / median(row["bandwidth"])
        rows.append(
            (
                row["size"],
                f"{used:,} of {row['context']:,}",
                plain(peak / 1e6, 4),
                f"{plain(predicted / 1e6, 4)} ({100 * (predicted / peak - 1):+.1f} %)",
                plain(row["first_token_seconds"] + row["load_seconds"]),
                plain(row["prefill_tokens_per_second"]),
                f"{plain(row['decode_tokens_per_second'])} ({100 * share:.0f} %)",
            )
        )
    head = (
        "size", "tokens in use", "peak MB", "predicted MB", "load and first token, s",
        "prefill, tokens/s", "decode, tokens/s (of the bandwidth)",
    )  # fmt: skip
    note = (
        "`python -m benchmarks.larger --size SIZE`: INT4 with random weights, one answer of "
        "`qwen-edge run` each, INT8 cache. The peak is the whole process's, mapped weights "
        "included."
    )
    return ["", "## Larger models", "", note, "", *table(head, rows)]
