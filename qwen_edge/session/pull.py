"""Getting a model: look what there is, download it, and hand it over for conversion."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.host.download import Refusal, Watch, download
from qwen_edge.host.https import Client
from qwen_edge.host.hub import repository, single_file
from qwen_edge.host.part_file import bytes_there, discard
from qwen_edge.host.paths import downloads_folder
from qwen_edge.host.retry import Patience
from qwen_edge.host.sizes import format_size
from qwen_edge.host.storage import free_bytes
from qwen_edge.model.checkpoint import Preview, preview
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.layout_choice import default_format
from qwen_edge.model.packed import open_model
from qwen_edge.model.replacing_file import ReplacingFile
from qwen_edge.model.safetensors_reader import SINGLE
from qwen_edge.quant.layout import Layout
from qwen_edge.session.models import SHORT_NAMES
from qwen_edge.session.pull_files import CHECKPOINT, CONFIG, READY, SIDE_FILES, Selection, select
from qwen_edge.session.pull_names import OWNER, URL, Wanted

_CONFIG_LIMIT = 8 << 20
_INDEX_LIMIT = 64 << 20
# Tokenizer, norms and header of a model file.
_REST_BYTES = 6_000_000
# Sizes of models made of quantized sources, as shares of these: ours have scales and minimums for
# each group, and no codes of fewer than 4 bits.
_SHARES = {"q2_k": 1.8, "q3_k": 1.4, "iq2": 2.0, "iq3": 1.5, "f16": 0.6, "f32": 0.3}
_USUAL_SHARE = 1.15
_LOCK = ".lock"


@dataclass(frozen=True)
class Offer:
    """What a source has for the user.

    Attributes:
        wanted: what the user asked for.
        selection: the files to download.
        client: downloads them.
        refusal: makes the error if the source refuses one.
        preview: of a checkpoint, what its config says.
    """

    wanted: Wanted
    selection: Selection
    client: Client
    refusal: Refusal
    preview: Preview | None = None

    @property
    def origin(self) -> str:
        """Names the source in the model file that is made of it."""
        if self.wanted.source == URL or self.selection.kind == CHECKPOINT:
            return self.wanted.origin
        return f"{self.wanted.origin}:{self.selection.files[0].name}"

    @property
    def title(self) -> str:
        """What the model is called, without the kind of its weights where they are to change."""
        if self.selection.kind == CHECKPOINT:
            return self.wanted.name
        return self.selection.files[0].name.rpartition(".")[0]

    def model_bytes(self, bits: int | None, group: int) -> int:
        """About the size of the model file that is made of it.

        Args:
            bits: of the weights, None for the source's own.
            group: columns that share a scale.

        Raises:
            UsageError: there is no such format.
        """
        size = self.selection.size
        if self.selection.kind == READY:
            return size
        if self.preview is not None and (bits is not None or not self.preview.quantized):
            return _packed_bytes(self.preview, bits, group)
        name = self.selection.files[0].name.lower()
        share = next((share for part, share in _SHARES.items() if part in name), _USUAL_SHARE)
        return int(size * share)


def _packed_bytes(ahead: Preview, bits: int | None, group: int) -> int:
    form = default_format(bits, group)
    layouts = [
        form.layout(*shape) if len(shape) > 1 else Layout("f32", 1, shape[0])
        for shape in tensor_shapes(ahead.config).values()
    ]
    return sum(layout.nbytes for layout in layouts) + _REST_BYTES


def look(wanted: Wanted, environ: Mapping[str, str], patience: Patience, watch: Watch) -> Offer:
    """Asks a source what it has.

    Raises:
        NetworkError: it does not have it, or cannot be reached.
        ModelNotFoundError: the repository holds no model.
        UsageError: it holds several.
        DamagedModelError: it holds one that cannot be converted.
    """
    if wanted.source == URL:
        name = wanted.repo.rpartition("/")[2]
        file, client, refusal = single_file(wanted.url, name, patience, watch)
        files = select(wanted.repo, [file], name, lambda file: b"")
        return Offer(wanted, files, client, refusal)
    source = repository(
        wanted.source,
        wanted.repo,
        wanted.revision,
        environ=environ,
        patience=patience,
        watch=watch,
        address=wanted.address,
        known=[f"{OWNER}/{name}" for name in SHORT_NAMES],
    )
    selection = select(
        wanted.repo, source.files(), wanted.file, lambda file: source.text(file, _INDEX_LIMIT)
    )
    ahead = None
    if selection.kind == CHECKPOINT:
        config = next(file for file in selection.files if file.name == CONFIG)
        # A model that cannot be converted is refused before gigabytes of it are here.
        ahead = preview(Path(wanted.repo), source.text(config, _CONFIG_LIMIT))
    return Offer(wanted, selection, source.client, source.refusal, ahead)


def is_made_of(path: Path, origin: str, group: int | None = None) -> bool:
    """Whether a file is a model made of this source, in groups of this size if one is given."""
    try:
        with open_model(path) as model:
            same = group in (None, model.quantization.get("group"))
            return same and model.source == origin
    except (QwenEdgeError, OSError):
        return False


def refuse_other(path: Path, origin: str) -> None:
    """Refuses to replace a model that comes from elsewhere.

    Raises:
        UsageError: there is one.
    """
    if os.path.lexists(path) and not is_made_of(path, origin):
        raise UsageError(
            "There is another model at {path}.",
            "Give this one a --name, or replace that one with --force.",
            path=path,
        )


def check_space(folder: Path, missing: int, target: Path, made: int) -> None:
    """Makes sure that a download and the model made of it fit on the disk.

    Args:
        folder: where the download goes.
        missing: its bytes that are not there yet.
        target: the model file.
        made: its bytes.

    Raises:
        QwenEdgeError: they do not.
    """
    needs = [(folder, missing, made)]
    if _device(folder) != _device(target.parent):
        needs = [(folder, missing, 0), (target.parent, 0, made)]
    for place, downloaded, converted in needs:
        free = free_bytes(place)
        if free is not None and free < downloaded + converted:
            raise QwenEdgeError(
                "{needed} of disk space are needed in {place} ({download} for the download, "
                "{model} for the model), and only {free} are free.",
                "Free some space, or let QWEN_EDGE_HOME name a folder with more of it.",
                needed=format_size(downloaded + converted),
                place=place,
                download=format_size(downloaded),
                model=format_size(converted),
                free=format_size(free),
            )


def _device(path: Path) -> int | None:
    """The file system of a path or of its nearest existing parent."""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return folder.stat().st_dev
    return None


class DownloadFolder:
    """Where the files of one source are downloaded to; a context manager that locks it.

    Attributes:
        path: the folder.

    Raises:
        QwenEdgeError: another process downloads the same, or it cannot be made.
    """

    def __init__(self, wanted: Wanted, environ: Mapping[str, str]) -> None:
        self._name = wanted.repo
        parts = [wanted.source, *wanted.repo.split("/"), *(wanted.revision or "").split("/")]
        self.path = downloads_folder(environ) / "--".join(filter(None, parts))
        self._lock = -1

    def missing(self, offer: Offer) -> int:
        """Bytes of an offer that are not here yet."""
        files = offer.selection.files
        return sum(file.size - bytes_there(self.path, file) for file in files)

    def fetch(
        self,
        offer: Offer,
        patience: Patience,
        progress: Callable[[int], None],
        watch: Watch,
    ) -> Path:
        """Downloads what is missing.

        Args:
            offer: what to download.
            patience: what is put up with.
            progress: called with the bytes of all files that are here.
            watch: is told of waiting and checking.

        Returns:
            What to convert or to take as it is: the folder of a checkpoint, else the file.

        Raises:
            NetworkError: the network fails for too long; what is here stays.
            QwenEdgeError: a file cannot be written.
        """
        if offer.selection.kind == CHECKPOINT:
            self._remove_strange(offer)
        done = 0
        for file in offer.selection.files:

            def told(size: int, before: int = done) -> None:
                progress(before + size)

            each = replace(watch, progress=told)
            download(offer.client, file, self.path, offer.refusal, patience, each)
            done += file.size
        if offer.selection.kind == CHECKPOINT:
            return self.path
        return self.path / offer.selection.files[0].name

    def _remove_strange(self, offer: Offer) -> None:
        """Removes files of a checkpoint that are left from another version of it."""
        names = {file.name for file in offer.selection.files}
        for name in {*SIDE_FILES, SINGLE} - names:
            with contextlib.suppress(OSError):
                (self.path / name).unlink()

    def remove(self, offer: Offer) -> None:
        """Deletes what was downloaded, once it is not needed any more."""
        for file in offer.selection.files:
            discard(self.path, file.name)
        if {path.name for path in self.path.iterdir()} <= {_LOCK}:
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> DownloadFolder:
        try:
            while self._lock < 0:
                self.path.mkdir(parents=True, exist_ok=True)
                self._try_to_lock()
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES) and self._lock < 0:
                raise QwenEdgeError(
                    "{name} is being downloaded by another process.",
                    "Wait until it is done.",
                    name=self._name,
                ) from None
            raise QwenEdgeError(
                "{path} cannot be written: {reason}.",
                "Choose a folder that exists and is writable.",
                path=self.path,
                reason=error.strerror,
            ) from None
        return self

    def _try_to_lock(self) -> None:
        path = self.path / _LOCK
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            # Another process has just finished, and removed the folder.
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(descriptor)
                raise
            # A file system without locks: two downloads at once are the user's own doing there.
        if os.fstat(descriptor).st_nlink:
            self._lock = descriptor
        else:
            os.close(descriptor)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)
        self._lock = -1


def take_ready(path: Path, target: Path) -> None:
    """Checks a downloaded .qedge file by opening it, and gives it its place.

    Raises:
        DamagedModelError: it is none.
        QwenEdgeError: it cannot be put there.
    """

    def verify(file: Path) -> None:
        with open_model(file):
            pass

    verify(path)
    try:
        path.replace(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise QwenEdgeError(
                "{path} cannot be written: {reason}.",
                "Choose a folder that exists and is writable.",
                path=target,
                reason=error.strerror,
            ) from None
    with ReplacingFile(target, path.stat().st_size) as copy:
        copy.write_with(lambda descriptor: _copy(path, descriptor))
        copy.commit(verify)


def _copy(path: Path, descriptor: int) -> None:
    with open(path, "rb") as source, open(descriptor, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target, 1 << 20)
