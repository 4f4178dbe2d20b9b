"""The readings of this very device and process, each taken without waiting."""

from __future__ import annotations

import time

from qwen_edge.engine.interface import Engine
from qwen_edge.engine.memory_estimate import kv_bytes_per_token
from qwen_edge.engine.speculation import CallCosts
from qwen_edge.host.battery_poll import BatteryPoller
from qwen_edge.host.memory_facts import device_memory, own_memory
from qwen_edge.host.place import Place
from qwen_edge.session.footprint import ModelFacts
from qwen_edge.session.governor import Readings
from qwen_edge.session.pace import Pace


class Senses:
    """Takes readings while an engine answers.

    Args:
        engine: the depth of its first sequence tells the work of a call.
        costs: where the durations of its calls are kept.
        facts: the model.
        cores: how many this process may use.
        place: the device.
    """

    def __init__(
        self,
        engine: Engine,
        costs: CallCosts,
        facts: ModelFacts,
        cores: int,
        place: Place | None = None,
    ) -> None:
        self._place = place or Place()
        self._engine = engine
        self._costs = costs
        self._cores = max(1, cores)
        self._battery = BatteryPoller(self._place)
        kv_type = engine.config.kv_type
        position = kv_bytes_per_token(facts.config, kv_type)
        # Without a cache a call reads the whole text, and no two do the same work.
        self._pace = Pace(facts.weight_bytes, position) if engine.config.keep_cache else None
        self._seen = costs.calls
        self._began: tuple[float, float] | None = None
        self._slowdown: float | None = None

    def begin(self) -> None:
        """An answer begins, or goes on after a pause: what comes now is not compared."""
        self._began = None
        if self._pace:
            self._pace.interrupt()

    def see_call(self) -> None:
        """Takes note of the engine's last call; cheap enough for every token."""
        if self._costs.calls != self._seen:
            self._seen = self._costs.calls
            if self._pace:
                self._pace.call(self._costs.latest)

    def read(self, placement: object = None) -> Readings:
        """All readings of this moment.

        Args:
            placement: of the engine's threads.
        """
        now, processor = time.monotonic(), time.process_time()
        own = own_memory(self._place.proc)
        memory, dated = device_memory(self._place), self._battery.latest()
        return Readings(
            time=now,
            temperature=dated.battery.temperature if dated else None,
            level=dated.battery.level if dated else None,
            plugged=dated.battery.plugged if dated else None,
            battery_time=dated.taken if dated else None,
            cpu=self._share(now, processor),
            total=memory.total,
            available=memory.available,
            anonymous=own.anonymous,
            file=own.file,
            slowdown=self._slowed(now, processor, placement),
        )

    def close(self) -> None:
        """Ends what is under way."""
        self._battery.close()

    def _share(self, now: float, processor: float) -> float | None:
        """Processor time since the answer began, over what all allowed cores had."""
        if self._began is None:
            self._began = (now, processor)
        began, before = self._began
        if now - began < 0.5:
            return None
        return (processor - before) / (now - began) / self._cores

    def _slowed(self, now: float, processor: float, placement: object) -> float | None:
        if self._pace is None:
            return None
        depth = len(self._engine.cached_ids(0))
        # In the background Android leaves an app the little cores only, whatever it asked for.
        where = (placement, frozenset(self._place.allowed_cores()))
        return self._pace.look(now, processor, depth, where)
