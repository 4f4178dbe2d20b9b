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
                size_t out_stride, const uint8_t* next) {
  const size_t bytes = kv_block_bytes(KvType::kF16, head_dim);
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    prefetch_next(next, b, bytes);
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
                    size_t p_stride, int n, float* out, size_t out_stride, const uint8_t* next) {
  const size_t bytes = kv_block_bytes(KvType::kF16, head_dim);
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    prefetch_next(next, b, bytes);
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

// --- scores of the INT8 and INT4 caches

// 16 positions by 32 dims with unsigned codes, and what was added to make them so.
struct KeyBytes {
  static constexpr int kBias = 128;
  static constexpr size_t kStep = 512;

  static QE_INLINE void load(const uint8_t* group, __m512i* code) {
    const Part part = Bytes{}.load(group);
    for (int k = 0; k < 8; ++k) code[k] = part.code[k];
  }
};

struct KeyNibbles {
  static constexpr int kBias = 8;
  static constexpr size_t kStep = kI4GroupBytes;

  static QE_INLINE void load(const uint8_t* group, __m512i* code) {
    const __m512i low_nibble = _mm512_set1_epi8(15);
    for (int j = 0; j < 4; ++j) {
      const __m512i bytes = load512(group + 64 * j);
      code[2 * j] = _mm512_and_si512(bytes, low_nibble);
      code[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_nibble);
    }
  }
};

// The most groups that a head of 1024 dims, the widest there is, can have.
constexpr int kMostGroups = 32;

// n <= kRowChunk queries, `groups` of 32 dims each, whose codes' sums times -kBias are given.
struct QueryChunk {
  const int8_t* codes;
  const float* scale;
  const int32_t* offset;
  int n, groups;
};

// One block of keys. Totals go through memory between the groups, where they cost less than
// fetching the keys again would.
template <class Keys, bool kGroupScales>
QE_INLINE void score_block(const uint8_t* block, const QueryChunk& q, float* out,
                           size_t out_stride) {
  __m512 total[kRowChunk];
  for (int i = 0; i < q.n; ++i) total[i] = _mm512_setzero_ps();
  for (int g = 0; g < q.groups; ++g, block += Keys::kStep) {
    __m512i code[8];
    Keys::load(block, code);
    const __m512 key_scale = kGroupScales ? load_half16(block + kI4CodeBytes) : _mm512_setzero_ps();
    for (int i = 0; i < q.n; ++i) {
      const size_t at = static_cast<size_t>(i) * q.groups + g;
      const int8_t* x = q.codes + kActivationGroup * at;
      // Two chains of sums are short enough for the sums of several queries to be under way.
      __m512i even = _mm512_set1_epi32(q.offset[at]), odd = _mm512_setzero_si512();
      for (int k = 0; k < 8; k += 2) {
        even = _mm512_dpbusd_epi32(even, code[k], _mm512_set1_epi32(load_four(x + 4 * k)));
        odd = _mm512_dpbusd_epi32(odd, code[k + 1], _mm512_set1_epi32(load_four(x + 4 * k + 4)));
      }
      __m512 value = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
      if (kGroupScales) value = _mm512_mul_ps(value, key_scale);
      total[i] = _mm512_fmadd_ps(value, _mm512_set1_ps(q.scale[at]), total[i]);
    }
  }
  const __m512 scale = kGroupScales ? _mm512_set1_ps(1) : load_half16(block);
  for (int i = 0; i < q.n; ++i) {
    const __m512 value = kGroupScales ? total[i] : _mm512_mul_ps(total[i], scale);
    _mm512_storeu_ps(out + i * out_stride, value);
  }
}

template <class Keys, bool kGroupScales>
QE_INLINE void scores(const uint8_t* blocks, int n_blocks, size_t bytes, const Queries& q,
                      float* out, size_t out_stride, const uint8_t* next) {
  const int groups = q.quantized.cols / kActivationGroup;
  for (int first = 0; first < q.n; first += kRowChunk, out += kRowChunk * out_stride) {
    const size_t at = static_cast<size_t>(first) * groups;
    const int n = q.n - first < kRowChunk ? q.n - first : kRowChunk;
    int32_t offset[kRowChunk * kMostGroups];
    for (int i = 0; i < n * groups; ++i) offset[i] = -Keys::kBias * q.quantized.sum[at + i];
    const QueryChunk chunk = {q.quantized.codes + kActivationGroup * at, q.quantized.scale + at,
                              offset, n, groups};
    for (int b = 0; b < n_blocks; ++b) {
      const uint8_t* block = blocks + b * bytes;
      prefetch_next(next, b, bytes);
      if (n == 2 && groups == 4) {  // a decode step of Qwen3: everything fits into registers
        score_block<Keys, kGroupScales>(block, {chunk.codes, chunk.scale, offset, 2, 4},
                                        out + kKvBlock * b, out_stride);
      } else {
        score_block<Keys, kGroupScales>(block, chunk, out + kKvBlock * b, out_stride);
      }
    }
  }
}

void scores_i8(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride, const uint8_t* next) {
  scores<KeyBytes, false>(blocks, n_blocks, kv_block_bytes(KvType::kI8, head_dim), q, out,
                          out_stride, next);
}

void scores_i4(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride, const uint8_t* next) {
  scores<KeyNibbles, true>(blocks, n_blocks, kv_block_bytes(KvType::kI4, head_dim), q, out,
                           out_stride, next);
}

// --- values of the INT8 and INT4 caches
//
// The weights of one query are quantized for a stretch of blocks at a time: the 16 maxima come out
// of one tree of comparisons. Then the blocks' values are weighed.

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
  const int run = kInOrder ? 1 : n_blocks;
  for (int first = 0; first < n_blocks; first += run) {
    if (kInOrder) prefetch_next(next, first, bytes);
    for (int d = 0; d < head_dim; d += 32) {
      __m512 values[kN][2];
      load_out(out + d, out_stride, values);
      for (int b = first; b < first + run; ++b) {
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

// --- softmax

// e^x for x <= 88.3, and at least e^-87.3; as in the avx2 table otherwise.
QE_INLINE __m512 exp_ps(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-87.3f));
  const __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(k, _mm512_set1_ps(-2.12194440e-4f), r);
  // Least relative error (4e-9) among polynomials that begin 1 + r.
  __m512 p = _mm512_set1_ps(1.38145406e-3f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.36874545e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1668389e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.66665211e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.9999994e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, k);
}

float exp_sum(float* x, int n, float maximum) {
  const __m512 top = _mm512_set1_ps(maximum);
  __m512 total[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  int i = 0;
  for (; i + 32 <= n; i += 32) {
    for (int k = 0; k < 2; ++k) {
      const __m512 value = exp_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i + 16 * k), top));
      _mm512_storeu_ps(x + i + 16 * k, value);
      total[k] = _mm512_add_ps(total[k], value);
    }
  }
  for (; i < n; i += 16) {
    const int left = n - i < 16 ? n - i : 16;
    float tail[16] = {};
    memcpy(tail, x + i, static_cast<size_t>(left) * sizeof(float));
    const __m512 value = _mm512_maskz_mov_ps(static_cast<__mmask16>((1u << left) - 1),
                                             exp_ps(_mm512_sub_ps(_mm512_loadu_ps(tail), top)));
    _mm512_storeu_ps(tail, value);
    memcpy(x + i, tail, static_cast<size_t>(left) * sizeof(float));
    total[0] = _mm512_add_ps(total[0], value);
  }
  float lanes[16], sum = 0;
  _mm512_storeu_ps(lanes, _mm512_add_ps(total[0], total[1]));
  for (const float lane : lanes) sum += lane;
  return sum;
}

}  // namespace
}  // namespace avx512
}  // namespace qe
