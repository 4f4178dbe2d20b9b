#include "layer_rows.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "c_api.h"
#include "dispatch.h"
#include "gemm.h"
#include "parallel_for.h"

namespace qe {
namespace {

// Of a matrix, as floats at a time.
constexpr int64_t kSliceFloats = 4 << 20;

void linear(const QeLayout& layout, const uint8_t* matrix, const float* rows, int64_t n, bool add,
            int threads, float* out) {
  const int64_t cols = layout.cols;
  const int64_t step =
      std::max<int64_t>(kSliceFloats / cols / kTileRows, 1) * kTileRows;  // whole tiles
  const uint64_t row_bytes = layout_bytes(layout) / layout.rows;
  std::vector<float> slice(static_cast<size_t>(std::min<int64_t>(step, layout.rows) * cols));
  for (int64_t first = 0; first < layout.rows; first += step) {
    QeLayout part = layout;
    part.rows = static_cast<int32_t>(std::min<int64_t>(step, layout.rows - first));
    QeLayout before = layout;
    before.rows = static_cast<int32_t>(first);
    const uint64_t offset =
        is_packed(layout) ? (first > 0 ? layout_bytes(before) : 0) : row_bytes * first;
    if (qe_dequantize(&part, matrix + offset, layout_bytes(part), threads, slice.data()) != kOk) {
      throw Error(kFormat, qe_last_error());
    }
    multiply(n, part.rows, cols, {rows, cols, 1}, {slice.data(), 1, cols},
             add ? Store::kAdd : Store::kSet, false, out + first, layout.rows, threads);
  }
}

// Cosines and sines [length][head_dim / 2].
struct Turns {
  std::vector<float> cosine, sine;
  explicit Turns(const QeAttentionShape& shape) {
    const int half = shape.head_dim / 2;
    for (int position = 0; position < shape.length; ++position) {
      for (int i = 0; i < half; ++i) {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(shape.head_dim);
        const float angle =
            static_cast<float>(position) * (1.0f / std::pow(shape.rope_theta, exponent));
        cosine.push_back(std::cos(angle));
        sine.push_back(std::sin(angle));
      }
    }
  }
};

void turn_heads(const QeAttentionShape& shape, const Turns& turns, int heads, const float* norm,
                float factor, int64_t row, float* rows) {
  const IsaTable& isa = active_table();
  const int half = shape.head_dim / 2;
  const int64_t position = row % shape.length;
  for (int h = 0; h < heads; ++h) {
    float* head = rows + (row * heads + h) * shape.head_dim;
    isa.rms_norm(head, norm, shape.head_dim, shape.rms_eps, head);
    isa.rope(head, &turns.cosine[position * half], &turns.sine[position * half], half);
    for (int d = 0; d < shape.head_dim; ++d) head[d] *= factor;
  }
}

// The softmax of row i of scores, over the positions up to i; 0 beyond.
void soften(float* scores, int64_t i, int64_t length) {
  const float largest = *std::max_element(scores, scores + i + 1);
  double total = 0;
  for (int64_t j = 0; j <= i; ++j) {
    scores[j] = std::exp(scores[j] - largest);
    total += scores[j];
  }
  const float inverse = static_cast<float>(1 / total);
  for (int64_t j = 0; j < length; ++j) scores[j] = j <= i ? scores[j] * inverse : 0;
}

void attend(const QeAttentionShape& shape, int64_t first, int64_t length, int head,
            const float* query, const float* key, const float* value, float* out) {
  const int64_t wide = int64_t{shape.heads} * shape.head_dim;
  const int64_t narrow = int64_t{shape.kv_heads} * shape.head_dim;
  const int64_t column = int64_t{head} * shape.head_dim;
  const int64_t kv_column = head / (shape.heads / shape.kv_heads) * int64_t{shape.head_dim};
  std::vector<float> scores(static_cast<size_t>(length * length));
  multiply(length, length, shape.head_dim, {query + first * wide + column, wide, 1},
           {key + first * narrow + kv_column, 1, narrow}, Store::kSet, false, scores.data(), length,
           1);
  for (int64_t i = 0; i < length; ++i) soften(&scores[i * length], i, length);
  multiply(length, shape.head_dim, length, {scores.data(), length, 1},
           {value + first * narrow + kv_column, narrow, 1}, Store::kSet, false,
           out + first * wide + column, wide, 1);
}

void attention(const QeAttentionShape& shape, int64_t n, float* query, float* key,
               const float* value, const float* query_norm, const float* key_norm, int threads,
               float* out) {
  const Turns turns(shape);
  const float factor = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  parallel_for(n, threads, 8, [&](int64_t row) {
    turn_heads(shape, turns, shape.heads, query_norm, factor, row, query);
    turn_heads(shape, turns, shape.kv_heads, key_norm, 1, row, key);
  });
  const int64_t sequences = (n + shape.length - 1) / shape.length;
  parallel_for(sequences * shape.heads, threads, 1, [&](int64_t item) {
    const int64_t first = item / shape.heads * shape.length;
    attend(shape, first, std::min<int64_t>(shape.length, n - first),
           static_cast<int>(item % shape.heads), query, key, value, out);
  });
}

void check_shape(const QeAttentionShape& s) {
  if (s.heads < 1 || s.kv_heads < 1 || s.heads % s.kv_heads != 0 || s.head_dim < 2 ||
      s.head_dim % 2 != 0 || s.length < 1) {
    throw Error(kArgument, "the numbers of heads do not fit each other");
  }
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_rows_norm(const float* rows, const float* weight, int64_t n, int32_t cols,
                            float eps, int32_t threads, float* out) {
  return qe::guarded([&] {
    const qe::IsaTable& isa = qe::active_table();
    qe::parallel_for(n, threads, 16, [&](int64_t row) {
      isa.rms_norm(rows + row * cols, weight, cols, eps, out + row * cols);
    });
  });
}

QE_API int32_t qe_rows_linear(const QeLayout* layout, const void* matrix, uint64_t matrix_bytes,
                              const float* rows, int64_t n, int32_t add, int32_t threads,
                              float* out) {
  return qe::guarded([&] {
    qe::check_buffer(*layout, matrix, matrix_bytes);
    qe::linear(*layout, static_cast<const uint8_t*>(matrix), rows, n, add != 0, threads, out);
  });
}

QE_API int32_t qe_rows_attention(const QeAttentionShape* shape, int64_t n, float* query, float* key,
                                 const float* value, const float* query_norm, const float* key_norm,
                                 int32_t threads, float* out) {
  return qe::guarded([&] {
    qe::check_shape(*shape);
    qe::attention(*shape, n, query, key, value, query_norm, key_norm, threads, out);
  });
}

QE_API int32_t qe_rows_silu(const float* gate, const float* up, int64_t n, int32_t cols,
                            int32_t threads, float* out) {
  return qe::guarded([&] {
    const qe::IsaTable& isa = qe::active_table();
    qe::parallel_for(n, threads, 16, [&](int64_t row) {
      isa.silu_mul(gate + row * cols, up + row * cols, cols, out + row * cols);
    });
  });
}
