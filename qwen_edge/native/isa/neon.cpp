// The neon table: baseline Armv8-A (Cortex-A53, A57, A72, A73), complete; the tables for wider
// instruction sets begin as copies of it.
#include "isa.h"

#if defined(__aarch64__)
#include <cmath>

#include "neon_attention.h"
#include "neon_cache.h"
#include "neon_rows.h"
// Needs what they bring.
#include "low_rank.h"

namespace qe {
namespace {

// --- integer dot products: bytes multiplied into 16-bit lanes, which are added in pairs

struct BaselineIsa : RowLayout {
  using Single = BaselineIsa;
  static constexpr int kMaxRows = 4;
  static constexpr int kAccumulators = 4;
  static constexpr bool kNarrowSums = true;
  static constexpr int kSumRows = 1;

  // Products of |code| <= kLargest by at most 127, 8 to a lane, fit 16 bits even when two lanes are
  // added: a whole part needs one widening.
  template <class Codes>
  static constexpr bool kNarrow = Codes::kLargest <= 16;

  template <int N, int Q, class Codes>
  static QE_INLINE void dot(const Codes& codes, const uint8_t* part, int quad, const int8_t* x,
                            int32x4_t (&acc)[Q][N]) {
    int16x8_t first[Q][N], second[Q][N];
    int32x4_t sum[Q][N], next[Q][N];
    QE_UNROLL
    for (int j = 0; j < 4; ++j) {
      int8x16_t low[Q], high[Q];
      QE_UNROLL
      for (int q = 0; q < Q; ++q) codes.decode(codes.load(part, j, quad + q), &low[q], &high[q]);
      QE_UNROLL
      for (int i = 0; i < N; ++i) {
        const int8x16_t a = quad_of(x + offset<N>(2 * j, i)),
                        b = quad_of(x + offset<N>(2 * j + 1, i));
        QE_UNROLL
        for (int q = 0; q < Q; ++q) {
          if (j == 0 || !kNarrow<Codes>) {
            first[q][i] = vmull_s8(vget_low_s8(low[q]), vget_low_s8(a));
            second[q][i] = vmull_high_s8(low[q], a);
          } else {
            first[q][i] = vmlal_s8(first[q][i], vget_low_s8(low[q]), vget_low_s8(a));
            second[q][i] = vmlal_high_s8(second[q][i], low[q], a);
          }
        }
        QE_UNROLL
        for (int q = 0; q < Q; ++q) {
          first[q][i] = vmlal_s8(first[q][i], vget_low_s8(high[q]), vget_low_s8(b));
          second[q][i] = vmlal_high_s8(second[q][i], high[q], b);
        }
        if constexpr (!kNarrow<Codes>) {
          // Two products of up to 128 * 127 are all that a lane holds.
          QE_UNROLL
          for (int q = 0; q < Q; ++q) {
            sum[q][i] = j == 0 ? vpaddlq_s16(first[q][i]) : vpadalq_s16(sum[q][i], first[q][i]);
            next[q][i] = j == 0 ? vpaddlq_s16(second[q][i]) : vpadalq_s16(next[q][i], second[q][i]);
          }
        }
      }
      if constexpr (!kNarrow<Codes>) {
        keep_order(sum);
        keep_order(next);
      }
    }
    QE_UNROLL
    for (int q = 0; q < Q; ++q) {
      QE_UNROLL
      for (int i = 0; i < N; ++i) {
        if constexpr (kNarrow<Codes>) {
          acc[q][i] = vpadalq_s16(acc[q][i], vpaddq_s16(first[q][i], second[q][i]));
        } else {
          acc[q][i] = vaddq_s32(acc[q][i], vpaddq_s32(sum[q][i], next[q][i]));
        }
      }
    }
  }

