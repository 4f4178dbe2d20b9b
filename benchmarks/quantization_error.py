"""What searching the scales gains over the plain maximum, by format and group size.

    python benchmarks/quantization_error.py

Prints one line of JSON for each: relative L2 error of both, and nanoseconds a weight on one core.
"""

from __future__ import annotations

import json
import time

import numpy as np

from qwen_edge.quant.layout import CODEBOOKS, Layout
from qwen_edge.quant.round_to_nearest import quantize

_ROWS, _COLS = 2048, 1024
_FORMATS = (
    ("q4", False, "int4"),
    ("q4", True, "uint4"),
    ("q4", False, "nf4"),
    ("q4", False, "iq4_nl"),
    ("q4", False, "fp4"),
    ("q8", False, ""),
)


def main() -> None:
    """Runs the comparison."""
    random = np.random.default_rng(0)
    samples = {
        "gaussian": random.standard_normal((_ROWS, _COLS)),
        "student-t (5)": random.standard_t(5, (_ROWS, _COLS)),
    }
    for sample, values in samples.items():
        weights = np.ascontiguousarray(values * 0.02, np.float32)
        for kind, has_min, codebook in _FORMATS:
            for group in (32, 64, 128):
                levels = CODEBOOKS[codebook] if codebook else ()
                layout = Layout(kind, _ROWS, _COLS, group, has_min, levels)
                packed = np.zeros(layout.nbytes, np.uint8)
                errors = {}
                for search in (False, True):
                    begin = time.process_time()
                    errors[search] = quantize(
                        layout, weights.ctypes.data, "f32", packed.ctypes.data,
                        search=search, threads=1,
                    ).relative  # fmt: skip
                    seconds = time.process_time() - begin
                line = {
                    "weights": sample,
                    "format": f"{kind} {codebook}{' + min' if has_min else ''}".strip(),
                    "bits": 8 * layout.nbytes / weights.size,
                    "group": group,
                    "plain": round(errors[False], 5),
                    "searched": round(errors[True], 5),
                    "ns_per_weight": round(seconds / weights.size * 1e9, 1),
                }
                print(json.dumps(line))


if __name__ == "__main__":
    main()
