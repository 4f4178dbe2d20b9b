// Draws the next token from the logits, touching the whole vocabulary as few times as it can.
#pragma once

#include <cstdint>
#include <vector>

#include "isa/isa.h"

namespace qe {

struct SamplingParams {
  float temperature, top_p, min_p, repetition_penalty, presence_penalty;
  int top_k;
  uint64_t seed;
};

struct Candidate {
  int32_t id;
  float logit;
};

// The n largest logits, best first (ties: the smaller id first).
void largest(const IsaTable& isa, const float* logits, int vocab, int n,
             std::vector<Candidate>* out);

class Sampler {
 public:
  Sampler(const IsaTable& isa, int vocab, const SamplingParams& params);

  void set_bias(const int32_t* ids, const float* bias, int n);
  void set_allowed(const uint32_t* bits);
  void accept(int token, bool generated);
  int sample(float* logits);

 private:
  struct Change {
    int32_t id;
    float original;
  };

  void adjust(float* logits);
  void restore(float* logits);
  void require_candidates() const;
  int draw(const float* logits);
  int pick(double total);
  int draw_from_all(const float* logits, float maximum, double total);
  double uniform();

  const IsaTable& isa_;
  int vocab_;
  SamplingParams params_;
  uint64_t state_;
  std::vector<std::pair<int32_t, float>> bias_;
  std::vector<uint32_t> allowed_;
  // How a token was met: bit 0 anywhere, bit 1 in the answer.
  std::vector<uint8_t> seen_;
  std::vector<int32_t> seen_ids_;
  std::vector<Change> changes_;
  std::vector<float> masked_;
  std::vector<Candidate> candidates_;
  std::vector<float> scaled_;
};

}  // namespace qe
