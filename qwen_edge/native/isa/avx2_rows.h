// Row-wise kernels of the avx2 table: quantizing, norms, rope, SiLU, exp and the sampler's passes.
//
// avx2.cpp includes this inside the region that switches to AVX2.
#pragma once

namespace qe {
namespace avx2 {
namespace {

// Selects the first n of 8 lanes, n < 8.
QE_INLINE __m256i tail_mask(size_t n) {
  alignas(32) static const int32_t lanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes + 8 - n));
}

QE_INLINE float horizontal_sum(__m256 x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

QE_INLINE double horizontal_sum(__m256d x) {
  const __m128d sum = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
  return _mm_cvtsd_f64(_mm_add_sd(sum, _mm_unpackhi_pd(sum, sum)));
}

QE_INLINE int32_t horizontal_sum(__m256i x) {
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

QE_INLINE float horizontal_max(__m256 x) {
  __m128 top = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  top = _mm_max_ps(top, _mm_movehl_ps(top, top));
  return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
}

QE_INLINE __m256 magnitude(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

// e^x for x <= 88.3, larger x count as 88.3; 0 below the smallest normal number. e^x = 2^k * e^r
// with |r| <= ln(2) / 2 and a polynomial for e^r; the relative error is below 2e-7.
QE_INLINE __m256 exp_ps(__m256 x) {
  const __m256 smallest = _mm256_set1_ps(-87.33f);
  const __m256 counts = _mm256_cmp_ps(x, smallest, _CMP_GE_OQ);
  x = _mm256_min_ps(_mm256_max_ps(x, smallest), _mm256_set1_ps(88.3f));
  const __m256 k = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // ln(2) in two pieces, the first with so few bits that k times it is exact.
  __m256 r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(k, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.0f / 5040);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127));
  const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  return _mm256_and_ps(_mm256_mul_ps(p, power), counts);
}

// --- quantizing

// 32 products rounded to INT8, in order; saturated to -128..127.
QE_INLINE __m256i round_to_int8(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256i low = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
  const __m256i high = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
  // The packs work within 128-bit lanes: this brings the groups of four bytes back into order.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
}

void quantize(const float* x, int n, int panel, int8_t* codes, float* scale, int32_t* sum) {
  for (int g = 0; g < n / kActivationGroup; ++g, x += kActivationGroup) {
    const __m256 a = _mm256_loadu_ps(x), b = _mm256_loadu_ps(x + 8);
    const __m256 c = _mm256_loadu_ps(x + 16), d = _mm256_loadu_ps(x + 24);
    const float largest = horizontal_max(_mm256_max_ps(_mm256_max_ps(magnitude(a), magnitude(b)),
                                                       _mm256_max_ps(magnitude(c), magnitude(d))));
    const __m256 inverse = _mm256_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    const __m256i bytes = round_to_int8(_mm256_mul_ps(a, inverse), _mm256_mul_ps(b, inverse),
                                        _mm256_mul_ps(c, inverse), _mm256_mul_ps(d, inverse));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), bytes);
    *scale = largest / 127.0f;
    *sum = horizontal_sum(
        _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1)));
    codes += static_cast<size_t>(kActivationGroup) * panel;
    scale += panel;
    sum += panel;
  }
}

void store_key_f16(uint8_t* block, int slot, const float* x, int head_dim) {
  for (int d = 0; d < head_dim; d += 8) {
    uint16_t halves[8];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(halves),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + d), _MM_FROUND_TO_NEAREST_INT));
    for (int i = 0; i < 8; ++i) memcpy(block + 2 * (kKvBlock * (d + i) + slot), &halves[i], 2);
  }
}

void store_value_f16(uint8_t* block, int slot, const float* x, int head_dim) {
  for (int d = 0; d < head_dim; d += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(block + 2 * (head_dim * slot + d)),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + d), _MM_FROUND_TO_NEAREST_INT));
  }
}

