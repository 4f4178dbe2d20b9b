"""What the user sees of a download: one bar, and a line for each wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen_edge.cli.language import translate
from qwen_edge.cli.terminal import Progress, note, progress
from qwen_edge.host.download import Watch
from qwen_edge.host.retry import Patience
from qwen_edge.host.sizes import format_size
from qwen_edge.session.pull_folder import DownloadFolder
from qwen_edge.session.pull_offer import Offer


class DownloadView:
    """Shows the progress of one download.

    Args:
        announce: is told as well, in a line.

    Attributes:
        watch: tells it of what goes on.
    """

    def __init__(self, announce: Callable[[str], None] = lambda text: None) -> None:
        self._announce = announce
        self.watch = Watch(checking=self._checking, waiting=self._waiting)
        self._bar: Progress | None = None
        self._total = 0
        self._checks = False

    def download(self, folder: DownloadFolder, offer: Offer, patience: Patience) -> Path:
        """Downloads what is missing; says so if it is broken off."""
        self._total = offer.selection.size
        note(
            "{name}: {missing} of {total} are to be downloaded.",
            name=offer.origin,
            missing=format_size(folder.missing(offer)),
            total=format_size(self._total),
        )
        with (
            self.kept(folder, offer),
            progress("Downloading", self._total, unit=format_size, rate=True) as self._bar,
        ):
            return folder.fetch(offer, patience, self._progress, self.watch)

    @contextmanager
    def kept(self, folder: DownloadFolder, offer: Offer) -> Iterator[None]:
        """Says, if what happens within fails, what is left of the download."""
        try:
            yield
        except BaseException:
            here = self._total - folder.missing(offer)
            if here:
                note(
                    "{size} are kept in {folder}; the same command goes on from there.",
                    size=format_size(here),
                    folder=folder.path,
                )
            raise

    def _progress(self, done: int) -> None:
        if self._bar is None:
            return
        if self._checks:
            self._checks = False
            self._bar.describe(translate("Downloading"), self._total)
        self._bar.update(done)
        self._announce(f"{format_size(done)}/{format_size(self._total)}")

    def _checking(self, done: int, total: int) -> None:
        if self._bar is None:
            return
        if not self._checks:
            self._checks = True
            self._bar.describe(translate("Checking what is here"), total)
        self._bar.update(done)

    def _waiting(self, reason: str, seconds: float) -> None:
        if self._bar is not None:
            self._bar.clear()
        note(
            "{reason}; trying again in {seconds:.0f} s.", reason=translate(reason), seconds=seconds
        )
