"""The diagnosis in plain types, for ``doctor --json``."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from qwen_edge import __version__
from qwen_edge.native.instruction_sets import ISA_VARIABLE
from qwen_edge.session.diagnosis import Diagnosis
from qwen_edge.session.termux_facts import TermuxFacts
from qwen_edge.session.torch_facts import TorchFacts


def as_table(result: Diagnosis) -> dict[str, Any]:
    """The whole diagnosis in plain types. Sizes in bytes."""
    device, runtime = result.device, result.runtime
    return {
        "version": __version__,
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "platform": sys.platform,
        },
        "device": {**device.system._asdict(), "machine": device.machine},
        "memory": device.memory._asdict(),
        "processor": {
            "name": device.processor_name,
            "cores": device.processor.cores,
            "big_cores": device.processor.big_cores,
            "little_cores": device.processor.little_cores,
            "clusters": [cluster._asdict() for cluster in device.processor.clusters],
        },
        "kernels": vars(result.kernels) if result.kernels else None,
        "isa_variable": ISA_VARIABLE,
        "compiler": result.compiler,
        "torch": _torch_table(result.torch),
        "model": _model_table(result),
        "calibration": _calibration_table(result),
        "computed_prompts": {
            "path": result.prompts_folder,
            **(result.prompts._asdict() if result.prompts else {}),
        },
        "termux": result.termux and _termux_table(result.termux),
        "battery": result.battery and result.battery._asdict(),
        "assumed_model": result.assumed,
        "configuration": vars(runtime) if runtime else None,
        "settings": [line._asdict() for line in result.settings],
        "why": [str(reason) for reason in result.why],
        "predicted_peak": {
            "short": result.short_peak,
            "full": runtime.predicted_peak if runtime else None,
        },
        "allowed": result.allowed,
        "recommended_model": result.recommended,
        "findings": [
            {
                "severity": found.severity,
                "sentence": str(found),
                "hint": found.hint.format(**found.values) if found.values else found.hint,
            }
            for found in result.findings
        ],
    }


def _termux_table(facts: TermuxFacts) -> dict[str, object]:
    table = {**facts._asdict(), "wake_lock": facts.wake_lock._asdict()}
    # It may come from elsewhere, too, so it has its own place.
    del table["battery"]
    return table


def _torch_table(facts: TorchFacts | None) -> dict[str, Any] | None:
    if facts is None:
        return None
    cache = {"path": facts.cache.folder, "bytes": facts.cache.size, **facts.cache.sizes}
    return {**vars(facts), "cache": cache}


def _calibration_table(result: Diagnosis) -> dict[str, Any] | None:
    found = result.calibration.result
    if found is None:
        return None
    measured = {"decode": found.decode, "prefill": found.prefill, "when": found.when}
    return {**found.chosen._asdict(), **measured}


def _model_table(result: Diagnosis) -> dict[str, Any] | None:
    if result.model is None:
        return None
    facts, storage = result.model.facts, result.model.storage
    return {
        "path": Path(result.model.found.path),
        "kind": result.model.found.kind,
        "name": facts.name if facts else None,
        "bits": facts.bits if facts else None,
        "bytes": facts.weight_bytes if facts else None,
        "storage": storage._asdict(),
    }
