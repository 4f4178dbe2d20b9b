// A Qwen3 model as views into the mapped file: nothing here is copied or owned.
#pragma once

#include <vector>

#include "isa/isa.h"

namespace qe {

struct ModelConfig {
  int layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, max_positions;
  float rms_eps, rope_theta;
};

struct LayerWeights {
  const float *input_norm, *query_norm, *key_norm, *post_norm;
  Matrix query, key, value, output, gate, up, down;
};

struct Model {
  ModelConfig config;
  Matrix embedding;
  Matrix head;  // the embedding itself where they are tied
  const float* final_norm = nullptr;
  std::vector<LayerWeights> layers;
  // theta^(-2i / head_dim) for i < head_dim / 2, in fp32 as the reference implementation has it.
  std::vector<float> inverse_frequency;
};

}  // namespace qe
