#include "operator_attention.h"

#include <algorithm>
#include <cmath>

namespace qe {
namespace {

void store(const Kernels& kernels, const qe_attention& call, int row, int kv_head) {
  const KvType type = static_cast<KvType>(call.kv_type);
  const int index = call.kv_type;
  const size_t block_size = kv_block_bytes(type, call.head_dim);
  const int64_t position = call.position[row];
  uint8_t* keys = call.cache + ((call.sequence[row] * call.kv_heads + kv_head) * 2 * call.blocks +
                                position / kKvBlock) *
                                   block_size;
  const size_t at = static_cast<size_t>(kv_head) * call.head_dim;
  const auto store_key =
      kernels.reference ? kernels.reference->store_key[index] : kernels.isa->store_key[index];
  const auto store_value =
      kernels.reference ? kernels.reference->store_value[index] : kernels.isa->store_value[index];
  const int slot = static_cast<int>(position % kKvBlock);
  store_key(keys, slot, call.key + row * call.key_stride + at, call.head_dim);
  store_value(keys + call.blocks * block_size, slot, call.value + row * call.value_stride + at,
              call.head_dim);
}

}  // namespace

void AttentionOperator::plan(const qe_attention& call, int threads) {
  blocks_.clear();
  items_.clear();
  for (int i = 0; i < call.n;) {
    int end = i + 1;
    while (end < call.n && end - i < kBlockRows && call.sequence[end] == call.sequence[i] &&
           call.position[end] == call.position[end - 1] + 1) {
      ++end;
    }
    blocks_.push_back(
        {static_cast<int>(call.sequence[i]), i, end - i, static_cast<int>(call.position[i]), 1, 0});
    i = end;
  }
  const int tasks = static_cast<int>(blocks_.size()) * call.kv_heads;
  size_t parts = 0;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    Block& block = blocks_[b];
    if (threads > 1 && block.rows == 1 && tasks < kTasksPerThread * threads) {
      block.splits = block.first_position / kSplitPositions + 1;
    }
    block.first_part = static_cast<int>(parts);
    if (block.splits > 1) parts += static_cast<size_t>(call.kv_heads) * block.splits;
    for (int h = 0; h < call.kv_heads; ++h) {
      for (int s = 0; s < block.splits; ++s) items_.push_back({static_cast<int>(b), h, s});
    }
  }
  const int group = call.heads / call.kv_heads;
  while (parts_.size() < parts) parts_.emplace_back(group, call.head_dim);
}

// The softmax of a block's queries over some parts of the context. Parts are merged in the same
// order and the same pieces whoever computes them, for the same result.
AttentionState& AttentionOperator::gather(const Kernels& kernels, const qe_attention& call,
                                          const Block& block, int kv_head, int first_split,
                                          int splits, AttentionScratch& scratch) {
  const KvType type = static_cast<KvType>(call.kv_type);
  const int group = call.heads / call.kv_heads, queries = block.rows * group;
  const size_t block_size = kv_block_bytes(type, call.head_dim);
  const uint8_t* keys =
      call.cache + (static_cast<size_t>(block.sequence) * call.kv_heads + kv_head) * 2 *
                       call.blocks * block_size;
  const KvHead head(keys, keys + call.blocks * block_size, kChunkBlocks * block_size);
  const float factor = 1.0f / std::sqrt(static_cast<float>(call.head_dim));
  for (int r = 0; r < block.rows; ++r) {
    const float* query = call.query + (block.first_row + r) * call.query_stride +
                         static_cast<size_t>(kv_head) * group * call.head_dim;
    float* out = &scratch.queries[static_cast<size_t>(r) * group * call.head_dim];
    for (int d = 0; d < group * call.head_dim; ++d) out[d] = query[d] * factor;
  }
  const int positions = block.first_position + block.rows;
  if (splits > 1) scratch.whole.clear(queries, call.head_dim);
  for (int split = first_split; split < first_split + splits; ++split) {
    const int begin = split * kSplitPositions;
    attend(kernels, head, type, call.head_dim, block.first_position, block.rows, group, begin,
           std::min(positions, begin + kSplitPositions), scratch);
    for (int i = 0; splits > 1 && i < queries; ++i) {
      merge(&scratch.part.output[static_cast<size_t>(i) * call.head_dim], scratch.part.maximum[i],
            scratch.part.total[i], call.head_dim, scratch.whole, i);
    }
  }
  return splits > 1 ? scratch.whole : scratch.part;
}

