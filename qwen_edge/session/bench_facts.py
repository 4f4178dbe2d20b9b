"""What a benchmark says of the model, its settings and the device."""

from __future__ import annotations

from collections.abc import Mapping

from qwen_edge.host.caches import largest_cache
from qwen_edge.host.device import read_device
from qwen_edge.native.instruction_sets import isa_name
from qwen_edge.session.bench_engine import bytes_per_token
from qwen_edge.session.plan import Plan

_SMALLEST_BUFFER, _LARGEST_BUFFER, _CACHES = 64 << 20, 256 << 20, 8


def buffer_bytes() -> int:
    """Bytes to read for the bandwidth: several times the caches, and fit for a small phone."""
    wanted = _CACHES * (largest_cache() or 0)
    return min(max(wanted, _SMALLEST_BUFFER), _LARGEST_BUFFER)


def describe(plan: Plan) -> tuple[Mapping[str, object], ...]:
    """Model, settings and device in plain types."""
    model, runtime, device = plan.model, plan.runtime, read_device()
    settings = {
        "engine": plan.choice.name,
        "threads": plan.engine.threads,
        "prefill_threads": plan.engine.prefill_threads,
        "kv": runtime.kv_type,
        "context": runtime.context,
        "isa": isa_name(),
    }
    return (
        {
            "name": model.name,
            "source": model.source,
            "quantization": dict(plan.quantization),
            "bytes": model.size,
            "bytes_per_token": bytes_per_token(plan),
        },
        settings,
        {
            "name": device.system.device,
            "processor": device.processor_name,
            "machine": device.machine,
            "cores": device.processor.cores,
            "big_cores": device.processor.big_cores,
            "memory": device.memory.total,
            "available": device.memory.available,
            "android": device.system.android_version,
            "termux": device.system.termux,
            "kernel": device.system.kernel,
        },
    )
