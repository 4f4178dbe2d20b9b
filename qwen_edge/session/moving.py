"""Bringing a model file into the folder of models, where mapping it is fast."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from qwen_edge.errors import ModelNotFoundError, QwenEdgeError, UsageError
from qwen_edge.host.paths import data_folder, models_folder
from qwen_edge.host.place import Place
from qwen_edge.host.storage import is_shared_storage
from qwen_edge.model.packed import open_model
from qwen_edge.model.replacing_file import ReplacingFile
from qwen_edge.session.models import SUFFIX, store_path

_PIECE = 4 << 20
# Models that the user wants to stay where they are.
_STAYING = "staying-models.json"
_MOST_STAYING = 100


def copied_to(source: Path, name: str | None = None) -> Path:
    """Where a model goes in the folder of models.

    Raises:
        UsageError: the name is none for a model, or another file has it.
    """
    target = store_path(name or source.name.removesuffix(SUFFIX))
    linked = target.is_symlink() and _real(target) == _real(source)
    if os.path.lexists(target) and not linked and not _same(source, target):
        raise UsageError(
            "There is another model at {path}.", "Give this one a --name.", path=target
        )
    return target


def is_in_place(source: Path, target: Path) -> bool:
    """Whether a model is there already, itself and not by a link to somewhere slow."""
    return not target.is_symlink() and os.path.exists(target) and _real(source) == _real(target)


class Original(NamedTuple):
    """A model that was copied, as it was then; never a link to it."""

    path: Path
    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> Original:
        facts = path.stat()
        return cls(path, facts.st_size, facts.st_mtime_ns)


def copy_model(
    source: Path, target: Path, progress: Callable[[int, int, str], None] | None = None
) -> Original:
    """Copies a model file; afterwards the copy is on the disk, and read back for a check.

    Whatever happens, the source stays as it is, and the target is whole or as it was.

    Args:
        source: the model, or a link to it.
        target: where it goes; one of the same content stays, a link is replaced.
        progress: is told the bytes done, the bytes to do and the model's name.

    Returns:
        What ``remove_original`` takes.

    Raises:
        ModelNotFoundError: there is no such file.
        DamagedModelError: it is no model.
        QwenEdgeError: it cannot be read or written, or the disk is full.
    """
    # Unlike Path.is_file, this never raises.
    if not os.path.isfile(source):
        raise ModelNotFoundError("There is no model file {path}.", path=source)
    source = _real(source)
    with open_model(source):
        pass
    original = Original.of(source)
    if _same(source, target):
        return original
    size = original.size
    tell = progress or (lambda done, total, name: None)
    with ReplacingFile(target, size) as file, _reading(source) as reader:
        done, digest = 0, hashlib.blake2b()
        while piece := reader(_PIECE):
            file.write(piece, done)
            digest.update(piece)
            done += len(piece)
            tell(done, size, target.stem)
        written = digest.digest()

        def verify(path: Path) -> None:
            checked = hashlib.blake2b()
            with _reading(path) as reader:
                while piece := reader(_PIECE):
                    checked.update(piece)
            if Original.of(source) != original or checked.digest() != written:
                raise QwenEdgeError("The copy of {path} is not what was read.", path=source)

        file.commit(verify)
    return original


def remove_original(original: Original) -> None:
    """Deletes a model that was copied.

    Raises:
        QwenEdgeError: it has changed since, or it cannot be deleted.
    """
    try:
        if Original.of(original.path) == original:
            original.path.unlink()
            return
    except OSError as error:
        raise QwenEdgeError(
            "{path} cannot be deleted: {reason}.",
            path=original.path,
            reason=error.strerror or error,
        ) from error
    raise QwenEdgeError("{path} has changed since it was copied, and stays.", path=original.path)


def may_be_offered(path: Path, environ: Mapping[str, str] | None = None) -> bool:
    """Whether to ask about a model on slow storage: there is a better place, and no "no" yet."""
    place = Place(environ=os.environ if environ is None else environ)
    better = not is_shared_storage(models_folder(environ), place)
    return better and str(path.absolute()) not in _staying(environ)


def let_stay(path: Path, environ: Mapping[str, str] | None = None) -> None:
    """Remembers that the user wants a model to stay where it is."""
    added = str(path.absolute())
    names = [*(name for name in _staying(environ) if name != added), added]
    data = json.dumps(names[-_MOST_STAYING:]).encode()
    target = data_folder(environ) / _STAYING
    # Being asked once more is all that it costs.
    with contextlib.suppress(QwenEdgeError, OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with ReplacingFile(target, len(data), mode=0o600, durable=False) as file:
            file.write(data, 0)
            file.commit(lambda _: None)


def _staying(environ: Mapping[str, str] | None) -> list[str]:
    try:
        found = json.loads((data_folder(environ) / _STAYING).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _same(one: Path, other: Path) -> bool:
    """Whether two files have the same content; False where one cannot be read, or for a link."""
    try:
        if other.is_symlink():
            return False
        if one.stat().st_size != other.stat().st_size:
            return False
        with open(one, "rb") as first, open(other, "rb") as second:
            while piece := first.read(_PIECE):
                if piece != second.read(_PIECE):
                    return False
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Callable[[int], bytes]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _not_read(path, error) from None

    def read(size: int) -> bytes:
        try:
            return os.read(descriptor, size)
        except OSError as error:
            raise _not_read(path, error) from None

    try:
        if hasattr(os, "posix_fadvise"):
            # What was written just now is to come from the disk.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        yield read
    finally:
        os.close(descriptor)


def _not_read(path: Path, error: OSError) -> QwenEdgeError:
    return QwenEdgeError(
        "{path} cannot be read: {reason}.", path=path, reason=error.strerror or error
    )
