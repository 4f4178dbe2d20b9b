// Matrix kernels of the avx512_vnni table. avx512_vnni.cpp includes this inside the region that
// switches to AVX-512.
//
// VPDPBUSD adds the products of four unsigned by four signed bytes to 32-bit sums, exactly. The
// weights enter without their sign, less an offset that they all share, and the sums start at the
// offset times the activations' sum. A 64-byte chunk of a block is one register: 16 rows by 4
// columns.
#pragma once

#include "low_rank.h"

namespace qe {
namespace avx512 {
namespace {

// Rows of activations whose sums are taken together: with two tiles, as many chains as keep two
// multipliers busy, and no more than there are registers for.
constexpr int kRowsAtOnce = 4;

QE_INLINE __m512i load512(const void* data) { return _mm512_loadu_si512(data); }

QE_INLINE __m512 load_half16(const uint8_t* data) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
}

// 16 rows by 8 columns as code - offset, four columns a register.
struct Eight {
  __m512i code[2];
};

// 64 bytes of INT4 codes.
QE_INLINE Eight nibbles_of(const uint8_t* codes, int j) {
  const __m512i bytes = load512(codes + 64 * j), low_nibble = _mm512_set1_epi8(15);
  return {{_mm512_and_si512(bytes, low_nibble),
           _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_nibble)}};
}

// INT4 codes through any codebook.
struct Nibbles {
  static constexpr int kPartBytes = 256;
  __m512i table;

  explicit QE_INLINE Nibbles(const int8_t* codebook)
      : table(_mm512_xor_si512(
            _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codebook))),
            _mm512_set1_epi8(-128))) {}

  QE_INLINE int offset() const { return -128; }
  QE_INLINE Eight load(const uint8_t* codes, int j) const {
    const Eight nibbles = nibbles_of(codes, j);
    return {
        {_mm512_shuffle_epi8(table, nibbles.code[0]), _mm512_shuffle_epi8(table, nibbles.code[1])}};
  }
};

// INT4 codes in even steps of one: a weight is its code and the codebook's first entry.
struct EvenNibbles {
  static constexpr int kPartBytes = 256;
  int first;

  QE_INLINE int offset() const { return first; }
  QE_INLINE Eight load(const uint8_t* codes, int j) const { return nibbles_of(codes, j); }
};

struct Bytes {
  static constexpr int kPartBytes = 512;

  QE_INLINE int offset() const { return -128; }
  QE_INLINE Eight load(const uint8_t* codes, int j) const {
    const __m512i sign = _mm512_set1_epi8(-128);
    return {{_mm512_xor_si512(load512(codes + 128 * j), sign),
             _mm512_xor_si512(load512(codes + 128 * j + 64), sign)}};
  }
};

// Adds up kTiles tiles, whose codes are `stride` bytes apart, over the 32 columns of kRows rows of
// activations. Every four activations are loaded once for all tiles, and the chains of several rows
// alternate: a core that multiplies two registers a cycle would wait for the loads or for the
// previous product otherwise.
template <int kTiles, int kRows, typename Codes>
QE_INLINE void dot(const Codes& codes, const uint8_t* bytes, size_t stride, const int8_t* x,
                   __m512i (&sums)[kRows][kTiles]) {
  for (int j = 0; j < 4; ++j) {
    Eight eight[kTiles];
    for (int t = 0; t < kTiles; ++t) eight[t] = codes.load(bytes + t * stride, j);
    for (int k = 0; k < 2; ++k) {
      for (int i = 0; i < kRows; ++i) {
        const __m512i four = _mm512_set1_epi32(load_four(x + kActivationGroup * i + 8 * j + 4 * k));
        for (int t = 0; t < kTiles; ++t) {
          sums[i][t] = _mm512_dpbusd_epi32(sums[i][t], eight[t].code[k], four);
        }
      }
    }
  }
}

// Parts for which the rows' starts are stored ahead, a multiple of those of a group.
constexpr int kPartsAhead = 128;

// What the sums of kRowsAtOnce rows start at for some parts, to be loaded one by one, into all
// lanes. That is slow right after they were stored: the first products would wait for it.
struct Starts {
  int32_t start[kPartsAhead * kRowsAtOnce];

  QE_INLINE void store(int offset, const int32_t* x_sum, int panel, int parts) {
    static_assert(kRowsAtOnce == 4, "one register of sums");
    for (int p = 0; p < parts && p < kPartsAhead; ++p) {
      const __m128i sums = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x_sum + p * panel));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(start + 4 * p),
                       _mm_mullo_epi32(sums, _mm_set1_epi32(offset)));
    }
  }
};

