"""Prompt caches with keys and values of one's own and right checksums, as a forger makes them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import open_model
from qwen_edge.native.checksum import checksum
from qwen_edge.session.models import demo_path

_HEADER = 64


def forge(file: Path, engine: NativeEngine, pattern: bytes) -> None:
    """Fills the keys and values of a file with a pattern, or with noise if it is ``random``.

    Args:
        file: holds a prompt of the demo model.
        engine: of the settings that the file was made with.
        pattern: repeated.
    """
    content = bytearray(file.read_bytes())
    tokens, parts = struct.unpack_from("<II", content, 12)
    size = engine.prefix_size(tokens)[0]
    start = len(content) - size
    filler = os.urandom(size) if pattern == b"random" else (pattern * size)[:size]
    content[start:] = filler
    with open_model(demo_path()) as model:
        layers, runs = model.config.layers, 2 * model.config.kv_heads
    blocks = -(-tokens // 16)
    position = start
    for part in range(parts):
        here = min(blocks - part // layers * 16, 16)
        nbytes = size // blocks * here // layers
        # The runs of a whole chunk lie side by side and count as one piece.
        pieces = 1 if here == 16 else runs
        total = 0
        for piece in range(pieces):
            begin = position + nbytes // pieces * piece
            total = checksum(bytes(content[begin : begin + nbytes // pieces]), total)
        struct.pack_into("<Q", content, _HEADER + 4 * tokens + 8 * part, total)
        position += nbytes
    struct.pack_into("<Q", content, 48, checksum(bytes(content[_HEADER:start])))
    struct.pack_into("<Q", content, 56, checksum(bytes(content[:56])))
    file.write_bytes(content)
