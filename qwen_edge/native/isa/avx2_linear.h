// Matrix kernels of the avx2 table. avx2.cpp includes this inside the region that switches to AVX2.
//
// VPMADDUBSW multiplies unsigned by signed bytes and adds neighbours into 16 bits, saturating. Two
// ways keep within 16 bits: a codebook whose entries span at most 16 is moved to 0..16, and the
// products of all 32 columns are added before they are widened; any other weights enter by their
// magnitude, with their sign moved to the activations, and are widened at once.
#pragma once

#include "avx2_rows.h"
#include "low_rank.h"

namespace qe {
namespace avx2 {
namespace {

// Rows of activations that meet a weight register before it is dropped.
constexpr int kRowChunk = 16;

QE_INLINE __m256i load256(const void* data) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(data));
}

QE_INLINE __m256i broadcast4(const int8_t* x) { return _mm256_set1_epi32(load_four(x)); }

QE_INLINE __m256 load_half8(const uint8_t* data) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data)));
}

// --- codes: 8 rows by 32 columns in 8 registers, register k holding columns 4 k to 4 k + 3.
// collect() takes the products with a row of activations as far as registers for the codes are
// needed; finish() turns that and the activations' sum, the same in all lanes, into the 8 sums.
struct Part {
  __m256i code[8];
};

// INT4 codes through a codebook of at most 16 steps: code - least entry in 0..16.
struct NarrowNibbles {
  static constexpr int kPartBytes = 256;
  static constexpr bool kNeedsSum = true;
  __m256i table, offset;

  QE_INLINE void load(const uint8_t* codes, int half, Part* part) const {
    const __m256i low_nibble = _mm256_set1_epi8(15);
    for (int j = 0; j < 4; ++j) {
      const __m256i bytes = load256(codes + 64 * j + 32 * half);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_nibble);
      part->code[2 * j] = _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, low_nibble));
      part->code[2 * j + 1] = _mm256_shuffle_epi8(table, high);
    }
  }
  QE_INLINE __m256i collect(const Part& part, const int8_t* x) const {
    __m256i pairs = _mm256_maddubs_epi16(part.code[0], broadcast4(x));
    for (int k = 1; k < 8; ++k) {
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(part.code[k], broadcast4(x + 4 * k)));
    }
    return pairs;
  }
  QE_INLINE __m256i finish(__m256i pairs, __m256i sum) const {
    // The sum fits 16 bits, so that VPMADDWD multiplies it by the least entry.
    return _mm256_add_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)),
                            _mm256_madd_epi16(sum, offset));
  }
};

QE_INLINE __m256i signed_dot(const Part& part, const int8_t* x) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i total = _mm256_setzero_si256();
  for (int k = 0; k < 8; ++k) {
    const __m256i flipped = _mm256_sign_epi8(broadcast4(x + 4 * k), part.code[k]);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(part.code[k]), flipped);
    total = _mm256_add_epi32(total, _mm256_madd_epi16(pairs, ones));
  }
  return total;
}

// INT4 codes through any codebook.
struct WideNibbles {
  static constexpr int kPartBytes = 256;
  static constexpr bool kNeedsSum = false;
  __m256i table;

  QE_INLINE void load(const uint8_t* codes, int half, Part* part) const {
    const __m256i low_nibble = _mm256_set1_epi8(15);
    for (int j = 0; j < 4; ++j) {
      const __m256i bytes = load256(codes + 64 * j + 32 * half);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_nibble);
      part->code[2 * j] = _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, low_nibble));
      part->code[2 * j + 1] = _mm256_shuffle_epi8(table, high);
    }
  }
  QE_INLINE __m256i collect(const Part& part, const int8_t* x) const { return signed_dot(part, x); }
  QE_INLINE __m256i finish(__m256i dot, __m256i) const { return dot; }
};

struct SignedBytes {
  static constexpr int kPartBytes = 512;
  static constexpr bool kNeedsSum = false;

