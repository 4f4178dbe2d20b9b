"""Which engine answers, and how it is set up apart from ``EngineConfig``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen_edge.engine.interface import KV_TYPES
from qwen_edge.session.reason import Reason

NATIVE, TORCH, TRANSFORMERS = "native", "torch", "transformers"
AUTO = "auto"
QUANTIZED = ("nf4", "fp4", "int8")
# The packages that an engine imports; bitsandbytes only where weights are quantized by it.
_PACKAGES: dict[str, tuple[str, ...]] = {
    NATIVE: (),
    TORCH: ("torch",),
    TRANSFORMERS: ("torch", "transformers", "accelerate"),
    # What it comes to is not known before the model is.
    AUTO: (),
}


@dataclass(frozen=True)
class EngineChoice:
    """The engine of a run.

    Attributes:
        name: ``native``, ``torch`` or ``transformers``; ``auto`` until the model is known.
        compile: of torch, one of ``COMPILE_MODES``.
        weights: of transformers: ``bf16``, ``f16``, ``f32``, or one of ``QUANTIZED``.
        floats: of transformers: the type of what is not quantized, and of keys and values.
        double_quant: of transformers: whether the scales of 4-bit weights are quantized in turn.
        reason: why ``auto`` came to it; None if the user named it.
    """

    name: str = NATIVE
    compile: str = "auto"
    weights: str = "bf16"
    floats: str = "bf16"
    double_quant: bool = False
    reason: Reason | None = None

    @property
    def drafts(self) -> bool:
        """Whether several rows at once give to the last bit what single ones do, and cost less."""
        return self.name == NATIVE

    @property
    def kv_types(self) -> Sequence[str]:
        """What the engine can keep keys and values in."""
        return (self.floats,) if self.name == TRANSFORMERS else KV_TYPES

    @property
    def keeps_prompts(self) -> bool:
        """Whether it writes keys and values to files and reads them back."""
        return self.name == NATIVE

    @property
    def packages(self) -> Sequence[str]:
        """What it imports."""
        needed = _PACKAGES[self.name]
        quantized = self.name == TRANSFORMERS and self.weights in QUANTIZED
        return (*needed, "bitsandbytes") if quantized else needed
