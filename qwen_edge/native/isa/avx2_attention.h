// Attention kernels of the avx2 table. avx2.cpp includes this inside the region that switches to
// AVX2.
#pragma once

#include "avx2_linear.h"

namespace qe {
namespace avx2 {
namespace {

// --- fp16 cache

// kN queries against one block of keys. Two dimensions at a time keep enough sums under way; it is
// two for any kN, because a query's result must not depend on how many there are.
template <int kN>
QE_INLINE void score_block_f16(const uint8_t* block, int head_dim, const float* x, float* out,
                               size_t out_stride) {
  constexpr int kTurns = 2;
  __m256 sum[kTurns][kN][2] = {};
  for (int d = 0; d < head_dim; d += kTurns) {
    for (int t = 0; t < kTurns; ++t) {
      const __m256 low = load_half8(block + 32 * (d + t));
      const __m256 high = load_half8(block + 32 * (d + t) + 16);
      for (int i = 0; i < kN; ++i) {
        const __m256 query = _mm256_broadcast_ss(x + static_cast<size_t>(i) * head_dim + d + t);
        sum[t][i][0] = _mm256_fmadd_ps(low, query, sum[t][i][0]);
        sum[t][i][1] = _mm256_fmadd_ps(high, query, sum[t][i][1]);
      }
    }
  }
  for (int i = 0; i < kN; ++i) {
    for (int h = 0; h < 2; ++h) {
      _mm256_storeu_ps(out + i * out_stride + 8 * h, _mm256_add_ps(sum[0][i][h], sum[1][i][h]));
    }
  }
}

void scores_f16(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
                size_t out_stride, const uint8_t* next) {
  const size_t bytes = kv_block_bytes(KvType::kF16, head_dim);
  const BlockRun run = {blocks, n_blocks, bytes, next};
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    run.prefetch(b, q.n);
    float* row = out + kKvBlock * b;
    const float* x = q.x;
    int n = q.n;
    for (; n >= 3; n -= 3, x += 3 * head_dim, row += 3 * out_stride) {
      score_block_f16<3>(block, head_dim, x, row, out_stride);
    }
    if (n == 2) score_block_f16<2>(block, head_dim, x, row, out_stride);
    if (n == 1) score_block_f16<1>(block, head_dim, x, row, out_stride);
  }
}

// Adds one block's values to kN outputs, kWide vectors of 8 dimensions at a time.
template <int kN, int kWide>
QE_INLINE void accumulate_block_f16(const uint8_t* block, int head_dim, const float* p,
                                    size_t p_stride, float* out, size_t out_stride) {
  for (int d = 0; d < head_dim; d += 8 * kWide) {
    __m256 sum[kN][kWide];
    for (int i = 0; i < kN; ++i) {
      for (int k = 0; k < kWide; ++k) sum[i][k] = _mm256_loadu_ps(out + i * out_stride + d + 8 * k);
    }
    for (int s = 0; s < kKvBlock; ++s) {
      __m256 value[kWide];
      for (int k = 0; k < kWide; ++k) value[k] = load_half8(block + 2 * (head_dim * s + d + 8 * k));
      for (int i = 0; i < kN; ++i) {
        const __m256 weight = _mm256_broadcast_ss(p + i * p_stride + s);
        for (int k = 0; k < kWide; ++k) sum[i][k] = _mm256_fmadd_ps(weight, value[k], sum[i][k]);
      }
    }
    for (int i = 0; i < kN; ++i) {
      for (int k = 0; k < kWide; ++k) _mm256_storeu_ps(out + i * out_stride + d + 8 * k, sum[i][k]);
    }
  }
}

void accumulate_f16(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                    size_t p_stride, int n, float* out, size_t out_stride, const uint8_t* next) {
  const size_t bytes = kv_block_bytes(KvType::kF16, head_dim);
  const BlockRun run = {blocks, n_blocks, bytes, next};
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    run.prefetch(b, n);
    const float* weight = p + kKvBlock * b;
    float* row = out;
    int left = n;
    for (; left >= 4; left -= 4, weight += 4 * p_stride, row += 4 * out_stride) {
      accumulate_block_f16<4, 2>(block, head_dim, weight, p_stride, row, out_stride);
    }
    if (left == 3) accumulate_block_f16<3, 2>(block, head_dim, weight, p_stride, row, out_stride);
    if (left == 2) accumulate_block_f16<2, 4>(block, head_dim, weight, p_stride, row, out_stride);
    if (left == 1) accumulate_block_f16<1, 4>(block, head_dim, weight, p_stride, row, out_stride);
  }
}

// --- INT8 cache

// At most kRowChunk queries against one block of keys, 8 positions at a time.
QE_INLINE void score_block_i8(const uint8_t* block, int head_dim, const QuantizedRows& q, int first,
                              int n, float* out, size_t out_stride) {
  const int groups = head_dim / kActivationGroup;
  const uint8_t* scales = block + size_t{kKvBlock} * head_dim;
  const SignedBytes codes;
  __m256 sum[kRowChunk];
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < n; ++i) sum[i] = _mm256_setzero_ps();
    for (int g = 0; g < groups; ++g) {
      SignedPart part;
      codes.load(block + 512 * g, half, &part);
      const int8_t* x = q.codes + static_cast<size_t>(first) * head_dim + kActivationGroup * g;
      const float* scale = q.scale + static_cast<size_t>(first) * groups + g;
      for (int i = 0; i < n; ++i, x += head_dim, scale += groups) {
        const __m256i dot = signed_dot(part, x);
        sum[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_broadcast_ss(scale), sum[i]);
      }
    }
    const __m256 key_scale = load_half8(scales + 16 * half);
    for (int i = 0; i < n; ++i) {
      _mm256_storeu_ps(out + i * out_stride + 8 * half, _mm256_mul_ps(sum[i], key_scale));
    }
  }
}

