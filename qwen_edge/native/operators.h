// Single operations over the kernels for programs that keep the rest of a model themselves: what
// torch's operators are made of. They share a thread pool and scratch memory, which belong to the
// process; calls wait for each other.
#pragma once

#include "c_api.h"

// Keys and values of some rows, and where they belong.
struct qe_attention {
  // f32 [n, heads, head_dim] and twice [n, kv_heads, head_dim]; a stride is from row to row.
  const float *query, *key, *value;
  int64_t query_stride, key_stride, value_stride;
  // [sequences, kv_heads, 2, blocks] blocks of isa.h: a head's keys, then its values.
  uint8_t* cache;
  const int64_t *sequence, *position;  // [n]
  int32_t n, heads, kv_heads, head_dim, sequences, blocks, kv_type, fp32;
};

// How many threads share a call of one row, and one of several rows.
QE_API int32_t qe_operators_threads(int32_t threads, int32_t prefill_threads);
// out [n, sum of the weights' rows] = x [n, cols] times each weight transposed, side by side.
// `order` as in c_api.h, or null data. With fp32, activations are not quantized.
QE_API int32_t qe_operator_linear(const qe_tensor* weights, int32_t n_weights,
                                  const qe_order* order, const float* x, int64_t x_stride,
                                  int32_t n, int32_t cols, int32_t fp32, float* out,
                                  uint64_t out_size);
// out [n, cols] = rows `ids` of the weight.
QE_API int32_t qe_operator_embedding(const qe_tensor* weight, const int64_t* ids, int32_t n,
                                     float* out, uint64_t out_size);
// x [n, heads, cols] and its like: what lies in a row is contiguous, a stride is from row to row.
// out = x / sqrt(mean(x^2) + eps) * weight [cols].
QE_API int32_t qe_operator_rms_norm(const float* x, int64_t x_stride, const float* weight,
                                    int32_t n, int32_t heads, int32_t cols, float eps, float* out);
// Rotates dim i with dim i + head_dim / 2 by angles of cosine and sine [n, head_dim / 2].
QE_API int32_t qe_operator_rotate(const float* x, int64_t x_stride, const float* cosine,
                                  const float* sine, int32_t n, int32_t heads, int32_t head_dim,
                                  float* out);
// out [n, cols] = silu(x[:, :cols]) * x[:, cols:].
QE_API int32_t qe_operator_silu_mul(const float* x, int64_t x_stride, int32_t n, int32_t cols,
                                    float* out);
// Stores all keys and values, then lets each row attend to its sequence's positions up to its own:
// out [n, heads * head_dim]. Scores are divided by the square root of head_dim.
QE_API int32_t qe_operator_attention(const qe_attention* call, float* out);
