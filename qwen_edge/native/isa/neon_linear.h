// linear_q4 and linear_q8, written once for the three Arm tables; INT8 scores are the same loops.
//
// A table's file includes this inside the region that switches to its instruction set, and brings
// an Isa: the few operations that differ. Everything is in an anonymous namespace, so that each
// table keeps a copy of its own, compiled for its own processors.
//
// Rows of activations are taken N at a time (8, 4, 2, 1) and quads of weight rows Q at a time, so
// that the Q * N accumulators of integers and as many of floats stay in registers.
#pragma once

#include "neon_panel.h"

namespace qe {
namespace {

// Tiles of one pass over all activation rows: about what stays in a small second-level cache.
constexpr size_t kPassBytes = 64 * 1024;

// Blocks of `parts` x 32 columns, `groups` of them a tile: a matrix, or the keys of one head.
struct Tiles {
  const uint8_t* data;
  size_t tile_bytes;
  int groups;
  int parts;
  bool zero = false;  // zero points are where minimums would be
};

// Integer sums of Q quads of weight rows over 32 columns, for N activation rows, plus
// kFloatBaseBits.
template <class Isa, int N, int Q, class Codes>
QE_INLINE void part_sums(const Codes& codes, const uint8_t* part, int quad, const int8_t* x,
                         const int32_t* sum, int32x4_t (&acc)[Q][N]) {
  if constexpr (kHasOffset<Codes>) {
    int32x4_t lanes[(N + 3) / 4];
    load_lanes<N>(sum, lanes);
    QE_UNROLL
    for (int32x4_t& v : lanes) v = vmlaq_n_s32(vdupq_n_s32(kFloatBaseBits), v, codes.offset);
    QE_UNROLL
    for (int q = 0; q < Q; ++q) Isa::template start<N>(lanes, acc[q]);
  } else {
    QE_UNROLL
    for (int q = 0; q < Q; ++q) {
      QE_UNROLL
      for (int i = 0; i < N; ++i) acc[q][i] = vdupq_n_s32(kFloatBaseBits);
    }
  }
  Isa::template dot<N, Q>(codes, part, quad, x, acc);
}

// Q quads of one tile, blocks [begin, end). `resume` goes on from what `out` holds.
template <class Isa, int N, int Q, bool kMin, class Codes>
QE_INLINE void quads(const Codes& codes, const uint8_t* block, int blocks, const Tiles& w, int quad,
                     Panel x, bool resume, float* out, size_t stride) {
  const int parts = w.parts;
  const bool zero = kMin && w.zero;
  float32x4_t total[Q][N];
  QE_UNROLL
  for (int q = 0; q < Q; ++q) {
    if (resume) {
      Isa::template load<N>(out + 4 * q, stride, total[q]);
    } else {
      QE_UNROLL
      for (int i = 0; i < N; ++i) total[q][i] = vdupq_n_f32(0);
    }
  }
  for (; blocks > 0; --blocks) {
    const uint8_t* scales = block + static_cast<size_t>(parts) * Codes::kPartBytes;
    const uint8_t* minimums = scales + kScaleBytes;
    for (int p = 0; p < parts; ++p, block += Codes::kPartBytes) {
      if (quad == 0) {
        QE_UNROLL
        for (int b = 0; b < Codes::kPartBytes + 32; b += 64) __builtin_prefetch(block + 1536 + b);
      }
      int32x4_t acc[Q][N];
      part_sums<Isa, N, Q>(codes, block, quad, x.codes, x.sum, acc);
      float32x4_t x_scale[(N + 3) / 4];
      load_lanes<N>(x.scale, x_scale);
      QE_UNROLL
      for (int q = 0; q < Q; ++q) {
        const float32x4_t scale = load_half4(scales + 8 * (quad + q));
        Isa::template add_scaled<N>(scale, x_scale, acc[q], total[q]);
      }
      if constexpr (kMin) {
        int32x4_t sum[(N + 3) / 4];
        load_lanes<N>(x.sum, sum);
        QE_UNROLL
        for (int i = 0; i < (N + 3) / 4; ++i) {
          x_scale[i] = vmulq_f32(x_scale[i], vcvtq_f32_s32(sum[i]));
        }
        QE_UNROLL
        for (int q = 0; q < Q; ++q) {
          float32x4_t minimum = load_half4(minimums + 8 * (quad + q));
          if (zero) minimum = vmulq_f32(vnegq_f32(minimum), load_half4(scales + 8 * (quad + q)));
          Isa::template add_product<N>(minimum, x_scale, total[q]);
        }
      }
      x = {x.codes + 32 * N, x.scale + N, x.sum + N};
    }
    block += kScaleBytes * (kMin ? 2 : 1);
  }
  QE_UNROLL
  for (int q = 0; q < Q; ++q) Isa::template store<N>(total[q], out + 4 * q, stride);
}

// A function of its own: inlined, its many copies would be multiplied, and arm_cost.py finds it.
template <class Isa, int N, bool kMin, class Codes>
__attribute__((noinline)) void tile(const Codes& codes, const uint8_t* block, int blocks,
                                    const Tiles& w, Panel x, bool resume, float* out,
                                    size_t stride) {
  constexpr int kQuads = Isa::kAccumulators / N < 4 ? Isa::kAccumulators / N : 4;
  for (int quad = 0; quad < 4; quad += kQuads) {
    quads<Isa, N, kQuads, kMin>(codes, block, blocks, w, quad, x, resume, out + 4 * quad, stride);
  }
}

// N activation rows from `row` on, packed a stretch of columns at a time.
template <class Isa, int N, bool kMin, class Codes>
void panel_rows(const Codes& codes, const Tiles& w, const QuantizedRows& x, int row, int tile_begin,
                int tile_end, float* out, size_t stride) {
  PanelStore<N> store;
  const size_t block_bytes =
      static_cast<size_t>(w.parts) * Codes::kPartBytes + kScaleBytes * (kMin ? 2 : 1);
  const int step = kPanelParts / w.parts;
  for (int g = 0; g < w.groups; g += step) {
    const int blocks = w.groups - g < step ? w.groups - g : step;
    pack<Isa, N>(x, row, g * w.parts, blocks * w.parts, &store);
    for (int t = tile_begin; t < tile_end; ++t) {
      tile<Isa, N, kMin>(codes, w.data + t * w.tile_bytes + g * block_bytes, blocks, w,
                         store.panel(), g > 0, out + row * stride + kTileRows * t, stride);
    }
  }
}

// One activation row, read where it lies if it lies in one piece.
template <class Isa, bool kMin, class Codes>
void single_row(const Codes& codes, const Tiles& w, const QuantizedRows& x, int row, int tile_begin,
                int tile_end, float* out, size_t stride) {
  if (x.panel != 1) {
    panel_rows<typename Isa::Single, 1, kMin>(codes, w, x, row, tile_begin, tile_end, out, stride);
    return;
  }
  const size_t at = x.at(row, 0);
  const Panel panel = {x.codes + kActivationGroup * at, x.scale + at, x.sum + at};
  for (int t = tile_begin; t < tile_end; ++t) {
    tile<typename Isa::Single, 1, kMin>(codes, w.data + t * w.tile_bytes, w.groups, w, panel, false,
                                        out + row * stride + kTileRows * t, stride);
  }
}

template <class Isa, bool kMin, class Codes>
void all_rows(const Codes& codes, const Tiles& w, const QuantizedRows& x, int tile_begin,
              int tile_end, float* out, size_t stride) {
  const bool packs = w.parts <= kPanelParts;
  const int pass = x.n > 1 && w.tile_bytes < kPassBytes
                       ? static_cast<int>(kPassBytes / w.tile_bytes)
                       : tile_end - tile_begin;
  for (int begin = tile_begin; begin < tile_end; begin += pass) {
    const int end = tile_end - begin < pass ? tile_end : begin + pass;
    int row = 0;
    // With minimums, the rarer case, only the widths that matter most: every copy is compiled on
    // the user's phone.
    if constexpr (Isa::kMaxRows >= 8 && !kMin) {
      for (; packs && x.n - row >= 8; row += 8) {
        panel_rows<Isa, 8, kMin>(codes, w, x, row, begin, end, out, stride);
      }
    }
    for (; packs && x.n - row >= 4; row += 4) {
      panel_rows<Isa, 4, kMin>(codes, w, x, row, begin, end, out, stride);
    }
    if constexpr (!kMin) {
      for (; packs && x.n - row >= 2; row += 2) {
        panel_rows<Isa, 2, kMin>(codes, w, x, row, begin, end, out, stride);
      }
    }
    for (; row < x.n; ++row) single_row<Isa, kMin>(codes, w, x, row, begin, end, out, stride);
  }
}

// --- the entries of the tables

inline bool counts_up(const int8_t* codebook) {
  for (int i = 1; i < 16; ++i) {
    if (codebook[i] != codebook[0] + i) return false;
  }
  return true;
}

inline bool is_small(const int8_t* codebook) {
  for (int i = 0; i < 16; ++i) {
    if (codebook[i] < -16 || codebook[i] > 16) return false;
  }
  return true;
}

// Calls the body with the cheapest codes that a codebook allows.
template <class Isa, class Body>
QE_INLINE void with_codes(const int8_t* codebook, const Body& body) {
  if (counts_up(codebook)) return body(CountingCodes{codebook[0]});
  if constexpr (Isa::kNarrowSums) {
    if (is_small(codebook)) return body(CodebookCodes<16>{vld1q_s8(codebook)});
  }
  body(CodebookCodes<128>{vld1q_s8(codebook)});
}

template <class Isa>
void linear_q4(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end, float* out,
               size_t out_stride) {
  const Tiles tiles = {w.data, w.tile_bytes(), w.groups(), w.group / kActivationGroup, w.has_zero};
  with_codes<Isa>(w.codebook, [&](const auto& codes) {
    if (w.has_min) {
      all_rows<Isa, true>(codes, tiles, x, tile_begin, tile_end, out, out_stride);
    } else {
      all_rows<Isa, false>(codes, tiles, x, tile_begin, tile_end, out, out_stride);
    }
  });
}

template <class Isa>
void linear_q8(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end, float* out,
               size_t out_stride) {
  const Tiles tiles = {w.data, w.tile_bytes(), w.groups(), w.group / kActivationGroup, w.has_zero};
  if (w.has_min) {
    all_rows<Isa, true>(ByteCodes{}, tiles, x, tile_begin, tile_end, out, out_stride);
  } else {
    all_rows<Isa, false>(ByteCodes{}, tiles, x, tile_begin, tile_end, out, out_stride);
  }
}

// The sums as linear_* takes them for kSumRows activation rows, here all the same.
template <class Isa, class Codes>
void tile_sums(const Codes& codes, const uint8_t* part, const int8_t* x, int32_t x_sum,
               int32_t* out) {
  constexpr int N = Isa::kSumRows;
  alignas(16) int8_t packed[32 * N];
  int32_t sum[N];
  for (int32_t& value : sum) value = x_sum;
  if constexpr (N == 1) {
    std::memcpy(packed, x, 32);
  } else {
    Isa::template pack<N>(x, 0, packed);
  }
  int32x4_t acc[4][N];
  part_sums<Isa, N, 4>(codes, part, 0, packed, sum, acc);
  for (int q = 0; q < 4; ++q) {
    float32x4_t total[N];
    for (int i = 0; i < N; ++i) total[i] = sum_to_float(acc[q][i]);
    float rows[N][4];
    Isa::template store<N>(total, rows[0], 4);
    for (int r = 0; r < 4; ++r) out[4 * q + r] = static_cast<int32_t>(rows[0][r]);
  }
}

template <class Isa>
void sums_q4(const uint8_t* part, const int8_t* codebook, const int8_t* x, int32_t x_sum,
             int32_t* out) {
  with_codes<Isa>(codebook, [&](const auto& codes) { tile_sums<Isa>(codes, part, x, x_sum, out); });
}

template <class Isa>
void sums_q8(const int8_t* part, const int8_t* x, int32_t x_sum, int32_t* out) {
  tile_sums<Isa>(ByteCodes{}, reinterpret_cast<const uint8_t*>(part), x, x_sum, out);
}

}  // namespace
}  // namespace qe
