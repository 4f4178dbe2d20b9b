"""The governor's rules: which reading justifies which step, and what the user is told of it.

heat
    Temperature of the battery. Fewer threads give off less heat and cost little speed, since memory
    is the limit; little cores cost much of it; a pause cools best. The numbers are below those at
    which phones act themselves: many stop charging at 45 °C and switch off at 55 to 60 °C.
battery
    Its level, as long as there is no charger. Fewer threads and shorter answers stretch what is
    left; the last few percent are the user's.
memory
    MemAvailable as a multiple of the reserve, without the own weights: their pages count as
    available and are read again for each token. A plan leaves 1 at the least. Shorter answers add
    less to the KV cache. A stop keeps the answer so far, which the system's killer would not.
cap
    RssAnon and weights as a share of the memory cap: shorter answers, before the cap ends one.
throttling
    Seconds a decode call over what it took at best, as far as its processor time grew likewise. A
    processor that is slowed down is a hot one, and on it fewer threads cost little.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

# Seconds of a pause that does not cool the phone; more would only make the user wait.
MOST_PAUSE = 900.0


class Cause(Enum):
    """What strains the device."""

    HEAT = "heat"
    BATTERY = "battery"
    MEMORY = "memory"
    CAP = "cap"
    THROTTLING = "throttling"


class Measure(Enum):
    """What is done about it."""

    FEWER_THREADS = "fewer threads"
    LITTLE_CORES = "little cores"
    SHORTER_ANSWERS = "shorter answers"
    PAUSE = "pause"
    STOP = "stop"


class Rule(NamedTuple):
    """One rule: a measure, and the readings between which it is taken and given up."""

    at: float
    until: float
    measure: Measure


class Ladder(NamedTuple):
    """The rules of one cause, from mild to severe; each includes those before it.

    Attributes:
        cause: of the strain.
        rise: seconds that a reading has to last before a rule takes hold.
        fall: seconds before it lets go.
        rules: where ``at`` is below ``until``, low readings are the bad ones.
        probes: whether the reading is only bad while the rule does not hold, so that letting go is
            a trial; after one that failed the rule holds twice as long.
    """

    cause: Cause
    rise: float
    fall: float
    rules: tuple[Rule, ...]
    probes: bool = False


_FEWER, _LITTLE = Measure.FEWER_THREADS, Measure.LITTLE_CORES
_SHORTER, _PAUSE, _STOP = Measure.SHORTER_ANSWERS, Measure.PAUSE, Measure.STOP

LADDERS: dict[str, tuple[Ladder, ...]] = {
    "auto": (
        Ladder(
            Cause.HEAT, 25, 60,
            (
                Rule(43.0, 41.0, _FEWER),
                Rule(44.5, 42.5, _LITTLE),
                Rule(46.0, 44.0, _SHORTER),
                Rule(47.0, 44.5, _PAUSE),
                Rule(51.0, 49.0, _STOP),
            ),
        ),
        Ladder(
            Cause.BATTERY, 25, 60,
            (Rule(10, 13, _FEWER), Rule(5, 8, _SHORTER), Rule(2, 4, _STOP)),
        ),
        Ladder(
            Cause.MEMORY, 2, 60,
            (Rule(0.8, 1.1, _SHORTER), Rule(0.5, 0.8, _SHORTER), Rule(0.25, 0.4, _STOP)),
        ),
        Ladder(Cause.CAP, 2, 60, (Rule(0.95, 0.90, _SHORTER),)),
        Ladder(
            Cause.THROTTLING, 20, 120,
            (Rule(1.43, 1.2, _FEWER), Rule(1.43, 1.2, _LITTLE), Rule(1.43, 1.2, _SHORTER)),
            probes=True,
        ),
    ),
    # Fewer threads from the start, and everything earlier.
    "cool": (
        Ladder(
            Cause.HEAT, 25, 60,
            (
                Rule(38.0, 36.5, _LITTLE),
                Rule(40.5, 39.0, _SHORTER),
                Rule(43.0, 41.0, _PAUSE),
                Rule(47.0, 45.0, _STOP),
            ),
        ),
        Ladder(
            Cause.BATTERY, 25, 60,
            (Rule(20, 23, _LITTLE), Rule(10, 13, _SHORTER), Rule(4, 6, _STOP)),
        ),
        Ladder(
            Cause.MEMORY, 2, 60,
            (Rule(1.2, 1.5, _SHORTER), Rule(0.8, 1.1, _SHORTER), Rule(0.4, 0.6, _STOP)),
        ),
        Ladder(Cause.CAP, 2, 60, (Rule(0.90, 0.85, _SHORTER),)),
        Ladder(
            Cause.THROTTLING, 20, 120,
            (Rule(1.25, 1.1, _LITTLE), Rule(1.25, 1.1, _SHORTER)),
            probes=True,
        ),
    ),
}  # fmt: skip
# What holds whatever the readings.
BASE = {"auto": frozenset[Measure](), "cool": frozenset({_FEWER})}
SENTENCES: dict[tuple[Cause, Measure], str] = {
    (Cause.HEAT, _FEWER): (
        "The phone is hot ({temperature:.0f} °C): {threads} of {all} threads from here on."
    ),
    (Cause.HEAT, _LITTLE): (
        "The phone is hot ({temperature:.0f} °C): only the little cores from here on."
    ),
    (Cause.HEAT, _SHORTER): (
        "The phone is hot ({temperature:.0f} °C): shorter answers ({share:.0%}) from here on."
    ),
    (Cause.HEAT, _PAUSE): (
        "The phone is hot ({temperature:.0f} °C): a pause until it has cooled down."
    ),
    (Cause.BATTERY, _FEWER): (
        "The battery is at {level:.0f} %: {threads} of {all} threads from here on."
    ),
    (Cause.BATTERY, _LITTLE): (
        "The battery is at {level:.0f} %: only the little cores from here on."
    ),
    (
        Cause.BATTERY,
        _SHORTER,
    ): "The battery is at {level:.0f} %: shorter answers ({share:.0%}) from here on.",
    (Cause.MEMORY, _SHORTER): (
        "{available} of memory are left on this device: shorter answers ({share:.0%}) from here on."
    ),
    (Cause.CAP, _SHORTER): (
        "Memory use reached {used} of {cap} allowed: shorter answers ({share:.0%}) from here on."
    ),
    (Cause.THROTTLING, _FEWER): (
        "The processor is throttled, at {speed:.0%} of its speed: "
        "{threads} of {all} threads from here on."
    ),
    (Cause.THROTTLING, _LITTLE): (
        "The processor is throttled, at {speed:.0%} of its speed: "
        "only the little cores from here on."
    ),
    (Cause.THROTTLING, _SHORTER): (
        "The processor is throttled, at {speed:.0%} of its speed: "
        "shorter answers ({share:.0%}) from here on."
    ),
}
EASED: dict[Measure, str] = {
    _FEWER: "{threads} of {all} threads again.",
    _LITTLE: "The big cores again: {threads} of {all} threads.",
    _SHORTER: "Longer answers again.",
    _PAUSE: "The pause is over: the answer goes on.",
}
RECOVERED = "All is well again: everything as before."
# Sentence and hint.
STOPS: dict[Cause, tuple[str, str]] = {
    Cause.HEAT: (
        "The phone is too hot to go on: {temperature:.0f} °C.",
        "Let it cool down; `--governor off` goes on regardless.",
    ),
    Cause.BATTERY: (
        "The battery is too empty to go on: {level:.0f} %.",
        "Charge it; `--governor off` goes on regardless.",
    ),
    Cause.MEMORY: (
        "Memory runs out on this device: {available} are left.",
        "Close other apps, or use a smaller model.",
    ),
}
PAUSED_IN_VAIN = (
    "The phone stays hot: {temperature:.0f} °C after a pause of {minutes:.0f} minutes.",
    "Let it cool down; `--governor off` goes on regardless.",
)