  QE_INLINE void load(const uint8_t* codes, int half, Part* part) const {
    for (int k = 0; k < 8; ++k) {
      part->code[k] = load256(codes + 64 * k + 32 * half);
    }
  }
  QE_INLINE __m256i collect(const Part& part, const int8_t* x) const { return signed_dot(part, x); }
  QE_INLINE __m256i finish(__m256i dot, __m256i) const { return dot; }
};

// --- the loops

// One tile by n <= kRowChunk rows of activations from `first` on. The rows are gone through twice
// a part: first only products, with the codes in registers, then all the rest. Together they would
// make so long a chain a row that a processor could not look far enough ahead.
template <bool kHasMin, typename Codes>
QE_INLINE void multiply_tile(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile,
                             int first, int n, float* out, size_t out_stride) {
  const int groups = w.groups(), parts = w.group / kActivationGroup;
  const size_t row_step = x.row_step(), row_bytes = kActivationGroup * row_step;
  const size_t bytes = block_bytes(w.type, w.group, kHasMin);
  const uint8_t* block = w.data + tile * w.tile_bytes();
  const size_t start = x.at(first, 0),
               panel_bytes = static_cast<size_t>(kActivationGroup) * x.panel;
  const int8_t* x_codes = x.codes + kActivationGroup * start;
  const float* x_scale = x.scale + start;
  const int32_t* x_sum = x.sum + start;
  __m256 total[kRowChunk][2];
  __m256i collected[2][kRowChunk];
  for (int i = 0; i < n; ++i) total[i][0] = total[i][1] = _mm256_setzero_ps();
  for (int g = 0; g < groups; ++g, block += bytes) {
    prefetch_ahead(block, bytes);
    const uint8_t* scales = block + static_cast<size_t>(Codes::kPartBytes) * parts;
    const __m256 scale[2] = {load_half8(scales), load_half8(scales + 16)};
    __m256 minimum[2] = {};
    if (kHasMin) {
      minimum[0] = load_half8(scales + kScaleBytes);
      minimum[1] = load_half8(scales + kScaleBytes + 16);
      for (int half = 0; half < 2 && w.has_zero; ++half) {
        minimum[half] =
            _mm256_mul_ps(minimum[half], _mm256_sub_ps(_mm256_setzero_ps(), scale[half]));
      }
    }
    for (int p = 0; p < parts; ++p, x_codes += panel_bytes, x_scale += x.panel, x_sum += x.panel) {
      for (int half = 0; half < 2; ++half) {
        Part part;
        codes.load(block + static_cast<size_t>(Codes::kPartBytes) * p, half, &part);
        const int8_t* row = x_codes;
        for (int i = 0; i < n; ++i, row += row_bytes) collected[half][i] = codes.collect(part, row);
      }
      for (int i = 0; i < n; ++i) {
        const __m256 factor = _mm256_broadcast_ss(x_scale + i * row_step);
        __m256i sum = _mm256_setzero_si256();
        if (kHasMin || Codes::kNeedsSum) sum = _mm256_set1_epi32(x_sum[i * row_step]);
        for (int half = 0; half < 2; ++half) {
          const __m256i dot = codes.finish(collected[half][i], sum);
          __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scale[half]);
          if (kHasMin) value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), minimum[half], value);
          total[i][half] = _mm256_fmadd_ps(value, factor, total[i][half]);
        }
      }
    }
  }
  for (int i = 0; i < n; ++i) {
    float* row = out + i * out_stride;
    _mm256_storeu_ps(row, total[i][0]);
    _mm256_storeu_ps(row + 8, total[i][1]);
  }
}

template <bool kHasMin, typename Codes>
void multiply(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile_begin,
              int tile_end, float* out, size_t out_stride) {
  if (x.n == 1) {  // the constant lets the compiler keep everything in registers
    for (int t = tile_begin; t < tile_end; ++t) {
      multiply_tile<kHasMin>(w, codes, x, t, 0, 1, out + kTileRows * t, out_stride);
    }
    return;
  }
  const int pass = 1 + static_cast<int>(kPassBytes / w.tile_bytes());
  for (int begin = tile_begin; begin < tile_end; begin += pass) {
    const int end = begin + pass < tile_end ? begin + pass : tile_end;
    for (int first = 0; first < x.n; first += kRowChunk) {
      const int n = x.n - first < kRowChunk ? x.n - first : kRowChunk;
      for (int t = begin; t < end; ++t) {
        multiply_tile<kHasMin>(w, codes, x, t, first, n, out + first * out_stride + kTileRows * t,
                               out_stride);
      }
    }
  }
}

