"""Which format each tensor of a source goes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from qwen_edge.errors import UsageError
from qwen_edge.model.config import EMBEDDING
from qwen_edge.model.source import Source, SourceTensor
from qwen_edge.quant.gguf_blocks import BlockType
from qwen_edge.quant.layout import CODEBOOKS, Layout, WeightFormat, weight_format

DEFAULT_BITS = 4
Override = tuple[str, WeightFormat]
"""A pattern for tensors and the format of those that it fits."""


def parse_override(text: str, group: int = 32) -> Override:
    """Reads ``PATTERN=FORMAT``; a format is 4, 8 or 16 bits, or a codebook's name.

    Raises:
        UsageError: it is something else.
    """
    pattern, equals, name = text.partition("=")
    try:
        if equals and pattern and name in CODEBOOKS:
            return pattern, weight_format(4, group, name)
        if equals and pattern and name.isdecimal():
            return pattern, weight_format(int(name), group)
    except ValueError:
        pass
    raise UsageError(
        "The override {text} is not understood.",
        "Write PATTERN=FORMAT, such as lm_head=8 or 'layers.0.*=16'; formats: 4, 8, 16, {books}.",
        text=text,
        books=", ".join(CODEBOOKS),
    )


def default_format(bits: int | None, group: int, codebook: str = "int4") -> WeightFormat:
    """The format of float matrices that no override fits.

    Raises:
        UsageError: there is none like that.
    """
    try:
        form = weight_format(DEFAULT_BITS if bits is None else bits, group, codebook)
        form.layout(1, 1)
    except ValueError as error:
        raise UsageError("The weights cannot be stored that way: {reason}.", reason=error) from None
    return form


def choose_layouts(
    source: Source,
    bits: int | None,
    group: int,
    codebook: str = "int4",
    overrides: Sequence[Override] = (),
) -> dict[str, Layout]:
    """Every tensor's layout; ``convert`` says what the arguments mean.

    Raises:
        UsageError: a format is not offered, or an override fits no matrix.
    """
    default = default_format(bits, group, codebook)
    unused = {pattern for pattern, _ in overrides}
    layouts = {}
    for name, tensor in source.tensors.items():
        fitting = [each for each in overrides if _fits(each[0], name, source.config.tied)]
        unused -= {pattern for pattern, _ in fitting}
        chosen = fitting[0][1] if fitting else usual_format(tensor, default, bits is not None)
        # Norms: a few bytes that every kernel reads as they are.
        vector = Layout("f32", 1, tensor.cols)
        layouts[name] = chosen.layout(tensor.rows, tensor.cols) if len(tensor.shape) > 1 else vector
    for pattern in unused:
        raise UsageError(
            "The override {pattern} fits no weights.",
            "Matrices are named like lm_head, embed_tokens, down_proj or layers.0.mlp.down_proj.",
            pattern=pattern,
        )
    return layouts


def _fits(pattern: str, name: str, tied: bool) -> bool:
    """A pattern may leave out ``model.``, ``.weight`` and all that comes before the last part."""
    short = name.removeprefix("model.").removesuffix(".weight")
    names = {name, short, short.rpartition(".")[2]}
    if tied and name == EMBEDDING:
        names.add("lm_head")
    return any(fnmatchcase(each, pattern) for each in names)


def usual_format(
    tensor: SourceTensor | BlockType, default: WeightFormat, explicit: bool
) -> WeightFormat:
    """The format of weights that no override fits; ``explicit`` if the default was asked for."""
    if not explicit:
        return tensor.nearest or default
    if tensor.held is not None and tensor.held.bits <= default.bits:
        return tensor.held
    return default


def main_format(layouts: Mapping[str, Layout]) -> tuple[int, int]:
    """The bits that most weights have, and the group that most of those have."""
    matrices = [layout for layout in layouts.values() if layout.rows > 1]
    bits = _most((layout.bits, layout.rows * layout.cols) for layout in matrices)
    alike = (layout for layout in matrices if layout.bits == bits)
    return bits, _most((layout.group, layout.rows * layout.cols) for layout in alike)


def _most(counted: Iterable[tuple[int, int]]) -> int:
    """The key with the largest sum of counts."""
    sums: dict[int, int] = {}
    for key, count in counted:
        sums[key] = sums.get(key, 0) + count
    return max(sums, key=lambda key: sums[key])


def is_held(tensor: SourceTensor, layout: Layout) -> bool:
    """Whether a layout is, in whole or in rows of it, what holds the tensor exactly."""
    return tensor.held is not None and tensor.held.layout(layout.rows, layout.cols) == layout


def rounded(source: Source, layouts: Mapping[str, Layout]) -> set[str]:
    """The matrices that are rounded so coarsely that their activations are worth looking at.

    In a quantized source, those that go to 8 bits are not.
    """
    return {
        name
        for name, layout in layouts.items()
        if layout.packed
        and not is_held(source.tensors[name], layout)
        and (layout.bits < 8 or source.tensors[name].nearest is None)
    }
