// A LoRA adapter (Hu et al. 2021, https://arxiv.org/abs/2106.09685) beside a model: to y = W x it
// adds B (A x) times a scale, where A has few rows. Nothing of the model changes.
#pragma once

#include <memory>
#include <vector>

#include "memory.h"
#include "model.h"

namespace qe {

enum Projection { kQueryPart, kKeyPart, kValuePart, kOutputPart, kGatePart, kUpPart, kDownPart };
constexpr int kProjections = 7;
constexpr Input kInputOf[kProjections] = {kQkv, kQkv, kQkv, kOutput, kGateUp, kGateUp, kDown};

// A and B of one projection as a file has them, row-major: A [rank, in], B [out, rank], of a dense
// type, any alignment.
struct AdapterPart {
  int layer;
  int projection;
  int rank;
  Type a_type, b_type;
  float scale;
  const uint8_t *a, *b;
};

constexpr int kMostRank = 64;

// Held in fp16, each matrix times a power of two that brings its largest value to [1, 2): exact for
// bf16 weights that are not much smaller than the largest. The powers and the scale are applied to
// A x in fp32.
class Adapter {
 public:
  // The A matrices of all projections that read the same input, stacked: [tiles, in, 16]. Columns
  // are in the order in which the model's matrices take the activations.
  struct Down {
    const uint16_t* weights = nullptr;
    const float* factor = nullptr;  // [tiles * 16]
    int tiles = 0, cols = 0;
  };
  // B of one projection: [tiles of the projection, rank, 16]. Its part of A x begins at `first`.
  struct Up {
    const uint16_t* weights = nullptr;
    int rank = 0, first = 0;
  };
  struct Layer {
    Down down[kInputs];
    Up up[kProjections];
  };

  // Throws Error(kFormat) for parts that do not fit the model, or weights that are not finite.
  Adapter(const Model& model, const AdapterPart* parts, int n, int threads);

  const Layer& layer(int i) const { return layers_[i]; }
  // The most values of A x that one input has, a multiple of 16.
  int width() const { return width_; }
  size_t bytes() const { return weights_.bytes() + factors_.bytes(); }
  const ModelConfig& config() const { return config_; }

 private:
  void check(const AdapterPart* parts, int n) const;
  void place(const AdapterPart* parts, int n);
  void fill(const AdapterPart& part, const int32_t* order);

  ModelConfig config_;
  std::vector<Layer> layers_;
  int width_ = 0;
  AlignedArray<uint16_t> weights_;
  AlignedArray<float> factors_;
};

}  // namespace qe
