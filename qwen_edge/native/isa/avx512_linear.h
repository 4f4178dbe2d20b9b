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

  // sum is the activations' sum in every lane.
  QE_INLINE __m512i dot(const int8_t* x, __m512i sum) const {
    // The sum fits 16 bits, so that VPMADDWD multiplies it by -128. Two chains of sums are short
    // enough for a processor to have those of several rows under way.
    __m512i even = _mm512_madd_epi16(sum, _mm512_set1_epi32(-128 & 0xffff));
    __m512i odd = _mm512_setzero_si512();
    for (int k = 0; k < 8; k += 2) {
      even = _mm512_dpbusd_epi32(even, code[k], _mm512_set1_epi32(load_four(x + 4 * k)));
      odd = _mm512_dpbusd_epi32(odd, code[k + 1], _mm512_set1_epi32(load_four(x + 4 * k + 4)));
    }
    return _mm512_add_epi32(even, odd);
  }
};

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

// One tile by n <= kRowChunk rows of activations from `first` on.
template <bool kHasMin, typename Codes>
QE_INLINE void multiply_tile(const Matrix& w, const Codes& codes, const QuantizedRows& x, int tile,
                             int first, int n, float* out, size_t out_stride) {
  const int groups = w.groups(), parts = w.group / kActivationGroup;
  const size_t cols = static_cast<size_t>(x.cols), x_parts = cols / kActivationGroup;
  const size_t bytes = block_bytes(w.type, w.group, kHasMin);
  const uint8_t* block = w.data + tile * w.tile_bytes();
  const int8_t* x_codes = x.codes + first * cols;
  const float* x_scale = x.scale + first * x_parts;
  const int32_t* x_sum = x.sum + first * x_parts;
  __m512 total[kRowChunk];
  for (int i = 0; i < n; ++i) total[i] = _mm512_setzero_ps();
  for (int g = 0; g < groups; ++g, block += bytes) {
    prefetch_ahead(block, bytes);
    const uint8_t* scales = block + static_cast<size_t>(Codes::kPartBytes) * parts;
    const __m512 scale = load_half16(scales);
    const __m512 minimum = kHasMin ? load_half16(scales + kScaleBytes) : _mm512_setzero_ps();
    for (int p = 0; p < parts; ++p, x_codes += kActivationGroup, ++x_scale, ++x_sum) {
      const Part part = codes.load(block + static_cast<size_t>(Codes::kPartBytes) * p);
      const int8_t* row = x_codes;
      size_t at = 0;
      for (int i = 0; i < n; ++i, row += cols, at += x_parts) {
        const __m512i sum = _mm512_set1_epi32(x_sum[at]);
        __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(part.dot(row, sum)), scale);
        if (kHasMin) value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), minimum, value);
        total[i] = _mm512_fmadd_ps(value, _mm512_set1_ps(x_scale[at]), total[i]);
      }
    }
  }
  for (int i = 0; i < n; ++i) _mm512_storeu_ps(out + i * out_stride, total[i]);
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
  const Part part = Nibbles(codebook).load(codes);
  _mm512_storeu_si512(out, part.dot(x, _mm512_set1_epi32(x_sum)));
}

void sums_q8(const int8_t* codes, const int8_t* x, int32_t x_sum, int32_t* out) {
  const Part part = Bytes{}.load(reinterpret_cast<const uint8_t*>(codes));
  _mm512_storeu_si512(out, part.dot(x, _mm512_set1_epi32(x_sum)));
}

}  // namespace
}  // namespace avx512
}  // namespace qe
