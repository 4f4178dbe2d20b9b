"""From a model's name to a stored calibration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median

from qwen_edge.engine.interface import PlaceableEngine
from qwen_edge.errors import UsageError
from qwen_edge.session.bench_engine import bytes_per_token
from qwen_edge.session.bench_plan import plain
from qwen_edge.session.calibrate import BUDGET, Calibration, Outcome
from qwen_edge.session.calibration import Result, write_calibration
from qwen_edge.session.engine_choice import NATIVE
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session.plan import Plan, make_plan
from qwen_edge.session.settings import Explained

# Positions that a sample decodes at most.
_CONTEXT = 512


@dataclass(frozen=True)
class Calibrated:
    """A finished measurement.

    Attributes:
        model: its name.
        outcome: what was found.
        bytes_per_token: of weights, that a decode step reads.
        overridden: settings of the user that go before it.
    """

    model: str
    outcome: Outcome
    bytes_per_token: int
    overridden: list[Explained]


def calibrate_model(
    flags: Mapping[str, object],
    poll: Callable[[], None],
    started: float,
    environ: Mapping[str, str] | None = None,
) -> Calibrated:
    """Measures and stores.

    Args:
        flags: settings as on the command line.
        poll: called often; may raise, and then what was stored before stays.
        started: when the clock began, in ``time.monotonic``.
        environ: the environment variables.

    Raises:
        UsageError: the engine is not native.
        ModelNotFoundError: there is no such model.
        DamagedModelError: the model cannot be used.
        MemoryLimitError: it does not fit.
        QwenEdgeError: the result cannot be written.
    """
    plan = make_plan(flags, environ)
    if plan.choice.name != NATIVE:
        plan.model.close()
        raise UsageError(
            "Only the native engine is calibrated, not {engine}.",
            "Its threads go where the system puts them; leave the engine setting out.",
            engine=plan.choice.name,
        )
    with LoadedModel(_for_measuring(plan)) as loaded:

        def poll_all() -> None:
            poll()
            loaded.chat.poll()

        assert isinstance(loaded.engine, PlaceableEngine)
        measuring = Calibration(
            loaded.engine,
            plan.profile,
            left=lambda: BUDGET - (time.monotonic() - started),
            poll=poll_all,
        )
        outcome = measuring.run()
        read = bytes_per_token(plan)
    result = Result(
        outcome.chosen,
        median(outcome.decode[outcome.decode_choice]),
        median(outcome.prefill[outcome.prefill_choice]),
        time.time(),
    )
    write_calibration(plan.profile, plan.facts.config, plan.facts.bits, result, environ)
    keys = ("threads", "prefill-threads", "cpus")
    lines = plan.settings.explain(plan.runtime)
    ours = [line for line in lines if line.key in keys and line.key in plan.settings.values]
    return Calibrated(plan.facts.name, outcome, read, ours)


def _for_measuring(plan: Plan) -> Plan:
    """All cores' threads, and no more context than the measuring takes."""
    threads = max(1, plan.profile.cores)
    engine = replace(
        plain(plan.engine),
        context=min(plan.engine.context, _CONTEXT),
        threads=threads,
        prefill_threads=threads,
        cores=(),
        prefill_cores=(),
    )
    return replace(plan, engine=engine)
