"""Models of the true shapes with random weights: to measure speed and memory without a download."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

from qwen_edge.errors import UsageError
from qwen_edge.model.chatml import CHATML
from qwen_edge.model.config import GenerationDefaults, ModelConfig, tensor_shapes
from qwen_edge.model.packed_header import TOKENIZER
from qwen_edge.model.packed_writer import Description, PackedWriter
from qwen_edge.quant.layout import TILE_ROWS, Layout, weight_format
from qwen_edge.quant.packing import random_tiles

_SIGMA = 0.02
_SLICE_BYTES = 8 << 20
_STOP_IDS = (151645, 151643)  # <|im_end|>, <|endoftext|>


def _config(hidden: int, intermediate: int, layers: int, heads: int) -> ModelConfig:
    return ModelConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_positions=40960,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tied=True,
    )


# From the config.json of Qwen/Qwen3-0.6B, -1.7B and -4B.
CONFIGS = {
    "qwen3-0.6b": _config(hidden=1024, intermediate=3072, layers=28, heads=16),
    "qwen3-1.7b": _config(hidden=2048, intermediate=6144, layers=28, heads=16),
    "qwen3-4b": _config(hidden=2560, intermediate=9728, layers=36, heads=32),
}

# The tokens after Qwen's 151,643 ordinary ones, in order; the first 14 are control tokens.
_ADDED_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>",
    "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip
_FIRST_ADDED = 151643
_CONTROL_TOKENS = 14


def make_synthetic(
    size: str,
    output: Path,
    *,
    bits: int = 4,
    group: int = 32,
    codebook: str = "int4",
    seed: int = 0,
    tokenizer_json: Path | None = None,
    config: ModelConfig | None = None,
    threads: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Writes a model of a true shape with random weights of deviation 0.02; norms are 1.

    Its answers are noise, its speed and memory are the real model's. The same arguments give the
    same bytes.

    Args:
        size: ``qwen3-0.6b``, ``qwen3-1.7b`` or ``qwen3-4b``.
        output: the file to make.
        bits: 4 or 8.
        group: 32, 64 or 128.
        codebook: what 4-bit codes stand for, one of ``CODEBOOKS``.
        seed: of the weights.
        tokenizer_json: Qwen3's tokenizer; without it every byte is a token (ids 0 to 255, Qwen's
            own for single bytes), and special tokens have their true ids.
        config: another shape, in place of the size's own.
        threads: 0 for all cores.
        progress: called with bytes done, bytes in all, and the tensor's name.

    Raises:
        UsageError: the size, ``bits`` or ``group`` is not offered.
        QwenEdgeError: the output cannot be written, or the tokenizer not read.
    """
    shape = config or CONFIGS.get(size)
    if shape is None or bits not in (4, 8):
        raise UsageError(
            "There is no synthetic model {size} with {bits} bits.",
            "Sizes are {sizes}; bits are 4 or 8.",
            size=size,
            bits=bits,
            sizes=", ".join(CONFIGS),
        )
    form = weight_format(bits, group, codebook)
    layouts = {
        name: Layout("f32", 1, dims[0]) if len(dims) == 1 else form.layout(dims[0], dims[1])
        for name, dims in tensor_shapes(shape).items()
    }
    blob = _tokenizer(tokenizer_json)
    stop_ids = tuple(token for token in _STOP_IDS if token < shape.vocab_size)
    description = Description(
        name=f"{size}-synthetic",
        config=shape,
        generation=GenerationDefaults(0.6, 20, 0.95, stop_ids),
        chat_template=CHATML,
        source=f"random weights, seed {seed}",
    )
    with PackedWriter(output, description, {**layouts, TOKENIZER: Layout("u8", 1, len(blob))}) as w:
        w.write(TOKENIZER, blob)
        _write_weights(layouts, w, seed, threads, progress)
        w.finish({"bits": bits, "group": group, "method": "random"})
    return output


def _write_weights(
    layouts: dict[str, Layout],
    writer: PackedWriter,
    seed: int,
    threads: int,
    progress: Callable[[int, int, str], None] | None,
) -> None:
    total = sum(layout.nbytes for layout in layouts.values())
    done = first_tile = 0
    one = (ctypes.c_float * 1)(1.0)
    for name, layout in layouts.items():
        if not layout.packed:
            writer.write(name, bytes(one) * layout.cols)
            done += layout.nbytes
            continue
        tiles = max(_SLICE_BYTES // (layout.nbytes // layout.tiles), 1)
        buffer = (ctypes.c_ubyte * (tiles * (layout.nbytes // layout.tiles)))()
        for begin in range(0, layout.rows, tiles * TILE_ROWS):
            if progress:
                progress(done, total, name)
            part = layout.with_rows(min(tiles * TILE_ROWS, layout.rows - begin))
            # Numbered through the whole model: no two tensors are alike.
            random_tiles(part, seed, first_tile, _SIGMA, buffer, threads)
            writer.write(name, memoryview(buffer).cast("B")[: part.nbytes])
            first_tile += part.tiles
            done += part.nbytes
    if progress:
        progress(done, total, "")


def _tokenizer(path: Path | None) -> bytes:
    from qwen_edge.text.pack_tokenizer import pack_tokenizer

    if path is None:
        return pack_tokenizer(byte_tokenizer_json())
    try:
        return pack_tokenizer(path.read_bytes())
    except OSError as error:
        raise UsageError(
            "The tokenizer {path} cannot be read: {reason}.", path=path, reason=error.strerror
        ) from None


def byte_tokenizer_json() -> bytes:
    """A ``tokenizer.json`` of Qwen's kind whose only ordinary tokens are the 256 bytes."""
    from qwen_edge.text.vocabulary import Kind, Vocabulary, kind_of_added
    from qwen_edge.text.vocabulary import tokenizer_json as as_json

    # GPT-2's order: the printable Latin-1 bytes stand for themselves, then come the others.
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = [chr(byte) for byte in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    unused = _FIRST_ADDED - len(characters)
    kinds = [Kind.NORMAL] * len(characters) + [Kind.UNUSED] * unused
    kinds += [kind_of_added(token, i < _CONTROL_TOKENS) for i, token in enumerate(_ADDED_TOKENS)]
    return as_json(Vocabulary([*characters, *[""] * unused, *_ADDED_TOKENS], kinds, []))
