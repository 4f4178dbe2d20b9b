"""What keeps a phone usable while a model works on it: readings in, steps out. Nothing here acts.

Each cause of strain has a ladder of rules (``governor_rules``). A rule takes hold once its reading
was beyond ``at`` for ``rise`` seconds, and lets go once it was back behind ``until`` for ``fall``
seconds; a ladder moves one rule at a time. So one odd reading does nothing, and nothing flaps.
Without a reading, nothing is known to be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qwen_edge.host.sizes import format_size
from qwen_edge.session import governor_rules
from qwen_edge.session.governor_rules import (
    BASE,
    EASED,
    PAUSED_IN_VAIN,
    RECOVERED,
    SENTENCES,
    STOPS,
    Cause,
    Ladder,
    Measure,
)
from qwen_edge.session.reason import Reason

# A trial that failed makes the next one wait at most this much longer.
_MOST_PATIENCE = 8
_FEWER, _LITTLE = Measure.FEWER_THREADS, Measure.LITTLE_CORES
_SHORTER, _PAUSE, _STOP = Measure.SHORTER_ANSWERS, Measure.PAUSE, Measure.STOP


class Readings(NamedTuple):
    """What the sensors tell at one moment; None for what they do not.

    Attributes:
        time: seconds on a clock that only goes forward.
        temperature: of the battery, degrees Celsius.
        level: of the battery, percent.
        plugged: whether it is being charged.
        battery_time: when these three were taken, on the same clock.
        cpu: this process's processor time over the time that all its cores had, 0 to 1.
        total, available: memory of the device in bytes.
        anonymous: memory of this process that nothing backs, in bytes.
        file: its resident pages of files, which count as available.
        slowdown: what a call takes now over what it took at best, at comparable work.
    """

    time: float
    temperature: float | None = None
    level: float | None = None
    plugged: bool | None = None
    battery_time: float | None = None
    cpu: float | None = None
    total: int | None = None
    available: int | None = None
    anonymous: int | None = None
    file: int | None = None
    slowdown: float | None = None

    @property
    def left(self) -> int | None:
        """Memory of the device that can be had without reading the weights again, in bytes."""
        return None if self.available is None else max(0, self.available - (self.file or 0))


class Capacity(NamedTuple):
    """What this device and this command leave to do.

    Attributes:
        threads: of a decode step, as configured.
        most_threads: that it could have.
        little: little cores that it could move to; 0 where there are none beside big ones.
        placeable: whether threads can be changed while the engine runs.
        turns: whether more answers are going to follow.
        phone: whether a slower processor means heat; elsewhere it may be anything.
        reserve: available memory that is meant to be left, in bytes.
        mapped: bytes of the weights.
        budget: the memory cap in bytes, or None.
    """

    threads: int = 1
    most_threads: int = 1
    little: int = 0
    placeable: bool = False
    turns: bool = True
    phone: bool = True
    reserve: int = 0
    mapped: int = 0
    budget: int | None = None


class Steps(NamedTuple):
    """What is to be done.

    Attributes:
        threads: of a decode step.
        little: whether they keep to the little cores.
        answers: the length of the next answers, as a share of what it would be.
        paused: whether to wait.
        stop: what makes it impossible to go on, or None.
    """

    threads: int
    little: bool = False
    answers: float = 1.0
    paused: bool = False
    stop: Cause | None = None


class _Climber:
    """Where on a ladder a device is."""

    def __init__(self, ladder: Ladder) -> None:
        self.ladder = ladder
        self.level = 0
        self._sign = 1.0 if ladder.rules[0].at >= ladder.rules[0].until else -1.0
        self._taken = self._changed = self._strained = float("-inf")
        self._beyond: float | None = None
        self._eased: float | None = None
        self._patience = 1

    @property
    def measures(self) -> list[Measure]:
        return [rule.measure for rule in self.ladder.rules[: self.level]]

    def observe(self, value: float | None, taken: float) -> None:
        """Moves by a reading, unless it was seen before."""
        before, self._taken = self._taken, max(taken, self._taken)
        if taken <= before:
            return
        if self._lasts(value, taken):
            self._rise(taken)
        else:
            self._fall(value, taken, taken - before)

    def _lasts(self, value: float | None, taken: float) -> bool:
        """Whether the next rule's time has come."""
        rules = self.ladder.rules
        if (
            value is None
            or self.level == len(rules)
            or self._sign * value < self._sign * rules[self.level].at
        ):
            self._beyond = None
            return False
        if self._beyond is None:
            self._beyond = taken
        return taken - self._beyond >= self.ladder.rise

    def _rise(self, taken: float) -> None:
        self.level += 1
        hold = self.ladder.fall * self._patience
        if self.ladder.probes and self._eased is not None and taken - self._eased < hold:
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self._beyond = self._changed = self._strained = taken

    def _fall(self, value: float | None, taken: float, gap: float) -> None:
        hold = self.ladder.fall * self._patience
        if self.level and not self._behind(value):
            self._strained = taken
        while self.level and self._behind(value):
            since = max(self._changed, self._strained)
            if taken - since < hold:
                return
            self.level -= 1
            # Where nobody looked for long, nothing was done either: all that time counts.
            self._changed = self._eased = since + hold if gap >= hold else taken
        if not self.level and taken - self._changed >= 4 * hold:
            self._patience = 1

    def _behind(self, value: float | None) -> bool:
        until = self.ladder.rules[self.level - 1].until
        return value is None or self._sign * value < self._sign * until


