"""The native engine: the whole transformer in the C++ library, straight from the mapped file."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from qwen_edge.engine.interface import EngineConfig, Logits, Row
from qwen_edge.engine.native_calls import CRow, SessionParams, engine_library
from qwen_edge.engine.native_model import create_model
from qwen_edge.errors import UsageError
from qwen_edge.model.closing import Closing
from qwen_edge.model.packed import PackedModel
from qwen_edge.native.checksum import checksum
from qwen_edge.native.instruction_sets import isa_name
from qwen_edge.native.library import STATUS_FORMAT, STATUS_IO, check, library_path

if TYPE_CHECKING:
    from qwen_edge.model.adapter import Adapter

KV_TYPES = {"f16": 0, "int8": 1, "int4": 2, "f32": 3}
ACTIVATIONS = {"int8": 0, "f32": 1}


def _choice(name: str, value: str, choices: dict[str, int]) -> int:
    if value not in choices:
        raise UsageError(
            "{name} cannot be {value}.", "Use one of {choices}.",
            name=name, value=value, choices=", ".join(choices),
        )  # fmt: skip
    return choices[value]


class NativeEngine(Closing):
    """An ``Engine`` over the C++ library; use it as a context manager.

    Args:
        model: stays open as long as the engine lives; the engine does not close it.
        config: see ``EngineConfig``.

    Raises:
        DamagedModelError: the tensors do not make a model.
        MemoryLimitError: scratch memory could not be had.
        UsageError: a setting is out of range.
    """

    def __init__(self, model: PackedModel, config: EngineConfig) -> None:
        self.config = config
        self.vocab_size = model.config.vocab_size
        self._model = model
        self._session, self._adapter = ctypes.c_void_p(), ctypes.c_void_p()
        threads = config.threads or _allowed_cores()
        params = SessionParams(
            config.context,
            config.sequences,
            config.prefill_rows,
            threads,
            config.prefill_threads or threads,
            _choice("The KV cache type", config.kv_type, KV_TYPES),
            _choice("The activation type", config.activations, ACTIVATIONS),
        )
        self._handle = create_model(model)
        try:
            check(
                engine_library().qe_session_create(
                    self._handle, ctypes.byref(params), ctypes.byref(self._session)
                )
            )
            if config.cores or config.prefill_cores:
                self.place(threads, params.prefill_threads, config.cores, config.prefill_cores)
        except BaseException:
            self.close()
            raise
        self._isa = isa_name()
        self._adapter_identity = b""
        self._code = 0
        self._rows = (CRow * config.prefill_rows)()
        self._ids: list[list[int]] = [[] for _ in range(config.sequences)]

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.close()

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        """See ``Engine.forward``."""
        if len(rows) > len(self._rows):
            raise UsageError(
                "A call takes at most {most} rows, not {given}.",
                most=len(self._rows),
                given=len(rows),
            )
        wanted = 0
        for i, row in enumerate(rows):
            self._rows[i] = CRow(*row)
            wanted += bool(row.wants_logits)
        library = engine_library()
        session = self._open_session()
        for sequence in {row.sequence for row in rows if 0 <= row.sequence < len(self._ids)}:
            # A Ctrl-C between the C call and the bookkeeping leaves more there than is known.
            check(library.qe_session_truncate(session, sequence, len(self._ids[sequence])))
        check(library.qe_session_forward(session, self._rows, len(rows)))
        for row in rows:
            self._ids[row.sequence].append(row.token)
        return [
            Logits(library.qe_session_logits(self._session, i), self.vocab_size)
            for i in range(wanted)
        ]

    def place(
        self,
        threads: int,
        prefill_threads: int,
        cores: Collection[int] = (),
        prefill_cores: Collection[int] = (),
    ) -> None:
        """See ``PlaceableEngine.place``."""
        own, others = ((ctypes.c_int32 * len(set))(*set) for set in (cores, prefill_cores))
        check(
            engine_library().qe_session_place(
                self._open_session(), threads, prefill_threads, own, len(own), others, len(others)
            )
        )

    def cached_ids(self, sequence: int = 0) -> Sequence[int]:
        """See ``Engine.cached_ids``."""
        return self._ids[sequence]

    def truncate(self, length: int, sequence: int = 0) -> None:
        """See ``Engine.truncate``."""
        session = self._open_session()
        if 0 <= sequence < len(self._ids) and 0 <= length <= len(self._ids[sequence]):
            del self._ids[sequence][length:]
        check(engine_library().qe_session_truncate(session, sequence, length))

    def fork(self, source: int, target: int, length: int) -> None:
        """See ``Engine.fork``."""
        check(engine_library().qe_session_fork(self._open_session(), source, target, length))
        self._ids[target] = self._ids[source][:length]

    def stretch(self, length: int, sequence: int = 0) -> None:
        """See ``StretchingEngine.stretch``."""
        check(engine_library().qe_session_stretch(self._open_session(), sequence, length))
        ids = self._ids[sequence]
        ids += [ids[0]] * (length - len(ids))

    def prefix_identity(self) -> bytes:
        """See ``PrefixEngine.prefix_identity``.

        Keys and values follow from the weights, the types of activations and cache, and the code
        that computes them: instruction sets differ in the last bits of floats, and so may two
        versions or two compilers. They do not depend on threads, calls or the context's length.
        """
        config = self.config
        settings = f"{self._isa} {config.kv_type} {config.activations}".encode()
        self._code = self._code or checksum(library_path().read_bytes())
        code = checksum(settings + self._adapter_identity, self._code)
        return struct.pack("<QQ", self._model.fingerprint(), code)

    def prefix_size(self, length: int) -> tuple[int, int]:
        """See ``PrefixEngine.prefix_size``."""
        size, parts = ctypes.c_uint64(), ctypes.c_uint64()
        check(
            engine_library().qe_session_prefix_size(
                self._open_session(), length, ctypes.byref(size), ctypes.byref(parts)
            )
        )
        return size.value, parts.value

    def save_prefix(
        self, descriptor: int, offset: int, length: int, sequence: int = 0
    ) -> tuple[int, ...]:
        """See ``PrefixEngine.save_prefix``."""
        if not 0 < length <= len(self._ids[sequence]):
            raise UsageError("There are no {length} positions to save.", length=length)
        checksums = (ctypes.c_uint64 * self.prefix_size(length)[1])()
        number = ctypes.c_int32()
        status = engine_library().qe_session_save_prefix(
            self._open_session(), sequence, length, descriptor, offset, checksums,
            ctypes.byref(number),
        )  # fmt: skip
        if status == STATUS_IO:
            raise OSError(number.value, os.strerror(number.value))
        check(status)
        return tuple(checksums)

    def load_prefix(
        self,
        ids: Sequence[int],
        descriptor: int,
        offset: int,
        stored: int,
        checksums: Sequence[int],
        sequence: int = 0,
    ) -> None:
        """See ``PrefixEngine.load_prefix``."""
        if len(checksums) != self.prefix_size(stored)[1]:
            raise ValueError("the number of checksums is wrong")
        number = ctypes.c_int32()
        # Whatever interrupts this, a list of tokens that does not fit the cache must not remain.
        self.truncate(0, sequence)
        status = engine_library().qe_session_load_prefix(
            self._open_session(), sequence, len(ids), stored, descriptor, offset,
            (ctypes.c_uint64 * len(checksums))(*checksums), ctypes.byref(number),
        )  # fmt: skip
        if status == STATUS_FORMAT:
            raise ValueError((engine_library().qe_last_error() or b"").decode())
        if status == STATUS_IO:
            raise OSError(number.value, os.strerror(number.value))
        check(status)
        self._ids[sequence] = list(ids)

    def set_adapter(self, adapter: Adapter | None, factor: float = 1.0) -> None:
        """Computes with an adapter from now on, or with none; all sequences are empty then.

        Args:
            adapter: of this model; it may be closed afterwards.
            factor: for its scale.

        Raises:
            DamagedModelError: a weight of it is not finite.
            MemoryLimitError: there is no memory for it; what was in use before stays.
        """
        session = self._open_session()
        handle, identity = ctypes.c_void_p(), b""
        if adapter is not None:
            from qwen_edge.engine.adapter import adapter_identity, create_adapter

            threads = max(self.config.threads or _allowed_cores(), self.config.prefill_threads)
            handle = create_adapter(self._handle, adapter, factor, threads)
            identity = adapter_identity(adapter, factor)
        try:
            check(engine_library().qe_session_set_adapter(session, handle))
        except Exception:
            # After a Ctrl-C the session may have it.
            engine_library().qe_adapter_destroy(handle)
            raise
        self._ids = [[] for _ in self._ids]
        replaced, self._adapter, self._adapter_identity = self._adapter, handle, identity
        engine_library().qe_adapter_destroy(replaced)

    def scratch_bytes(self) -> int:
        """Bytes of scratch memory and adapter held now; the KV cache comes on top."""
        scratch = int(engine_library().qe_session_scratch_bytes(self._open_session()))
        adapter = engine_library().qe_adapter_bytes(self._adapter) if self._adapter else 0
        return scratch + int(adapter)

    def close(self) -> None:
        """See ``Engine.close``."""
        for name, destroy in (
            ("_session", "qe_session_destroy"),
            ("_adapter", "qe_adapter_destroy"),
            ("_handle", "qe_model_destroy"),
        ):
            handle = getattr(self, name)
            if handle:
                # Forgotten first: a Ctrl-C after the C call must not have it freed a second time.
                setattr(self, name, ctypes.c_void_p())
                getattr(engine_library(), destroy)(handle)

    def _open_session(self) -> ctypes.c_void_p:
        if not self._session:
            raise UsageError("The engine is closed.")
        return self._session


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
