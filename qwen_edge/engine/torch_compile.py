"""torch.compile for the layers of model/qwen3.py: a few layers compiled once serve all of them.

Inductor writes C++ around the operators and calls their C interface directly, so that what is left
of a decode step outside of the kernels is one call for each group of layers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from qwen_edge.host.limits import uncapped_children
from qwen_edge.host.paths import torch_folder
from qwen_edge.model.operators_file import operators_key
from qwen_edge.model.qwen3 import Qwen3, RunLayers, run_layers

_TENSOR = "AtenTensorHandle"
_SHIMS = {
    "linear": f"{_TENSOR}, const {_TENSOR}*, int64_t, {_TENSOR}, const {_TENSOR}*, int64_t, "
    f"int32_t, {_TENSOR}*",
    "rms_norm": f"{_TENSOR}, {_TENSOR}, double, {_TENSOR}*",
    "rotate": f"{_TENSOR}, {_TENSOR}, {_TENSOR}, {_TENSOR}*",
    "silu_mul": f"{_TENSOR}, {_TENSOR}*",
    "attention": ", ".join([_TENSOR] * 6) + f", int64_t, int32_t, {_TENSOR}*",
}
"""Arguments of the operators' C interface in native/torch/operators.cpp."""
_SHIM_SETTING = "aot_inductor.custom_ops_to_c_shims"
OPTIONS: dict[str, Any] = {"cpp_wrapper": True, "size_asserts": False}
# A call from Python costs as much as a small layer, and code for many takes long to compile.
_LAYERS_AT_ONCE = 4
# Single codes of INT8 activations may be rounded to the other side.
_TOLERANCE = 1e-2


def configure() -> None:
    """Sets inductor up: where it keeps what, and how it compiles."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(torch_folder() / "inductor" / operators_key())
    # There is too little to compile for workers to be worth their start.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch._inductor.config as inductor

    inductor.compile_threads = 1
    # Each instruction set would be tried out with a compilation of its own.
    inductor.cpp.vec_isa_ok = True
    if sys.platform == "android":
        _use_neon(inductor)
    operators = torch.ops.qwen_edge
    inductor.aot_inductor.custom_ops_to_c_shims = {
        getattr(operators, name).default: [f"AOTITorchError aoti_torch_cpu_{name}({arguments})"]
        for name, arguments in _SHIMS.items()
    }
    # Operators cannot be part of a cache's key; the folder has them in its name.
    ignored = getattr(inductor, "_cache_config_ignore_prefix", [])
    if _SHIM_SETTING not in ignored:
        ignored.append(_SHIM_SETTING)


def _use_neon(inductor: Any) -> None:
    """Inductor knows no vectors where the platform is called android; the processor has them."""
    from torch._inductor import cpu_vec_isa

    cpu_vec_isa.valid_vec_isa_list = lambda: [cpu_vec_isa.VecNEON()]  # type: ignore[assignment]
    inductor.cpp.cxx = (None, "clang++")


class CompiledLayers:
    """Runs layers in compiled groups; give it to ``Qwen3.forward`` in place of ``run_layers``.

    It is for calls of one row. With several rows the operators take so long that compiled code
    around them gains nothing.

    Args:
        layers: of the model.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        step = group_size(len(layers))
        self._step = step
        self._groups = [layers[i : i + step] for i in range(0, len(layers), step)]
        # Groups differ in their tensors alone: to look at the modules, too, takes longer.
        guards = {"guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe}
        # Compiled code belongs to a code object: this model's constants are not another's.
        own = FunctionType(_one_row.__code__.replace(), _one_row.__globals__)
        self._run = torch.compile(own, fullgraph=True, dynamic=False, options=OPTIONS | guards)

    def __call__(
        self, layers: object, x: Tensor, rope: Any, caches: Sequence[Tensor], rows: Any
    ) -> Tensor:
        """See ``run_layers``; the layers are those given to the constructor."""
        for i, group in enumerate(self._groups):
            own = caches[i * self._step : (i + 1) * self._step]
            x = self._run(group, x, rope, own, rows)
        return x


def group_size(layers: int) -> int:
    """How many layers are compiled together: a divisor of their number."""
    return max(step for step in range(1, _LAYERS_AT_ONCE + 1) if layers % step == 0)


def _one_row(layers: Any, x: Tensor, rope: Any, caches: Any, rows: Any) -> Tensor:
    return run_layers(layers, x, rope, caches, rows)


def compile_layers(network: Qwen3, caches: Sequence[Tensor]) -> CompiledLayers:
    """Compiles the layers of a model for calls of one row, and tries them out.

    Args:
        network: the model.
        caches: of its layers; position 0 of the first sequence is overwritten.

    Raises:
        ArithmeticError: the compiled layers compute something else than the eager ones.
        Exception: whatever the compiler raises.
    """
    configure()
    compiled = CompiledLayers(network.layers)
    # Inductor starts the compiler where it likes.
    with uncapped_children():
        check_layers(compiled, network, caches, len(network.layers))
    return compiled


def check_layers(run: RunLayers, network: Qwen3, caches: Sequence[Tensor], count: int) -> None:
    """Holds a way to run layers against the eager one, for the first ``count`` of them.

    Args:
        run: takes what ``run_layers`` takes.
        network: the model.
        caches: of its layers; position 0 of the first sequence is overwritten.
        count: the more layers, the more pages of the model file are read.

    Raises:
        ArithmeticError: they differ.
    """
    layers, caches = network.layers[:count], caches[:count]
    with torch.inference_mode():
        x = torch.arange(network.hidden_size, dtype=torch.float32).mul(0.7).sin()[None]
        rows = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        rope = network.rope(rows[1])
        found = run(layers, x, rope, caches, rows)
        expected = run_layers(layers, x, rope, caches, rows)
        error = (found - expected).norm() / expected.norm()
    if not error <= _TOLERANCE:
        raise ArithmeticError(f"compiled layers are off by {error:.1e}")
