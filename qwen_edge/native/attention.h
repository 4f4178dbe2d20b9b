// Attention of a few rows of one sequence over its KV cache, one KV head at a time.
#pragma once

#include "isa/isa.h"
#include "kv_cache.h"
#include "memory.h"

namespace qe {

// The kernels of a session: the fast table, or fp32 activations throughout.
struct Kernels {
  const IsaTable* isa;
  const ReferenceTable* reference;  // null unless fp32 activations are asked for
};

// What some queries have gathered over some positions: a softmax without its division.
struct AttentionState {
  AttentionState() = default;
  AttentionState(int queries, int head_dim)
      : output(static_cast<size_t>(queries) * head_dim), maximum(queries), total(queries) {}

  AlignedArray<float> output;   // [queries, head_dim]: sum of exp(score - maximum) * value
  AlignedArray<float> maximum;  // [queries]: largest score, -infinity where no position was seen
  AlignedArray<float> total;    // [queries]: sum of exp(score - maximum)

  void clear(int queries, int head_dim);
  size_t bytes() const { return output.bytes() + maximum.bytes() + total.bytes(); }
};

// Adds what a query gathered over further positions to query `at` of `state`. Parts
// merged in the same order give the same bits, whoever computed them.
void merge(const float* output, float maximum, float total, int head_dim, AttentionState& state,
           int at);

// Where the blocks of one KV head lie: in the chunks of a sequence, or all in one piece.
class KvHead {
 public:
  KvHead(const KvSequence& sequence, int layer, int head)
      : sequence_(&sequence), layer_(layer), head_(head) {}
  KvHead(const uint8_t* keys, const uint8_t* values, size_t chunk_bytes)
      : keys_(keys), values_(values), chunk_bytes_(chunk_bytes) {}

  const uint8_t* keys(int chunk) const {
    return sequence_ ? sequence_->chunk(chunk).keys(layer_, head_) : keys_ + chunk * chunk_bytes_;
  }
  const uint8_t* values(int chunk) const {
    return sequence_ ? sequence_->chunk(chunk).values(layer_, head_)
                     : values_ + chunk * chunk_bytes_;
  }

 private:
  const KvSequence* sequence_ = nullptr;
  int layer_ = 0, head_ = 0;
  const uint8_t *keys_ = nullptr, *values_ = nullptr;
  size_t chunk_bytes_ = 0;
};

// Buffers of one thread for at most max_queries query vectors.
struct AttentionScratch {
  AttentionScratch() = default;
  AttentionScratch(int max_queries, int head_dim);

  AlignedArray<float> queries;  // [max_queries, head_dim], 1/sqrt(head_dim) multiplied in
  AlignedArray<int8_t> codes;   // [max_queries, head_dim]
  AlignedArray<float> scale;    // [max_queries, head_dim / 32]
  AlignedArray<int32_t> sum;    // [max_queries, head_dim / 32]
  AlignedArray<float> scores;   // [max_queries, kChunkPositions]
  AttentionState part;          // over a part of the context
  AttentionState whole;         // over all parts

  size_t bytes() const {
    return queries.bytes() + codes.bytes() + scale.bytes() + sum.bytes() + scores.bytes() +
           part.bytes() + whole.bytes();
  }
};

// Attends from rows at positions first_position .. + n_rows - 1, `group` query heads each, over
// cache positions [begin, end). begin is a multiple of kChunkPositions; row i sees positions up to
// its own. In: scratch.queries, row-major [n_rows, group]. Out: scratch.part.
void attend(const Kernels& kernels, const KvHead& head, KvType kv_type, int head_dim,
            int first_position, int n_rows, int group, int begin, int end,
            AttentionScratch& scratch);

}  // namespace qe
