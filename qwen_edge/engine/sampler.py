"""Drawing tokens from logits, in the native library."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence

from qwen_edge.engine.interface import Logits, SamplingParams
from qwen_edge.native.library import check, load


class _Sampling(ctypes.Structure):
    _fields_ = (
        ("temperature", ctypes.c_float),
        ("top_p", ctypes.c_float),
        ("min_p", ctypes.c_float),
        ("repetition_penalty", ctypes.c_float),
        ("presence_penalty", ctypes.c_float),
        ("top_k", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
    )


def token_logprobs(
    logits: Logits, token: int, count: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Natural log probabilities of ``token`` and of the ``count`` most likely ids, best first."""
    ids = (ctypes.c_int32 * max(count, 1))()
    values = (ctypes.c_double * max(count, 1))()
    own = ctypes.c_double()
    check(
        load().qe_logprobs(
            ctypes.c_void_p(logits.address), logits.size, token, count, ids, values,
            ctypes.byref(own),
        )
    )  # fmt: skip
    return own.value, tuple((ids[i], values[i]) for i in range(count))


class Sampler:
    """Draws one token after the other; the same seed gives the same draws.

    Args:
        vocab_size: length of the logits.
        params: see ``SamplingParams``; ``seed=None`` takes one from the system.

    Raises:
        UsageError: a parameter is out of its range.
    """

    def __init__(self, vocab_size: int, params: SamplingParams) -> None:
        self.seed = params.seed if params.seed is not None else int.from_bytes(os.urandom(8))
        self._vocab_size = vocab_size
        self._handle = ctypes.c_void_p()
        self._library = load()
        self._library.qe_sampler_destroy.argtypes = [ctypes.c_void_p]
        self._library.qe_sampler_destroy.restype = None
        sampling = _Sampling(
            params.temperature,
            params.top_p,
            params.min_p,
            params.repetition_penalty,
            params.presence_penalty,
            params.top_k,
            self.seed % 2**64,
        )
        check(
            self._library.qe_sampler_create(
                vocab_size, ctypes.byref(sampling), ctypes.byref(self._handle)
            )
        )
        if params.logit_bias:
            n = len(params.logit_bias)
            check(
                self._library.qe_sampler_set_bias(
                    self._handle,
                    (ctypes.c_int32 * n)(*params.logit_bias.keys()),
                    (ctypes.c_float * n)(*params.logit_bias.values()),
                    n,
                )
            )

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.qe_sampler_destroy(self._handle)
            self._handle = ctypes.c_void_p()

    def sample(self, logits: Logits) -> int:
        """Draws a token id; the logits are left as they were.

        Raises:
            DamagedModelError: the logits are not numbers.
        """
        token = ctypes.c_int32()
        check(
            self._library.qe_sampler_sample(
                self._handle, ctypes.c_void_p(logits.address), ctypes.byref(token)
            )
        )
        return token.value

    def accept(self, ids: Iterable[int], *, generated: bool) -> None:
        """Tells the penalties which tokens were met, in the prompt or in the answer."""
        for token in ids:
            check(self._library.qe_sampler_accept(self._handle, token, int(generated)))

    def set_allowed(self, ids: Sequence[int] | None) -> None:
        """Restricts the draws to these ids; None lifts the restriction.

        Raises:
            UsageError: no id is allowed.
        """
        if ids is None:
            check(self._library.qe_sampler_set_allowed(self._handle, None))
            return
        bits = (ctypes.c_uint32 * ((self._vocab_size + 31) // 32))()
        for token in ids:
            bits[token // 32] |= 1 << (token % 32)
        check(self._library.qe_sampler_set_allowed(self._handle, bits))
