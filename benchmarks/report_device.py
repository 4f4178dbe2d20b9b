"""The parts of RESULTS.md on what the program does to a device: cores, waiting, memory, heat."""

from __future__ import annotations

from statistics import median

from benchmarks.phone_chat import remarks_of
from benchmarks.records import Records
from benchmarks.spread import plain, spread, table
from benchmarks.unequal_cores import PLACES, share_of_sum


def unequal_cores_section(records: Records) -> list[str]:
    """Two threads on cores of which one is slowed down."""
    record = records.record("unequal_cores")
    rows = []
    for work, by_share in record["speeds"].items():
        for wanted, speeds in by_share.items():
            got = f"{100 * median(record['taken'][wanted]):.0f} %"
            rates = [plain(median(speeds[place])) for place in PLACES]
            share = spread(share_of_sum(speeds)).text(100)
            rows.append((work, f"{100 * float(wanted):.0f} %", got, *rates, f"{share} %"))
    head = ("work", "competitor", "got", "first core", "second core", "both", "share of the sum")
    note = (
        f"`python -m benchmarks.unequal_cores MODEL`, {record['turns']} turns, {record['date']}: a "
        "competitor tied to the second core computes for a share of every "
        f"{record['period_ms']:g} ms; tokens/s of one thread on each core alone, and of two threads"
        " on both. Decode with fast kernels is bound by memory, which both cores share. What the "
        "competitor got was measured beside the fast kernels."
    )
    return ["", "## Unequal cores", "", note, "", *table(head, rows)]


def played_cores_section(records: Records) -> list[str]:
    """Two threads on cores of which one plays a slower one."""
    record = records.record("played_cores")
    rows = []
    for work, by_ratio in record["speeds"].items():
        for ratio, speeds in by_ratio.items():
            rates = [plain(median(speeds[place])) for place in PLACES]
            share = spread(share_of_sum(speeds)).text(100)
            rows.append((work, f"1 : {ratio}", *rates, f"{share} %"))
    head = ("work", "cores", "first core", "second core", "both", "share of the sum")
    note = (
        f"`python -m benchmarks.played_cores MODEL`, {record['turns']} turns, {record['date']}: "
        "cores that are slow in themselves, as a phone's little ones are. Every kernel takes as "
        "long as on the core being played, so that no scheduler has a part in it: decode on a "
        "Cortex-A75 beside one that is so many times as slow (a Cortex-A55 is twice), prompts on "
        "cores four times as fast. Tokens/s of one thread on each core alone, and of two threads "
        "on both."
    )
    return ["", "## Cores that are slow in themselves", "", note, "", *table(head, rows)]


def idle_section(records: Records) -> list[str]:
    """Processor time while nothing is asked."""
    record = records.record("idle")
    s = {name: spread(values) for name, values in record["samples"].items()}
    return [
        "",
        "## Waiting",
        "",
        f"`python -m benchmarks.idle MODEL`, {record['threads']} threads, {record['date']}: "
        f"between answers the engine uses {s['idle_share'].text(100)} % of a core, and its threads "
        f"spin for {s['after_call'].text()} us of processor time after a call. A decode step takes "
        f"{s['step'].text(1e-3)} ms right after another and {s['step_after_pause'].text(1e-3)} ms "
        "after a pause; "
        f"{s['busy_share'].text(100)} % of the threads' time is processor time.",
    ]


def soak_section(records: Records) -> list[str]:
    """Memory and speed of half an hour of mixed requests."""
    record = records.record("soak")
    return [
        "",
        "## Soak",
        "",
        f"`python -m benchmarks.soak --minutes {record['minutes']:g}`: {record['requests']:,} "
        "mixed requests on engines with fp16, INT8 and INT4 caches; resident memory "
        f"{plain(record['rss_first_mib'], 4)} MiB "
        f"in the first fifth and {plain(record['rss_last_mib'], 4)} MiB in the last "
        f"({record['rss_growth_mib_per_hour']:+.1f} MiB an hour, of the process's own "
        f"{record['anonymous_growth_mib_per_hour']:+.1f}, allowed "
        f"{record['allowed_mib_per_hour']:g}); {record['threads']} threads, {record['files']} open "
        f"files; decode {plain(record['speed_first'])} tokens/s and {plain(record['speed_last'])} "
        f"tokens/s, of a fixed computation beside it {plain(100 * record['yardstick_last'])} % "
        f"({record['verdict']}).",
    ]


PHONE_CHAT = {
    "group": "control group of {mib} MiB",
    "cap": "`--memory-cap {mib}MiB`",
    "hot": "control group of {mib} MiB, hot phone",
}


def phone_chat_section(records: Records) -> list[str]:
    """A long chat with little memory, and on a hot phone."""
    record = records.record("phone_chat")
    rows, said = [], []
    for run, name in PHONE_CHAT.items():
        found = record["runs"].get(run)
        if found is None:
            continue
        turns = found["turns"]
        dropped = sum(turn["dropped"] for turn in turns)
        most = [max(turn["resident"] for turn in part) for part in (turns[:5], turns[5:])]
        rows.append(
            (
                name.format(mib=record["mib"]), f"{len(turns)}", f"{dropped}",
                *(f"{size / (1 << 20):.1f}" for size in most), f"{found['growth']:+.2%}",
                spread([turn["speed"] for turn in turns]).text(), found["verdict"],
            )
        )  # fmt: skip
        if run == "hot":
            said = [f"turn {number}: {remark.rstrip('.')}" for number, remark in remarks_of(found)]
    head = (
        "limit", "turns", "messages dropped", "most MiB, turns 1 to 5", "most MiB, later turns",
        "growth", "tokens/s", "",
    )  # fmt: skip
    note = (
        f"`python -m benchmarks.phone_chat MODEL`, {record['date']}: `qwen-edge chat --stats` with "
        f"{' '.join(record['runs']['group']['options'])}, questions of some 1,100 tokens and "
        "answers of 128, so that the context is full again and again. Resident memory, mapped "
        "weights included. The hot phone's governor said: "
    )
    return [
        "",
        "## A chat with little memory",
        "",
        note + "; ".join(said) + ".",
        "",
        *table(head, rows),
    ]


def governor_section(records: Records) -> list[str]:
    """What looking after the device costs."""
    record = records.record("governor_cost")
    s = {name: spread(values) for name, values in record["samples"].items()}
    return [
        "",
        "## The governor's cost",
        "",
        f"`python -m benchmarks.governor_cost MODEL`, {record['date']}: "
        f"{s['between_tokens'].text()} us between two tokens, {s['look'].text()} us for a look at "
        f"the device, every other second, and {s['first_look'].text(1e-3)} ms for the first, two "
        "seconds into the work, which imports it.",
    ]
