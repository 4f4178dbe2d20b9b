"""Text to token ids and back: the Python face of native/tokenizer.cpp."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from qwen_edge.errors import UsageError
from qwen_edge.native.library import check, load


class Tokenizer:
    """A byte-level BPE tokenizer whose tables lie in a mapped model file.

    Ids 0 to ``vocab_size - 1`` exist; a model may have more rows than that, and such ids decode to
    nothing. The object can be shared between threads. It must not be used after the memory behind
    it has been unmapped.
    """

    vocab_size: int

    def __init__(self, handle: int, owner: object) -> None:
        """Takes over an open native handle; use ``from_blob``."""
        self._library = _library()
        self._handle = ctypes.c_void_p(handle)
        self._owner = owner
        vocab, added = ctypes.c_uint32(), ctypes.c_uint32()
        check(
            self._library.qe_tokenizer_counts(
                self._handle, ctypes.byref(vocab), ctypes.byref(added)
            )
        )
        self.vocab_size = vocab.value
        self._added: Mapping[str, int]
        self._special: frozenset[int]
        self._list_added(added.value)

    @classmethod
    def from_blob(cls, address: int, nbytes: int, owner: object = None) -> Tokenizer:
        """Opens the blob that ``pack_tokenizer`` made, without copying it.

        Args:
            address: of its first byte, a multiple of 8.
            nbytes: how many bytes may be read there.
            owner: what keeps that memory alive; held as long as the tokenizer.

        Raises:
            DamagedModelError: it is truncated, malformed, or of another format version.
        """
        library = _library()
        handle = ctypes.c_void_p()
        check(library.qe_tokenizer_open(address, nbytes, ctypes.byref(handle)))
        assert handle.value is not None
        return cls(handle.value, owner)

    @classmethod
    def from_bytes(cls, blob: bytes) -> Tokenizer:
        """Opens a copy of such a blob; raises as ``from_blob`` does."""
        buffer = ctypes.create_string_buffer(blob, len(blob))
        return cls.from_blob(ctypes.addressof(buffer), len(blob), buffer)

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle:
            self._library.qe_tokenizer_close(handle)

    def _list_added(self, count: int) -> None:
        contents: dict[str, int] = {}
        special = set()
        id, is_special = ctypes.c_uint32(), ctypes.c_int32()
        for index in range(count):
            check(
                self._library.qe_tokenizer_added(
                    self._handle, index, ctypes.byref(id), ctypes.byref(is_special)
                )
            )
            contents[self.token_bytes(id.value).decode("utf-8", "replace")] = id.value
            if is_special.value:
                special.add(id.value)
        self._added = MappingProxyType(contents)
        self._special = frozenset(special)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of ``text``.

        Args:
            text: any string; a lone surrogate counts as U+FFFD.
            allow_special: whether the text of added tokens (``<|im_end|>``, ``<think>``) becomes
                their ids. Text that a user wrote must be encoded without.
        """
        data = _utf8(text)
        capacity = len(data) + 8  # seldom too small: only normalization makes text longer
        while True:
            ids = array("i", bytes(4 * capacity))
            count = ctypes.c_uint64()
            check(
                self._library.qe_tokenizer_encode(
                    self._handle,
                    data,
                    len(data),
                    allow_special,
                    ids.buffer_info()[0],
                    capacity,
                    ctypes.byref(count),
                )
            )
            if count.value <= capacity:
                return ids[: count.value].tolist()
            capacity = count.value

    def decode_bytes(self, ids: Sequence[int], *, skip_special: bool = False) -> bytes:
        """The bytes that ``ids`` stand for, which may begin or end inside a character.

        Args:
            ids: ids outside the vocabulary stand for nothing.
            skip_special: leave out the tokens that the model's makers marked as special, such as
                ``<|im_end|>``, but not ``<think>`` or ``<tool_call>``.
        """
        try:
            numbers = array("i", ids)
        except OverflowError:
            raise UsageError("A token id does not fit into 32 bits.") from None
        capacity = 16 * len(numbers) + 64
        while True:
            text = ctypes.create_string_buffer(capacity)
            count = ctypes.c_uint64()
            check(
                self._library.qe_tokenizer_decode(
                    self._handle,
                    numbers.buffer_info()[0],
                    len(numbers),
                    skip_special,
                    text,
                    capacity,
                    ctypes.byref(count),
                )
            )
            if count.value <= capacity:
                return text.raw[: count.value]
            capacity = count.value

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of ``ids``; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token, empty for an id outside the vocabulary."""
        if not 0 <= id < self.vocab_size:
            return b""
        data, length = ctypes.c_void_p(), ctypes.c_uint32()
        check(
            self._library.qe_tokenizer_token_bytes(
                self._handle, id, ctypes.byref(data), ctypes.byref(length)
            )
        )
        return ctypes.string_at(data.value, length.value) if data.value else b""

    def special_ids(self) -> Mapping[str, int]:
        """Content and id of every added token: control tokens and ``<think>``, ``<tool_call>``."""
        return self._added

    def is_special(self, id: int) -> bool:
        """Whether ``skip_special`` leaves this token out."""
        return id in self._special


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Pairs of surrogates become their character on the way, lone ones U+FFFD.
        data = text.encode("utf-16-le", "surrogatepass")
        return data.decode("utf-16-le", "replace").encode()


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, u32, u64, i32 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32
    signatures = {
        "open": (pointer, u64, pointer),
        "close": (pointer,),
        "counts": (pointer, pointer, pointer),
        "added": (pointer, u32, pointer, pointer),
        "encode": (pointer, ctypes.c_char_p, u64, i32, pointer, u64, pointer),
        "decode": (pointer, pointer, u64, i32, ctypes.c_char_p, u64, pointer),
        "token_bytes": (pointer, i32, pointer, pointer),
    }
    for name, arguments in signatures.items():
        function = getattr(library, f"qe_tokenizer_{name}")
        function.argtypes = arguments
        function.restype = ctypes.c_int32
    return library
