"""Measurements in turns, A B A B, with the machine's own limits measured between them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from benchmarks.peers.machine import Machine, around, machine_facts
from benchmarks.peers.pipe import Peer, PeerError
from benchmarks.peers.systems import Place, System, start


@dataclass(frozen=True)
class Case:
    """One measurement: a request to a system.

    Attributes:
        label: its name in the results.
        system: what is asked.
        request: the handler's name; its answer is seconds.
        arguments: of the request.
        tokens: how many tokens those seconds are for; 0 leaves them seconds.
        state: a file that keeps the cache filled to ``arguments["depth"]``.
    """

    label: str
    system: System
    request: str
    arguments: dict[str, int]
    tokens: int = 0
    state: str = ""


@dataclass(frozen=True)
class Part:
    """Cases that are measured in turns, and how often.

    Attributes:
        limits: threads with which the bandwidth is measured between cases, 0 for not.
        peak: whether the INT8 peak is measured in each turn, with those threads.
    """

    name: str
    cases: list[Case]
    repeats: int
    limits: int = 2
    peak: bool = False


@dataclass
class Samples:
    """What a part gave; lists by label, in the order of the turns.

    Attributes:
        values: tokens a second, or seconds.
        bandwidth: bytes a second around each value.
        peak: multiply-adds a second, one a turn.
        opened: what each system answered to ``open``.
        memory: of each system's process at its end, kilobytes.
        failed: why a case was not measured.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    bandwidth: dict[str, list[float]] = field(default_factory=dict)
    peak: list[float] = field(default_factory=list)
    opened: dict[str, dict[str, object]] = field(default_factory=dict)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure(part: Part, place: Place) -> dict[str, object]:
    """Measures a part; returns its record for the results file."""
    begin = time.time()
    samples = Samples()
    with contextlib.ExitStack() as stack:
        machine = Machine(place.folder)
        running: dict[System, Peer] = {}
        cases = [case for case in part.cases if _ready(case, place, stack, running, samples)]
        for _ in range(part.repeats):
            _turn(part, cases, running, machine, samples)
        for case in cases:
            samples.memory[case.label] = running[case.system].ask("memory")
    return {
        "part": part.name,
        "date": time.strftime("%Y-%m-%d", time.gmtime(begin)),
        "seconds": round(time.time() - begin, 1),
        "threads": part.limits,
        "machine": machine_facts(),
        **vars(samples),
    }


def _ready(
    case: Case,
    place: Place,
    stack: contextlib.ExitStack,
    running: dict[System, Peer],
    samples: Samples,
) -> bool:
    """Starts a case's system, fills its cache and runs it once uncounted; False if it cannot."""
    try:
        if case.system not in running:
            peer, facts = start(case.system, place)
            running[case.system] = stack.enter_context(peer)
            samples.opened[case.label] = facts
        if case.state:
            running[case.system].ask("fill", depth=case.arguments["depth"], state=case.state)
        first = dict(case.arguments)
        if "tokens" in first:
            first["tokens"] = min(first["tokens"], 512 if case.request == "prefill" else 4)
        running[case.system].ask(case.request, **first)
    except (PeerError, FileNotFoundError) as error:
        samples.failed[case.label] = str(error).strip().splitlines()[-1]
        return False
    samples.values[case.label] = []
    samples.bandwidth[case.label] = []
    return True


def _turn(
    part: Part,
    cases: list[Case],
    running: dict[System, Peer],
    machine: Machine,
    samples: Samples,
) -> None:
    before = machine.bandwidth(part.limits) if part.limits else 0.0
    if part.peak:
        samples.peak.append(machine.peak(part.limits))
    for case in cases:
        seconds = float(running[case.system].ask(case.request, **case.arguments))
        after = machine.bandwidth(part.limits) if part.limits else 0.0
        samples.values[case.label].append(case.tokens / seconds if case.tokens else seconds)
        samples.bandwidth[case.label].append(around(before, after))
        before = after