void AttentionOperator::write(const qe_attention& call, const Block& block, int kv_head,
                              const AttentionState& state, float* out) {
  const int group = call.heads / call.kv_heads;
  for (int i = 0; i < block.rows * group; ++i) {
    const size_t row = block.first_row + i / group;
    float* to = out + (row * call.heads + kv_head * group + i % group) * call.head_dim;
    const float* from = &state.output[static_cast<size_t>(i) * call.head_dim];
    const float inverse = 1.0f / state.total[i];
    for (int d = 0; d < call.head_dim; ++d) to[d] = from[d] * inverse;
  }
}

// Models of other shapes may take turns.
void AttentionOperator::prepare(const qe_attention& call, int threads) {
  const int group = call.heads / call.kv_heads;
  const int queries = std::min(call.n, kBlockRows) * group;
  if (max_queries_ < queries || group_ != group || head_dim_ != call.head_dim) {
    scratch_.clear();
    parts_.clear();
    max_queries_ = queries;
    group_ = group;
    head_dim_ = call.head_dim;
  }
  while (static_cast<int>(scratch_.size()) < threads) {
    scratch_.emplace_back(max_queries_, head_dim_);
  }
}

void AttentionOperator::attend_item(const Kernels& kernels, const qe_attention& call,
                                    const Item& item, AttentionScratch& scratch, float* out) {
  const Block& block = blocks_[item.block];
  if (block.splits == 1) {
    const int all = (block.first_position + block.rows - 1) / kSplitPositions + 1;
    write(call, block, item.kv_head, gather(kernels, call, block, item.kv_head, 0, all, scratch),
          out);
    return;
  }
  const AttentionState& state = gather(kernels, call, block, item.kv_head, item.split, 1, scratch);
  AttentionState& part = parts_[block.first_part + item.kv_head * block.splits + item.split];
  std::copy_n(state.output.data(), static_cast<size_t>(group_) * call.head_dim, part.output.data());
  std::copy_n(state.maximum.data(), group_, part.maximum.data());
  std::copy_n(state.total.data(), group_, part.total.data());
}

void AttentionOperator::merge_parts(const qe_attention& call, const Block& block, int kv_head,
                                    AttentionScratch& scratch, float* out) const {
  if (block.splits == 1) return;
  scratch.whole.clear(group_, call.head_dim);
  for (int s = 0; s < block.splits; ++s) {
    const AttentionState& part = parts_[block.first_part + kv_head * block.splits + s];
    for (int g = 0; g < group_; ++g) {
      merge(&part.output[static_cast<size_t>(g) * call.head_dim], part.maximum[g], part.total[g],
            call.head_dim, scratch.whole, g);
    }
  }
  write(call, block, kv_head, scratch.whole, out);
}

void AttentionOperator::compute(const qe_attention& call, OperatorPool& pool, float* out) {
  const Kernels kernels = kernels_for(call.fp32 != 0);
  prepare(call, pool.size());
  plan(call, pool.active(call.n));
  bool split = false;
  for (const Block& block : blocks_) split = split || block.splits > 1;
  // With a single row nobody reads what another item writes.
  const bool stores = call.n == 1 && !split;
  pool.run(call.n, [&](int thread) {
    if (!stores) {
      pool.share(thread, call.n, 1, [&](int row, int) {
        for (int h = 0; h < call.kv_heads; ++h) store(kernels, call, row, h);
      });
    }
    pool.share(thread, static_cast<int>(items_.size()), 1, [&](int i, int) {
      if (stores) store(kernels, call, 0, items_[i].kv_head);
      attend_item(kernels, call, items_[i], scratch_[thread], out);
    });
    if (!split) return;
    const int merges = static_cast<int>(blocks_.size()) * call.kv_heads;
    pool.share(thread, merges, 1, [&](int i, int) {
      merge_parts(call, blocks_[i / call.kv_heads], i % call.kv_heads, scratch_[thread], out);
    });
  });
}

}  // namespace qe
