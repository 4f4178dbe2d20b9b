// What the Arm kernels multiply: codes taken out of blocks, activations packed in the order of the
// dot products, and the layout of the results in registers. Included like neon_linear.h.
#pragma once

#include "neon_math.h"

namespace qe {
namespace {

// Activations of N rows are packed for this many parts of 32 columns at a time, on the stack.
constexpr int kPanelParts = 16;

// --- codes: two registers of 4 rows x 4 columns, columns 8 j to 8 j + 7 of a part of 32

// A codebook that counts up by one: its offset enters once, as offset * sum.
struct CountingCodes {
  static constexpr int kPartBytes = 256;
  static constexpr int kLargest = 15;
  int32_t offset;

  using Raw = uint8x16_t;
  static QE_INLINE Raw load(const uint8_t* part, int j, int quad) {
    return vld1q_u8(part + 64 * j + 16 * quad);
  }
  QE_INLINE void decode(Raw codes, int8x16_t* low, int8x16_t* high) const {
    *low = vreinterpretq_s8_u8(vandq_u8(codes, vdupq_n_u8(15)));
    *high = vreinterpretq_s8_u8(vshrq_n_u8(codes, 4));
  }
};

// Any codebook whose entries are at most kLargest_ in magnitude.
template <int kLargest_>
struct CodebookCodes {
  static constexpr int kPartBytes = 256;
  static constexpr int kLargest = kLargest_;
  int8x16_t codebook;

  using Raw = uint8x16_t;
  static QE_INLINE Raw load(const uint8_t* part, int j, int quad) {
    return vld1q_u8(part + 64 * j + 16 * quad);
  }
  QE_INLINE void decode(Raw codes, int8x16_t* low, int8x16_t* high) const {
    *low = vqtbl1q_s8(codebook, vandq_u8(codes, vdupq_n_u8(15)));
    *high = vqtbl1q_s8(codebook, vshrq_n_u8(codes, 4));
  }
};

struct ByteCodes {
  static constexpr int kPartBytes = 512;
  static constexpr int kLargest = 128;

