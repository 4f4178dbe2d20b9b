"""``qwen-edge pull``: download a model and convert it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from qwen_edge.cli.announcing import announced
from qwen_edge.cli.awake import staying_awake
from qwen_edge.cli.convert_options import (
    USUAL_GROUP,
    Bits,
    Calibration,
    Codebook,
    Group,
    Making,
    Method,
    Name,
    Output,
    Overrides,
    Threads,
    check_target,
    default_output,
    report_conversion,
    run_conversion,
    stored_name,
)
from qwen_edge.cli.download_view import DownloadView
from qwen_edge.cli.language import translate
from qwen_edge.cli.terminal import note, out, table, warn
from qwen_edge.errors import UsageError
from qwen_edge.host.retry import Patience
from qwen_edge.host.sizes import format_size
from qwen_edge.host.storage import free_bytes
from qwen_edge.model.layout_choice import DEFAULT_BITS
from qwen_edge.quant.methods import BEST_CODEBOOK
from qwen_edge.session.models import SHORT_NAMES, store_path
from qwen_edge.session.profile import read_profile
from qwen_edge.session.pull_files import GGUF, READY
from qwen_edge.session.pull_folder import DownloadFolder
from qwen_edge.session.pull_names import SOURCES, URL, Wanted, parse_wanted
from qwen_edge.session.pull_offer import Offer, look
from qwen_edge.session.pull_target import check_space, is_made_of, refuse_other, take_ready
from qwen_edge.session.recommendation import expected_facts, recommended_model, refusal

app = typer.Typer(
    help="Download a model and convert it.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_ALL_BITS = (4, 8, 16)
_USUAL_TIMEOUT = 30.0


def _short_names(beginning: str) -> list[str]:
    return [name.lower() for name in SHORT_NAMES if name.lower().startswith(beginning.lower())]


def _sources(beginning: str) -> list[str]:
    return [name for name in SOURCES if name.startswith(beginning)]


@app.command()
def pull_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-4b-instruct-2507, "
            "qwen3-4b-thinking-2507, owner/name, owner/name:file, or a URL.",
            autocompletion=_short_names,
        ),
    ],
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="A .gguf or .qedge file of the repository."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="NAME",
            help="huggingface or modelscope.",
            autocompletion=_sources,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="REV", help="A branch, tag or commit."),
    ] = None,
    output: Output = None,
    bits: Bits = None,
    group: Group = USUAL_GROUP,
    method: Method = None,
    codebook: Codebook = BEST_CODEBOOK,
    override: Overrides = None,
    calibration: Calibration = None,
    name: Name = None,
    threads: Threads = 0,
    keep_source: Annotated[
        bool, typer.Option("--keep-source", help="Keep what was downloaded.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a model that is there already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be downloaded.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", help="How long a connection may be silent."),
    ] = _USUAL_TIMEOUT,
) -> None:
    """Download a model from Hugging Face or ModelScope and convert it.

    A download that breaks off goes on where it stopped when the command is run again.
    """
    making = Making(bits, group, method, codebook, override, calibration, threads)
    # Not after gigabytes are here.
    making.checked()
    if not 1 <= timeout <= 3600:
        raise UsageError("--timeout is {value}; it must be from 1 to 3600.", value=timeout)
    wanted = parse_wanted(model, os.environ, source=source, revision=revision, file=file)
    request = _Request(wanted, output, name, making, keep_source, force)
    if found := request.made_before():
        _say_there(found)
        return
    with staying_awake(), announced(f"qwen-edge pull {wanted.name}") as announce:
        _pull(request, Patience(timeout=timeout), dry_run, announce)


def _pull(
    request: _Request, patience: Patience, dry_run: bool, announce: Callable[[str], None]
) -> None:
    """Asks the source, downloads and converts."""
    view = DownloadView(announce)
    offer = look(request.wanted, os.environ, patience, view.watch)
    if found := request.made_of(offer):
        _say_there(found)
        return
    target = request.expected_target(offer)
    request.check_free(target, offer)
    folder = DownloadFolder(request.wanted, os.environ)
    made = offer.model_bytes(request.making.bits, request.making.group)
    _warn_of_memory(offer, made)
    if dry_run:
        _say_plan(folder, offer, target, made)
        return
    check_target(target)
    check_space(folder.path, folder.missing(offer), target, made)
    with folder:
        downloaded = view.download(folder, offer, patience)
        with view.kept(folder, offer):
            announce(translate("Converting"))
            _finish(request, offer, downloaded)
        if request.keep_source and offer.selection.kind != READY:
            note("What was downloaded is kept in {folder}.", folder=folder.path)
        else:
            folder.remove(offer)


def _warn_of_memory(offer: Offer, made: int) -> None:
    """Says before gigabytes are here that the model would not run; it may be for another device."""
    profile = read_profile()
    config = offer.preview.config if offer.preview else None
    facts = expected_facts(offer.title, config, made)
    problem = refusal(profile, facts) if facts else None
    if problem is None:
        return
    warn(problem.sentence, **problem.values)
    best = recommended_model(profile)
    if best is not None:
        note("`qwen-edge pull {name}` gets a model that has room here.", name=best.lower())


@dataclass(frozen=True)
class _Request:
    """What the command line says about the model to get."""

    wanted: Wanted
    output: Path | None
    name: str | None
    making: Making
    keep_source: bool
    force: bool

    def title(self, offer: Offer) -> str:
        """What the model is to be called."""
        return self.name or offer.title

    def expected_target(self, offer: Offer) -> Path:
        """Where the model goes, as far as that is known before it is here."""
        if self.output is not None:
            return self.output
        title, bits = self.title(offer), self.making.bits
        if self._keeps_name(offer):
            return store_path(title)
        return store_path(stored_name(title, DEFAULT_BITS if bits is None else bits))

    def final_target(self, offer: Offer, downloaded: Path) -> Path:
        """Where the model goes, now that its source is here."""
        if self.output is not None or self._keeps_name(offer):
            return self.expected_target(offer)
        return default_output(downloaded, self.title(offer), self.making.bits)

    def _keeps_name(self, offer: Offer) -> bool:
        """Whether the file's name says already how the weights are stored."""
        kind = offer.selection.kind
        return kind == READY or (kind == GGUF and self.making.bits is None)

    def made_before(self) -> Path | None:
        """A model that was made of all that is wanted, as far as the source need not be asked."""
        if self.wanted.file is not None or self.wanted.source == URL:
            return None
        return self._made(self.name or self.wanted.name, self.wanted.origin)

    def made_of(self, offer: Offer) -> Path | None:
        """A model that was made of what the source offers."""
        if offer.selection.kind != READY:
            return self._made(self.title(offer), offer.origin)
        path = self.expected_target(offer)
        # A ready model says of itself where it comes from.
        same = path.is_file() and path.stat().st_size == offer.selection.size
        return path if same and not self.force else None

    def check_free(self, target: Path, offer: Offer) -> None:
        """Refuses to replace a model of another source unasked."""
        if not self.force:
            refuse_other(target, offer.origin)

    def _made(self, title: str, origin: str) -> Path | None:
        if self.force:
            return None
        bits = self.making.bits
        kinds = _ALL_BITS if bits is None else (bits,)
        stored = [store_path(stored_name(title, kind)) for kind in kinds]
        candidates = stored if self.output is None else [self.output]
        group = None if self.making.group == USUAL_GROUP else self.making.group
        return next((path for path in candidates if is_made_of(path, origin, group)), None)


