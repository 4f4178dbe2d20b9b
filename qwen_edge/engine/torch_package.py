"""Layers compiled ahead of time: a package that runs them without tracing anything.

AOTInductor compiles a group of layers with their weights as arguments, so that one small package
serves all groups, and every model of the same shapes. It is machine code: it lies in this user's
cache folder, not beside a model, and nobody else's is loaded.
"""

from __future__ import annotations

import hashlib
import inspect
import platform
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qwen_edge.engine.torch_compile import OPTIONS, check_layers, configure, group_size
from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.limits import uncapped_children
from qwen_edge.host.paths import torch_folder
from qwen_edge.model.operators_file import is_own, operators_key
from qwen_edge.model.qwen3 import Qwen3
from qwen_edge.model.replacing_file import put_in_place

_NAME = "model"
_LONGEST = 1 << 16


class PackagedLayers:
    """Runs layers in packaged groups; give it to ``Qwen3.forward`` in place of ``run_layers``.

    It is for calls of one row.

    Args:
        network: the model.
        caches: of its layers.
        path: a package that ``make_package`` made for them.

    Raises:
        ArithmeticError: the packaged layers compute something else than the eager ones.
        RuntimeError: the package does not load.
    """

    def __init__(self, network: Qwen3, caches: Sequence[Tensor], path: Path) -> None:
        step = self._step = group_size(len(network.layers))
        self._runner = torch._C._aoti.AOTIModelPackageLoader(str(path), _NAME, True, 1, -1)
        self._groups = [
            [*caches[i : i + step], *_tensors(network.layers[i : i + step])]
            for i in range(0, len(network.layers), step)
        ]
        # All groups are run by the same code.
        check_layers(self, network, caches, step)

    def __call__(
        self, layers: Sequence[object], x: Tensor, rope: Any, caches: object, rows: Any
    ) -> Tensor:
        """See ``run_layers``; the layers are those given to the constructor, or the first."""
        for group in self._groups[: len(layers) // self._step]:
            (x,) = self._runner.boxed_run([x, *rope, *rows, *group])
        return x


class _Group(nn.Module):
    """A group of layers as a function of everything that differs from group to group."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        # Not submodules: their tensors must not become constants of the package.
        self._layers = [(layer, [name for name, _ in layer.named_buffers()]) for layer in layers]

    def forward(
        self, x: Tensor, rope: list[Tensor], rows: list[Tensor], given: list[Tensor]
    ) -> Tensor:
        tensors = iter(given)
        caches = [next(tensors) for _ in self._layers]
        for (layer, names), cache in zip(self._layers, caches, strict=True):
            own = {name: next(tensors) for name in names}
            arguments = (x, tuple(rope), cache, tuple(rows))
            x = torch.func.functional_call(layer, own, arguments)
        return x


def package_path(network: Qwen3, caches: Sequence[Tensor]) -> Path:
    """Where the package for a model and its caches is, or would be."""
    step = group_size(len(network.layers))
    # The code, what it holds as constants, and the tensors that it is given: of every group, since
    # one that has others than the first must not find the first one's package.
    facts = [
        Path(inspect.getfile(Qwen3)).read_bytes(), torch.__version__, operators_key(),
        platform.machine(), torch.backends.cpu.get_cpu_capability(), OPTIONS,
        network.hidden_size, network.kv_type,
        network.fp32, network.norm.eps, str(network.layers[0]), _signatures(network),
        [(cache.shape[:3], cache.shape[4]) for cache in caches[:step]],
    ]  # fmt: skip
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
    return torch_folder() / "packages" / f"layers-{key}.pt2"


def find_package(network: Qwen3, caches: Sequence[Tensor]) -> Path | None:
    """The package for a model and its caches, if there is one that this user made."""
    path = package_path(network, caches)
    return path if is_own(path) else None


def make_package(network: Qwen3, caches: Sequence[Tensor]) -> Path:
    """Compiles the package for a model and its caches; takes some 10 seconds.

    Raises:
        QwenEdgeError: the model's layers are not all alike.
        Exception: whatever the compiler raises.
    """
    step = group_size(len(network.layers))
    if len(_signatures(network)) > 1:
        raise QwenEdgeError(
            "The model's layers differ in how they are quantized: no package can serve them all.",
            "Use --compile on.",
        )
    configure()
    from torch._inductor import aoti_compile_and_package

    rows = [torch.zeros(1, dtype=torch.int64) for _ in range(2)]
    with torch.no_grad():
        x, rope = torch.zeros(1, network.hidden_size), [*network.rope(rows[1])]
    given = [*caches[:step], *_tensors(network.layers[:step])]
    # A package is for any length of the context.
    blocks = {3: torch.export.Dim("blocks", min=2, max=_LONGEST)}
    dims = (None, [None, None], [None, None], [blocks] * step + [None] * (len(given) - step))
    path = package_path(network, caches)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        torch.no_grad(),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder,
        # Inductor starts the compiler where it likes.
        uncapped_children(),
    ):
        program = torch.export.export(
            _Group(network.layers[:step]), (x, rope, rows, given), dynamic_shapes=dims, strict=False
        )
        partial = Path(folder) / "package.pt2"
        options = {key: value for key, value in OPTIONS.items() if key != "cpp_wrapper"}
        aoti_compile_and_package(program, package_path=str(partial), inductor_configs=options)
        put_in_place(partial, path)
    return path


def _tensors(layers: Iterable[nn.Module]) -> list[Tensor]:
    return [tensor for layer in layers for _, tensor in layer.named_buffers()]


def _signatures(network: Qwen3) -> list[str]:
    """What tensors groups of layers have: one entry if all have the same."""
    step, layers = group_size(len(network.layers)), network.layers
    groups = (layers[i : i + step] for i in range(0, len(layers), step))
    return sorted({repr(_signature(group)) for group in groups})


def _signature(layers: Iterable[nn.Module]) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [
        (name, tensor.shape, tensor.dtype)
        for layer in layers
        for name, tensor in layer.named_buffers()
    ]
