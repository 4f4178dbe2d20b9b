// A Qwen3 model as views into the mapped file: nothing here is copied or owned.
#pragma once

#include <vector>

#include "isa/isa.h"

namespace qe {

struct ModelConfig {
  int layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, max_positions;
  float rms_eps, rope_theta;
};

// Where a layer's matrices take activations in.
enum Input { kQkv, kOutput, kGateUp, kDown, kInputs };

struct LayerWeights {
  const float *input_norm, *query_norm, *key_norm, *post_norm;
  Matrix query, key, value, output, gate, up, down;
  // The matrices' column c belongs to activation order[c]; null where they are in their own order.
  const int32_t* order[kInputs] = {};
};

struct Model {
  ModelConfig config;
  Matrix embedding;
  Matrix head;  // the embedding itself where they are tied
  const float* final_norm = nullptr;
  std::vector<LayerWeights> layers;
  // theta^(-2i / head_dim) for i < head_dim / 2: radians a position. In fp32 the angle at position
  // 32,767 would be off by up to 0.001.
  std::vector<double> inverse_frequency;
};

}  // namespace qe
