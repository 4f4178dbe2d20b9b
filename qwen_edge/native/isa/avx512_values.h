// The weighed sums of the avx512_vnni table over INT8 and INT4 values. avx512_vnni.cpp includes
// this inside the region that switches to AVX-512.
//
// The weights of one query are quantized for a stretch of blocks at a time: the 16 maxima come out
// of one tree of comparisons. Then the blocks' values are weighed.
#pragma once

#include "avx512_attention.h"

namespace qe {
namespace avx512 {
namespace {

constexpr int kStretch = 16;

// The scales of a stretch in fp32; what is not finite belongs to empty slots and counts as 0.
struct StretchScales {
  __m512 scale[kStretch];

  QE_INLINE void load(const uint8_t* scales, size_t bytes, int n_blocks) {
    const __m512 infinity = _mm512_set1_ps(__builtin_inff());
    for (int b = 0; b < kStretch; ++b) {
      scale[b] = _mm512_setzero_ps();
      if (b >= n_blocks) continue;
      const __m512 value = load_half16(scales + b * bytes);
      scale[b] = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(value), infinity, _CMP_LT_OQ),
                                     value);
    }
  }
};

// One query's weights over a stretch.
struct StretchWeights {
  alignas(64) int8_t codes[kStretch][kKvBlock];
  float step[kStretch];
  // INT4: -8 times the sum of a block's codes, four times.
  alignas(64) int32_t offset[kStretch][4];
};

// Quarters 0 and 2 (kOdd: 1 and 3) of a, then of b.
template <bool kOdd>
QE_INLINE __m512 quarters(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(
      _mm512_shuffle_i32x4(_mm512_castps_si512(a), _mm512_castps_si512(b), kOdd ? 0xdd : 0x88));
}

// Element 4 * (b % 4) + b / 4 is the largest of v[b].
QE_INLINE __m512 maxima(const __m512* v) {
  __m512 x[8], y[4], z[2];
  for (int i = 0; i < 8; ++i) {
    x[i] = _mm512_max_ps(quarters<false>(v[2 * i], v[2 * i + 1]),
                         quarters<true>(v[2 * i], v[2 * i + 1]));
  }
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm512_max_ps(quarters<false>(x[2 * i], x[2 * i + 1]),
                         quarters<true>(x[2 * i], x[2 * i + 1]));
  }
  for (int i = 0; i < 2; ++i) {
    z[i] = _mm512_max_ps(_mm512_unpacklo_ps(y[2 * i], y[2 * i + 1]),
                         _mm512_unpackhi_ps(y[2 * i], y[2 * i + 1]));
  }
  return _mm512_max_ps(_mm512_shuffle_ps(z[0], z[1], 0x44), _mm512_shuffle_ps(z[0], z[1], 0xee));
}

template <bool kSigned>
QE_INLINE void quantize_blocks(const float* p, const StretchScales& scales, int n_blocks,
                               StretchWeights* out) {
  __m512 weight[kStretch], size[kStretch];
  for (int b = 0; b < kStretch; ++b) {
    weight[b] = b < n_blocks ? _mm512_mul_ps(_mm512_loadu_ps(p + kKvBlock * b), scales.scale[b])
                             : _mm512_setzero_ps();
    size[b] = kSigned ? _mm512_abs_ps(weight[b]) : weight[b];
  }
  const __m512 largest = maxima(size);
  const __mmask16 any = _mm512_cmp_ps_mask(largest, _mm512_setzero_ps(), _CMP_GT_OQ);
  alignas(64) float inverse[kStretch], step[kStretch];
  _mm512_store_ps(inverse, _mm512_maskz_div_ps(any, _mm512_set1_ps(127.0f), largest));
  _mm512_store_ps(step, _mm512_div_ps(largest, _mm512_set1_ps(127.0f)));
  for (int b = 0; b < n_blocks; ++b) {
    const int at = 4 * (b % 4) + b / 4;
    const __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(weight[b], _mm512_set1_ps(inverse[at])));
    _mm_store_si128(reinterpret_cast<__m128i*>(out->codes[b]), _mm512_cvtsepi32_epi8(codes));
    out->step[b] = step[at];
  }
  if (!kSigned) return;
  for (int b = 0; b < n_blocks; b += 4) {
    const __m512i codes = load512(out->codes[b]);
    __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(8), codes);
    sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, static_cast<_MM_PERM_ENUM>(0x4e)));
    sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, static_cast<_MM_PERM_ENUM>(0xb1)));
    _mm512_store_si512(out->offset[b], _mm512_sub_epi32(_mm512_setzero_si512(), sum));
  }
}

template <bool kSigned>
QE_INLINE void quantize_weights(const float* p, const StretchScales& scales, int n_blocks,
                                StretchWeights* out) {
  if (n_blocks == kStretch) {  // the constant saves the loops their conditions
    quantize_blocks<kSigned>(p, scales, kStretch, out);
  } else {
    quantize_blocks<kSigned>(p, scales, n_blocks, out);
  }
}

