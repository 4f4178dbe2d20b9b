// Matrix kernels of the avx2 table. avx2.cpp includes this inside the region that switches to AVX2.
//
// VPMADDUBSW multiplies unsigned by signed bytes and adds neighbours into 16 bits, saturating. Two
// ways keep within 16 bits: codes in even steps of one enter as 0..15, and the products of all 32
// columns are added before they are widened; any other weights enter by their magnitude, with their
// sign moved to the activations, and are widened at once.
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

// The same for a register that is used twice, which g++ would read from memory twice: VLDDQU is
// never part of another instruction.
QE_INLINE __m256i load_once(const void* data) {
  return _mm256_lddqu_si256(static_cast<const __m256i*>(data));
}

QE_INLINE __m256i broadcast4(const int8_t* x) { return _mm256_set1_epi32(load_four(x)); }

QE_INLINE __m256 load_half8(const uint8_t* data) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data)));
}

QE_INLINE __m256i low_nibbles(__m256i bytes) {
  return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
}
QE_INLINE __m256i high_nibbles(__m256i bytes) { return low_nibbles(_mm256_srli_epi16(bytes, 4)); }

// --- codes, 16 rows by 32 columns; a register holds 8 rows by 4 columns. several_rows() collects
// the products with n rows of activations, with as many codes in registers as there is room for,
// and single_row() those with one. finish() turns what was collected for a row, and the sum of its
// activations, the same in all lanes, into the 16 sums.

// A value of each half of a tile's rows.
using Halves = __m256i[2];

// INT4 codes in even steps of one: a weight is its code and the codebook's first entry.
struct EvenNibbles {
  static constexpr int kPartBytes = 256;
  int first;

  QE_INLINE void several_rows(const uint8_t* codes, const int8_t* x, size_t row_bytes, int n,
                              Halves* pairs) const {
    for (int step = 0; step < 2; ++step) {  // 16 columns
      Halves code[4];
      for (int j = 0; j < 2; ++j) {
        for (int half = 0; half < 2; ++half) {
          const __m256i bytes = load256(codes + 128 * step + 64 * j + 32 * half);
          code[2 * j][half] = low_nibbles(bytes);
          code[2 * j + 1][half] = high_nibbles(bytes);
        }
      }
      const int8_t* row = x + 16 * step;
      for (int i = 0; i < n; ++i, row += row_bytes) {
        Halves sums = {};
        if (step > 0) memcpy(sums, pairs[i], sizeof(sums));
        for (int k = 0; k < 4; ++k) {
          const __m256i four = broadcast4(row + 4 * k);
          for (int half = 0; half < 2; ++half) {
            sums[half] = _mm256_add_epi16(sums[half], _mm256_maddubs_epi16(code[k][half], four));
          }
        }
        memcpy(pairs[i], sums, sizeof(sums));
      }
    }
  }
  QE_INLINE void single_row(const uint8_t* codes, const int8_t* x, Halves& pairs) const {
    pairs[0] = pairs[1] = _mm256_setzero_si256();
    for (int j = 0; j < 4; ++j) {
      const __m256i low_four = broadcast4(x + 8 * j), high_four = broadcast4(x + 8 * j + 4);
      for (int half = 0; half < 2; ++half) {
        const __m256i bytes = load_once(codes + 64 * j + 32 * half);
        const __m256i low = _mm256_maddubs_epi16(low_nibbles(bytes), low_four);
        const __m256i high = _mm256_maddubs_epi16(high_nibbles(bytes), high_four);
        pairs[half] = _mm256_add_epi16(pairs[half], _mm256_add_epi16(low, high));
      }
    }
  }
  QE_INLINE void finish(__m256i sum, Halves& sums) const {
    // The sum fits 16 bits, so that VPMADDWD multiplies it by the first entry.
    const __m256i start = _mm256_madd_epi16(sum, _mm256_set1_epi32(first & 0xffff));
    for (int half = 0; half < 2; ++half) {
      const __m256i widened = _mm256_madd_epi16(sums[half], _mm256_set1_epi16(1));
      sums[half] = _mm256_add_epi32(widened, start);
    }
  }
};

// Weights as signed bytes, 8 rows by 32 columns.
struct SignedPart {
  __m256i weights[8];
};

// Products of unsigned and signed bytes, added up by four.
QE_INLINE __m256i widened(__m256i sizes, __m256i signs) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(sizes, signs), _mm256_set1_epi16(1));
}

QE_INLINE __m256i add_signed(__m256i total, __m256i weights, __m256i x) {
  return _mm256_add_epi32(total, widened(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights)));
}

QE_INLINE __m256i signed_dot(const SignedPart& part, const int8_t* x) {
  __m256i total = _mm256_setzero_si256();
  for (int k = 0; k < 8; ++k) total = add_signed(total, part.weights[k], broadcast4(x + 4 * k));
  return total;
}

