// The kernels: one table of function pointers for each instruction set.
//
// scalar.cpp is the truth: every other table gives the same integers bit for bit (activation codes,
// block sums, probability codes) and floats within 1e-5 relative. All pointers of a table are set;
// a table for a wider instruction set starts as a copy of a narrower one and replaces entries.
#pragma once

#include "../format.h"

namespace qe {

// Rows of activations in INT8, groups of 32 columns: x = codes * scale.
// scale = max|x| / 127, code = x * (127 / max|x|) rounded to nearest, ties to even; all 0 if max|x|
// = 0.
//
// Rows lie in panels: those of one panel have their first groups together, then their second
// groups, and so on, which is the order that a matrix kernel goes through them. In panels of 1 a
// row is contiguous.
struct QuantizedRows {
  const int8_t* codes;  // [n / panel, cols / 32, panel, 32]
  const float* scale;   // [n / panel, cols / 32, panel]
  const int32_t* sum;   // as scale: the sum of a group's codes
  int n;
  int cols;  // a multiple of 32 and of the weights' group; codes are 0 in the padding
  // 1, or a multiple of 8 that is at least n or is kPanelRows: a kernel may read all rows of a
  // panel
  int panel = 1;

  // Where a row's group has its scale and its sum; its codes are at 32 times that.
  size_t at(int row, int group) const {
    const size_t first = static_cast<size_t>(row / panel * panel) * (cols / kActivationGroup);
    return first + static_cast<size_t>(group) * panel + row % panel;
  }
  // From a row to the next of its panel, in the same units.
  size_t row_step() const { return panel == 1 ? cols / kActivationGroup : 1; }
};
constexpr int kPanelRows = 64;
constexpr int panel_of(int n) {
  return n == 1 ? 1 : n >= kPanelRows ? kPanelRows : (n + 7) / 8 * 8;
}

enum class KvType : int32_t { kF16 = 0, kI8 = 1, kI4 = 2, kF32 = 3 };
// kF32 is the oracle's alone: the tables of instruction sets have no entry for it.
constexpr int kKvTypes = 3, kReferenceKvTypes = 4;
// The KV cache lies in blocks of 16 positions of one head, keys and values apart.
//   F16  key   [head_dim][16 positions] fp16
//        value [16 positions][head_dim] fp16
//   I8   key   [head_dim / 4][16 positions][4 dims] int8, then 16 fp16 scales
//        value [16 positions / 4][head_dim][4 positions] int8, then 16 fp16 scales
//   I4   groups of 32 dims, 288 bytes each: 4 chunks of 64 bytes, then 16 fp16 scales
//        key   as an INT4 weight block whose rows are the positions
//        value in chunk j, byte 4 r + i holds position 4 j + i's dim r in its low nibble and dim
//              16 + r in its high one
//   F32  as F16, in fp32
// The scale of I8 belongs to one position's whole vector: max|x| / 127, rounded to fp16 before the
// codes are computed with it (code = x * (1 / scale), to nearest even, clamped to +-127; 0 if the
// scale is 0). The codes and scale of I4 are what kv_i4.h says; a nibble is the code + 8. Blocks
// start zeroed, so that an empty slot never holds a NaN.
constexpr int kKvBlock = 16;
constexpr size_t kv_block_bytes(KvType type, int head_dim) {
  const size_t values = static_cast<size_t>(head_dim) * kKvBlock;
  if (type == KvType::kI8) return values + 2 * kKvBlock;
  if (type == KvType::kI4) return head_dim / 32 * block_bytes(Type::kQ4, 32, false);
  return values * (type == KvType::kF32 ? 4 : 2);
}

// Query vectors of one KV head: 1/sqrt(head_dim) is already multiplied in.
struct Queries {
  const float* x;           // [n, head_dim]
  QuantizedRows quantized;  // the same, cols = head_dim; null pointers for KvType::kF16
  int n;
};

struct IsaTable {
  const char* name;

  // --- linear: out[i * out_stride + 16 * t + r] = sum over columns of w[16 t + r, c] * x[i, c]
  // for tiles [tile_begin, tile_end). All 16 lanes of a tile are written; padding lanes hold 0 or
  // finite rubbish. Any x.n >= 1. w.group is 32, 64 or 128.
  // The integer sums are taken over each 32 columns, times activation scale times weight
  // scale; a minimum contributes minimum * scale * sum. A zero point enters as the minimum -zero *
  // weight scale, which fp32 holds exactly.
  void (*linear_q4)(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end,
                    float* out, size_t out_stride);
  void (*linear_q8)(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end,
                    float* out, size_t out_stride);
  // F32, F16 or BF16 weights, fp32 activations x[n, x_stride] (w.cols of them used).
  void (*linear_dense)(const Matrix& w, const float* x, size_t x_stride, int n, int tile_begin,
                       int tile_end, float* out, size_t out_stride);
  // out[i * out_stride + 16 t + r] += sum over columns of w[t, c, r] * x[i * x_stride + c] for
  // i < n, t < tiles, r < 16: a thin matrix of an adapter, fp16 [tiles, cols, 16].
  void (*add_low_rank)(const uint16_t* w, int tiles, int cols, const float* x, size_t x_stride,
                       int n, float* out, size_t out_stride);
  // The integer sums of one tile over 32 columns, for tests: codes are 4 (INT4) or 8 (INT8) chunks
  // of 64 bytes; x has 32 codes and their sum. It must be the code that linear_* runs.
  void (*sums_q4)(const uint8_t* codes, const int8_t* codebook, const int8_t* x, int32_t x_sum,
                  int32_t* out);
  void (*sums_q8)(const int8_t* codes, const int8_t* x, int32_t x_sum, int32_t* out);