// Stores the vector's fp16 scale and returns its inverse.
QE_INLINE float store_scale(uint8_t* scales, int slot, const float* x, int head_dim) {
  __m256 top = _mm256_setzero_ps();
  for (int d = 0; d < head_dim; d += 8) {
    top = _mm256_max_ps(magnitude(_mm256_loadu_ps(x + d)), top);
  }
  const uint16_t half = float_to_half(horizontal_max(top) / 127.0f);
  memcpy(scales + 2 * slot, &half, 2);
  const float scale = half_to_float(half);
  return scale > 0 ? 1.0f / scale : 0.0f;
}

// Writes 32 codes of a vector to bytes.
QE_INLINE void kv_codes(const float* x, float inverse, uint8_t* bytes) {
  const __m256 low = _mm256_set1_ps(-127.0f), high = _mm256_set1_ps(127.0f);
  const __m256 factor = _mm256_set1_ps(inverse);
  __m256 value[4];
  for (int i = 0; i < 4; ++i) {
    value[i] = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), factor);
    value[i] = _mm256_min_ps(_mm256_max_ps(value[i], low), high);
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes),
                      round_to_int8(value[0], value[1], value[2], value[3]));
}

void store_key_i8(uint8_t* block, int slot, const float* x, int head_dim) {
  const float inverse = store_scale(block + size_t{kKvBlock} * head_dim, slot, x, head_dim);
  for (int d = 0; d < head_dim; d += 32) {
    uint8_t bytes[32];
    kv_codes(x + d, inverse, bytes);
    for (int i = 0; i < 32; i += 4) memcpy(block + kKvBlock * (d + i) + 4 * slot, bytes + i, 4);
  }
}

void store_value_i8(uint8_t* block, int slot, const float* x, int head_dim) {
  const float inverse = store_scale(block + size_t{kKvBlock} * head_dim, slot, x, head_dim);
  uint8_t* out = block + 4 * (slot / 4) * head_dim + (slot & 3);
  for (int d = 0; d < head_dim; d += 32) {
    uint8_t bytes[32];
    kv_codes(x + d, inverse, bytes);
    for (int i = 0; i < 32; ++i) out[4 * (d + i)] = bytes[i];
  }
}

// 32 values rounded to 16 bits, in the order of two packs of 32-bit registers.
struct Shorts32 {
  __m256i low, high;
};

QE_INLINE Shorts32 round_to_int16(const __m256 (&x)[4], float factor) {
  __m256i rounded[4];
  for (int i = 0; i < 4; ++i) {
    rounded[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], _mm256_set1_ps(factor)));
  }
  return {_mm256_packs_epi32(rounded[0], rounded[1]), _mm256_packs_epi32(rounded[2], rounded[3])};
}

QE_INLINE int32_t dot_int16(const Shorts32& a, const Shorts32& b) {
  return horizontal_sum(
      _mm256_add_epi32(_mm256_madd_epi16(a.low, b.low), _mm256_madd_epi16(a.high, b.high)));
}

// Writes the nibbles of one group and returns its scale.
QE_INLINE uint16_t quantize_i4(const float* from, uint8_t* nibbles) {
  const __m256 negative = _mm256_set1_ps(-0.0f);
  const __m256 x[4] = {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8), _mm256_loadu_ps(from + 16),
                       _mm256_loadu_ps(from + 24)};
  const float high =
      horizontal_max(_mm256_max_ps(_mm256_max_ps(x[0], x[1]), _mm256_max_ps(x[2], x[3])));
  const float low = -horizontal_max(
      _mm256_xor_ps(_mm256_min_ps(_mm256_min_ps(x[0], x[1]), _mm256_min_ps(x[2], x[3])), negative));
  const float extreme = high >= -low ? high : low, largest = extreme < 0 ? -extreme : extreme;
  if (!(largest >= kI4Least)) {
    memset(nibbles, 8, kI4Group);
    return 0;
  }
  const Shorts32 steps = round_to_int16(x, kI4Steps / largest);
  Shorts32 best = {};
  int32_t product = 0, squares = 1;
  for (int k = 0; k < kI4Ratios; ++k) {
    Shorts32 codes = round_to_int16(x, -kI4Ratio[k] / extreme);
    const __m256i least = _mm256_set1_epi16(-8), most = _mm256_set1_epi16(7);
    codes = {_mm256_min_epi16(_mm256_max_epi16(codes.low, least), most),
             _mm256_min_epi16(_mm256_max_epi16(codes.high, least), most)};
    const int32_t p = dot_int16(codes, steps), s = dot_int16(codes, codes);
    if (explained_i4(p, s) <= explained_i4(product, squares)) continue;
    best = codes;
    product = p;
    squares = s;
  }
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(best.low, best.high), order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(nibbles),
                      _mm256_add_epi8(bytes, _mm256_set1_epi8(8)));
  return scale_i4(product, squares, extreme);
}