// The scales of a block's rows, and their minimums if they have any.
template <bool kHasMin>
struct Scales {
  __m512 scale, minimum;

  QE_INLINE void load(const uint8_t* scales, bool has_zero) {
    scale = load_half16(scales);
    if (!kHasMin) return;
    minimum = load_half16(scales + kScaleBytes);
    if (has_zero) minimum = _mm512_mul_ps(minimum, _mm512_sub_ps(_mm512_setzero_ps(), scale));
  }
  // Adds the products of 32 columns to a row's totals.
  QE_INLINE __m512 add(__m512i products, float row_scale, int32_t row_sum, __m512 total) const {
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(products), scale);
    if (kHasMin) {
      const __m512i sum = _mm512_set1_epi32(row_sum);
      value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), minimum, value);
    }
    return _mm512_fmadd_ps(value, _mm512_set1_ps(row_scale), total);
  }
};

// One tile by a row that is a panel by itself.
template <bool kHasMin, typename Codes>
QE_INLINE void multiply_tile(const Matrix& w, const Codes& codes, const QuantizedRows& x, int row,
                             int tile, float* out) {
  const int groups = w.groups(), parts = w.group / kActivationGroup;
  const size_t bytes = block_bytes(w.type, w.group, kHasMin);
  const uint8_t* block = w.data + tile * w.tile_bytes();
  const size_t start = x.at(row, 0);
  const int8_t* x_codes = x.codes + kActivationGroup * start;
  const float* x_scale = x.scale + start;
  const int32_t* x_sum = x.sum + start;
  const __m512i offset = _mm512_set1_epi32(codes.offset());
  __m512 total = _mm512_setzero_ps();
  for (int g = 0, p = 0; g < groups; ++g, block += bytes) {
    // The next tile lies behind this one.
    prefetch_ahead(block, bytes, 2 * kAhead);
    Scales<kHasMin> scales;
    scales.load(block + static_cast<size_t>(Codes::kPartBytes) * parts, w.has_zero);
    for (int i = 0; i < parts; ++i, ++p) {
      __m512i sums[1][1] = {{_mm512_mullo_epi32(_mm512_set1_epi32(x_sum[p]), offset)}};
      dot<1, 1>(codes, block + static_cast<size_t>(Codes::kPartBytes) * i, 0,
                x_codes + kActivationGroup * p, sums);
      total = scales.add(sums[0][0], x_scale[p], x_sum[p], total);
    }
  }
  _mm512_storeu_ps(out, total);
}

// kTiles tiles by kRowsAtOnce rows of activations from `first` on, of which n are wanted; the
// others are the padding of their panel. Tiles that are in a cache already leave time to ask for
// others: for as many bytes as a tile has from `next` on, unless that is null.
template <int kTiles, bool kHasMin, bool kCached, typename Codes>
QE_INLINE void multiply_tiles(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile,
                              int first, int n, const uint8_t* next, float* out,
                              size_t out_stride) {
  const int groups = w.groups(), parts = w.group / kActivationGroup;
  const size_t bytes = block_bytes(w.type, w.group, kHasMin), tile_bytes = w.tile_bytes();
  const uint8_t* block = w.data + tile * tile_bytes;
  const size_t start = x.at(first, 0);
  const int8_t* x_codes = x.codes + kActivationGroup * start;
  const float* x_scale = x.scale + start;
  const int32_t* x_sum = x.sum + start;
  Starts starts;
  const int32_t* of_part = nullptr;
  __m512 total[kRowsAtOnce][kTiles];
  for (int i = 0; i < kRowsAtOnce; ++i) {
    for (int t = 0; t < kTiles; ++t) total[i][t] = _mm512_setzero_ps();
  }
  for (int g = 0; g < groups; ++g, block += bytes) {
    if (g * parts % kPartsAhead == 0) {
      starts.store(codes.offset(), x_sum, x.panel, (groups - g) * parts);
      of_part = starts.start;
    }
    if (kCached && next != nullptr) {
      prefetch_next(next, 0, bytes);
      next += bytes;
    }
    Scales<kHasMin> scales[kTiles];
    for (int t = 0; t < kTiles; ++t) {
      if (!kCached) {
        // What comes behind a tile's end is the same tile of the next ones.
        const bool beyond = g * bytes + kAhead >= tile_bytes;
        prefetch_ahead(block + t * tile_bytes, bytes,
                       kAhead + (beyond ? (kTiles - 1) * tile_bytes : 0));
      }
      scales[t].load(block + t * tile_bytes + static_cast<size_t>(Codes::kPartBytes) * parts,
                     w.has_zero);
    }
    for (int p = 0; p < parts; ++p, of_part += kRowsAtOnce) {
      __m512i sums[kRowsAtOnce][kTiles];
      for (int i = 0; i < kRowsAtOnce; ++i) {
        for (int t = 0; t < kTiles; ++t) sums[i][t] = _mm512_set1_epi32(of_part[i]);
      }
      dot<kTiles, kRowsAtOnce>(codes, block + static_cast<size_t>(Codes::kPartBytes) * p,
                               tile_bytes, x_codes, sums);
      for (int i = 0; i < kRowsAtOnce; ++i) {
        for (int t = 0; t < kTiles; ++t) {
          total[i][t] = scales[t].add(sums[i][t], x_scale[i], x_sum[i], total[i][t]);
        }
      }
      x_codes += static_cast<size_t>(kActivationGroup) * x.panel;
      x_scale += x.panel;
      x_sum += x.panel;
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int t = 0; t < kTiles; ++t) {
      _mm512_storeu_ps(out + i * out_stride + kTileRows * t, total[i][t]);
    }
  }
}