  // As SdotIsa::weigh.
  template <bool kNibbles, int N, int K>
  static QE_INLINE void weigh(const int8x16_t (&values)[4][K], const int8x16_t (&p)[N],
                              const int32x4_t (&start)[N], int32x4_t (&sum)[N][K]) {
    QE_UNROLL
    for (int k = 0; k < K; ++k) {
      const int8x16_t v[4] = {values[0][k], values[1][k], values[2][k], values[3][k]};
      QE_UNROLL
      for (int i = 0; i < N; ++i) {
        const int32x4_t quads = vreinterpretq_s32_s8(p[i]);
        const int8x16_t p01[2] = {vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 0)),
                                  vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 1))};
        const int8x16_t p23[2] = {vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 2)),
                                  vreinterpretq_s8_s32(vdupq_laneq_s32(quads, 3))};
        if constexpr (kNibbles) {  // all the products of a lane fit 16 bits
          int16x8_t low = vmull_s8(vget_low_s8(v[0]), vget_low_s8(p01[0]));
          int16x8_t high = vmull_high_s8(v[0], p01[0]);
          low = vmlal_s8(low, vget_low_s8(v[1]), vget_low_s8(p01[1]));
          high = vmlal_high_s8(high, v[1], p01[1]);
          low = vmlal_s8(low, vget_low_s8(v[2]), vget_low_s8(p23[0]));
          high = vmlal_high_s8(high, v[2], p23[0]);
          low = vmlal_s8(low, vget_low_s8(v[3]), vget_low_s8(p23[1]));
          high = vmlal_high_s8(high, v[3], p23[1]);
          sum[i][k] = vpadalq_s16(start[i], vpaddq_s16(low, high));
          continue;
        }
        const int16x8_t low01 = vmlal_s8(vmull_s8(vget_low_s8(v[0]), vget_low_s8(p01[0])),
                                         vget_low_s8(v[1]), vget_low_s8(p01[1]));
        const int16x8_t low23 = vmlal_s8(vmull_s8(vget_low_s8(v[2]), vget_low_s8(p23[0])),
                                         vget_low_s8(v[3]), vget_low_s8(p23[1]));
        const int16x8_t high01 = vmlal_high_s8(vmull_high_s8(v[0], p01[0]), v[1], p01[1]);
        const int16x8_t high23 = vmlal_high_s8(vmull_high_s8(v[2], p23[0]), v[3], p23[1]);
        const int32x4_t total = vpaddq_s32(vpadalq_s16(vpaddlq_s16(low01), low23),
                                           vpadalq_s16(vpaddlq_s16(high01), high23));
        sum[i][k] = vaddq_s32(total, start[i]);
      }
    }
  }

 private:
  // 4 activations, four times.
  static QE_INLINE int8x16_t quad_of(const int8_t* x) {
    int32_t quad;
    std::memcpy(&quad, x, 4);
    int8x16_t copies = vreinterpretq_s8_s32(vdupq_n_s32(quad));
    // clang, seeing that both halves are the same, would multiply with one of them and move the
    // codes' high half down instead of using smlal2.
    asm("" : "+w"(copies));
    return copies;
  }
};

// --- dense weights

template <Type kType>
QE_INLINE float32x4_t load_dense4(const uint8_t* w) {
  if constexpr (kType == Type::kF32) {
    return vreinterpretq_f32_u8(vld1q_u8(w));
  } else if constexpr (kType == Type::kF16) {
    return load_half4(w);
  } else {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(w)), 16));
  }
}

template <Type kType>
QE_INLINE float load_dense1(const uint8_t* w) {
  if constexpr (kType == Type::kF32) {
    float value;
    std::memcpy(&value, w, 4);
    return value;
  } else {
    uint16_t bits;
    std::memcpy(&bits, w, 2);
    return kType == Type::kF16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }
}

// Row `w` of `cols` weights times N activation rows; out[i * out_stride].
template <Type kType, int N>
void dense_row(const uint8_t* w, int cols, const float* x, size_t x_stride, float* out,
               size_t out_stride) {
  constexpr size_t kSize = kType == Type::kF32 ? 4 : 2;
  float32x4_t first[N], second[N];
  for (int i = 0; i < N; ++i) first[i] = second[i] = vdupq_n_f32(0);
  int c = 0;
  for (; c + 8 <= cols; c += 8) {
    const float32x4_t a = load_dense4<kType>(w + kSize * c);
    const float32x4_t b = load_dense4<kType>(w + kSize * (c + 4));
    __builtin_prefetch(w + kSize * c + 1024);
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      first[i] = vfmaq_f32(first[i], a, vld1q_f32(x + i * x_stride + c));
      second[i] = vfmaq_f32(second[i], b, vld1q_f32(x + i * x_stride + c + 4));
    }
  }
  for (int i = 0; i < N; ++i) {
    float sum = vaddvq_f32(vaddq_f32(first[i], second[i]));
    for (int k = c; k < cols; ++k) {
      // Fused explicitly: a row's result must not depend on how many rows are taken together.
      sum = std::fma(load_dense1<kType>(w + kSize * k), x[i * x_stride + k], sum);
    }
    out[i * out_stride] = sum;
  }
}

