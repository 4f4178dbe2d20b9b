"""What evaluations have in common, from loading to the report."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import qwen_edge
from qwen_edge.native.checksum import checksum
from qwen_edge.session.eval_models import Engines, Precision
from qwen_edge.session.eval_result import Choices, Divergence, Perplexity, Report
from qwen_edge.session.plan import Plan

if TYPE_CHECKING:
    from qwen_edge.engine.watcher import Watcher as SetupWatcher


class Watcher(Protocol):
    """Is told what goes on."""

    @property
    def setup(self) -> SetupWatcher:
        """Is told what setting an engine up takes."""
        ...

    def loaded(self, plan: Plan) -> None:
        """The model is loaded."""
        ...

    def begin(self, tokens: int) -> None:
        """So many tokens are going to be computed, at most."""
        ...

    def step(self, tokens: int) -> None:
        """So many more are done; may raise, KeyboardInterrupt say."""
        ...


class Run:
    """What evaluations have in common: each has ``run``, which may be broken off, and ``report``.

    Args:
        flags: settings as on the command line.
        precision: of all models.
        watcher: is told what goes on.
    """

    def __init__(self, flags: Mapping[str, object], precision: Precision, watcher: Watcher) -> None:
        self._flags = flags
        self._precision = precision
        self._watcher = watcher
        self._model: Mapping[str, object] = {}
        self._settings: Mapping[str, object] = {}

    def _describe(self, engines: Engines, **method: object) -> None:
        plan = engines.plans[0]
        self._model = {
            "name": plan.model.name,
            "file": plan.found.path.name,
            "bytes": plan.model.size,
            "quantization": dict(plan.quantization),
        }
        about = engines.about(0)
        if "adapter" in about:
            self._model = {**self._model, "adapter": about["adapter"]}
        named = ("engine", "kv", "activations", "isa")
        self._settings = {key: about[key] for key in named if key in about} | method
        self._watcher.loaded(plan)

    def _report(
        self,
        complete: bool,
        source: Mapping[str, object],
        *,
        perplexity: Perplexity | None = None,
        divergence: Divergence | None = None,
        choices: Choices | None = None,
    ) -> Report:
        return Report(
            version=qwen_edge.__version__,
            complete=complete,
            model=self._model,
            settings=self._settings,
            source=source,
            perplexity=perplexity,
            divergence=divergence,
            choices=choices,
        )


class Stepper:
    """Called after each call of an engine: looks at memory, and tells the watcher."""

    def __init__(self, engines: Engines, watcher: Watcher) -> None:
        self._engines = engines
        self._watcher = watcher

    def __call__(self, tokens: int) -> None:
        self._engines.poll()
        self._watcher.step(tokens)


def checksum_of(ids: Sequence[int]) -> str:
    """Of token ids, to tell whether two results are of the same text."""
    return f"{checksum(array('i', ids).tobytes()):016x}"