// All rows of activations by kTiles tiles. The first rows of many find their tiles in the second-
// level cache: while the tiles before were multiplied, these have been asked for.
template <int kTiles, bool kHasMin, typename Codes>
QE_INLINE void multiply_rows(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile,
                             float* out, size_t out_stride) {
  if (x.n <= kRowsAtOnce) {
    multiply_tiles<kTiles, kHasMin, false>(w, codes, x, tile, 0, x.n, nullptr, out, out_stride);
    return;
  }
  const size_t tile_bytes = w.tile_bytes();
  for (int first = 0, t = 0; first < x.n; first += kRowsAtOnce, ++t) {
    const int n = x.n - first < kRowsAtOnce ? x.n - first : kRowsAtOnce;
    const uint8_t* next = w.data + (tile + kTiles + t) * tile_bytes;
    multiply_tiles<kTiles, kHasMin, true>(w, codes, x, tile, first, n, t < kTiles ? next : nullptr,
                                          out + first * out_stride, out_stride);
  }
}

template <bool kHasMin, typename Codes>
void multiply(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile_begin,
              int tile_end, float* out, size_t out_stride) {
  int t = tile_begin;
  if (x.panel == 1) {
    for (; t < tile_end; ++t) {
      for (int i = 0; i < x.n; ++i) {
        multiply_tile<kHasMin>(w, codes, x, i, t, out + i * out_stride + kTileRows * t);
      }
    }
    return;
  }
  for (; t + 2 <= tile_end; t += 2) {
    multiply_rows<2, kHasMin>(w, codes, x, t, out + kTileRows * t, out_stride);
  }
  if (t < tile_end) {
    multiply_rows<1, kHasMin>(w, codes, x, t, out + kTileRows * t, out_stride);
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
  (w.has_min ? multiply<true, Bytes> : multiply<false, Bytes>)(w, Bytes{}, x, tile_begin, tile_end,
                                                               out, out_stride);
}

template <typename Codes>
QE_INLINE void part_sums(const Codes& codes, const uint8_t* bytes, const int8_t* x, int32_t x_sum,
                         int32_t* out) {
  __m512i sums[1][1] = {{_mm512_set1_epi32(codes.offset() * x_sum)}};
  dot<1, 1>(codes, bytes, 0, x, sums);
  _mm512_storeu_si512(out, sums[0][0]);
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
  part_sums(Bytes{}, reinterpret_cast<const uint8_t*>(codes), x, x_sum, out);
}

struct Lanes {
  __m512 all;

  static QE_INLINE Lanes load_half(const uint16_t* halves) {
    return {load_half16(reinterpret_cast<const uint8_t*>(halves))};
  }
  QE_INLINE void clear() { all = _mm512_setzero_ps(); }
  QE_INLINE void add_product(const Lanes& weight, float x) {
    all = _mm512_fmadd_ps(weight.all, _mm512_set1_ps(x), all);
  }
  QE_INLINE void add(const Lanes& other) { all = _mm512_add_ps(all, other.all); }
  QE_INLINE void add_to(float* out) const {
    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), all));
  }
};

void add_low_rank(const uint16_t* w, int tiles, int cols, const float* x, size_t x_stride, int n,
                  float* out, size_t out_stride) {
  low_rank_tiles<Lanes, 4, 4>(w, tiles, cols, x, x_stride, n, out, out_stride);
}

}  // namespace
}  // namespace avx512
}  // namespace qe