void scores_i8(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride, const uint8_t* next) {
  const size_t bytes = kv_block_bytes(KvType::kI8, head_dim);
  const BlockRun run = {blocks, n_blocks, bytes, next};
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    run.prefetch(b, q.n);
    float* row = out + kKvBlock * b;
    if (q.n == 2) {  // two query heads a key head: what a Qwen3 decode step has
      score_block_i8(block, head_dim, q.quantized, 0, 2, row, out_stride);
      continue;
    }
    for (int first = 0; first < q.n; first += kRowChunk) {
      const int n = q.n - first < kRowChunk ? q.n - first : kRowChunk;
      score_block_i8(block, head_dim, q.quantized, first, n, row + first * out_stride, out_stride);
    }
  }
}

// One query's 16 weights times the scales of the values they weigh.
QE_INLINE void scale_weights(const float* p, const uint8_t* scales, __m256 (&weight)[2]) {
  for (int h = 0; h < 2; ++h) {
    const __m256 probability = _mm256_loadu_ps(p + 8 * h);
    // An empty slot's p of 0 has to win over whatever its scale is.
    weight[h] = _mm256_and_ps(_mm256_mul_ps(probability, load_half8(scales + 16 * h)),
                              _mm256_cmp_ps(probability, _mm256_setzero_ps(), _CMP_GT_OQ));
  }
}

// One query's 16 weights in 0..127, four to a register, and the size of one step.
struct Weights16 {
  __m256i codes[4];
  __m256 step;
};

// Returns false if all weights, and with them the codes and the step, are 0.
QE_INLINE bool quantize_weights(const float* p, const uint8_t* scales, Weights16* out) {
  __m256 weight[2];
  scale_weights(p, scales, weight);
  const float largest = horizontal_max(_mm256_max_ps(weight[0], weight[1]));
  const __m256 inverse = _mm256_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
  const __m256i bytes =
      round_to_int8(_mm256_mul_ps(weight[0], inverse), _mm256_mul_ps(weight[1], inverse),
                    _mm256_setzero_ps(), _mm256_setzero_ps());
  out->step = _mm256_set1_ps(largest / 127.0f);
  const __m256i both = _mm256_permute4x64_epi64(bytes, 0x44);
  out->codes[0] = _mm256_shuffle_epi32(both, 0x00);
  out->codes[1] = _mm256_shuffle_epi32(both, 0x55);
  out->codes[2] = _mm256_shuffle_epi32(both, 0xaa);
  out->codes[3] = _mm256_shuffle_epi32(both, 0xff);
  return largest > 0;
}

template <int kN>
QE_INLINE void accumulate_block_i8(const uint8_t* block, int head_dim, const float* p,
                                   size_t p_stride, float* out, size_t out_stride) {
  const __m256i ones = _mm256_set1_epi16(1);
  Weights16 weights[kN];
  bool any = false;
  for (int i = 0; i < kN; ++i) {
    any |= quantize_weights(p + i * p_stride, block + size_t{kKvBlock} * head_dim, &weights[i]);
  }
  if (!any) return;
  for (int d = 0; d < head_dim; d += 8) {
    __m256i sum[kN];
    for (int j = 0; j < 4; ++j) {
      const __m256i values =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 4 * (head_dim * j + d)));
      for (int i = 0; i < kN; ++i) {
        const __m256i pairs =
            _mm256_madd_epi16(_mm256_maddubs_epi16(weights[i].codes[j], values), ones);
        sum[i] = j == 0 ? pairs : _mm256_add_epi32(sum[i], pairs);
      }
    }
    for (int i = 0; i < kN; ++i) {
      float* at = out + i * out_stride + d;
      _mm256_storeu_ps(
          at, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[i]), weights[i].step, _mm256_loadu_ps(at)));
    }
  }
}