template <Type kType>
void dense_rows(const Matrix& w, const float* x, size_t x_stride, int n, int tile_begin,
                int tile_end, float* out, size_t out_stride) {
  const size_t row_bytes = static_cast<size_t>(w.cols) * (kType == Type::kF32 ? 4 : 2);
  for (int row = tile_begin * kTileRows; row < tile_end * kTileRows; ++row) {
    float* to = out + row;
    if (row >= w.rows) {
      for (int i = 0; i < n; ++i) to[i * out_stride] = 0;
      continue;
    }
    const uint8_t* weights = w.data + row * row_bytes;
    int i = 0;
    for (; n - i >= 4; i += 4) {
      dense_row<kType, 4>(weights, w.cols, x + i * x_stride, x_stride, to + i * out_stride,
                          out_stride);
    }
    for (; i < n; ++i) {
      dense_row<kType, 1>(weights, w.cols, x + i * x_stride, x_stride, to + i * out_stride,
                          out_stride);
    }
  }
}

void linear_dense(const Matrix& w, const float* x, size_t x_stride, int n, int tile_begin,
                  int tile_end, float* out, size_t out_stride) {
  const auto rows = w.type == Type::kF32   ? dense_rows<Type::kF32>
                    : w.type == Type::kF16 ? dense_rows<Type::kF16>
                                           : dense_rows<Type::kBF16>;
  rows(w, x, x_stride, n, tile_begin, tile_end, out, out_stride);
}

struct Lanes {
  float32x4_t part[4];

  static QE_INLINE Lanes load_half(const uint16_t* halves) {
    Lanes lanes;
    QE_UNROLL
    for (int p = 0; p < 4; ++p) {
      lanes.part[p] = load_half4(reinterpret_cast<const uint8_t*>(halves + 4 * p));
    }
    return lanes;
  }
  QE_INLINE void clear() {
    QE_UNROLL
    for (float32x4_t& p : part) p = vdupq_n_f32(0);
  }
  QE_INLINE void add_product(const Lanes& weight, float x) {
    QE_UNROLL
    for (int p = 0; p < 4; ++p) part[p] = vfmaq_n_f32(part[p], weight.part[p], x);
  }
  QE_INLINE void add(const Lanes& other) {
    QE_UNROLL
    for (int p = 0; p < 4; ++p) part[p] = vaddq_f32(part[p], other.part[p]);
  }
  QE_INLINE void add_to(float* out) const {
    QE_UNROLL
    for (int p = 0; p < 4; ++p) vst1q_f32(out + 4 * p, vaddq_f32(vld1q_f32(out + 4 * p), part[p]));
  }
};

void add_low_rank(const uint16_t* w, int tiles, int cols, const float* x, size_t x_stride, int n,
                  float* out, size_t out_stride) {
  low_rank_tiles<Lanes, 3, 2>(w, tiles, cols, x, x_stride, n, out, out_stride);
}

}  // namespace

const IsaTable* neon_table() {
  static const IsaTable table = {
      "neon",
      linear_q4<BaselineIsa>,
      linear_q8<BaselineIsa>,
      linear_dense,
      add_low_rank,
      sums_q4<BaselineIsa>,
      sums_q8<BaselineIsa>,
      quantize,
      rms_norm,
      rope,
      silu_mul,
      add,
      {store_key_f16, store_key_i8, store_key_i4},
      {store_value_f16, store_value_i8, store_value_i4},
      {scores_f16, scores_i8<BaselineIsa>, scores_i4<BaselineIsa>},
      {accumulate_f16, accumulate_i8<BaselineIsa>, accumulate_i4<BaselineIsa>},
      exp_sum,
      maximum,
      collect,
      sum_exp,
  };
  return &table;
}

}  // namespace qe
#else
namespace qe {
const IsaTable* neon_table() { return nullptr; }
}  // namespace qe
#endif