// What codes that become signed bytes have in common; Codes::load brings half the rows.
template <typename Codes>
struct SignedCodes {
  QE_INLINE void several_rows(const uint8_t* codes, const int8_t* x, size_t row_bytes, int n,
                              Halves* sums) const {
    for (int half = 0; half < 2; ++half) {
      SignedPart part;
      static_cast<const Codes*>(this)->load(codes, half, &part);
      const int8_t* row = x;
      for (int i = 0; i < n; ++i, row += row_bytes) sums[i][half] = signed_dot(part, row);
    }
  }
  QE_INLINE void single_row(const uint8_t* codes, const int8_t* x, Halves& sums) const {
    several_rows(codes, x, 0, 1, &sums);
  }
  static QE_INLINE void finish(__m256i, Halves&) {}
};

// INT4 codes through any codebook.
struct Nibbles : SignedCodes<Nibbles> {
  static constexpr int kPartBytes = 256;
  __m256i table;
  bool negatable;  // no entry is -128

  explicit QE_INLINE Nibbles(const int8_t* codebook)
      : table(_mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(codebook)))),
        negatable(memchr(codebook, 0x80, 16) == nullptr) {}

  // For one row the activations enter by their magnitude, once for both halves of the rows, with
  // their sign moved to the weights.
  QE_INLINE void single_row(const uint8_t* codes, const int8_t* x, Halves& sums) const {
    if (!negatable) return SignedCodes<Nibbles>::single_row(codes, x, sums);
    sums[0] = sums[1] = _mm256_setzero_si256();
    for (int j = 0; j < 4; ++j) {
      const __m256i low_four = broadcast4(x + 8 * j), high_four = broadcast4(x + 8 * j + 4);
      const __m256i low_sizes = _mm256_abs_epi8(low_four), high_sizes = _mm256_abs_epi8(high_four);
      for (int half = 0; half < 2; ++half) {
        const __m256i bytes = load_once(codes + 64 * j + 32 * half);
        const __m256i low = _mm256_shuffle_epi8(table, low_nibbles(bytes));
        const __m256i high = _mm256_shuffle_epi8(table, high_nibbles(bytes));
        const __m256i products =
            _mm256_add_epi32(widened(low_sizes, _mm256_sign_epi8(low, low_four)),
                             widened(high_sizes, _mm256_sign_epi8(high, high_four)));
        sums[half] = _mm256_add_epi32(sums[half], products);
      }
    }
  }
  QE_INLINE void load(const uint8_t* codes, int half, SignedPart* part) const {
    for (int j = 0; j < 4; ++j) {
      const __m256i bytes = load256(codes + 64 * j + 32 * half);
      part->weights[2 * j] = _mm256_shuffle_epi8(table, low_nibbles(bytes));
      part->weights[2 * j + 1] = _mm256_shuffle_epi8(table, high_nibbles(bytes));
    }
  }
};

struct SignedBytes : SignedCodes<SignedBytes> {
  static constexpr int kPartBytes = 512;

  static QE_INLINE void load(const uint8_t* codes, int half, SignedPart* part) {
    for (int k = 0; k < 8; ++k) part->weights[k] = load256(codes + 64 * k + 32 * half);
  }
};

// --- the loops

// The scales of a block and, where there are any, its minimums.
template <bool kHasMin>
struct Scales {
  __m256 scale[2], minimum[2];

  QE_INLINE Scales(const Matrix& w, const uint8_t* halves) {
    for (int half = 0; half < 2; ++half) {
      scale[half] = load_half8(halves + 16 * half);
      if (!kHasMin) continue;
      minimum[half] = load_half8(halves + kScaleBytes + 16 * half);
      if (w.has_zero) {
        minimum[half] =
            _mm256_mul_ps(minimum[half], _mm256_sub_ps(_mm256_setzero_ps(), scale[half]));
      }
    }
  }
  // Adds the sums over 32 columns of a row of activations to its totals.
  QE_INLINE void add(const Halves& sums, __m256i sum, const float* x_scale,
                     __m256 (&total)[2]) const {
    const __m256 factor = _mm256_broadcast_ss(x_scale);
    for (int half = 0; half < 2; ++half) {
      __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[half]), scale[half]);
      if (kHasMin) value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), minimum[half], value);
      total[half] = _mm256_fmadd_ps(value, factor, total[half]);
    }
  }
};

QE_INLINE void store_totals(const __m256 (&total)[2], float* out) {
  _mm256_storeu_ps(out, total[0]);
  _mm256_storeu_ps(out + 8, total[1]);
}

