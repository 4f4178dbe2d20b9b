"""``qwen-edge doctor --calibrate``: measures threads and cores, and shows what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

from qwen_edge.cli.interrupts import StopRequest
from qwen_edge.cli.language import localized, translate
from qwen_edge.cli.report import heading, paragraph
from qwen_edge.cli.terminal import clock, note, out, progress, table
from qwen_edge.session.calibrate import BUDGET, Candidate, Rates
from qwen_edge.session.calibrate_model import Calibrated, calibrate_model
from qwen_edge.session.calibration import Stored, age_in_days
from qwen_edge.session.profile import core_list

_WINNER = "*"


def calibrate(flags: Mapping[str, object]) -> None:
    """Measures, stores, and writes two tables; Ctrl-C leaves what was stored as it was."""
    started = time.monotonic()
    with StopRequest() as stop, progress("Measuring", round(BUDGET), clock) as bar:

        def poll() -> None:
            stop.check()
            bar.update(min(round(time.monotonic() - started), round(BUDGET)))

        found = calibrate_model(flags, poll, started)
    _show(found)


def _show(found: Calibrated) -> None:
    outcome = found.outcome
    paragraph(found.model)
    heading("Answers")
    rows = []
    for candidate in _sorted(outcome.decode):
        rate = median(outcome.decode[candidate])
        rows.append(
            (
                _mark(candidate == outcome.decode_choice),
                translate(candidate.kind),
                str(candidate.threads),
                _figure(rate),
                f"{rate * found.bytes_per_token / 1e9:.1f}",
            )
        )
    table(rows, ("", "Cores", "Threads", "Tokens/s", "GB/s"))
    heading("Prompts")
    prompts = [
        (
            _mark(candidate == outcome.prefill_choice),
            str(candidate.threads),
            _figure(median(outcome.prefill[candidate])),
        )
        for candidate in _sorted(outcome.prefill)
    ]
    table(prompts, ("", "Threads", "Tokens/s"))
    out("")
    paragraph(localized("* is used from now on: the fewest threads that nothing beats by 3 %.", {}))
    if not outcome.complete:
        note("The time was not enough to try everything.")
    for line in found.overridden:
        note("{key} is set ({origin}), which goes before this.", key=line.key, origin=line.origin)


def stored_text(stored: Stored) -> str:
    """What is stored, and how old it is."""
    result = stored.result
    if result is None:
        return localized("no; `qwen-edge doctor --calibrate` takes half a minute", {})
    threads, prefill_threads, cpus = result.chosen
    values = {
        "threads": threads,
        "prefill": prefill_threads,
        "cores": core_list(cpus) if cpus else translate("all"),
        "days": age_in_days(result),
        "speed": result.decode,
    }
    return localized(
        "threads: {threads} (cores: {cores}), for prompts {prefill}; {speed:.1f} tokens/s; "
        "{days} days old",
        values,
    )


def _sorted(rates: Rates) -> list[Candidate]:
    return sorted(rates, key=lambda c: (c.kind, c.threads))


def _mark(winner: bool) -> str:
    return _WINNER if winner else ""


def _figure(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"
