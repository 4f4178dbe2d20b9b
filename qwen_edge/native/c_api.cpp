// The C interface to models, sessions and samplers: checks what comes in, then calls the classes.
#include "c_api.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "dispatch.h"
#include "kv_file.h"
#include "sampler.h"
#include "session.h"
#include "tensor_checks.h"

struct qe_model {
  qe::Model model;
};

struct qe_session {
  qe::Session session;
};

struct qe_adapter {
  qe::Adapter adapter;
};

struct qe_sampler {
  qe::Sampler sampler;
};

namespace qe {
namespace {

constexpr int kTensorsBeforeLayers = 3, kTensorsPerLayer = 11;
constexpr int kMostLayers = 1024, kMostQueries = 1 << 16;

void check_config(const ModelConfig& c) {
  const auto in_range = [](int value) { return value >= 1 && value <= kLargestDimension; };
  require(in_range(c.hidden) && in_range(c.intermediate) && in_range(c.heads) &&
              in_range(c.kv_heads) && in_range(c.vocab) && in_range(c.max_positions) &&
              c.layers >= 1 && c.layers <= kMostLayers,
          "a dimension of the model is out of range");
  require(
      c.head_dim >= kActivationGroup && c.head_dim <= 1024 && c.head_dim % kActivationGroup == 0,
      "the head dimension must be a multiple of 32 up to 1024");
  require(c.heads % c.kv_heads == 0 && c.heads <= kMostQueries / c.head_dim,
          "the numbers of heads do not fit each other");
  require(c.rms_eps >= 0 && c.rms_eps < 1 && c.rope_theta >= 1 && std::isfinite(c.rope_theta),
          "the model's epsilon or RoPE base is out of range");
}

const float* vector(const qe_tensor& t, int size, const char* name) {
  require(matrix(t, 1, size, name).type == Type::kF32,
          std::string("tensor ") + name + " must be F32");
  require(reinterpret_cast<uintptr_t>(t.data) % alignof(float) == 0,
          std::string("tensor ") + name + " is not aligned");
  return static_cast<const float*>(t.data);
}

// A permutation of [0, size): whatever else would read activations that are not there.
const int32_t* column_order(const qe_order& order, int size, const char* name) {
  if (order.data == nullptr) return nullptr;
  const std::string what = std::string("the order of the columns of ") + name;
  require(order.count == static_cast<uint64_t>(size), what + " has another length than a row");
  require(reinterpret_cast<uintptr_t>(order.data) % alignof(int32_t) == 0, what + " is unaligned");
  std::vector<bool> seen(static_cast<size_t>(size));
  for (int c = 0; c < size; ++c) {
    const int32_t from = order.data[c];
    require(from >= 0 && from < size && !seen[from], what + " is not a permutation");
    seen[from] = true;
  }
  return order.data;
}

LayerWeights layer_weights(const ModelConfig& c, const qe_tensor* t, const qe_order* orders) {
  const int queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
  LayerWeights w;
  w.input_norm = vector(t[0], c.hidden, "input_layernorm");
  w.query = matrix(t[1], queries, c.hidden, "q_proj");
  w.key = matrix(t[2], keys, c.hidden, "k_proj");
  w.value = matrix(t[3], keys, c.hidden, "v_proj");
  w.query_norm = vector(t[4], c.head_dim, "q_norm");
  w.key_norm = vector(t[5], c.head_dim, "k_norm");
  w.output = matrix(t[6], c.hidden, queries, "o_proj");
  w.post_norm = vector(t[7], c.hidden, "post_attention_layernorm");
  w.gate = matrix(t[8], c.intermediate, c.hidden, "gate_proj");
  w.up = matrix(t[9], c.intermediate, c.hidden, "up_proj");
  w.down = matrix(t[10], c.hidden, c.intermediate, "down_proj");
  if (orders == nullptr) return w;
  w.order[kQkv] = column_order(orders[kQkv], c.hidden, "q_proj, k_proj and v_proj");
  w.order[kOutput] = column_order(orders[kOutput], queries, "o_proj");
  w.order[kGateUp] = column_order(orders[kGateUp], c.hidden, "gate_proj and up_proj");
  w.order[kDown] = column_order(orders[kDown], c.intermediate, "down_proj");
  return w;
}

void build_model(const qe_config& config, const qe_tensor* tensors, int n, const qe_order* orders,
                 Model* model) {
  ModelConfig& c = model->config;
  c = {config.layers,   config.hidden, config.intermediate,  config.heads,   config.kv_heads,
       config.head_dim, config.vocab,  config.max_positions, config.rms_eps, config.rope_theta};
  check_config(c);
  require(n == kTensorsBeforeLayers + kTensorsPerLayer * c.layers,
          "the model does not have the right number of tensors");
  model->embedding = matrix(tensors[0], c.vocab, c.hidden, "embed_tokens");
  model->final_norm = vector(tensors[1], c.hidden, "norm");
  model->head =
      tensors[2].data ? matrix(tensors[2], c.vocab, c.hidden, "lm_head") : model->embedding;
  for (int i = 0; i < c.layers; ++i) {
    model->layers.push_back(layer_weights(c, tensors + kTensorsBeforeLayers + kTensorsPerLayer * i,
                                          orders == nullptr ? nullptr : orders + kInputs * i));
  }
  for (int i = 0; i < c.head_dim / 2; ++i) {
    model->inverse_frequency.push_back(std::pow(double{c.rope_theta}, -2.0 * i / c.head_dim));
  }
}

SessionParams session_params(const qe_session_params& p, const ModelConfig& c) {
  const auto check = [](bool condition, const char* message) {
    if (!condition) throw Error(kArgument, message);
  };
  check(p.context >= 1 && p.context <= c.max_positions,
        "the context must be between 1 and the model's maximum");
  check(p.sequences >= 1 && p.sequences <= 1024, "the number of sequences must be 1 to 1024");
  check(p.max_rows >= 1 && p.max_rows <= 65536, "the rows of a call must be 1 to 65536");
  check(p.threads >= 1 && p.threads <= 254 && p.prefill_threads >= 1 && p.prefill_threads <= 254,
        "the number of threads must be 1 to 254");
  check(p.kv_type >= 0 && p.kv_type < (p.fp32_activations ? kReferenceKvTypes : kKvTypes),
        "the KV cache type is unknown, or f32 without fp32 activations");
  return {p.context,
          p.sequences,
          p.max_rows,
          p.threads,
          p.prefill_threads,
          static_cast<KvType>(p.kv_type),
          p.fp32_activations != 0};
}

cpu_set_t core_set(const int32_t* cores, int32_t n) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int i = 0; i < n; ++i) {
    if (cores[i] < 0 || cores[i] >= CPU_SETSIZE) throw Error(kArgument, "there is no such core");
    CPU_SET(cores[i], &set);
  }
  return set;
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_model_create(const qe_config* config, const qe_tensor* tensors, int32_t n,
                               const qe_order* orders, qe_model** out) {
  return qe::guarded([&] {
    auto model = std::make_unique<qe_model>();
    qe::build_model(*config, tensors, n, orders, &model->model);
    *out = model.release();
  });
}

QE_API void qe_model_destroy(qe_model* model) { delete model; }

QE_API int32_t qe_session_create(const qe_model* model, const qe_session_params* params,
                                 qe_session** out) {
  return qe::guarded([&] {
    const qe::SessionParams checked = qe::session_params(*params, model->model.config);
    const qe::IsaTable& isa = checked.fp32_activations ? *qe::scalar_table() : qe::active_table();
    *out = new qe_session{qe::Session(model->model, isa, checked)};
  });
}

QE_API void qe_session_destroy(qe_session* session) { delete session; }

QE_API int32_t qe_session_forward(qe_session* session, const qe_row* rows, int32_t n) {
  static_assert(sizeof(qe_row) == sizeof(qe::Row), "the structs must match");
  return qe::guarded([&] { session->session.forward(reinterpret_cast<const qe::Row*>(rows), n); });
}

QE_API int32_t qe_session_place(qe_session* session, int32_t threads, int32_t prefill_threads,
                                const int32_t* cores, int32_t n, const int32_t* rest, int32_t m) {
  return qe::guarded([&] {
    session->session.place(threads, prefill_threads, qe::core_set(cores, n), qe::core_set(rest, m));
  });
}

QE_API const float* qe_session_logits(const qe_session* session, int32_t i) {
  return i >= 0 && i < session->session.logits_rows() ? session->session.logits(i) : nullptr;
}

QE_API int32_t qe_session_truncate(qe_session* session, int32_t sequence, int32_t length) {
  return qe::guarded([&] { session->session.truncate(sequence, length); });
}

QE_API int32_t qe_session_fork(qe_session* session, int32_t source, int32_t target,
                               int32_t length) {
  return qe::guarded([&] { session->session.fork(source, target, length); });
}

QE_API int32_t qe_session_stretch(qe_session* session, int32_t sequence, int32_t length) {
  return qe::guarded([&] { session->session.stretch(sequence, length); });
}

QE_API int32_t qe_session_prefix_size(qe_session* session, int32_t positions, uint64_t* bytes,
                                      uint64_t* parts) {
  return qe::guarded([&] {
    if (positions < 1 || positions > qe::kLargestDimension) {
      throw qe::Error(qe::kArgument, "the number of positions is out of range");
    }
    const qe::KvShape& shape = session->session.sequence(0).shape();
    *bytes = qe::kv_file_bytes(shape, positions);
    *parts = qe::kv_file_parts(shape, positions);
  });
}

QE_API int32_t qe_session_save_prefix(qe_session* session, int32_t sequence, int32_t positions,
                                      int32_t descriptor, uint64_t offset, uint64_t* checksums,
                                      int32_t* error_number) {
  qe::KvFile file = {descriptor, offset, 0};
  const int32_t status = qe::guarded([&] {
    qe::save_positions(session->session.sequence(sequence), positions, &file, checksums);
  });
  *error_number = file.error_number;
  return status;
}

QE_API int32_t qe_session_load_prefix(qe_session* session, int32_t sequence, int32_t wanted,
                                      int32_t stored, int32_t descriptor, uint64_t offset,
                                      const uint64_t* checksums, int32_t* error_number) {
  qe::KvFile file = {descriptor, offset, 0};
  const int32_t status = qe::guarded([&] {
    const qe::SessionParams& params = session->session.params();
    if (wanted > params.context) throw qe::Error(qe::kArgument, "the context is too short");
    qe::load_positions(&session->session.sequence(sequence), wanted, stored,
                       std::max(params.threads, params.prefill_threads), &file, checksums);
  });
  *error_number = file.error_number;
  return status;
}

QE_API int32_t qe_adapter_create(const qe_model* model, const qe_adapter_part* parts, int32_t n,
                                 int32_t threads, qe_adapter** out) {
  return qe::guarded([&] {
    std::vector<qe::AdapterPart> checked;
    for (int i = 0; i < n; ++i) {
      const qe_adapter_part& p = parts[i];
      checked.push_back({p.layer, p.projection, p.rank, static_cast<qe::Type>(p.a_type),
                         static_cast<qe::Type>(p.b_type), p.scale, static_cast<const uint8_t*>(p.a),
                         static_cast<const uint8_t*>(p.b)});
    }
    *out = new qe_adapter{qe::Adapter(model->model, checked.data(), n, threads)};
  });
}

QE_API void qe_adapter_destroy(qe_adapter* adapter) { delete adapter; }

QE_API uint64_t qe_adapter_bytes(const qe_adapter* adapter) { return adapter->adapter.bytes(); }

QE_API int32_t qe_session_set_adapter(qe_session* session, const qe_adapter* adapter) {
  return qe::guarded([&] { session->session.set_adapter(adapter ? &adapter->adapter : nullptr); });
}

QE_API uint64_t qe_session_scratch_bytes(const qe_session* session) {
  return session->session.scratch_bytes();
}

QE_API int32_t qe_sampler_create(int32_t vocab, const qe_sampling* params, qe_sampler** out) {
  return qe::guarded([&] {
    const qe::SamplingParams sampling = {
        params->temperature,      params->top_p, params->min_p, params->repetition_penalty,
        params->presence_penalty, params->top_k, params->seed};
    *out = new qe_sampler{qe::Sampler(qe::active_table(), vocab, sampling)};
  });
}

QE_API void qe_sampler_destroy(qe_sampler* sampler) { delete sampler; }

QE_API int32_t qe_sampler_set_bias(qe_sampler* sampler, const int32_t* ids, const float* bias,
                                   int32_t n) {
  return qe::guarded([&] { sampler->sampler.set_bias(ids, bias, n); });
}

QE_API int32_t qe_sampler_set_allowed(qe_sampler* sampler, const uint32_t* bits) {
  return qe::guarded([&] { sampler->sampler.set_allowed(bits); });
}

QE_API int32_t qe_sampler_accept(qe_sampler* sampler, int32_t token, int32_t generated) {
  return qe::guarded([&] { sampler->sampler.accept(token, generated != 0); });
}

QE_API int32_t qe_sampler_sample(qe_sampler* sampler, float* logits, int32_t* token) {
  return qe::guarded([&] { *token = sampler->sampler.sample(logits); });
}

QE_API int32_t qe_logprobs(const float* logits, int32_t vocab, int32_t token, int32_t n,
                           int32_t* ids, double* logprobs, double* token_logprob) {
  return qe::guarded([&] {
    if (token < 0 || token >= vocab || n < 0 || n > vocab) {
      throw qe::Error(qe::kArgument, "a token or the number of log probabilities is out of range");
    }
    const qe::IsaTable& isa = qe::active_table();
    const float maximum = isa.maximum(logits, vocab);
    const double log_total = maximum + std::log(isa.sum_exp(logits, vocab, maximum));
    std::vector<qe::Candidate> best;
    qe::largest(isa, logits, vocab, n, &best);
    for (int i = 0; i < n; ++i) {
      const bool found = i < static_cast<int>(best.size());
      ids[i] = found ? best[i].id : i;
      logprobs[i] = found ? best[i].logit - log_total : -INFINITY;
    }
    *token_logprob = logits[token] - log_total;
  });
}
