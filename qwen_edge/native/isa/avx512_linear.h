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

// Rows of activations that meet a weight register before it is dropped.
constexpr int kRowChunk = 32;
// Of them, those whose sums are taken together.
constexpr int kRowsAtOnce = 2;

QE_INLINE __m512i load512(const void* data) { return _mm512_loadu_si512(data); }

QE_INLINE __m512 load_half16(const uint8_t* data) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
}

// 16 rows by 32 columns as code - offset, register k holding columns 4 k to 4 k + 3.
struct Part {
  __m512i code[8];
};

// Adds up kTiles tiles over the 32 columns of kRows rows of activations. Every four activations are
// loaded once for all tiles, and the chains of several rows alternate: a core that multiplies two
// registers a cycle would wait for the loads or for the previous product otherwise.
template <int kTiles, int kRows>
QE_INLINE void dot(const Part (&parts)[kTiles], const int8_t* x, size_t row_bytes,
                   __m512i (&sums)[kRows][kTiles]) {
  for (int k = 0; k < 8; ++k) {
    for (int i = 0; i < kRows; ++i) {
      const __m512i four = _mm512_set1_epi32(load_four(x + i * row_bytes + 4 * k));
      for (int t = 0; t < kTiles; ++t) {
        sums[i][t] = _mm512_dpbusd_epi32(sums[i][t], parts[t].code[k], four);
      }
    }
  }
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
  QE_INLINE Part load(const uint8_t* codes) const {
    const __m512i low_nibble = _mm512_set1_epi8(15);
    Part part;
    for (int j = 0; j < 4; ++j) {
      const __m512i bytes = load512(codes + 64 * j);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_nibble);
      part.code[2 * j] = _mm512_shuffle_epi8(table, _mm512_and_si512(bytes, low_nibble));
      part.code[2 * j + 1] = _mm512_shuffle_epi8(table, high);
    }
    return part;
  }
};

// INT4 codes in even steps of one: a weight is its code and the codebook's first entry.
struct EvenNibbles {
  static constexpr int kPartBytes = 256;
  int first;

  QE_INLINE int offset() const { return first; }
  QE_INLINE Part load(const uint8_t* codes) const {
    const __m512i low_nibble = _mm512_set1_epi8(15);
    Part part;
    for (int j = 0; j < 4; ++j) {
      const __m512i bytes = load512(codes + 64 * j);
      part.code[2 * j] = _mm512_and_si512(bytes, low_nibble);
      part.code[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_nibble);
    }
    return part;
  }
};

QE_INLINE bool is_even(const int8_t* codebook) {
  for (int i = 1; i < 16; ++i) {
    if (codebook[i] != codebook[0] + i) return false;
  }
  return true;
}

struct Bytes {
  static constexpr int kPartBytes = 512;

  QE_INLINE int offset() const { return -128; }
  QE_INLINE Part load(const uint8_t* codes) const {
    Part part;
    for (int k = 0; k < 8; ++k) {
      part.code[k] = _mm512_xor_si512(load512(codes + 64 * k), _mm512_set1_epi8(-128));
    }
    return part;
  }
};

// What the sums of the next n rows start at, their groups' sums beginning at x_sum.
QE_INLINE void starts_of_sums(int offset, const QuantizedRows& x, const int32_t* x_sum, int n,
                              int32_t* start) {
  if (x.panel > 1) {  // a multiple of 8 rows side by side
    for (int i = 0; i < n; i += 8) {
      const __m256i sums = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x_sum + i));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(start + i),
                          _mm256_mullo_epi32(sums, _mm256_set1_epi32(offset)));
    }
  } else {
    for (int i = 0; i < n; ++i) start[i] = offset * x_sum[i * x.row_step()];
  }
}

// Adds the products of kTiles tiles and kRows rows of activations over 32 columns to the totals.
template <int kTiles, int kRows, bool kHasMin>
QE_INLINE void add_rows(const Part (&part)[kTiles], const int8_t* x, size_t row_bytes,
                        const float* x_scale, const int32_t* x_sum, const int32_t* start,
                        size_t row_step, const __m512 (&scale)[kTiles],
                        const __m512 (&minimum)[kTiles], __m512 (*total)[kTiles]) {
  __m512i sums[kRows][kTiles];
  for (int i = 0; i < kRows; ++i) {
    for (int t = 0; t < kTiles; ++t) sums[i][t] = _mm512_set1_epi32(start[i]);
  }
  dot<kTiles, kRows>(part, x, row_bytes, sums);
  for (int i = 0; i < kRows; ++i) {
    const __m512 row_scale = _mm512_set1_ps(x_scale[i * row_step]);
    for (int t = 0; t < kTiles; ++t) {
      __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i][t]), scale[t]);
      if (kHasMin) {
        const __m512i sum = _mm512_set1_epi32(x_sum[i * row_step]);
        value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), minimum[t], value);
      }
      total[i][t] = _mm512_fmadd_ps(value, row_scale, total[i][t]);
    }
  }
}

