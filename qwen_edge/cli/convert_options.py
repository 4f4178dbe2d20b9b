"""What ``convert`` and ``pull`` have in common: the options of a conversion, and running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from qwen_edge.cli.file_progress import file_progress
from qwen_edge.cli.terminal import note, out, warn
from qwen_edge.errors import UsageError
from qwen_edge.host.paths import models_folder
from qwen_edge.host.sizes import format_size
from qwen_edge.host.storage import storage_of
from qwen_edge.model.conversion import Conversion
from qwen_edge.model.convert import check_method, convert, stored_bits
from qwen_edge.model.layout_choice import Override, default_format, parse_override
from qwen_edge.model.replacing_file import remove_all_leftovers
from qwen_edge.quant.methods import BEST_CODEBOOK, BEST_METHOD, read_calibration
from qwen_edge.session.models import SUFFIX, store_path
from qwen_edge.session.profile import read_profile, reserve_for

USUAL_GROUP = 32

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="The file to make; by default one among the models of this device.",
    ),
]
Bits = Annotated[
    int | None,
    typer.Option(
        "--bits",
        metavar="N",
        help="Bits of a weight: 4, 8 or 16; by default the source's own, 4 for floats.",
    ),
]
Group = Annotated[
    int,
    typer.Option("--group", metavar="N", help="Columns that share a scale: 32, 64 or 128."),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="METHOD",
        help="How weights are rounded: nearest, aware or gptq; by default gptq to 4 bits.",
    ),
]
Codebook = Annotated[
    str,
    typer.Option(
        "--codebook",
        metavar="NAME",
        help="What 4-bit codes stand for: iq4_nl, or int4, which is simpler to compute with.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--override",
        metavar="PATTERN=FORMAT",
        help="Another format for some matrices, such as lm_head=8; may be repeated.",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="The text that the methods aware and gptq go by; by default one of their own.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="What the model is called."),
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", help="Threads; 0 means all cores.")]


@dataclass(frozen=True)
class Making:
    """How a model is to be made, as the options say; see them."""

    bits: int | None = None
    group: int = USUAL_GROUP
    method: str | None = None
    codebook: str = BEST_CODEBOOK
    overrides: list[str] | None = None
    calibration: Path | None = None
    threads: int = 0

    def checked(self) -> _Checked:
        """The options as ``convert`` takes them.

        Raises:
            UsageError: one of them is wrong, as far as that is seen without the source.
        """
        if self.threads < 0:
            raise UsageError("threads is {value}; it cannot be less than 0.", value=self.threads)
        method = self.method or (BEST_METHOD if self.bits in (None, 4) else "nearest")
        check_method(method)
        default_format(self.bits, self.group, self.codebook)
        return {
            "bits": self.bits,
            "group": self.group,
            "codebook": self.codebook,
            "overrides": [parse_override(text, self.group) for text in self.overrides or ()],
            "method": method,
            "calibration": read_calibration(self.calibration) if self.calibration else None,
            "threads": self.threads,
        }


class _Checked(TypedDict):
    bits: int | None
    group: int
    codebook: str
    overrides: list[Override]
    method: str
    calibration: str | None
    threads: int


def default_output(source: Path, title: str, bits: int | None) -> Path:
    """Where a conversion goes that was given no file."""
    return store_path(stored_name(title, stored_bits(source, bits)))


def stored_name(title: str, bits: int) -> str:
    """What a model is called in the store."""
    ending = f"-int{bits}"
    return title if bits == 16 or title.lower().endswith(ending) else title + ending


def check_target(target: Path) -> None:
    """Warns of a place where a model serves badly."""
    if target.suffix != SUFFIX:
        warn("{path} does not end in {suffix}: it is found by its path only.",
             path=target, suffix=SUFFIX)  # fmt: skip
    if storage_of(target).shared:
        warn("{path} lies on shared storage, where it runs at a small part of its speed.",
             path=target)  # fmt: skip


def run_conversion(
    source: Path,
    target: Path,
    title: str,
    making: Making,
    origin: str | None = None,
    adapters: Sequence[tuple[Path, float]] = (),
) -> Conversion:
    """Converts with a progress bar; raises as ``convert`` does."""
    options = making.checked()
    if target.parent == models_folder():
        # What a killed conversion left may be gigabytes, whatever it was to be called.
        remove_all_leftovers(target.parent)
    with file_progress("Converting") as progress:
        made = convert(
            source,
            target,
            progress=progress,
            name=title,
            origin=origin,
            adapters=adapters,
            # A method that was asked for is used whatever it takes.
            memory=_memory() if making.method is None else None,
            **options,
        )
    if made.too_large:
        warn(
            "There is too little memory for the method {method}: {instead} was used, which loses "
            "more.",
            method=made.too_large,
            instead=made.method,
        )
    return made


def _memory() -> int:
    profile = read_profile()
    return max(profile.available_ram - reserve_for(profile), 0)


def report_conversion(made: Conversion) -> None:
    """Writes the model's path, and aside how exact it is."""
    out(str(made.path))
    if made.kept:
        note(
            "{kept} of {matrices} matrices are taken over code for code; only their scales are "
            "rounded to fp16.",
            kept=made.kept,
            matrices=made.matrices,
        )
    report_error(made)


def report_error(made: Conversion) -> None:
    """Writes aside how large the result is, and what its weights are off by."""
    if made.error.squared_error == 0:
        note("{size}; every weight is what it was.", size=format_size(made.size))
        return
    note(
        "{size}; the weights are off by {error:.2%} in all, by {worst:.2%} in {name}.",
        size=format_size(made.size),
        error=made.error.relative,
        worst=made.worst_error.relative,
        name=made.worst_name,
    )
