"""Whether llama.cpp and qwen-edge compute the same function of the same file."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.systems import Place, System, llama, ours, start

# Any text's ids would do.
IDS = [(7919 * i + 31) % 150000 for i in range(32)]


def _logits(system: System, place: Place) -> np.ndarray:
    """Logits of every position, [len(IDS), vocab]."""
    peer, _ = start(system, place)
    with peer, tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "logits"
        peer.ask("logits", ids=IDS, output=str(output))
        return np.fromfile(output, np.float32).reshape(len(IDS), -1)


def same_weights(place: Place) -> dict[str, object]:
    """Compares the logits, position by position."""
    begin = time.time()
    mine = _logits(ours(place, 256, kv="f16"), place)
    theirs = _logits(llama(place, 256), place)
    error = np.linalg.norm(mine - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    return {
        "part": "same-weights",
        "date": time.strftime("%Y-%m-%d", time.gmtime(begin)),
        "seconds": round(time.time() - begin, 1),
        "positions": len(IDS),
        "relative_difference": error.tolist(),
        "same_choice": int((mine.argmax(1) == theirs.argmax(1)).sum()),
        "values": {"relative difference": error.tolist()},
        "failed": {},
    }
