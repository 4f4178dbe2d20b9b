// Matrix kernels of the avx512_vnni table. avx512_vnni.cpp includes this inside the region that
// switches to AVX-512.
//
// VPDPBUSD adds the products of four unsigned by four signed bytes to 32-bit sums, exactly. The
// weights enter as code + 128 and the sums start at -128 times the activations' sum. A 64-byte
// chunk of a block is one register: 16 rows by 4 columns.
#pragma once

namespace qe {
namespace avx512 {
namespace {

// Rows of activations that meet a weight register before it is dropped.
constexpr int kRowChunk = 32;

QE_INLINE __m512i load512(const void* data) { return _mm512_loadu_si512(data); }

QE_INLINE __m512 load_half16(const uint8_t* data) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
}

// 16 rows by 32 columns as code + 128, register k holding columns 4 k to 4 k + 3.
struct Part {
  __m512i code[8];
};

// What the sums start at, in every lane: the weights enter 128 too large.
QE_INLINE __m512i start_of_sums(__m512i x_sum) {
  return _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), x_sum), 7);
}

// The sums of kTiles tiles over the 32 columns of one row of activations. Every four activations
// are loaded once for all tiles: a core that multiplies two registers a cycle would wait for the
// loads otherwise.
template <int kTiles>
QE_INLINE void dot(const Part (&parts)[kTiles], const int8_t* x, __m512i x_sum,
                   __m512i (&sums)[kTiles]) {
  for (int t = 0; t < kTiles; ++t) sums[t] = start_of_sums(x_sum);
  for (int k = 0; k < 8; ++k) {
    const __m512i four = _mm512_set1_epi32(load_four(x + 4 * k));
    for (int t = 0; t < kTiles; ++t) {
      sums[t] = _mm512_dpbusd_epi32(sums[t], parts[t].code[k], four);
    }
  }
}

struct Nibbles {
  static constexpr int kPartBytes = 256;
  __m512i table;

  explicit QE_INLINE Nibbles(const int8_t* codebook)
      : table(_mm512_xor_si512(
            _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codebook))),
            _mm512_set1_epi8(-128))) {}

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

struct Bytes {
  static constexpr int kPartBytes = 512;

  QE_INLINE Part load(const uint8_t* codes) const {
    Part part;
    for (int k = 0; k < 8; ++k) {
      part.code[k] = _mm512_xor_si512(load512(codes + 64 * k), _mm512_set1_epi8(-128));
    }
    return part;
  }
};

// kTiles tiles by n <= kRowChunk rows of activations from `first` on.
template <int kTiles, bool kHasMin, typename Codes>
QE_INLINE void multiply_tiles(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile,
                              int first, int n, float* out, size_t out_stride) {
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
      prefetch_ahead(block + t * tile_bytes, bytes, ahead);
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
      const int8_t* row = x_codes;
      size_t at = 0;
      for (int i = 0; i < n; ++i, row += row_bytes, at += row_step) {
        const __m512i sum = _mm512_set1_epi32(x_sum[at]);
        __m512i sums[kTiles];
        dot<kTiles>(part, row, sum, sums);
        const __m512 row_scale = _mm512_set1_ps(x_scale[at]);
        for (int t = 0; t < kTiles; ++t) {
          __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[t]), scale[t]);
          if (kHasMin) value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), minimum[t], value);
          total[i][t] = _mm512_fmadd_ps(value, row_scale, total[i][t]);
        }
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
  const Nibbles codes(w.codebook);
  (w.has_min ? multiply<true, Nibbles> : multiply<false, Nibbles>)(w, codes, x, tile_begin,
                                                                   tile_end, out, out_stride);
}

void linear_q8(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end, float* out,
               size_t out_stride) {
  multiply<false>(w, Bytes{}, x, tile_begin, tile_end, out, out_stride);
}

void sums_q4(const uint8_t* codes, const int8_t* codebook, const int8_t* x, int32_t x_sum,
             int32_t* out) {
  const Part part[1] = {Nibbles(codebook).load(codes)};
  __m512i sums[1];
  dot<1>(part, x, _mm512_set1_epi32(x_sum), sums);
  _mm512_storeu_si512(out, sums[0]);
}

void sums_q8(const int8_t* codes, const int8_t* x, int32_t x_sum, int32_t* out) {
  const Part part[1] = {Bytes{}.load(reinterpret_cast<const uint8_t*>(codes))};
  __m512i sums[1];
  dot<1>(part, x, _mm512_set1_epi32(x_sum), sums);
  _mm512_storeu_si512(out, sums[0]);
}

}  // namespace
}  // namespace avx512
}  // namespace qe
