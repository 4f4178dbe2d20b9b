// Attention kernels of the avx512_vnni table. avx512_vnni.cpp includes this inside the region that
// switches to AVX-512.
#pragma once

#include "avx512_linear.h"

namespace qe {
namespace avx512 {
namespace {

// --- fp16 cache

// kN queries against one block of keys. Two dimensions at a time keep enough sums under way; it is
// two for any kN, because a query's result must not depend on how many there are.
template <int kN>
QE_INLINE void score_block_f16(const uint8_t* block, int head_dim, const float* x, float* out,
                               size_t out_stride) {
  constexpr int kTurns = 2;
  __m512 sum[kTurns][kN];
  for (int t = 0; t < kTurns; ++t) {
    for (int i = 0; i < kN; ++i) sum[t][i] = _mm512_setzero_ps();
  }
  for (int d = 0; d < head_dim; d += kTurns) {
    for (int t = 0; t < kTurns; ++t) {
      const __m512 key = load_half16(block + 32 * (d + t));
      for (int i = 0; i < kN; ++i) {
        const __m512 query = _mm512_set1_ps(x[static_cast<size_t>(i) * head_dim + d + t]);
        sum[t][i] = _mm512_fmadd_ps(key, query, sum[t][i]);
      }
    }
  }
  for (int i = 0; i < kN; ++i) {
    __m512 total = sum[0][i];
    for (int t = 1; t < kTurns; ++t) total = _mm512_add_ps(total, sum[t][i]);
    _mm512_storeu_ps(out + i * out_stride, total);
  }
}

void scores_f16(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
                size_t out_stride) {
  const size_t bytes = kv_block_bytes(KvType::kF16, head_dim);
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    prefetch_ahead(block, bytes);
    float* row = out + kKvBlock * b;
    const float* x = q.x;
    int n = q.n;
    for (; n >= 8; n -= 8, x += 8 * head_dim, row += 8 * out_stride) {
      score_block_f16<8>(block, head_dim, x, row, out_stride);
    }
    if (n >= 4) {
      score_block_f16<4>(block, head_dim, x, row, out_stride);
      n -= 4, x += 4 * head_dim, row += 4 * out_stride;
    }
    if (n >= 2) {
      score_block_f16<2>(block, head_dim, x, row, out_stride);
      n -= 2, x += 2 * head_dim, row += 2 * out_stride;
    }
    if (n == 1) score_block_f16<1>(block, head_dim, x, row, out_stride);
  }
}

// Adds one block's values to kN outputs, 32 dimensions at a time.
template <int kN>
QE_INLINE void accumulate_block_f16(const uint8_t* block, int head_dim, const float* p,
                                    size_t p_stride, float* out, size_t out_stride) {
  for (int d = 0; d < head_dim; d += 32) {
    __m512 sum[kN][2];
    for (int i = 0; i < kN; ++i) {
      for (int k = 0; k < 2; ++k) sum[i][k] = _mm512_loadu_ps(out + i * out_stride + d + 16 * k);
    }
    for (int s = 0; s < kKvBlock; ++s) {
      const __m512 low = load_half16(block + 2 * (head_dim * s + d));
      const __m512 high = load_half16(block + 2 * (head_dim * s + d + 16));
      for (int i = 0; i < kN; ++i) {
        const __m512 weight = _mm512_set1_ps(p[i * p_stride + s]);
        sum[i][0] = _mm512_fmadd_ps(weight, low, sum[i][0]);
        sum[i][1] = _mm512_fmadd_ps(weight, high, sum[i][1]);
      }
    }
    for (int i = 0; i < kN; ++i) {
      for (int k = 0; k < 2; ++k) _mm512_storeu_ps(out + i * out_stride + d + 16 * k, sum[i][k]);
    }
  }
}

void accumulate_f16(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                    size_t p_stride, int n, float* out, size_t out_stride) {
  const size_t bytes = kv_block_bytes(KvType::kF16, head_dim);
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    prefetch_ahead(block, bytes);
    const float* weight = p + kKvBlock * b;
    float* row = out;
    int left = n;
    for (; left >= 8; left -= 8, weight += 8 * p_stride, row += 8 * out_stride) {
      accumulate_block_f16<8>(block, head_dim, weight, p_stride, row, out_stride);
    }
    for (; left >= 2; left -= 2, weight += 2 * p_stride, row += 2 * out_stride) {
      accumulate_block_f16<2>(block, head_dim, weight, p_stride, row, out_stride);
    }
    if (left == 1) accumulate_block_f16<1>(block, head_dim, weight, p_stride, row, out_stride);
  }
}

// --- INT8 cache

// n <= kRowChunk queries, from `first` on, against one block of keys.
QE_INLINE void score_block_i8(const uint8_t* block, int head_dim, const QuantizedRows& q, int first,
                              int n, float* out, size_t out_stride) {
  const int groups = head_dim / kActivationGroup;
  __m512 total[kRowChunk];
  for (int i = 0; i < n; ++i) total[i] = _mm512_setzero_ps();
  for (int g = 0; g < groups; ++g) {
    const Part part = Bytes{}.load(block + 512 * g);
    for (int i = 0; i < n; ++i) {
      const size_t at = static_cast<size_t>(first + i) * groups + g;
      const __m512i dot = part.dot(q.codes + kActivationGroup * at, _mm512_set1_epi32(q.sum[at]));
      total[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(q.scale[at]), total[i]);
    }
  }
  const __m512 scale = load_half16(block + size_t{kKvBlock} * head_dim);
  for (int i = 0; i < n; ++i) {
    _mm512_storeu_ps(out + i * out_stride, _mm512_mul_ps(total[i], scale));
  }
}

void scores_i8(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride) {
  const size_t bytes = kv_block_bytes(KvType::kI8, head_dim);
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    prefetch_ahead(block, bytes);
    float* row = out + kKvBlock * b;
    if (q.n == 2) {  // two query heads a key head: what a decode step of Qwen3 has
      score_block_i8(block, head_dim, q.quantized, 0, 2, row, out_stride);
      continue;
    }
    for (int first = 0; first < q.n; first += kRowChunk) {
      const int n = q.n - first < kRowChunk ? q.n - first : kRowChunk;
      score_block_i8(block, head_dim, q.quantized, first, n, row + first * out_stride, out_stride);
    }
  }
}