// Four codes of positions 4 j to 4 j + 3 in every lane.
QE_INLINE __m512i four_codes(const StretchWeights& weights, int block, int j) {
  return _mm512_set1_epi32(load_four(weights.codes[block] + 4 * j));
}

// Values of 16 * kWide dims, `stride` bytes apart for four positions each, weighed for kN queries.
template <int kN, int kWide>
QE_INLINE void weigh_i8(const uint8_t* values, size_t stride, const StretchWeights* weights,
                        int block, __m512 (&out)[kN][kWide]) {
  __m512i sum[kN][kWide];
  for (int i = 0; i < kN; ++i) {
    for (int k = 0; k < kWide; ++k) sum[i][k] = _mm512_setzero_si512();
  }
  for (int j = 0; j < 4; ++j) {
    __m512i value[kWide];
    for (int k = 0; k < kWide; ++k) value[k] = load512(values + j * stride + 64 * k);
    for (int i = 0; i < kN; ++i) {
      const __m512i codes = four_codes(weights[i], block, j);
      for (int k = 0; k < kWide; ++k) {
        sum[i][k] = _mm512_dpbusd_epi32(sum[i][k], codes, value[k]);
      }
    }
  }
  for (int i = 0; i < kN; ++i) {
    const __m512 step = _mm512_set1_ps(weights[i].step[block]);
    for (int k = 0; k < kWide; ++k) {
      out[i][k] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][k]), step, out[i][k]);
    }
  }
}

// As weigh_i8, for one group of 32 dims.
template <int kN>
QE_INLINE void weigh_i4(const uint8_t* group, const StretchWeights* weights, int block,
                        __m512 (&out)[kN][2]) {
  const __m512i low_nibble = _mm512_set1_epi8(15);
  __m512i sum[kN][2];
  for (int i = 0; i < kN; ++i) {
    sum[i][0] = sum[i][1] = _mm512_set1_epi32(weights[i].offset[block][0]);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512i bytes = load512(group + 64 * j);
    const __m512i low = _mm512_and_si512(bytes, low_nibble);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_nibble);
    for (int i = 0; i < kN; ++i) {
      const __m512i codes = four_codes(weights[i], block, j);
      sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], low, codes);
      sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], high, codes);
    }
  }
  for (int i = 0; i < kN; ++i) {
    const __m512 step = _mm512_set1_ps(weights[i].step[block]);
    for (int k = 0; k < 2; ++k) {
      out[i][k] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][k]), step, out[i][k]);
    }
  }
}

template <int kN, int kWide>
QE_INLINE void load_out(const float* out, size_t out_stride, __m512 (&values)[kN][kWide]) {
  for (int i = 0; i < kN; ++i) {
    for (int k = 0; k < kWide; ++k) values[i][k] = _mm512_loadu_ps(out + i * out_stride + 16 * k);
  }
}
template <int kN, int kWide>
QE_INLINE void store_out(const __m512 (&values)[kN][kWide], float* out, size_t out_stride) {
  for (int i = 0; i < kN; ++i) {
    for (int k = 0; k < kWide; ++k) _mm512_storeu_ps(out + i * out_stride + 16 * k, values[i][k]);
  }
}

// Four of n queries, from `first` on, ask for their share of the next stretch.
QE_INLINE void prefetch_share(const uint8_t* next, int n_blocks, size_t bytes, int first, int n) {
  const int end = first + 4 < n ? first + 4 : n;
  for (int b = n_blocks * first / n; b < n_blocks * end / n; ++b) prefetch_next(next, b, bytes);
}

// kN queries over a stretch of the INT8 cache. With kInOrder memory is read from front to back, as
// a decode step wants it; otherwise outputs stay in registers, as many queries want it.
template <int kN, bool kInOrder>
QE_INLINE void accumulate_stretch_i8(const uint8_t* blocks, int n_blocks, int head_dim,
                                     const StretchScales& scales, const float* p, size_t p_stride,
                                     float* out, size_t out_stride, const uint8_t* next) {
  const size_t bytes = kv_block_bytes(KvType::kI8, head_dim);
  const size_t stride = size_t{4} * head_dim;
  StretchWeights weights[kN];
  for (int i = 0; i < kN; ++i) {
    quantize_weights<false>(p + i * p_stride, scales, n_blocks, &weights[i]);
  }
  const BlockRun run = {blocks, n_blocks, bytes, next};
  const int count = kInOrder ? 1 : n_blocks;
  for (int first = 0; first < n_blocks; first += count) {
    if (kInOrder) run.prefetch(first, kN);
    for (int d = 0; d < head_dim; d += 32) {
      __m512 values[kN][2];
      load_out(out + d, out_stride, values);
      for (int b = first; b < first + count; ++b) {
        weigh_i8(blocks + b * bytes + 4 * d, stride, weights, b, values);
      }
      store_out(values, out + d, out_stride);
    }
  }
}

