"""How a tensor's weights are stored: the Python mirror of native/format.h."""

from __future__ import annotations

from dataclasses import dataclass, replace

TILE_ROWS = 16
GROUPS = (32, 64, 128)
DENSE_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "u8": 1}
"""Bytes of an element of the unpacked types; ``u8`` is for tensors that are not weights."""
_BITS = {"q4": 4, "q8": 8} | {name: 8 * size for name, size in DENSE_BYTES.items()}

INT4 = tuple(range(-8, 8))
UINT4 = tuple(range(16))
"""For tensors with minimums: weights are ``code * scale + minimum``."""
# 127 times the 16 levels of "QLoRA" (Dettmers et al. 2023), appendix E.
NF4 = (-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127)
# The values of ggml's IQ4_NL.
IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
# Twice the values of FP4 E2M1 (OCP Microscaling Formats 1.0): the codes 0 and 8 are both zero.
FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
CODEBOOKS = {"int4": INT4, "uint4": UINT4, "nf4": NF4, "iq4_nl": IQ4_NL, "fp4": FP4}


@dataclass(frozen=True)
class Layout:
    """A tensor [rows, cols] as it lies in memory.

    Attributes:
        type: ``q4``, ``q8``, ``f32``, ``f16``, ``bf16`` or ``u8``.
        rows: 1 for vectors.
        cols: without padding.
        group: columns that share a scale, 0 for the unpacked types.
        has_min: whether each scale has a minimum; weights are then ``code * scale + minimum``.
        codebook: the 16 signed bytes that codes stand for, ``q4`` alone, else empty: codes of
            ``q8`` are signed bytes themselves.
        has_zero: whether what is in the minimums' place are zero points: weights are then
            ``(codebook[code] - zero) * scale``.
        levels: 16 floats that the codebook rounds, or none: weights are then
            ``levels[code] * (unit * scale)``.
        unit: what the levels were multiplied by to make the codebook; 0 without levels.

    Raises:
        ValueError: the fields do not go together; the message is a sentence fragment.
    """

    type: str
    rows: int
    cols: int
    group: int = 0
    has_min: bool = False
    codebook: tuple[int, ...] = ()
    has_zero: bool = False
    levels: tuple[float, ...] = ()
    unit: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"its shape {self.rows} x {self.cols} is empty")
        if self.type not in ("q4", "q8"):
            if self.type not in DENSE_BYTES:
                raise ValueError(f"its type {self.type!a:.40} is unknown")
            if self.group or self.has_min or self.codebook or self.has_zero or self.levels:
                raise ValueError(f"its type {self.type} has neither groups nor a codebook")
            return
        if self.group not in GROUPS:
            raise ValueError(f"its group size {self.group} is not 32, 64 or 128")
        if self.has_zero and not self.has_min:
            raise ValueError("its zero points lack the minimums' place")
        if self.levels or self.unit:
            self._check_levels()
        if self.type == "q8":
            if self.codebook:
                raise ValueError("its type q8 has no codebook")
        elif len(self.codebook) != 16 or min(self.codebook) < -128 or max(self.codebook) > 127:
            raise ValueError("its codebook is not 16 signed bytes")

    def _check_levels(self) -> None:
        if self.type != "q4" or self.has_min or len(self.levels) != 16:
            raise ValueError("its levels do not go with its type")
        if not all(abs(level) <= 1 for level in self.levels):
            raise ValueError("its levels are not from -1 to 1")
        if not 1 <= self.unit <= 127:
            raise ValueError(f"its unit {self.unit} is not from 1 to 127")
        # Kernels take the codebook for the levels: it has to be them, rounded.
        if self.codebook != _rounded(self.levels, self.unit):
            raise ValueError("its codebook is not its levels, rounded")

    @property
    def packed(self) -> bool:
        """Whether it is made of tiles."""
        return self.group > 0

    @property
    def bits(self) -> int:
        """Bits of a code, or of an element of the unpacked types."""
        return _BITS[self.type]

    @property
    def tiles(self) -> int:
        """Tiles of 16 rows."""
        return -(-self.rows // TILE_ROWS)

    @property
    def groups(self) -> int:
        """Groups of columns."""
        return -(-self.cols // self.group)

    @property
    def block_bytes(self) -> int:
        """Bytes of one tile by one group: codes, scales, minimums."""
        codes = self.group * (8 if self.type == "q4" else 16)
        return codes + 2 * TILE_ROWS * (2 if self.has_min else 1)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        if self.packed:
            return self.tiles * self.groups * self.block_bytes
        return self.rows * self.cols * DENSE_BYTES[self.type]

    def with_rows(self, rows: int) -> Layout:
        """The layout of some whole tiles of this tensor."""
        return replace(self, rows=rows)


@dataclass(frozen=True)
class WeightFormat:
    """How to store a weight matrix of any shape; see ``Layout``."""

    type: str = "q4"
    group: int = 32
    has_min: bool = False
    codebook: tuple[int, ...] = INT4
    has_zero: bool = False
    levels: tuple[float, ...] = ()
    unit: int = 0

    @property
    def bits(self) -> int:
        """Bits of a code, or of an element of the unpacked types."""
        return _BITS[self.type]

    def layout(self, rows: int, cols: int) -> Layout:
        """The layout of a matrix in this format."""
        return Layout(rows=rows, cols=cols, **vars(self))


def _rounded(levels: tuple[float, ...], unit: int) -> tuple[int, ...]:
    return tuple(round(unit * level) for level in levels)


def level_format(levels: tuple[float, ...], group: int) -> WeightFormat:
    """The format for 16 levels from -1 to 1, in the unit that a codebook rounds them best by."""

    def off(unit: int) -> float:
        rounded = _rounded(levels, unit)
        return sum((code / unit - level) ** 2 for code, level in zip(rounded, levels, strict=True))

    unit = min(range(127, 0, -1), key=off)
    return WeightFormat("q4", group, False, _rounded(levels, unit), False, levels, unit)


def weight_format(bits: int, group: int = 32, codebook: str = "int4") -> WeightFormat:
    """The format that a number of bits stands for: 4, 8 or 16 (bf16, without groups).

    Args:
        bits: as above.
        group: columns that share a scale.
        codebook: the name of one, for 4 bits; ``uint4`` comes with minimums.

    Raises:
        ValueError: there is none for it.
    """
    if codebook not in CODEBOOKS:
        raise ValueError(f"the codebook {codebook!a:.40} is not one of {', '.join(CODEBOOKS)}")
    if bits == 4:
        return WeightFormat("q4", group, codebook == "uint4", CODEBOOKS[codebook])
    if bits == 8:
        return WeightFormat("q8", group, False, ())
    if bits == 16:
        return WeightFormat("bf16", 0, False, ())
    raise ValueError(f"{bits} bits are not 4, 8 or 16")