void store_key_i4(uint8_t* block, int slot, const float* x, int head_dim) {
  uint8_t nibbles[kI4Group];
  for (int d = 0; d < head_dim; d += kI4Group, block += kI4GroupBytes) {
    const uint16_t scale = quantize_i4(x + d, nibbles);
    place_key_i4(block, slot, nibbles, scale);
  }
}

void store_value_i4(uint8_t* block, int slot, const float* x, int head_dim) {
  uint8_t nibbles[kI4Group];
  for (int d = 0; d < head_dim; d += kI4Group, block += kI4GroupBytes) {
    const uint16_t scale = quantize_i4(x + d, nibbles);
    place_value_i4(block, slot, nibbles, scale);
  }
}

// --- elementwise

void rms_norm(const float* x, const float* weight, int n, float eps, float* out) {
  __m256 squares[4] = {};
  int i = 0;
  for (; i + 32 <= n; i += 32) {
    for (int k = 0; k < 4; ++k) {
      const __m256 value = _mm256_loadu_ps(x + i + 8 * k);
      squares[k] = _mm256_fmadd_ps(value, value, squares[k]);
    }
  }
  for (; i < n; i += 8) {
    const __m256 value =
        n - i >= 8 ? _mm256_loadu_ps(x + i) : _mm256_maskload_ps(x + i, tail_mask(n - i));
    squares[0] = _mm256_fmadd_ps(value, value, squares[0]);
  }
  const float total = horizontal_sum(
      _mm256_add_ps(_mm256_add_ps(squares[0], squares[1]), _mm256_add_ps(squares[2], squares[3])));
  const float scalar_factor = 1.0f / __builtin_sqrtf(total / static_cast<float>(n) + eps);
  const __m256 factor = _mm256_set1_ps(scalar_factor);
  for (i = 0; i + 8 <= n; i += 8) {
    const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(x + i), factor);
    _mm256_storeu_ps(out + i, _mm256_mul_ps(value, _mm256_loadu_ps(weight + i)));
  }
  for (; i < n; ++i) out[i] = x[i] * scalar_factor * weight[i];
}

void rope(float* x, const float* cosine, const float* sine, int half) {
  int i = 0;
  for (; i + 8 <= half; i += 8) {
    const __m256 low = _mm256_loadu_ps(x + i), high = _mm256_loadu_ps(x + i + half);
    const __m256 c = _mm256_loadu_ps(cosine + i), s = _mm256_loadu_ps(sine + i);
    _mm256_storeu_ps(x + i, _mm256_fmsub_ps(low, c, _mm256_mul_ps(high, s)));
    _mm256_storeu_ps(x + i + half, _mm256_fmadd_ps(high, c, _mm256_mul_ps(low, s)));
  }
  for (; i < half; ++i) {
    const float low = x[i], high = x[i + half];
    x[i] = low * cosine[i] - high * sine[i];
    x[i + half] = high * cosine[i] + low * sine[i];
  }
}