void accumulate_i8(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride, const uint8_t* next) {
  const size_t bytes = kv_block_bytes(KvType::kI8, head_dim);
  for (; n_blocks > 0; n_blocks -= kStretch, blocks += kStretch * bytes, p += kStretch * kKvBlock) {
    const int count = n_blocks < kStretch ? n_blocks : kStretch;
    StretchScales scales;
    scales.load(blocks + size_t{kKvBlock} * head_dim, bytes, count);
    int i = 0;
    for (; n - i >= 4; i += 4) {
      prefetch_share(next, count, bytes, i, n);
      accumulate_stretch_i8<4, false>(blocks, count, head_dim, scales, p + i * p_stride, p_stride,
                                      out + i * out_stride, out_stride, nullptr);
    }
    if (n & 2) {
      accumulate_stretch_i8<2, true>(blocks, count, head_dim, scales, p + i * p_stride, p_stride,
                                     out + i * out_stride, out_stride, i == 0 ? next : nullptr);
      i += 2;
    }
    if (n & 1) {
      accumulate_stretch_i8<1, true>(blocks, count, head_dim, scales, p + i * p_stride, p_stride,
                                     out + i * out_stride, out_stride, i == 0 ? next : nullptr);
    }
    if (next != nullptr) next += kStretch * bytes;
  }
}

// kN queries over one group of 32 dims of a stretch of the INT4 cache: outputs stay in registers,
// as many queries want it.
template <int kN>
QE_INLINE void accumulate_group_i4(const uint8_t* group, int n_blocks, size_t bytes,
                                   const StretchScales& scales, const float* p, size_t p_stride,
                                   float* out, size_t out_stride) {
  StretchWeights weights[kN];
  for (int i = 0; i < kN; ++i) {
    quantize_weights<true>(p + i * p_stride, scales, n_blocks, &weights[i]);
  }
  __m512 values[kN][2];
  load_out(out, out_stride, values);
  for (int b = 0; b < n_blocks; ++b) weigh_i4(group + b * bytes, weights, b, values);
  store_out(values, out, out_stride);
}

// kN queries over a stretch from front to back, as a decode step wants it.
template <int kN>
QE_INLINE void accumulate_blocks_i4(const uint8_t* blocks, int n_blocks, int groups, const float* p,
                                    size_t p_stride, float* out, size_t out_stride,
                                    const uint8_t* next) {
  const size_t bytes = groups * kI4GroupBytes;
  StretchWeights weights[kMostGroups][kN];
  for (int g = 0; g < groups; ++g) {
    StretchScales scales;
    scales.load(blocks + g * kI4GroupBytes + kI4CodeBytes, bytes, n_blocks);
    for (int i = 0; i < kN; ++i) {
      quantize_weights<true>(p + i * p_stride, scales, n_blocks, &weights[g][i]);
    }
  }
  for (int b = 0; b < n_blocks; ++b) {
    prefetch_next(next, b, bytes);
    for (int g = 0; g < groups; ++g, blocks += kI4GroupBytes) {
      __m512 values[kN][2];
      load_out(out + kI4Group * g, out_stride, values);
      weigh_i4(blocks, weights[g], b, values);
      store_out(values, out + kI4Group * g, out_stride);
    }
  }
}

void accumulate_i4(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride, const uint8_t* next) {
  const size_t bytes = kv_block_bytes(KvType::kI4, head_dim);
  const int groups = head_dim / kI4Group;
  for (; n_blocks > 0; n_blocks -= kStretch, blocks += kStretch * bytes, p += kStretch * kKvBlock) {
    const int count = n_blocks < kStretch ? n_blocks : kStretch, tiled = n & ~3;
    for (int g = 0; g < groups && tiled > 0; ++g) {
      prefetch_share(next, count, bytes, 4 * g, 4 * groups);
      const uint8_t* group = blocks + kI4GroupBytes * g;
      StretchScales scales;
      scales.load(group + kI4CodeBytes, bytes, count);
      for (int i = 0; i < tiled; i += 4) {
        accumulate_group_i4<4>(group, count, bytes, scales, p + i * p_stride, p_stride,
                               out + i * out_stride + kI4Group * g, out_stride);
      }
    }
    const uint8_t* own = tiled > 0 ? nullptr : next;
    if (n & 2) {
      accumulate_blocks_i4<2>(blocks, count, groups, p + tiled * p_stride, p_stride,
                              out + tiled * out_stride, out_stride, own);
    }
    if (n & 1) {
      accumulate_blocks_i4<1>(blocks, count, groups, p + (n - 1) * p_stride, p_stride,
                              out + (n - 1) * out_stride, out_stride, own);
    }
    if (next != nullptr) next += kStretch * bytes;
  }
}

}  // namespace
}  // namespace avx512
}  // namespace qe
