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
      output(queries.size()),
      maximum(max_queries),
      total(max_queries) {}

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

void attend(const Kernels& kernels, const KvSequence& sequence, const KvShape& shape, int layer,
            int kv_head, int first_position, int n_rows, int group, int begin, int end,
            AttentionScratch& scratch) {
  const IsaTable& isa = *kernels.isa;
  const int head_dim = shape.head_dim, n = n_rows * group, type = static_cast<int>(shape.type);
  const auto scores = kernels.reference ? kernels.reference->scores[type] : isa.scores[type];
  const auto accumulate =
      kernels.reference ? kernels.reference->accumulate[type] : isa.accumulate[type];
  Queries queries{scratch.queries.data(), {}, n};
  if (shape.type == KvType::kI8 && kernels.reference == nullptr) {
    isa.quantize(scratch.queries.data(), n * head_dim, scratch.codes.data(), scratch.scale.data(),
                 scratch.sum.data());
    queries.quantized = {scratch.codes.data(), scratch.scale.data(), scratch.sum.data(), n,
                         head_dim};
  }
  std::fill_n(scratch.output.data(), static_cast<size_t>(n) * head_dim, 0.0f);
  std::fill_n(scratch.maximum.data(), n, -INFINITY);
  std::fill_n(scratch.total.data(), n, 0.0f);
  for (int start = begin; start < end; start += kChunkPositions) {
    KvChunk& chunk = sequence.chunk(start / kChunkPositions);
    const int positions = std::min(end - start, kChunkPositions);
    const int blocks = (positions + kKvBlock - 1) / kKvBlock;
    scores(chunk.keys(layer, kv_head), blocks, head_dim, queries, scratch.scores.data(),
           kChunkPositions);
    for (int i = 0; i < n; ++i) {
      const int visible = std::min(first_position + i / group + 1 - start, positions);
      softmax_step(isa, &scratch.scores[static_cast<size_t>(i) * kChunkPositions], visible,
                   blocks * kKvBlock, &scratch.maximum[i], &scratch.total[i],
                   &scratch.output[static_cast<size_t>(i) * head_dim], head_dim);
    }
    accumulate(chunk.values(layer, kv_head), blocks, head_dim, scratch.scores.data(),
               kChunkPositions, n, scratch.output.data(), head_dim);
  }
}

}  // namespace qe