// Whether a codebook spans at most 16 steps, and from where.
QE_INLINE bool is_narrow(const int8_t* codebook, int* least) {
  int low = codebook[0], high = codebook[0];
  for (int i = 1; i < 16; ++i) {
    low = codebook[i] < low ? codebook[i] : low;
    high = codebook[i] > high ? codebook[i] : high;
  }
  *least = low;
  return high - low <= 16;
}

QE_INLINE __m256i codebook_table(const int8_t* codebook) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codebook)));
}

QE_INLINE NarrowNibbles narrow_nibbles(const int8_t* codebook, int least) {
  const __m256i table = codebook_table(codebook);
  return {_mm256_sub_epi8(table, _mm256_set1_epi8(static_cast<char>(least))),
          _mm256_set1_epi32(least & 0xffff)};
}

void linear_q4(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end, float* out,
               size_t out_stride) {
  int least;
  if (is_narrow(w.codebook, &least)) {
    const NarrowNibbles codes = narrow_nibbles(w.codebook, least);
    (w.has_min
         ? multiply<true, NarrowNibbles>
         : multiply<false, NarrowNibbles>)(w, codes, x, tile_begin, tile_end, out, out_stride);
  } else {
    const WideNibbles codes = {codebook_table(w.codebook)};
    (w.has_min ? multiply<true, WideNibbles>
               : multiply<false, WideNibbles>)(w, codes, x, tile_begin, tile_end, out, out_stride);
  }
}

void linear_q8(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end, float* out,
               size_t out_stride) {
  (w.has_min ? multiply<true, SignedBytes> : multiply<false, SignedBytes>)(w, SignedBytes{}, x,
                                                                           tile_begin, tile_end,
                                                                           out, out_stride);
}

template <typename Codes>
QE_INLINE void part_sums(const Codes& codes, const uint8_t* bytes, const int8_t* x, int32_t x_sum,
                         int32_t* out) {
  for (int half = 0; half < 2; ++half) {
    Part part;
    codes.load(bytes, half, &part);
    const __m256i sums = codes.finish(codes.collect(part, x), _mm256_set1_epi32(x_sum));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8 * half), sums);
  }
}

void sums_q4(const uint8_t* codes, const int8_t* codebook, const int8_t* x, int32_t x_sum,
             int32_t* out) {
  int least;
  if (is_narrow(codebook, &least)) {
    part_sums(narrow_nibbles(codebook, least), codes, x, x_sum, out);
  } else {
    part_sums(WideNibbles{codebook_table(codebook)}, codes, x, x_sum, out);
  }
}

void sums_q8(const int8_t* codes, const int8_t* x, int32_t x_sum, int32_t* out) {
  part_sums(SignedBytes{}, reinterpret_cast<const uint8_t*>(codes), x, x_sum, out);
}

// --- dense weights

template <Type kType>
struct Dense {
  static constexpr int kBytes = kType == Type::kF32 ? 4 : 2;

