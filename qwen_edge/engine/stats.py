"""Counts and timings of one generation."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class GenerationStats:
    """What one answer cost. Times in seconds.

    Attributes:
        prompt_tokens: length of the prompt.
        cached_tokens: how many of them the KV cache already held.
        generated_tokens: tokens of the answer, the stop token included.
        prefill_seconds: from the call to the first token's logits.
        first_token_seconds: from the call to the first token.
        decode_seconds: from the first token to the last, without pauses.
        finish_reason: ``stop``, ``length``, ``interrupted``, ``memory`` or ``device``.
        drafted_tokens: tokens computed on the guess that they come next.
        accepted_tokens: how many of them did come.
        paused_seconds: what was waited for the device to cool down.
    """

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    prefill_seconds: float
    first_token_seconds: float
    decode_seconds: float
    finish_reason: str
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    paused_seconds: float = 0.0

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens computed (not cached) per second."""
        computed = self.prompt_tokens - self.cached_tokens
        return computed / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first per second of decoding."""
        return (self.generated_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0

    def as_dict(self) -> dict[str, float | int | str]:
        """All fields and rates, for JSON."""
        return asdict(self) | {
            "prefill_tokens_per_second": self.prefill_tokens_per_second,
            "decode_tokens_per_second": self.decode_tokens_per_second,
        }