  // --- rows
  // n values, n a multiple of 32. Group g's scale and sum go to [panel * g], its codes to 32 times
  // that.
  void (*quantize)(const float* x, int n, int panel, int8_t* codes, float* scale, int32_t* sum);
  // out = x / sqrt(mean(x^2) + eps) * weight; out may be x.
  void (*rms_norm)(const float* x, const float* weight, int n, float eps, float* out);
  // Rotates the halves of one head in place: x[i], x[i + half] by the angle whose cos and sin are
  // given for each i < half.
  void (*rope)(float* x, const float* cosine, const float* sine, int half);
  // out = gate / (1 + exp(-gate)) * up; out may be gate.
  void (*silu_mul)(const float* gate, const float* up, int n, float* out);
  void (*add)(float* accumulator, const float* x, int n);

  // --- attention
  void (*store_key[kKvTypes])(uint8_t* block, int slot, const float* x, int head_dim);
  void (*store_value[kKvTypes])(uint8_t* block, int slot, const float* x, int head_dim);
  // out[i * out_stride + 16 b + s] = query i . key of slot s in block b; blocks are contiguous.
  // Here and below, `next` are as many blocks as will be read after these, or null: a hint.
  void (*scores[kKvTypes])(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q,
                           float* out, size_t out_stride, const uint8_t* next);
  // out[i * out_stride + d] += sum over slots of p[i * p_stride + 16 b + s] * value[b, s, d]. p >=
  // 0, and p is 0 for slots that hold nothing. kI8: within a block, p * value scale is quantized to
  // 0..127 (to nearest even, by 127 / its maximum), so that the sums over positions are integers.
  // kI4: likewise for each group of dims; a scale has a sign, so that it is -127..127 by 127 / its
  // largest magnitude.
  void (*accumulate[kKvTypes])(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                               size_t p_stride, int n, float* out, size_t out_stride,
                               const uint8_t* next);
  // x = exp(x - maximum), returns the sum; relative error of each exp below 3e-7 for x - maximum
  // >= -87, and below that the result is 0 or below 1e-37.
  float (*exp_sum)(float* x, int n, float maximum);

  // --- sampling over the logits
  float (*maximum)(const float* x, size_t n);
  // Writes the indexes of all x >= threshold in ascending order, at most capacity of them; returns
  // how many there are in all.
  size_t (*collect)(const float* x, size_t n, float threshold, int32_t* indexes, size_t capacity);
  // Sum of exp(x - maximum), accumulated in at least 16 partial sums or double.
  double (*sum_exp)(const float* x, size_t n, float maximum);
};

// Each returns null where it was not compiled in. They do not look at the processor.
const IsaTable* scalar_table();
const IsaTable* avx2_table();
const IsaTable* avx512_vnni_table();
const IsaTable* neon_table();
const IsaTable* neon_dotprod_table();
const IsaTable* neon_i8mm_table();

// Whether this processor and its system run the table; false where it was not compiled in.
bool avx2_supported();
bool avx512_vnni_supported();
bool neon_supported();
bool neon_dotprod_supported();
bool neon_i8mm_supported();

// fp32 activations throughout, the oracle of the tests; never chosen for speed. Same contracts,
// with dequantized weights, keys and values.
struct ReferenceTable {
  void (*linear)(const Matrix& w, const float* x, size_t x_stride, int n, int tile_begin,
                 int tile_end, float* out, size_t out_stride);
  void (*store_key[kReferenceKvTypes])(uint8_t* block, int slot, const float* x, int head_dim);
  void (*store_value[kReferenceKvTypes])(uint8_t* block, int slot, const float* x, int head_dim);
  void (*scores[kReferenceKvTypes])(const uint8_t* blocks, int n_blocks, int head_dim,
                                    const Queries& q, float* out, size_t out_stride,
                                    const uint8_t* next);
  void (*accumulate[kReferenceKvTypes])(const uint8_t* blocks, int n_blocks, int head_dim,
                                        const float* p, size_t p_stride, int n, float* out,
                                        size_t out_stride, const uint8_t* next);
};
const ReferenceTable& reference_table();

// Columns [begin, end) of one row of a packed or dense matrix in fp32: out[end - begin].
void dequantize_columns(const Matrix& w, int row, int begin, int end, float* out);
inline void dequantize_row(const Matrix& w, int row, float* out) {
  dequantize_columns(w, row, 0, w.cols, out);
}

}  // namespace qe
