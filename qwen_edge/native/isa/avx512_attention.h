// Attention kernels of the avx512_vnni table. avx512_vnni.cpp includes this inside the region that
// switches to AVX-512.
#pragma once

#include "avx512_linear.h"

namespace qe {
namespace avx512 {
namespace {

// Queries that meet a block of keys before it is dropped.
constexpr int kRowChunk = 32;

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
  const BlockRun run = {blocks, n_blocks, bytes, next};
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    run.prefetch(b, q.n);
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
  const BlockRun run = {blocks, n_blocks, bytes, next};
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * bytes;
    run.prefetch(b, n);
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
    for (int k = 0; k < 8; ++k) code[k] = Bytes{}.load(group, k / 2).code[k % 2];
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

// What follows on keys are values, whose scales of a whole stretch are wanted at once: they are
// asked for well before the rest. INT4 has so many of them that it asks for everything that early.
template <bool kGroupScales>
QE_INLINE void prefetch_keys(const BlockRun& run, int block, int queries) {
  if (kGroupScales) {
    prefetch_next(run.next, block, run.bytes);
    return;
  }
  run.prefetch(block, queries);
  if (run.next != nullptr) {
    const uint8_t* end = run.next + (block + 1) * run.bytes;
    _mm_prefetch(reinterpret_cast<const char*>(end - 2 * kKvBlock), _MM_HINT_T0);
  }
}

template <class Keys, bool kGroupScales>
QE_INLINE void scores(const uint8_t* blocks, int n_blocks, size_t bytes, const Queries& q,
                      float* out, size_t out_stride, const uint8_t* next) {
  const int groups = q.quantized.cols / kActivationGroup;
  const BlockRun run = {blocks, n_blocks, bytes, next};
  for (int first = 0; first < q.n; first += kRowChunk, out += kRowChunk * out_stride) {
    const size_t at = static_cast<size_t>(first) * groups;
    const int n = q.n - first < kRowChunk ? q.n - first : kRowChunk;
    int32_t offset[kRowChunk * kMostGroups];
    for (int i = 0; i < n * groups; ++i) offset[i] = -Keys::kBias * q.quantized.sum[at + i];
    const QueryChunk chunk = {q.quantized.codes + kActivationGroup * at, q.quantized.scale + at,
                              offset, n, groups};
    for (int b = 0; b < n_blocks; ++b) {
      const uint8_t* block = blocks + b * bytes;
      if (first == 0) prefetch_keys<kGroupScales>(run, b, q.n);
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