// kTiles tiles by n <= kRowChunk rows of activations from `first` on.
template <int kTiles, bool kHasMin, typename Codes>
QE_INLINE void multiply_tiles(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile,
                              int first, int n, float* out, size_t out_stride) {
  const bool from_memory = first == 0;  // later rows find the weights in a cache
  const int groups = w.groups(), parts = w.group / kActivationGroup;
  const size_t row_step = x.row_step(), row_bytes = kActivationGroup * row_step;
  const size_t bytes = block_bytes(w.type, w.group, kHasMin), tile_bytes = w.tile_bytes();
  const uint8_t* block = w.data + tile * tile_bytes;
  const size_t start = x.at(first, 0),
               panel_bytes = static_cast<size_t>(kActivationGroup) * x.panel;
  const int8_t* x_codes = x.codes + kActivationGroup * start;
  const float* x_scale = x.scale + start;
  const int32_t* x_sum = x.sum + start;
  __m512 total[kRowChunk][kTiles];
  for (int i = 0; i < n; ++i) {
    for (int t = 0; t < kTiles; ++t) total[i][t] = _mm512_setzero_ps();
  }
  for (int g = 0; g < groups; ++g, block += bytes) {
    __m512 scale[kTiles], minimum[kTiles];
    // A single tile is read in one stream, the next tile after it. Of several at once, what comes
    // behind a tile's end is the same tile of the next several.
    const bool beyond = g * bytes + kAhead >= tile_bytes;
    const size_t ahead =
        kTiles == 1 ? 2 * kAhead : kAhead + (beyond ? (kTiles - 1) * tile_bytes : 0);
    for (int t = 0; t < kTiles; ++t) {
      if (from_memory) prefetch_ahead(block + t * tile_bytes, bytes, ahead);
      const uint8_t* scales =
          block + t * tile_bytes + static_cast<size_t>(Codes::kPartBytes) * parts;
      scale[t] = load_half16(scales);
      minimum[t] = kHasMin ? load_half16(scales + kScaleBytes) : _mm512_setzero_ps();
      if (kHasMin && w.has_zero) {
        minimum[t] = _mm512_mul_ps(minimum[t], _mm512_sub_ps(_mm512_setzero_ps(), scale[t]));
      }
    }
    for (int p = 0; p < parts; ++p, x_codes += panel_bytes, x_scale += x.panel, x_sum += x.panel) {
      Part part[kTiles];
      for (int t = 0; t < kTiles; ++t) {
        part[t] = codes.load(block + t * tile_bytes + static_cast<size_t>(Codes::kPartBytes) * p);
      }
      int32_t start[kRowChunk];
      starts_of_sums(codes.offset(), x, x_sum, n, start);
      int i = 0;
      for (; i + kRowsAtOnce <= n; i += kRowsAtOnce) {
        add_rows<kTiles, kRowsAtOnce, kHasMin>(part, x_codes + i * row_bytes, row_bytes,
                                               x_scale + i * row_step, x_sum + i * row_step,
                                               start + i, row_step, scale, minimum, total + i);
      }
      for (; i < n; ++i) {
        add_rows<kTiles, 1, kHasMin>(part, x_codes + i * row_bytes, row_bytes,
                                     x_scale + i * row_step, x_sum + i * row_step, start + i,
                                     row_step, scale, minimum, total + i);
      }
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int t = 0; t < kTiles; ++t) {
      _mm512_storeu_ps(out + i * out_stride + kTileRows * t, total[i][t]);
    }
  }
}

template <bool kHasMin, typename Codes>
void multiply(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile_begin,
              int tile_end, float* out, size_t out_stride) {
  if (x.n == 1) {  // the constant lets the compiler keep everything in registers
    for (int t = tile_begin; t < tile_end; ++t) {
      multiply_tiles<1, kHasMin>(w, codes, x, t, 0, 1, out + kTileRows * t, out_stride);
    }
    return;
  }
  const int pass = 2 + static_cast<int>(kPassBytes / w.tile_bytes()) / 2 * 2;
  for (int begin = tile_begin; begin < tile_end; begin += pass) {
    const int end = begin + pass < tile_end ? begin + pass : tile_end;
    for (int first = 0; first < x.n; first += kRowChunk) {
      const int n = x.n - first < kRowChunk ? x.n - first : kRowChunk;
      int t = begin;
      for (; t + 2 <= end; t += 2) {
        multiply_tiles<2, kHasMin>(w, codes, x, t, first, n,
                                   out + first * out_stride + kTileRows * t, out_stride);
      }
      if (t < end) {
        multiply_tiles<1, kHasMin>(w, codes, x, t, first, n,
                                   out + first * out_stride + kTileRows * t, out_stride);
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
  (w.has_min ? multiply<true, Bytes> : multiply<false, Bytes>)(w, Bytes{}, x, tile_begin, tile_end,
                                                               out, out_stride);
}

template <typename Codes>
QE_INLINE void part_sums(const Codes& codes, const uint8_t* bytes, const int8_t* x, int32_t x_sum,
                         int32_t* out) {
  const Part part[1] = {codes.load(bytes)};
  __m512i sums[1][1] = {{_mm512_set1_epi32(codes.offset() * x_sum)}};
  dot<1, 1>(part, x, 0, sums);
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