// One tile by the only row of activations. A function of its own: next to the loops for several
// rows g++ would keep its totals in memory.
template <bool kHasMin, typename Codes>
__attribute__((noinline)) void multiply_row(const Matrix& w, const Codes& codes,
                                            const QuantizedRows& x, int tile, float* out) {
  const int groups = w.groups(), parts = w.group / kActivationGroup;
  const uint8_t* block = w.data + tile * w.tile_bytes();
  const int8_t* x_codes = x.codes;
  const float* x_scale = x.scale;
  const int32_t* x_sum = x.sum;
  __m256 total[2] = {};
  for (int g = 0; g < groups; ++g) {
    const uint8_t* halves = block + static_cast<size_t>(Codes::kPartBytes) * parts;
    const Scales<kHasMin> scales(w, halves);
    for (int p = 0; p < parts; ++p, block += Codes::kPartBytes, x_codes += kActivationGroup) {
      prefetch_ahead(block, Codes::kPartBytes, 2 * kAhead);
      const __m256i sum = _mm256_set1_epi32(*x_sum++);
      Halves sums;
      codes.single_row(block, x_codes, sums);
      codes.finish(sum, sums);
      scales.add(sums, sum, x_scale++, total);
    }
    prefetch_ahead(halves, kScaleBytes, 2 * kAhead);
    block = halves + kScaleBytes * (kHasMin ? 2 : 1);
  }
  store_totals(total, out);
}

// One tile by n <= kRowChunk rows of activations from `first` on. The rows are gone through first
// only for products and then for all the rest. Together they would make so long a chain a row that
// a processor could not look far enough ahead.
template <bool kHasMin, typename Codes>
QE_INLINE void multiply_rows(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile,
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
  Halves collected[kRowChunk];
  for (int i = 0; i < n; ++i) total[i][0] = total[i][1] = _mm256_setzero_ps();
  for (int g = 0; g < groups; ++g, block += bytes) {
    prefetch_ahead(block, bytes);
    const Scales<kHasMin> scales(w, block + static_cast<size_t>(Codes::kPartBytes) * parts);
    for (int p = 0; p < parts; ++p, x_codes += panel_bytes, x_scale += x.panel, x_sum += x.panel) {
      codes.several_rows(block + static_cast<size_t>(Codes::kPartBytes) * p, x_codes, row_bytes, n,
                         collected);
      for (int i = 0; i < n; ++i) {
        const __m256i sum = _mm256_set1_epi32(x_sum[i * row_step]);
        Halves sums = {collected[i][0], collected[i][1]};
        codes.finish(sum, sums);
        scales.add(sums, sum, x_scale + i * row_step, total[i]);
      }
    }
  }
  for (int i = 0; i < n; ++i) store_totals(total[i], out + i * out_stride);
}

template <bool kHasMin, typename Codes>
void multiply(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile_begin,
              int tile_end, float* out, size_t out_stride) {
  if (x.n == 1) {
    for (int t = tile_begin; t < tile_end; ++t) {
      multiply_row<kHasMin>(w, codes, x, t, out + kTileRows * t);
    }
    return;
  }
  const int pass = 1 + static_cast<int>(kPassBytes / w.tile_bytes());
  for (int begin = tile_begin; begin < tile_end; begin += pass) {
    const int end = begin + pass < tile_end ? begin + pass : tile_end;
    for (int first = 0; first < x.n; first += kRowChunk) {
      const int n = x.n - first < kRowChunk ? x.n - first : kRowChunk;
      for (int t = begin; t < end; ++t) {
        multiply_rows<kHasMin>(w, codes, x, t, first, n, out + first * out_stride + kTileRows * t,
                               out_stride);
      }
    }
  }
}

void linear_q4(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end, float* out,
               size_t out_stride) {
  if (is_even(w.codebook)) {
    (w.has_min ? multiply<true, EvenNibbles>
               : multiply<false, EvenNibbles>)(w, EvenNibbles{w.codebook[0]}, x, tile_begin,
                                               tile_end, out, out_stride);
  } else {
    (w.has_min ? multiply<true, Nibbles> : multiply<false, Nibbles>)(w, Nibbles(w.codebook), x,
                                                                     tile_begin, tile_end, out,
                                                                     out_stride);
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
  Halves sums;
  codes.single_row(bytes, x, sums);
  codes.finish(_mm256_set1_epi32(x_sum), sums);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), sums[0]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8), sums[1]);
}

void sums_q4(const uint8_t* codes, const int8_t* codebook, const int8_t* x, int32_t x_sum,
             int32_t* out) {
  if (is_even(codebook)) {
    part_sums(EvenNibbles{codebook[0]}, codes, x, x_sum, out);
  } else {
    part_sums(Nibbles(codebook), codes, x, x_sum, out);
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