void accumulate_i8(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride, const uint8_t* next) {
  const size_t bytes = kv_block_bytes(KvType::kI8, head_dim);
  const BlockRun run = {blocks, n_blocks, bytes, next};
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    run.prefetch(b, n);
    const float* weight = p + kKvBlock * b;
    float* row = out;
    int left = n;
    for (; left >= 2; left -= 2, weight += 2 * p_stride, row += 2 * out_stride) {
      accumulate_block_i8<2>(block, head_dim, weight, p_stride, row, out_stride);
    }
    if (left == 1) accumulate_block_i8<1>(block, head_dim, weight, p_stride, row, out_stride);
  }
}

// --- INT4 cache

void scores_i4(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride, const uint8_t*) {
  linear_q4(keys_i4(blocks, n_blocks, head_dim), q.quantized, 0, n_blocks, out, out_stride);
}

// One query's 16 weights in -127..127, four to a register, 8 times their sum, and the size of one
// step.
struct SignedWeights16 {
  __m256i codes[4];
  __m256i offset;
  __m256 step;
};

// Returns false if all weights, and with them the codes and the step, are 0.
QE_INLINE bool quantize_signed(const float* p, const uint8_t* scales, SignedWeights16* out) {
  __m256 weight[2];
  scale_weights(p, scales, weight);
  const float largest = horizontal_max(_mm256_max_ps(magnitude(weight[0]), magnitude(weight[1])));
  const __m256 inverse = _mm256_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
  const __m256i bytes =
      round_to_int8(_mm256_mul_ps(weight[0], inverse), _mm256_mul_ps(weight[1], inverse),
                    _mm256_setzero_ps(), _mm256_setzero_ps());
  out->step = _mm256_set1_ps(largest / 127.0f);
  const __m256i both = _mm256_permute4x64_epi64(bytes, 0x44);
  out->codes[0] = _mm256_shuffle_epi32(both, 0x00);
  out->codes[1] = _mm256_shuffle_epi32(both, 0x55);
  out->codes[2] = _mm256_shuffle_epi32(both, 0xaa);
  out->codes[3] = _mm256_shuffle_epi32(both, 0xff);
  __m256i quads =
      _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(8), both), _mm256_set1_epi16(1));
  quads = _mm256_add_epi32(quads, _mm256_shuffle_epi32(quads, 0x4e));
  out->offset = _mm256_add_epi32(quads, _mm256_shuffle_epi32(quads, 0xb1));
  return largest > 0;
}

// Adds one group of 32 dims of one block's values to kN outputs.
template <int kN>
QE_INLINE void accumulate_group_i4(const uint8_t* group, const float* p, size_t p_stride,
                                   float* out, size_t out_stride) {
  const __m256i low_nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  SignedWeights16 weights[kN];
  bool any = false;
  for (int i = 0; i < kN; ++i) {
    any |= quantize_signed(p + i * p_stride, group + kI4CodeBytes, &weights[i]);
  }
  if (!any) return;
  for (int half = 0; half < 2; ++half) {
    // The products of nibbles by at most 127, 8 to a lane, fit 16 bits.
    __m256i low[kN], high[kN];
    for (int j = 0; j < 4; ++j) {
      const __m256i bytes = load256(group + 64 * j + 32 * half);
      const __m256i low_values = _mm256_and_si256(bytes, low_nibble);
      const __m256i high_values = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_nibble);
      for (int i = 0; i < kN; ++i) {
        const __m256i a = _mm256_maddubs_epi16(low_values, weights[i].codes[j]);
        const __m256i b = _mm256_maddubs_epi16(high_values, weights[i].codes[j]);
        low[i] = j == 0 ? a : _mm256_add_epi16(low[i], a);
        high[i] = j == 0 ? b : _mm256_add_epi16(high[i], b);
      }
    }
    for (int i = 0; i < kN; ++i) {
      float* at = out + i * out_stride + 8 * half;
      const __m256i sum[2] = {low[i], high[i]};
      for (int k = 0; k < 2; ++k, at += 16) {
        const __m256i total = _mm256_sub_epi32(_mm256_madd_epi16(sum[k], ones), weights[i].offset);
        _mm256_storeu_ps(
            at, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), weights[i].step, _mm256_loadu_ps(at)));
      }
    }
  }
}

void accumulate_i4(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride, const uint8_t* next) {
  const int groups = head_dim / kI4Group;
  for (int b = 0; b < n_blocks; ++b) {
    prefetch_next(next, b, groups * kI4GroupBytes);
    for (int g = 0; g < groups; ++g, blocks += kI4GroupBytes) {
      const float* weight = p + kKvBlock * b;
      float* row = out + kI4Group * g;
      int left = n;
      for (; left >= 2; left -= 2, weight += 2 * p_stride, row += 2 * out_stride) {
        accumulate_group_i4<2>(blocks, weight, p_stride, row, out_stride);
      }
      if (left == 1) accumulate_group_i4<1>(blocks, weight, p_stride, row, out_stride);
    }
  }
}

}  // namespace
}  // namespace avx2
}  // namespace qe
