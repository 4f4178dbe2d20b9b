// The steps of a decoder layer over many rows at once, in fp32 throughout: what a calibration needs
// between quantizing one matrix and the next. All arrays are row-major and dense.
#pragma once

#include "packing.h"

struct QeAttentionShape {
  int32_t heads, kv_heads, head_dim;
  int32_t length;  // rows of a sequence; the last may be shorter
  float rms_eps, rope_theta;
};

// out[n][cols] = each row over its root mean square, times weight[cols].
QE_API int32_t qe_rows_norm(const float* rows, const float* weight, int64_t n, int32_t cols,
                            float eps, int32_t threads, float* out);
// out[n][layout.rows] = rows[n][layout.cols] times the matrix, of any type; with `add` on top of
// what is there.
QE_API int32_t qe_rows_linear(const QeLayout* layout, const void* matrix, uint64_t matrix_bytes,
                              const float* rows, int64_t n, int32_t add, int32_t threads,
                              float* out);
// Causal attention of each sequence for itself: query[n][heads * head_dim], key and value
// [n][kv_heads * head_dim]; query and key are normed and rotated in place.
QE_API int32_t qe_rows_attention(const QeAttentionShape* shape, int64_t n, float* query, float* key,
                                 const float* value, const float* query_norm, const float* key_norm,
                                 int32_t threads, float* out);
// out = silu(gate) * up, each [n][cols]; out may be gate.
QE_API int32_t qe_rows_silu(const float* gate, const float* up, int64_t n, int32_t cols,
                            int32_t threads, float* out);