QE_INLINE __m256 silu(__m256 gate) {
  const __m256 negative = _mm256_xor_ps(gate, _mm256_set1_ps(-0.0f));
  return _mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.0f), exp_ps(negative)));
}

void silu_mul(const float* gate, const float* up, int n, float* out) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(out + i,
                     _mm256_mul_ps(silu(_mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i)));
  }
  if (i == n) return;
  const __m256i mask = tail_mask(n - i);
  const __m256 value =
      _mm256_mul_ps(silu(_mm256_maskload_ps(gate + i, mask)), _mm256_maskload_ps(up + i, mask));
  _mm256_maskstore_ps(out + i, mask, value);
}

void add(float* accumulator, const float* x, int n) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(accumulator + i,
                     _mm256_add_ps(_mm256_loadu_ps(accumulator + i), _mm256_loadu_ps(x + i)));
  }
  for (; i < n; ++i) accumulator[i] += x[i];
}

// --- softmax and sampling

QE_INLINE __m256d widened_sum(__m256 x) {
  return _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x)),
                       _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
}

// Sums e^(x - maximum), and keeps the terms in x if asked to.
template <bool kKeep, typename Float>
QE_INLINE double exp_pass(Float* x, size_t n, float maximum) {
  const __m256 top = _mm256_set1_ps(maximum);
  __m256d total[2] = {};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int k = 0; k < 2; ++k) {
      const __m256 value = exp_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8 * k), top));
      if constexpr (kKeep) _mm256_storeu_ps(x + i + 8 * k, value);
      total[k] = _mm256_add_pd(total[k], widened_sum(value));
    }
  }
  for (; i < n; i += 8) {
    const __m256i mask = n - i >= 8 ? _mm256_set1_epi32(-1) : tail_mask(n - i);
    const __m256 value = _mm256_and_ps(exp_ps(_mm256_sub_ps(_mm256_maskload_ps(x + i, mask), top)),
                                       _mm256_castsi256_ps(mask));
    if constexpr (kKeep) _mm256_maskstore_ps(x + i, mask, value);
    total[0] = _mm256_add_pd(total[0], widened_sum(value));
  }
  return horizontal_sum(_mm256_add_pd(total[0], total[1]));
}

float exp_sum(float* x, int n, float maximum) {
  return static_cast<float>(exp_pass<true>(x, static_cast<size_t>(n), maximum));
}

double sum_exp(const float* x, size_t n, float maximum) { return exp_pass<false>(x, n, maximum); }

float maximum(const float* x, size_t n) {
  const __m256 none = _mm256_set1_ps(-__builtin_inff());
  __m256 top[4] = {none, none, none, none};
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    for (int k = 0; k < 4; ++k) top[k] = _mm256_max_ps(_mm256_loadu_ps(x + i + 8 * k), top[k]);
  }
  float largest =
      horizontal_max(_mm256_max_ps(_mm256_max_ps(top[0], top[1]), _mm256_max_ps(top[2], top[3])));
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

size_t collect(const float* x, size_t n, float threshold, int32_t* indexes, size_t capacity) {
  const __m256 limit = _mm256_set1_ps(threshold);
  size_t found = 0, i = 0;
  for (; i + 32 <= n; i += 32) {
    uint32_t hits = 0;
    for (int k = 0; k < 4; ++k) {
      const __m256 reached = _mm256_cmp_ps(_mm256_loadu_ps(x + i + 8 * k), limit, _CMP_GE_OQ);
      hits |= static_cast<uint32_t>(_mm256_movemask_ps(reached)) << 8 * k;
    }
    for (; hits != 0; hits &= hits - 1, ++found) {
      if (found < capacity) indexes[found] = static_cast<int32_t>(i + __builtin_ctz(hits));
    }
  }
  for (; i < n; ++i) {
    if (!(x[i] >= threshold)) continue;
    if (found < capacity) indexes[found] = static_cast<int32_t>(i);
    ++found;
  }
  return found;
}

}  // namespace
}  // namespace avx2
}  // namespace qe
