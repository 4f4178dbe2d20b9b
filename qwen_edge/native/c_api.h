// The C interface that Python loads with ctypes. Functions that can fail return a Status; the
// sentence is then in qe_last_error() of the same thread. Structs mirror engine/native_calls.py and
// native_model.py field by field: change both and raise qe_abi_version().
#pragma once

#include <cstdint>

#include "packing.h"
#include "status.h"

struct qe_model;
struct qe_session;
struct qe_sampler;
struct qe_adapter;

struct qe_config {
  int32_t layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, max_positions;
  float rms_eps, rope_theta;
};

struct qe_tensor {
  const void* data;  // stays mapped as long as the model lives
  uint64_t bytes;
  QeLayout layout;
};

// Which activation each column of some matrices belongs to; data is null if it is its own.
struct qe_order {
  const int32_t* data;  // stays mapped as long as the model lives
  uint64_t count;
};

struct qe_session_params {
  int32_t context, sequences, max_rows, threads, prefill_threads, kv_type, fp32_activations;
};

struct qe_row {
  int32_t sequence, position, token, wants_logits;
};

// A and B of one projection of a layer, row-major, at any address: adapter.h.
struct qe_adapter_part {
  const void *a, *b;
  int32_t layer, projection, rank, a_type, b_type;
  float scale;
};

struct qe_sampling {
  float temperature, top_p, min_p, repetition_penalty, presence_penalty;
  int32_t top_k;
  uint64_t seed;
};

QE_API int32_t qe_abi_version();
QE_API const char* qe_last_error();

// Tensors in the order embedding, final norm, head (data null: tied), then for each layer input
// norm, query, key, value, query norm, key norm, output, post norm, gate, up, down. Norms are F32.
// Orders for each layer: of query, key and value, of output, of gate and up, of down; or null.
QE_API int32_t qe_model_create(const qe_config* config, const qe_tensor* tensors, int32_t n,
                               const qe_order* orders, qe_model** out);
QE_API void qe_model_destroy(qe_model* model);

QE_API int32_t qe_session_create(const qe_model* model, const qe_session_params* params,
                                 qe_session** out);
QE_API void qe_session_destroy(qe_session* session);
QE_API int32_t qe_session_forward(qe_session* session, const qe_row* rows, int32_t n);
// Threads of later calls of one row and of several, at most those of the session's parameters; the
// cores of the first `threads` of them, and of the others. No cores: wherever the system puts them.
QE_API int32_t qe_session_place(qe_session* session, int32_t threads, int32_t prefill_threads,
                                const int32_t* cores, int32_t n, const int32_t* rest, int32_t m);
// Logits [vocab] of the i-th row that wanted them in the last call, or null; valid until the next.
QE_API const float* qe_session_logits(const qe_session* session, int32_t i);
QE_API int32_t qe_session_truncate(qe_session* session, int32_t sequence, int32_t length);
QE_API int32_t qe_session_fork(qe_session* session, int32_t source, int32_t target, int32_t length);
// The first positions of a sequence as bytes in an open file: kv_file.h. Any number of positions
// from 1 on has a size; saving and loading fail with kIo and the errno, 0 if it was no system call.
QE_API int32_t qe_session_prefix_size(qe_session* session, int32_t positions, uint64_t* bytes,
                                      uint64_t* parts);
QE_API int32_t qe_session_save_prefix(qe_session* session, int32_t sequence, int32_t positions,
                                      int32_t descriptor, uint64_t offset, uint64_t* checksums,
                                      int32_t* error_number);
QE_API int32_t qe_session_load_prefix(qe_session* session, int32_t sequence, int32_t wanted,
                                      int32_t stored, int32_t descriptor, uint64_t offset,
                                      const uint64_t* checksums, int32_t* error_number);
QE_API uint64_t qe_session_scratch_bytes(const qe_session* session);
// Copies the parts; several sessions of models of this shape may use one adapter.
QE_API int32_t qe_adapter_create(const qe_model* model, const qe_adapter_part* parts, int32_t n,
                                 int32_t threads, qe_adapter** out);
QE_API void qe_adapter_destroy(qe_adapter* adapter);
QE_API uint64_t qe_adapter_bytes(const qe_adapter* adapter);
// The adapter, null for none, stays alive as long as the session uses it. All positions of the
// session are forgotten.
QE_API int32_t qe_session_set_adapter(qe_session* session, const qe_adapter* adapter);
// For measurements: lengthens a sequence of at least 16 positions to `length` without computing, by
// repeating its first positions' keys and values in memory of their own.
QE_API int32_t qe_session_stretch(qe_session* session, int32_t sequence, int32_t length);

QE_API int32_t qe_sampler_create(int32_t vocab, const qe_sampling* params, qe_sampler** out);
QE_API void qe_sampler_destroy(qe_sampler* sampler);
// Added to the logits of the ids, in place of what an earlier call set.
QE_API int32_t qe_sampler_set_bias(qe_sampler* sampler, const int32_t* ids, const float* bias,
                                   int32_t n);
// Only ids whose bit is set may be drawn (bit i of word i / 32; vocab bits); null allows all.
QE_API int32_t qe_sampler_set_allowed(qe_sampler* sampler, const uint32_t* bits);
// Makes a token count as seen; `generated` is 0 for tokens of the prompt, which the repetition
// penalty looks at and the presence penalty does not.
QE_API int32_t qe_sampler_accept(qe_sampler* sampler, int32_t token, int32_t generated);
// Draws a token. The logits are changed during the call and restored before it returns.
QE_API int32_t qe_sampler_sample(qe_sampler* sampler, float* logits, int32_t* token);
// Natural logarithm of the softmax: of one token, and of the n most likely, best first.
QE_API int32_t qe_logprobs(const float* logits, int32_t vocab, int32_t token, int32_t n,
                           int32_t* ids, double* logprobs, double* token_logprob);

// Rows of logits [vocab] judged, by address; the threads share the rows. A row that holds what is
// no number fails. Of each row: the natural log probability of a token, and the most likely id (the
// first of several).
QE_API int32_t qe_score_rows(const float* const* rows, int32_t n, int32_t vocab,
                             const int32_t* tokens, int32_t threads, double* logprobs,
                             int32_t* top);
// The Kullback-Leibler divergence in nats of each row from the row of truth beside it.
QE_API int32_t qe_compare_rows(const float* const* truth, const float* const* rows, int32_t n,
                               int32_t vocab, int32_t threads, double* divergences);
// Log probabilities as codes [n, vocab], evenly spaced between a row's lowest and highest. `ranges`
// is [n, 2]: the lowest, and the step between two codes.
QE_API int32_t qe_pack_rows(const float* const* rows, int32_t n, int32_t vocab, int32_t threads,
                            float* ranges, uint16_t* codes);
// The log probabilities [n, vocab] that codes stand for.
QE_API int32_t qe_unpack_rows(const float* ranges, const uint16_t* codes, int32_t n, int32_t vocab,
                              int32_t threads, float* rows);

// Seconds that all threads together took to read a buffer of so many bytes (rounded down to MiB),
// one entry for each pass. The buffer lives only as long as the call.
QE_API int32_t qe_read_bandwidth(uint64_t bytes, int32_t threads, int32_t passes, double* seconds);
