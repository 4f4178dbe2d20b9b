"""The usual way to multiply 4-bit weights on Arm, to hold our kernels against: Q4_0 by Q8_0.

A row of weights at a time against the activations: 32 codes a block in 16 bytes, two SDOTs, a
scale a block. Written for this comparison; two blocks an iteration, two sums.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.arm_loops import Loop, block_loop, compiled_functions

ITERATION_WEIGHTS = 64

SOURCE = """
#include <arm_neon.h>
#include <stdint.h>

struct Weights { __fp16 scale; uint8_t codes[16]; };
struct Activations { __fp16 scale; int8_t codes[32]; };

static inline float32x4_t block(float32x4_t sum, const Weights& w, const Activations& a) {
  const uint8x16_t packed = vld1q_u8(w.codes);
  const int8x16_t eight = vdupq_n_s8(8);
  const int8x16_t low = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15))), eight);
  const int8x16_t high = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(packed, 4)), eight);
  int32x4_t products = vdotq_s32(vdupq_n_s32(0), low, vld1q_s8(a.codes));
  products = vdotq_s32(products, high, vld1q_s8(a.codes + 16));
  const float scale = static_cast<float>(w.scale) * static_cast<float>(a.scale);
  return vmlaq_n_f32(sum, vcvtq_f32_s32(products), scale);
}

float row_dot(const Weights* w, const Activations* a, int blocks) {
  float32x4_t even = vdupq_n_f32(0), odd = vdupq_n_f32(0);
  for (int i = 0; i < blocks; i += 2) {
    even = block(even, w[i], a[i]);
    odd = block(odd, w[i + 1], a[i + 1]);
  }
  return vaddvq_f32(vaddq_f32(even, odd));
}
"""


def textbook_loop(compiler: str) -> Loop:
    """The compiled loop over ITERATION_WEIGHTS weights of one row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row_dot.cpp"
        path.write_text(SOURCE, encoding="utf-8")
        functions = compiled_functions(compiler, path, "-march=armv8.2-a+dotprod")
    (lines,) = (lines for name, lines in functions.items() if name.startswith("row_dot("))
    return block_loop(lines, "fcvt")