// One query's 16 weights in 0..127, four to a register, and the size of one step.
struct Weights16 {
  __m512i codes[4];
  __m512 step;
};

// Returns false if all weights, and with them the codes and the step, are 0.
QE_INLINE bool quantize_weights(const float* p, __m512 scale, Weights16* out) {
  const __m512 probability = _mm512_loadu_ps(p);
  // An empty slot's p of 0 has to win over whatever its scale is.
  const __mmask16 counts = _mm512_cmp_ps_mask(probability, _mm512_setzero_ps(), _CMP_GT_OQ);
  const __m512 weight = _mm512_maskz_mul_ps(counts, probability, scale);
  const float largest = _mm512_reduce_max_ps(weight);
  const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
  const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(weight, inverse)));
  const __m512i all = _mm512_broadcast_i32x4(bytes);
  out->codes[0] = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0x00));
  out->codes[1] = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0x55));
  out->codes[2] = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0xaa));
  out->codes[3] = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0xff));
  out->step = _mm512_set1_ps(largest / 127.0f);
  return largest > 0;
}

template <int kN>
QE_INLINE void accumulate_block_i8(const uint8_t* block, int head_dim, const float* p,
                                   size_t p_stride, float* out, size_t out_stride) {
  const __m512 scale = load_half16(block + size_t{kKvBlock} * head_dim);
  Weights16 weights[kN];
  bool any = false;
  for (int i = 0; i < kN; ++i) any |= quantize_weights(p + i * p_stride, scale, &weights[i]);
  if (!any) return;
  for (int d = 0; d < head_dim; d += 16) {
    __m512i sum[kN];
    for (int i = 0; i < kN; ++i) sum[i] = _mm512_setzero_si512();
    for (int j = 0; j < 4; ++j) {
      const __m512i values = load512(block + 4 * (head_dim * j + d));
      for (int i = 0; i < kN; ++i) {
        sum[i] = _mm512_dpbusd_epi32(sum[i], weights[i].codes[j], values);
      }
    }
    for (int i = 0; i < kN; ++i) {
      float* at = out + i * out_stride + d;
      _mm512_storeu_ps(
          at, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i]), weights[i].step, _mm512_loadu_ps(at)));
    }
  }
}

