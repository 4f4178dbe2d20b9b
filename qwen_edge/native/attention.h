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

// Buffers of one thread for at most max_queries query vectors.
class AttentionScratch {
 public:
  AttentionScratch() = default;
  AttentionScratch(int max_queries, int head_dim);

  AlignedArray<float> queries;  // [max_queries, head_dim], 1/sqrt(head_dim) multiplied in
  AlignedArray<int8_t> codes;   // [max_queries, head_dim]
  AlignedArray<float> scale;    // [max_queries, head_dim / 32]
  AlignedArray<int32_t> sum;    // [max_queries, head_dim / 32]
  AlignedArray<float> scores;   // [max_queries, kChunkPositions]
  AlignedArray<float> output;   // [max_queries, head_dim], not yet divided by total
  AlignedArray<float> maximum;  // [max_queries]
  AlignedArray<float> total;    // [max_queries]

  size_t bytes() const {
    return queries.bytes() + codes.bytes() + scale.bytes() + sum.bytes() + scores.bytes() +
           output.bytes() + maximum.bytes() + total.bytes();
  }
};

// Attends from rows at positions first_position .. + n_rows - 1, `group` query heads each, over
// cache positions [begin, end). begin is a multiple of kChunkPositions; row i sees positions up to
// its own. In: scratch.queries, row-major [n_rows, group]. Out: scratch.output, maximum (of the
// scores, -infinity if no position is seen) and total (of exp(score - maximum)).
void attend(const Kernels& kernels, const KvSequence& sequence, const KvShape& shape, int layer,
            int kv_head, int first_position, int n_rows, int group, int begin, int end,
            AttentionScratch& scratch);

}  // namespace qe