def _finish(request: _Request, offer: Offer, downloaded: Path) -> None:
    """Makes the model of what was downloaded."""
    if offer.selection.kind == READY:
        target = request.expected_target(offer)
        take_ready(downloaded, target)
        out(str(target))
        note("{size}, as it was published.", size=format_size(offer.selection.size))
        return
    title, making = request.title(offer), request.making
    target = request.final_target(offer, downloaded)
    request.check_free(target, offer)
    report_conversion(run_conversion(downloaded, target, title, making, offer.origin))


def _say_there(path: Path) -> None:
    out(str(path))
    note("It is here already; --force downloads and converts it again.")


def _say_plan(folder: DownloadFolder, offer: Offer, target: Path, made: int) -> None:
    """The answer of ``--dry-run``."""
    files = offer.selection.files
    table([(file.name, format_size(file.size)) for file in files], ("name", "size"))
    missing = folder.missing(offer)
    note(
        "{missing} of {total} would be downloaded from {name}, to make {target} ({made}).",
        missing=format_size(missing),
        total=format_size(offer.selection.size),
        name=offer.origin,
        target=target,
        made=format_size(made),
    )
    note(
        "Disk space needed: {needed}; free: {free}.",
        needed=format_size(missing + made),
        free=format_size(free_bytes(folder.path) or 0),
    )