  static QE_INLINE __m256 load8(const uint8_t* data) {
    if constexpr (kType == Type::kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(data));
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
    if constexpr (kType == Type::kF16) return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  static QE_INLINE float load1(const uint8_t* data) {
    float value;
    uint16_t half;
    memcpy(&half, data, 2);
    if constexpr (kType == Type::kF16) return half_to_float(half);
    if constexpr (kType == Type::kBF16) return bfloat16_to_float(half);
    memcpy(&value, data, 4);
    return value;
  }
};

// Four rows of weights by kN rows of activations.
template <Type kType, int kN>
QE_INLINE void dense_rows(const uint8_t* const* weights, int cols, const float* x, size_t x_stride,
                          float* out, size_t out_stride) {
  using Weight = Dense<kType>;
  __m256 sum[4][kN] = {};
  int c = 0;
  for (; c + 8 <= cols; c += 8) {
    __m256 value[kN];
    for (int i = 0; i < kN; ++i) value[i] = _mm256_loadu_ps(x + i * x_stride + c);
    for (int r = 0; r < 4; ++r) {
      const __m256 weight = Weight::load8(weights[r] + static_cast<size_t>(c) * Weight::kBytes);
      for (int i = 0; i < kN; ++i) sum[r][i] = _mm256_fmadd_ps(weight, value[i], sum[r][i]);
    }
  }
  for (int i = 0; i < kN; ++i) {
    for (int r = 0; r < 4; ++r) {
      float total = horizontal_sum(sum[r][i]);
      for (int k = c; k < cols; ++k) {
        total += Weight::load1(weights[r] + static_cast<size_t>(k) * Weight::kBytes) *
                 x[i * x_stride + k];
      }
      out[i * out_stride + r] = total;
    }
  }
}

template <Type kType>
void multiply_dense(const Matrix& w, const float* x, size_t x_stride, int n, int tile_begin,
                    int tile_end, float* out, size_t out_stride) {
  const size_t row_bytes = static_cast<size_t>(w.cols) * Dense<kType>::kBytes;
  for (int row = kTileRows * tile_begin; row < kTileRows * tile_end; row += 4) {
    const uint8_t* weights[4];
    for (int r = 0; r < 4; ++r) {  // padding lanes repeat the last row
      weights[r] = w.data + row_bytes * (row + r < w.rows ? row + r : w.rows - 1);
    }
    int i = 0;
    for (; i + 2 <= n; i += 2) {
      dense_rows<kType, 2>(weights, w.cols, x + i * x_stride, x_stride, out + i * out_stride + row,
                           out_stride);
    }
    if (i < n) {
      dense_rows<kType, 1>(weights, w.cols, x + i * x_stride, x_stride, out + i * out_stride + row,
                           out_stride);
    }
  }
}

void linear_dense(const Matrix& w, const float* x, size_t x_stride, int n, int tile_begin,
                  int tile_end, float* out, size_t out_stride) {
  const auto kernel = w.type == Type::kF32   ? multiply_dense<Type::kF32>
                      : w.type == Type::kF16 ? multiply_dense<Type::kF16>
                                             : multiply_dense<Type::kBF16>;
  kernel(w, x, x_stride, n, tile_begin, tile_end, out, out_stride);
}

struct Lanes {
  __m256 low, high;

  static QE_INLINE Lanes load_half(const uint16_t* halves) {
    const __m128i* both = reinterpret_cast<const __m128i*>(halves);
    return {_mm256_cvtph_ps(_mm_loadu_si128(both)), _mm256_cvtph_ps(_mm_loadu_si128(both + 1))};
  }
  QE_INLINE void clear() { low = high = _mm256_setzero_ps(); }
  QE_INLINE void add_product(const Lanes& weight, float x) {
    const __m256 all = _mm256_set1_ps(x);
    low = _mm256_fmadd_ps(weight.low, all, low);
    high = _mm256_fmadd_ps(weight.high, all, high);
  }
  QE_INLINE void add(const Lanes& other) {
    low = _mm256_add_ps(low, other.low);
    high = _mm256_add_ps(high, other.high);
  }
  QE_INLINE void add_to(float* out) const {
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), low));
    _mm256_storeu_ps(out + 8, _mm256_add_ps(_mm256_loadu_ps(out + 8), high));
  }
};

void add_low_rank(const uint16_t* w, int tiles, int cols, const float* x, size_t x_stride, int n,
                  float* out, size_t out_stride) {
  low_rank_tiles<Lanes, 3, 2>(w, tiles, cols, x, x_stride, n, out, out_stride);
}

}  // namespace
}  // namespace avx2
}  // namespace qe