void accumulate_i8(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride) {
  const size_t bytes = kv_block_bytes(KvType::kI8, head_dim);
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    prefetch_ahead(block, bytes);
    const float* weight = p + kKvBlock * b;
    float* row = out;
    int left = n;
    for (; left >= 4; left -= 4, weight += 4 * p_stride, row += 4 * out_stride) {
      accumulate_block_i8<4>(block, head_dim, weight, p_stride, row, out_stride);
    }
    if (left >= 2) {
      accumulate_block_i8<2>(block, head_dim, weight, p_stride, row, out_stride);
      left -= 2, weight += 2 * p_stride, row += 2 * out_stride;
    }
    if (left == 1) accumulate_block_i8<1>(block, head_dim, weight, p_stride, row, out_stride);
  }
}

// --- INT4 cache

void scores_i4(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride) {
  linear_q4(keys_i4(blocks, n_blocks, head_dim), q.quantized, 0, n_blocks, out, out_stride);
}

// One query's 16 weights in -127..127, four to a register, -8 times their sum, and the size of one
// step.
struct SignedWeights16 {
  __m512i codes[4];
  __m512i offset;
  __m512 step;
};

// Returns false if all weights, and with them the codes and the step, are 0.
QE_INLINE bool quantize_signed(const float* p, __m512 scale, SignedWeights16* out) {
  const __m512 probability = _mm512_loadu_ps(p);
  // An empty slot's p of 0 has to win over whatever its scale is.
  const __mmask16 counts = _mm512_cmp_ps_mask(probability, _mm512_setzero_ps(), _CMP_GT_OQ);
  const __m512 weight = _mm512_maskz_mul_ps(counts, probability, scale);
  const float largest = _mm512_reduce_max_ps(_mm512_abs_ps(weight));
  const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
  const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(weight, inverse)));
  const __m512i all = _mm512_broadcast_i32x4(bytes), eights = _mm512_set1_epi8(8);
  out->codes[0] = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0x00));
  out->codes[1] = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0x55));
  out->codes[2] = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0xaa));
  out->codes[3] = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0xff));
  __m512i sum = _mm512_setzero_si512();
  for (int j = 0; j < 4; ++j) sum = _mm512_dpbusd_epi32(sum, eights, out->codes[j]);
  out->offset = _mm512_sub_epi32(_mm512_setzero_si512(), sum);
  out->step = _mm512_set1_ps(largest / 127.0f);
  return largest > 0;
}

// Adds one group of 32 dims of one block's values to kN outputs.
template <int kN>
QE_INLINE void accumulate_group_i4(const uint8_t* group, const float* p, size_t p_stride,
                                   float* out, size_t out_stride) {
  const __m512i low_nibble = _mm512_set1_epi8(15);
  const __m512 scale = load_half16(group + kI4CodeBytes);
  SignedWeights16 weights[kN];
  bool any = false;
  for (int i = 0; i < kN; ++i) any |= quantize_signed(p + i * p_stride, scale, &weights[i]);
  if (!any) return;
  __m512i sum[kN][2];
  for (int i = 0; i < kN; ++i) sum[i][0] = sum[i][1] = weights[i].offset;
  for (int j = 0; j < 4; ++j) {
    const __m512i bytes = load512(group + 64 * j);
    const __m512i low = _mm512_and_si512(bytes, low_nibble);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_nibble);
    for (int i = 0; i < kN; ++i) {
      sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], low, weights[i].codes[j]);
      sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], high, weights[i].codes[j]);
    }
  }
  for (int i = 0; i < kN; ++i) {
    for (int k = 0; k < 2; ++k) {
      float* at = out + i * out_stride + 16 * k;
      _mm512_storeu_ps(
          at, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][k]), weights[i].step, _mm512_loadu_ps(at)));
    }
  }
}

void accumulate_i4(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride) {
  const int groups = head_dim / kI4Group;
  for (int b = 0; b < n_blocks; ++b) {
    for (int g = 0; g < groups; ++g, blocks += kI4GroupBytes) {
      prefetch_ahead(blocks, kI4GroupBytes);
      const float* weight = p + kKvBlock * b;
      float* row = out + kI4Group * g;
      int left = n;
      for (; left >= 4; left -= 4, weight += 4 * p_stride, row += 4 * out_stride) {
        accumulate_group_i4<4>(blocks, weight, p_stride, row, out_stride);
      }
      if (left >= 2) {
        accumulate_group_i4<2>(blocks, weight, p_stride, row, out_stride);
        left -= 2, weight += 2 * p_stride, row += 2 * out_stride;
      }
      if (left == 1) accumulate_group_i4<1>(blocks, weight, p_stride, row, out_stride);
    }
  }
}

}  // namespace
}  // namespace avx512
}  // namespace qe
