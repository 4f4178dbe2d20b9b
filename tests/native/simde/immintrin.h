// Found instead of the compiler's header when the x86 kernels are built for emulation: SIMDe's
// portable intrinsics under Intel's names, and below those that SIMDe 0.7.4 lacks or that read
// more memory with it than on a processor, written after Intel's description of each.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#define _MM_FROUND_NO_EXC SIMDE_MM_FROUND_NO_EXC

using __mmask16 = uint16_t;
enum _MM_PERM_ENUM : int {};

namespace simde_gaps {

template <typename To, typename From>
To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "a change of type, not of size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename T, int kSize>
struct Lanes {
  T at[kSize];
};
using Floats = Lanes<float, 16>;
using Ints = Lanes<int32_t, 16>;
using Shorts = Lanes<int16_t, 32>;

}  // namespace simde_gaps

// Lanes whose mask has no sign bit are 0, and their memory is not touched.
#undef _mm256_maskload_ps
inline __m256 _mm256_maskload_ps(const float* from, __m256i mask) {
  using namespace simde_gaps;
  const auto wanted = same_bits<Lanes<int32_t, 8>>(mask);
  Lanes<float, 8> to;
  for (int i = 0; i < 8; ++i) to.at[i] = wanted.at[i] < 0 ? from[i] : 0.0f;
  return same_bits<__m256>(to);
}

#undef _mm512_cvtph_ps
inline __m512 _mm512_cvtph_ps(__m256i a) {
  simde_gaps::Floats to;
  for (int h = 0; h < 2; ++h) {
    const __m256 eight = _mm256_cvtph_ps(_mm256_extracti128_si256(a, h));
    std::memcpy(&to.at[8 * h], &eight, sizeof(eight));
  }
  return simde_gaps::same_bits<__m512>(to);
}

#undef _mm512_cvtepi32_ps
inline __m512 _mm512_cvtepi32_ps(__m512i a) {
  using namespace simde_gaps;
  const auto from = same_bits<Ints>(a);
  Floats to;
  for (int i = 0; i < 16; ++i) to.at[i] = static_cast<float>(from.at[i]);
  return same_bits<__m512>(to);
}

// To nearest, ties to even; what fits no int32 becomes INT32_MIN.
#undef _mm512_cvtps_epi32
inline __m512i _mm512_cvtps_epi32(__m512 a) {
  using namespace simde_gaps;
  const auto from = same_bits<Floats>(a);
  Ints to;
  for (int i = 0; i < 16; ++i) {
    const bool fits = from.at[i] >= -2147483648.0f && from.at[i] < 2147483648.0f;
    to.at[i] = fits ? static_cast<int32_t>(std::nearbyint(from.at[i])) : INT32_MIN;
  }
  return same_bits<__m512i>(to);
}

#undef _mm512_madd_epi16
inline __m512i _mm512_madd_epi16(__m512i a, __m512i b) {
  using namespace simde_gaps;
  const auto x = same_bits<Shorts>(a), y = same_bits<Shorts>(b);
  Ints sums;
  for (int i = 0; i < 16; ++i) {
    sums.at[i] = x.at[2 * i] * y.at[2 * i] + x.at[2 * i + 1] * y.at[2 * i + 1];
  }
  return same_bits<__m512i>(sums);
}

#undef _mm512_reduce_max_ps
inline float _mm512_reduce_max_ps(__m512 a) {
  const auto x = simde_gaps::same_bits<simde_gaps::Floats>(a);
  float largest = x.at[0];
  for (float value : x.at) largest = value > largest ? value : largest;
  return largest;
}

#undef _mm512_shuffle_epi32
inline __m512i _mm512_shuffle_epi32(__m512i a, _MM_PERM_ENUM imm8) {
  using namespace simde_gaps;
  const auto from = same_bits<Ints>(a);
  Ints to;
  for (int i = 0; i < 16; ++i) to.at[i] = from.at[(i & ~3) + (imm8 >> 2 * (i & 3) & 3)];
  return same_bits<__m512i>(to);
}