class Governor:
    """Decides by readings; a state machine.

    Args:
        mode: ``auto`` or ``cool``.
        capacity: what can be done here.

    Attributes:
        steps: what is to be done now.
    """

    def __init__(self, mode: str, capacity: Capacity) -> None:
        self._capacity = capacity
        self._base = BASE[mode]
        self._climbers = [_Climber(ladder) for ladder in governor_rules.LADDERS[mode]]
        self._values: dict[str, object] = {}
        self._paused_since: float | None = None
        self.normal = self.steps = self._decide(())

    def observe(self, readings: Readings) -> list[Reason]:
        """Takes readings in.

        Returns:
            What has changed, in sentences; a stop is told by ``stop_error`` instead.
        """
        self._values.update(_told_values(readings, self._capacity))
        risen, trial = [], False
        for climber in self._climbers:
            value, taken = _strain(climber.ladder.cause, readings, self._capacity)
            level = climber.level
            climber.observe(value, taken)
            if climber.level > level:
                risen.append(climber)
            trial |= climber.ladder.probes and climber.level < level
        before, self.steps = self.steps, self._decide(self._climbers)
        self._time_pause(readings.time)
        values = self._values | {
            "threads": self.steps.threads,
            "all": self._capacity.threads,
            "share": self.steps.answers,
        }
        return [Reason(sentence, values) for sentence in self._sentences(before, risen, trial)]

    def stop_error(self) -> tuple[str, str, dict[str, object]]:
        """Sentence, hint and values that tell why it stops."""
        assert self.steps.stop is not None
        sentence, hint = STOPS[self.steps.stop]
        if self.steps.paused and self.steps.stop is Cause.HEAT and not self._holds(_STOP):
            sentence, hint = PAUSED_IN_VAIN
        return sentence, hint, self._values | {"minutes": governor_rules.MOST_PAUSE / 60}

    def _holds(self, measure: Measure) -> bool:
        return any(measure in climber.measures for climber in self._climbers)

    def _decide(self, climbers: Sequence[_Climber]) -> Steps:
        measures = self._base.union(*(climber.measures for climber in climbers))
        threads, little = self._placement(measures)
        halvings = max((climber.measures.count(_SHORTER) for climber in climbers), default=0)
        stops = [climber.ladder.cause for climber in climbers if _STOP in climber.measures]
        return Steps(
            threads,
            little,
            0.5**halvings if self._capacity.turns else 1.0,
            _PAUSE in measures,
            stops[0] if stops else None,
        )

    def _placement(self, measures: frozenset[Measure]) -> tuple[int, bool]:
        """Threads of a decode step, and whether they keep to the little cores."""
        all_threads, little = self._capacity.threads, self._capacity.little
        if not self._capacity.placeable or not measures & {_FEWER, _LITTLE}:
            return all_threads, False
        if _LITTLE not in measures:
            return max(1, all_threads // 2), False
        # Half of the little cores: all of them together would be no cooler than a big one.
        half = min(-(-little // 2), self._capacity.most_threads)
        return (half, True) if little else (1, False)

    def _time_pause(self, now: float) -> None:
        """Gives a pause up that lasts too long."""
        if not self.steps.paused:
            self._paused_since = None
        elif self._paused_since is None:
            self._paused_since = now
        elif now - self._paused_since >= governor_rules.MOST_PAUSE and self.steps.stop is None:
            self.steps = self.steps._replace(stop=Cause.HEAT)

    def _sentences(self, before: Steps, risen: Sequence[_Climber], trial: bool) -> list[str]:
        now = self.steps
        changed = {
            _FEWER: now.threads != before.threads or now.little != before.little,
            _SHORTER: now.answers != before.answers,
            _PAUSE: now.paused != before.paused,
        }
        # That a step was undone for a trial does not mean that all is well.
        if now == self.normal and now != before and not trial:
            return [EASED[_PAUSE] if before.paused else RECOVERED]
        told = []
        for climber in risen:
            measure = climber.measures[-1]
            kind = _FEWER if measure is _LITTLE else measure
            if changed.get(kind):
                changed[kind] = False
                measure = _FEWER if measure is _LITTLE and not now.little else measure
                told.append(SENTENCES[climber.ladder.cause, measure])
        if changed[_FEWER]:
            told.append(EASED[_LITTLE if before.little and not now.little else _FEWER])
        told += [EASED[kind] for kind in (_SHORTER, _PAUSE) if changed[kind]]
        return told


def _strain(cause: Cause, readings: Readings, capacity: Capacity) -> tuple[float | None, float]:
    """The reading that a cause's ladder is about, and when it was taken."""
    now = readings.time
    if cause in (Cause.HEAT, Cause.BATTERY):
        taken = now if readings.battery_time is None else readings.battery_time
        if cause is Cause.HEAT:
            return readings.temperature, taken
        # A battery that is being charged is as good as full.
        full = 100.0 if readings.plugged else None
        return (readings.level if readings.plugged is False else full), taken
    if cause is Cause.MEMORY:
        if readings.left is None or not capacity.reserve:
            return None, now
        return readings.left / capacity.reserve, now
    if cause is Cause.CAP:
        if readings.anonymous is None or not capacity.budget:
            return None, now
        return (readings.anonymous + capacity.mapped) / capacity.budget, now
    return (readings.slowdown if capacity.phone else None), now


def _told_values(readings: Readings, capacity: Capacity) -> dict[str, object]:
    """What sentences may tell of readings; what is not known now stays as it was."""
    values: dict[str, object] = {}
    if readings.temperature is not None:
        values["temperature"] = readings.temperature
    if readings.level is not None:
        values["level"] = readings.level
    if readings.left is not None:
        values["available"] = format_size(readings.left)
    if readings.anonymous is not None and capacity.budget:
        values["used"] = format_size(readings.anonymous + capacity.mapped)
        values["cap"] = format_size(capacity.budget)
    if readings.slowdown:
        values["speed"] = 1 / readings.slowdown
    return values
