#include "attention.h"

#include <algorithm>
#include <cmath>

namespace qe {

AttentionScratch::AttentionScratch(int max_queries, int head_dim)
    : queries(static_cast<size_t>(max_queries) * head_dim),
      codes(queries.size()),
      scale(queries.size() / kActivationGroup),
      sum(queries.size() / kActivationGroup),
      scores(static_cast<size_t>(max_queries) * kChunkPositions),
      part(max_queries, head_dim),
      whole(max_queries, head_dim) {}

void AttentionState::clear(int queries, int head_dim) {
  std::fill_n(output.data(), static_cast<size_t>(queries) * head_dim, 0.0f);
  std::fill_n(maximum.data(), queries, -INFINITY);
  std::fill_n(total.data(), queries, 0.0f);
}

void merge(const float* output, float maximum, float total, int head_dim, AttentionState& state,
           int at) {
  if (maximum == -INFINITY) return;
  const float largest = std::max(state.maximum[at], maximum);
  const float old_weight = std::exp(state.maximum[at] - largest);
  const float new_weight = std::exp(maximum - largest);
  float* out = &state.output[static_cast<size_t>(at) * head_dim];
  for (int d = 0; d < head_dim; ++d) out[d] = out[d] * old_weight + output[d] * new_weight;
  state.total[at] = state.total[at] * old_weight + total * new_weight;
  state.maximum[at] = largest;
}

namespace {

// Turns one query's scores of a chunk into weights relative to the running maximum.
void softmax_step(const IsaTable& isa, float* scores, int visible, int computed, float* maximum,
                  float* total, float* output, int head_dim) {
  if (visible > 0) {
    const float largest = std::max(*maximum, isa.maximum(scores, visible));
    if (largest > *maximum) {
      const float shrink = std::exp(*maximum - largest);
      *total *= shrink;
      for (int d = 0; d < head_dim; ++d) output[d] *= shrink;
      *maximum = largest;
    }
    *total += isa.exp_sum(scores, visible, *maximum);
  }
  for (int s = std::max(visible, 0); s < computed; ++s) scores[s] = 0;
}

}  // namespace

void attend(const Kernels& kernels, const KvHead& head, KvType kv_type, int head_dim,
            int first_position, int n_rows, int group, int begin, int end,
            AttentionScratch& scratch) {
  const IsaTable& isa = *kernels.isa;
  const int n = n_rows * group, type = static_cast<int>(kv_type);
  const auto scores = kernels.reference ? kernels.reference->scores[type] : isa.scores[type];
  const auto accumulate =
      kernels.reference ? kernels.reference->accumulate[type] : isa.accumulate[type];
  Queries queries{scratch.queries.data(), {}, n};
  if (kv_type != KvType::kF16 && kernels.reference == nullptr) {
    isa.quantize(scratch.queries.data(), n * head_dim, 1, scratch.codes.data(),
                 scratch.scale.data(), scratch.sum.data());
    queries.quantized = {scratch.codes.data(), scratch.scale.data(), scratch.sum.data(), n,
                         head_dim};
  }
  AttentionState& state = scratch.part;
  state.clear(n, head_dim);
  for (int start = begin; start < end; start += kChunkPositions) {
    const int chunk = start / kChunkPositions;
    const int positions = std::min(end - start, kChunkPositions);
    const int blocks = (positions + kKvBlock - 1) / kKvBlock;
    const uint8_t* values = head.values(chunk);
    const uint8_t* next_keys = start + kChunkPositions < end ? head.keys(chunk + 1) : nullptr;
    scores(head.keys(chunk), blocks, head_dim, queries, scratch.scores.data(), kChunkPositions,
           values);
    for (int i = 0; i < n; ++i) {
      const int visible = std::min(first_position + i / group + 1 - start, positions);
      softmax_step(isa, &scratch.scores[static_cast<size_t>(i) * kChunkPositions], visible,
                   blocks * kKvBlock, &state.maximum[i], &state.total[i],
                   &state.output[static_cast<size_t>(i) * head_dim], head_dim);
    }
    accumulate(values, blocks, head_dim, scratch.scores.data(), kChunkPositions, n,
               state.output.data(), head_dim, next_keys);
  }
}

}  // namespace qe
