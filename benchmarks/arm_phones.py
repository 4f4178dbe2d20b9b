"""What the cycles of the kernels come to in tokens a second on four phones.

Decode reads all weights for each token: it goes at the speed of the memory or of the cores,
whichever is less. Prefill goes through a block of weights with eight tokens at a time; the row-dot
loop has no such thing.
"""

from __future__ import annotations

from dataclasses import dataclass

# Qwen3-0.6B with groups of 32: bytes and weights that a decoded token reads, and the weights that a
# token of a prompt is multiplied with (without the head).
TOKEN_BYTES = 335_241_216
TOKEN_WEIGHTS = 595_984_384
PROMPT_WEIGHTS = 440_401_920
# Of the memory's nominal bandwidth; measured on a Helio G85: 9.5 of 14.4 GB/s.
USABLE = 0.66


@dataclass(frozen=True)
class Phone:
    """A phone's processor, from its maker's data sheet.

    Attributes:
        core: one of CORES of arm_cost.py.
        clocks: GHz of each of the fast cores, which decode and prefill are priced on.
        bandwidth: of the memory, nominal, GB/s.
    """

    name: str
    core: str
    clocks: tuple[float, ...]
    bandwidth: float
    table: str


# LPDDR4X at 3,600 and 4,266 MT/s on 32 bits, LPDDR5X at 8,400 on 64. The A78 and the X3 are priced
# as the nearest core that llvm-mca has a model of: an A76 and an A710.
PHONES = (
    Phone("Helio G85", "cortex-a75", (2.0, 2.0), 14.4, "neon_dotprod"),
    Phone("Helio G99", "cortex-a76", (2.2, 2.2), 17.1, "neon_dotprod"),
    Phone("Snapdragon 695", "cortex-a76", (2.2, 2.2), 17.1, "neon_dotprod"),
    Phone("Snapdragon 8 Gen 2", "cortex-a710", (3.2, 2.8, 2.8, 2.8, 2.8), 67.2, "neon_i8mm"),
)


@dataclass(frozen=True)
class Speed:
    """Tokens a second, and whether the memory sets them."""

    decode: float
    memory_bound: bool
    prefill: float

    def text(self) -> str:
        """``28 decode (memory), 61 prefill``."""
        by = "memory" if self.memory_bound else "cores"
        return f"{self.decode:.0f} decode ({by}), {self.prefill:.0f} prefill"


def speed(phone: Phone, cycles_per_weight: float, prefill_cycles_per_weight: float) -> Speed:
    """Tokens a second of a loop that takes so many cycles for a weight and a row."""
    hertz = sum(phone.clocks) * 1e9
    memory = USABLE * phone.bandwidth * 1e9 / TOKEN_BYTES
    cores = hertz / (cycles_per_weight * TOKEN_WEIGHTS)
    prefill = hertz / (prefill_cycles_per_weight * PROMPT_WEIGHTS)
    return Speed(min(memory, cores), memory <= cores, prefill)
