// Attention over a KV cache in one piece as an operation by itself.
#pragma once

#include <vector>

#include "operator_pool.h"
#include "operators.h"

namespace qe {

class AttentionOperator {
 public:
  // What qe_operator_attention says; the call is sound.
  void compute(const qe_attention& call, OperatorPool& pool, float* out);
  // As many threads as there are now need buffers.
  void reset() { scratch_.clear(); }

 private:
  // Consecutive rows of one sequence, attended together.
  struct Block {
    int sequence, first_row, rows, first_position, splits, first_part;
  };
  // One KV head of a block over one part of the context.
  struct Item {
    int block, kv_head, split;
  };

  void prepare(const qe_attention& call, int threads);
  void plan(const qe_attention& call, int threads);
  void attend_item(const Kernels& kernels, const qe_attention& call, const Item& item,
                   AttentionScratch& scratch, float* out);
  void merge_parts(const qe_attention& call, const Block& block, int kv_head,
                   AttentionScratch& scratch, float* out) const;
  static AttentionState& gather(const Kernels& kernels, const qe_attention& call,
                                const Block& block, int kv_head, int first_split, int splits,
                                AttentionScratch& scratch);
  static void write(const qe_attention& call, const Block& block, int kv_head,
                    const AttentionState& state, float* out);

  int max_queries_ = 0, group_ = 0, head_dim_ = 0;
  std::vector<AttentionScratch> scratch_;  // of each thread
  std::vector<Block> blocks_;
  std::vector<Item> items_;
  std::vector<AttentionState> parts_;
};

}  // namespace qe
