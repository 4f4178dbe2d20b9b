"""What the report says of converting models, of the larger ones, and of other programs' files."""

from __future__ import annotations

import math

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
            f"conversion, every other time with an older file in its place, left {found} (new: "
            "killed after its renaming); each "
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
        share = row["decode_tokens_per_second"] * read / max(row["bandwidth"])
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
        "included; the bandwidth is the higher of those measured before and after. The machine "
        "was shared with other work, at a lower priority."
    )
    return ["", "## Larger models", "", note, "", *table(head, rows)]


AGREEMENT = """`python -m benchmarks.format_agreement`, {date}: llama.cpp quantizes the demo model;
both read the file, and take the most likely token at {positions:,} positions. The witness is
transformers in fp32 with the weights that the gguf package reads from the file. Both programs round
activations to 8 bits (llama.cpp those of K types by one scale for 256, qwen-edge by one for 32);
"ours, fp32" does not, and shows what taking the weights over cost. Matrices are held where their
codes are kept; scales are then rounded to fp16 at most. One position is {one:.2f} %, and the
standard error of 99 % is {deviation:.1f} %."""


def agreement_section(records: Records) -> list[str]:
    """Who says the same on GGUF files, and who is how far off."""
    record = records.record("format_agreement")
    reading, writing = record["reading"], record["writing"]
    pairs = ("agreement", "llama_and_witness", "ours_and_witness", "our_weights_and_witness")
    rows = []
    for kind, row in reading.items():
        bits = f"{row['gguf_bits']:.2f} to {row['our_bits']:.2f}"
        exact = f"{row['taken_over']} of {row['matrices']}"
        shares = [f"{100 * row[pair]:.2f} %" for pair in pairs]
        errors = [f"{100 * row[name]:.2f} %" for name in ("llama_logits_off", "our_logits_off")]
        weights = f"{100 * row['weights_off']:.2g} %"
        rows.append((kind.replace("_", "\\_"), bits, exact, weights, *shares, *errors))
    head = (
        "file", "bits a weight", "matrices held", "weights off", "llama.cpp = ours",
        "llama.cpp = witness", "ours = witness", "ours, fp32 = witness", "llama.cpp's logits off",
        "our logits off",
    )  # fmt: skip
    positions = next(iter(reading.values()))["positions"]
    note = AGREEMENT.format(
        date=record["date"],
        positions=positions,
        one=100 / positions,
        deviation=100 * math.sqrt(0.99 * 0.01 / positions),
    )
    back = (
        f"The other way round, the demo model exported as GGUF: of {writing['prompts']} prompts "
        f"{writing['equal_ids']} have the same ids in llama.cpp, and "
        f"{writing['equal_answers']} the same {writing['tokens']} greedy tokens."
    )
    return ["", "## The same GGUF files", "", note, "", *table(head, rows), "", back]