  using Raw = int8x16x2_t;
  static QE_INLINE Raw load(const uint8_t* part, int j, int quad) {
    const int8_t* codes = reinterpret_cast<const int8_t*>(part) + 128 * j + 16 * quad;
    return {{vld1q_s8(codes), vld1q_s8(codes + 64)}};
  }
  QE_INLINE void decode(Raw codes, int8x16_t* low, int8x16_t* high) const {
    *low = codes.val[0];
    *high = codes.val[1];
  }
};

template <class Codes>
constexpr bool kHasOffset = false;
template <>
constexpr bool kHasOffset<CountingCodes> = true;

// A sum of at most 32 products is below 2^22 in magnitude, so that 1.5 * 2^23 plus it is a binary32
// whose bits are these bits plus it: integers started from them need no conversion, which is slow.
constexpr float kFloatBase = 12582912.0f;
constexpr int32_t kFloatBaseBits = 0x4b400000;

QE_INLINE float32x4_t sum_to_float(int32x4_t acc) {
  return vsubq_f32(vreinterpretq_f32_s32(acc), vdupq_n_f32(kFloatBase));
}

// --- activations

// N rows from some part on: [part][32 * N] codes in the Isa's order, [part][N] scales and sums.
struct Panel {
  const int8_t* codes;
  const float* scale;
  const int32_t* sum;
};

template <int N>
struct PanelStore {
  alignas(64) int8_t codes[kPanelParts * 32 * N];
  float scale[kPanelParts * N];
  int32_t sum[kPanelParts * N];
  Panel panel() const { return {codes, scale, sum}; }
};

template <class Isa, int N>
void pack(const QuantizedRows& x, int row, int part, int parts, PanelStore<N>* store) {
  const size_t step = x.row_step();
  for (int p = 0; p < parts; ++p) {
    const size_t from = x.at(row, part + p);
    if constexpr (N == 1) {
      std::memcpy(store->codes + 32 * p, x.codes + kActivationGroup * from, 32);
    } else {
      Isa::template pack<N>(x.codes + kActivationGroup * from, kActivationGroup * step,
                            store->codes + 32 * N * p);
    }
    for (int i = 0; i < N; ++i) {
      store->scale[N * p + i] = x.scale[from + i * step];
      store->sum[N * p + i] = x.sum[from + i * step];
    }
  }
}

// N values as vectors; one or two values are repeated until they fill theirs.
template <int N>
QE_INLINE void load_lanes(const float* x, float32x4_t (&v)[(N + 3) / 4]) {
  if constexpr (N == 1) {
    v[0] = vld1q_dup_f32(x);
  } else if constexpr (N == 2) {
    const float32x2_t pair = vld1_f32(x);
    v[0] = vcombine_f32(pair, pair);
  } else {
    QE_UNROLL
    for (int i = 0; i < N / 4; ++i) v[i] = vld1q_f32(x + 4 * i);
  }
}
template <int N>
QE_INLINE void load_lanes(const int32_t* x, int32x4_t (&v)[(N + 3) / 4]) {
  if constexpr (N == 1) {
    v[0] = vld1q_dup_s32(x);
  } else if constexpr (N == 2) {
    const int32x2_t pair = vld1_s32(x);
    v[0] = vcombine_s32(pair, pair);
  } else {
    QE_UNROLL
    for (int i = 0; i < N / 4; ++i) v[i] = vld1q_s32(x + 4 * i);
  }
}

QE_INLINE float32x4_t splat_lane(float32x4_t v, int lane) {
  switch (lane) {
    case 0:
      return vdupq_laneq_f32(v, 0);
    case 1:
      return vdupq_laneq_f32(v, 1);
    case 2:
      return vdupq_laneq_f32(v, 2);
    default:
      return vdupq_laneq_f32(v, 3);
  }
}

// gcc would run the additions of one sum after the other, each waiting for the last, and spill the
// rest: this holds one step of all of them before the next. With 8 rows gcc does better when it may
// move other instructions across.
template <int Q, int N, class Vector>
QE_INLINE void keep_order(Vector (&acc)[Q][N]) {
#if !defined(__clang__)
  Vector* a = acc[0];
  if constexpr (Q * N == 4) {
    asm volatile("" : "+w"(a[0]), "+w"(a[1]), "+w"(a[2]), "+w"(a[3]));
  } else if constexpr (N < 8) {
    asm volatile(""
                 : "+w"(a[0]), "+w"(a[1]), "+w"(a[2]), "+w"(a[3]), "+w"(a[4]), "+w"(a[5]),
                   "+w"(a[6]), "+w"(a[7]));
  } else {
    asm(""
        : "+w"(a[0]), "+w"(a[1]), "+w"(a[2]), "+w"(a[3]), "+w"(a[4]), "+w"(a[5]), "+w"(a[6]),
          "+w"(a[7]));
  }
#else
  (void)acc;
#endif
}

// Makes the codes and the sum appear to depend on each other here.
QE_INLINE void pin(uint8x16_t& codes, int32x4_t& sum) { asm("" : "+w"(codes), "+w"(sum)); }
QE_INLINE void pin(int8x16x2_t& codes, int32x4_t& sum) {
  asm("" : "+w"(codes.val[0]), "+w"(codes.val[1]), "+w"(sum));
}

// Decodes step j, whose codes lie in `raw`, and loads those of the next. Pinned to the sums, that
// load comes before this step's additions: cores that run in order would wait for it after them.
template <int Q, int N, class Codes>
QE_INLINE void advance(const Codes& codes, const uint8_t* part, int j, int quad,
                       int32x4_t (&acc)[Q][N], typename Codes::Raw (&raw)[Q], int8x16_t (&low)[Q],
                       int8x16_t (&high)[Q]) {
  QE_UNROLL
  for (int q = 0; q < Q; ++q) {
    if (j == 0) raw[q] = codes.load(part, 0, quad + q);
    codes.decode(raw[q], &low[q], &high[q]);
  }
  if (j == 3) return;
  QE_UNROLL
  for (int q = 0; q < Q; ++q) {
    raw[q] = codes.load(part, j + 1, quad + q);
    pin(raw[q], acc[q][0]);
  }
}

// How sdot and the baseline lay out results: accumulator [q][i] holds the 4 weight rows of quad q
// for activation row i.
struct RowLayout {
  template <int N>
  static QE_INLINE void start(const int32x4_t (&lanes)[(N + 3) / 4], int32x4_t (&acc)[N]) {
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      acc[i] = vreinterpretq_s32_f32(splat_lane(vreinterpretq_f32_s32(lanes[i / 4]), i % 4));
    }
  }
  // total += weight (per weight row) * lanes (per activation row) * value
  template <int N>
  static QE_INLINE void add_scaled(float32x4_t weight, const float32x4_t (&lanes)[(N + 3) / 4],
                                   const int32x4_t (&acc)[N], float32x4_t (&total)[N]) {
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      const float32x4_t factor = vmulq_f32(weight, splat_lane(lanes[i / 4], i % 4));
      total[i] = vfmaq_f32(total[i], sum_to_float(acc[i]), factor);
    }
  }
  template <int N>
  static QE_INLINE void add_product(float32x4_t weight, const float32x4_t (&lanes)[(N + 3) / 4],
                                    float32x4_t (&total)[N]) {
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      total[i] = vfmaq_f32(total[i], weight, splat_lane(lanes[i / 4], i % 4));
    }
  }
  template <int N>
  static QE_INLINE void load(const float* out, size_t stride, float32x4_t (&total)[N]) {
    QE_UNROLL
    for (int i = 0; i < N; ++i) total[i] = vld1q_f32(out + i * stride);
  }
  template <int N>
  static QE_INLINE void store(const float32x4_t (&total)[N], float* out, size_t stride) {
    QE_UNROLL
    for (int i = 0; i < N; ++i) vst1q_f32(out + i * stride, total[i]);
  }

  // Order of the codes: rows four at a time, column quad by column quad.
  template <int N>
  static QE_INLINE void pack(const int8_t* codes, size_t stride, int8_t* packed) {
    constexpr int kRun = N < 4 ? N : 4;
    for (int i = 0; i < N; i += kRun) {
      for (int half = 0; half < 2; ++half) {
        int32x4_t from[4];
        for (int k = 0; k < kRun; ++k) {
          from[k] = vreinterpretq_s32_s8(vld1q_s8(codes + (i + k) * stride + 16 * half));
        }
        int32_t* to = reinterpret_cast<int32_t*>(packed + 32 * i) + 4 * kRun * half;
        if constexpr (N == 2) {
          const int32x4x2_t run = {{from[0], from[1]}};
          vst2q_s32(to, run);
        } else {
          const int32x4x4_t run = {{from[0], from[1], from[2], from[3]}};
          vst4q_s32(to, run);
        }
      }
    }
  }
  // Where row i's column quad c lies in that order, in bytes.
  template <int N>
  static constexpr int offset(int c, int i) {
    return N < 4 ? 4 * (N * c + i) : 128 * (i / 4) + 16 * c + 4 * (i % 4);
  }
};

}  // namespace
}  // namespace qe
