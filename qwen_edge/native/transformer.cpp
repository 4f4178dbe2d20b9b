// The forward pass: every thread runs it from end to end, sharing each phase's work through a
// counter and meeting the others between phases.
#include <algorithm>
#include <cmath>

#include "session.h"
#include "session_limits.h"

namespace qe {

WorkCounter& Session::counter(int thread) { return counters_[threads_[thread].phase++]; }

// Neighbouring rows share cache lines: as many of them as possible go to one thread.
int Session::row_chunk(int rows) const { return std::clamp(rows / (active_ * 2), 1, 16); }

void Session::linear(const Matrix& weights, const Activations& input, int rows, int tile_begin,
                     int tile_end, float* out, size_t out_stride) const {
  if (kernels_.reference) {
    kernels_.reference->linear(weights, input.row(0), input.cols(), rows, tile_begin, tile_end, out,
                               out_stride);
  } else if (weights.type == Type::kQ4) {
    kernels_.isa->linear_q4(weights, input.quantized(rows), tile_begin, tile_end, out, out_stride);
  } else if (weights.type == Type::kQ8) {
    kernels_.isa->linear_q8(weights, input.quantized(rows), tile_begin, tile_end, out, out_stride);
  } else {
    kernels_.isa->linear_dense(weights, input.row(0), input.cols(), rows, tile_begin, tile_end, out,
                               out_stride);
  }
}

void Session::run_thread(int thread) {
  const int n = static_cast<int>(rows_.size());
  int begin, end;
  WorkCounter& work = counter(thread);
  while (work.take(n, 1, &begin, &end)) prepare_row(begin);
  pool_.barrier();
  for (int layer = 0; layer < model_.config.layers; ++layer) run_layer(layer, thread);
  if (!logit_rows_.empty()) compute_logits(thread);
}

void Session::run_layer(int layer, int thread) {
  const LayerWeights& weights = model_.layers[layer];
  project_qkv(weights, normalize(weights.input_norm, nullptr, thread), thread);
  pool_.barrier();
  attention(layer, thread);
  pool_.barrier();
  project_add(weights.output, attended_, thread);
  pool_.barrier();
  feed_forward(weights, normalize(weights.post_norm, nullptr, thread), thread);
  pool_.barrier();
  project_add(weights.down, activated_, thread);
  pool_.barrier();
}

// Normalizes and quantizes the residual rows (those listed, or all). A single row is cheaper to
// compute in every thread than to wait for.
const Activations& Session::normalize(const float* weight, const std::vector<int>* rows,
                                      int thread) {
  const int n = rows ? static_cast<int>(rows->size()) : static_cast<int>(rows_.size());
  const int hidden = model_.config.hidden;
  const auto compute = [&](int i, Activations& out, int out_row) {
    kernels_.isa->rms_norm(hidden_.row(rows ? (*rows)[i] : i), weight, hidden,
                           model_.config.rms_eps, out.row(out_row));
    if (kernels_.reference == nullptr) out.quantize(*kernels_.isa, out_row, n, 0, hidden);
  };
  if (n == 1) {
    compute(0, threads_[thread].normed, 0);
    return threads_[thread].normed;
  }
  int begin, end;
  WorkCounter& work = counter(thread);
  while (work.take(n, row_chunk(n), &begin, &end)) {
    for (int i = begin; i < end; ++i) compute(i, normed_, i);
  }
  pool_.barrier();
  return normed_;
}

void Session::project_qkv(const LayerWeights& weights, const Activations& input, int thread) {
  const struct {
    const Matrix* matrix;
    size_t offset;
  } parts[] = {{&weights.query, 0}, {&weights.key, key_offset_}, {&weights.value, value_offset_}};
  const int total = weights.query.tiles() + weights.key.tiles() + weights.value.tiles();
  const int rows = static_cast<int>(rows_.size());
  int begin, end;
  WorkCounter& work = counter(thread);
  while (work.take_share(total, kTileStep, active_, &begin, &end)) {
    int first = 0;
    for (const auto& part : parts) {
      const int from = std::max(begin - first, 0);
      const int to = std::min(end - first, part.matrix->tiles());
      if (from < to) {
        linear(*part.matrix, input, rows, from, to, qkv_.data() + part.offset, qkv_stride_);
      }
      first += part.matrix->tiles();
    }
  }
}

void Session::store_keys_values(int layer, int row, int kv_head) {
  const ModelConfig& c = model_.config;
  const int half = c.head_dim / 2, type = static_cast<int>(kv_shape_.type);
  float* key =
      qkv_.data() + row * qkv_stride_ + key_offset_ + static_cast<size_t>(kv_head) * c.head_dim;
  const float* value = key + (value_offset_ - key_offset_);
  kernels_.isa->rms_norm(key, &key_norms_[static_cast<size_t>(layer) * c.head_dim], c.head_dim,
                         c.rms_eps, key);
  kernels_.isa->rope(key, &cosine_[static_cast<size_t>(row) * half],
                     &sine_[static_cast<size_t>(row) * half], half);
  const int position = rows_[row].position % kChunkPositions;
  KvChunk& chunk = sequences_[rows_[row].sequence]->chunk(rows_[row].position / kChunkPositions);
  const size_t block = position / kKvBlock * kv_block_bytes(kv_shape_.type, c.head_dim);
  const auto store_key =
      kernels_.reference ? kernels_.reference->store_key[type] : kernels_.isa->store_key[type];
  const auto store_value =
      kernels_.reference ? kernels_.reference->store_value[type] : kernels_.isa->store_value[type];
  store_key(chunk.keys(layer, kv_head) + block, position % kKvBlock, key, c.head_dim);
  store_value(chunk.values(layer, kv_head) + block, position % kKvBlock, value, c.head_dim);
}

void Session::prepare_queries(int layer, const RowBlock& block, int kv_head,
                              AttentionScratch& scratch) {
  const ModelConfig& c = model_.config;
  const int group = c.heads / c.kv_heads, half = c.head_dim / 2;
  const float factor = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  for (int r = 0; r < block.rows; ++r) {
    const size_t row = block.first_row + r;
    const float* query =
        qkv_.data() + row * qkv_stride_ + static_cast<size_t>(kv_head) * group * c.head_dim;
    for (int g = 0; g < group; ++g) {
      float* out = &scratch.queries[(static_cast<size_t>(r) * group + g) * c.head_dim];
      kernels_.isa->rms_norm(query + static_cast<size_t>(g) * c.head_dim,
                             &query_norms_[static_cast<size_t>(layer) * c.head_dim], c.head_dim,
                             c.rms_eps, out);
      kernels_.isa->rope(out, &cosine_[row * half], &sine_[row * half], half);
      for (int d = 0; d < c.head_dim; ++d) out[d] *= factor;
    }
  }
}

void Session::finish_block(const RowBlock& block, int kv_head, const AttentionState& state) {
  const ModelConfig& c = model_.config;
  const int group = c.heads / c.kv_heads;
  for (int r = 0; r < block.rows; ++r) {
    const int row = block.first_row + r;
    for (int g = 0; g < group; ++g) {
      const size_t i = static_cast<size_t>(r) * group + g;
      const float* output = &state.output[i * c.head_dim];
      const int column = (kv_head * group + g) * c.head_dim;
      float* out = attended_.row(row) + column;
      const float inverse = 1.0f / state.total[i];
      for (int d = 0; d < c.head_dim; ++d) out[d] = output[d] * inverse;
      if (kernels_.reference == nullptr) {
        attended_.quantize(*kernels_.isa, row, static_cast<int>(rows_.size()), column,
                           column + c.head_dim);
      }
    }
  }
}

void Session::attend_item(int layer, const AttentionItem& item, AttentionScratch& scratch) {
  const ModelConfig& c = model_.config;
  const RowBlock& block = blocks_[item.block];
  const int group = c.heads / c.kv_heads;
  if (fused_store_) store_keys_values(layer, block.first_row, item.kv_head);
  prepare_queries(layer, block, item.kv_head, scratch);
  const int positions = block.first_position + block.rows, queries = block.rows * group;
  const auto attend_part = [&](int part) {
    const int begin = part * kSplitPositions;
    attend(kernels_, *sequences_[block.sequence], kv_shape_, layer, item.kv_head,
           block.first_position, block.rows, group, begin,
           std::min(positions, begin + kSplitPositions), scratch);
  };
  if (block.splits > 1) {
    attend_part(item.split);
    store_partial(item, scratch.part);
    return;
  }
  if (positions <= kSplitPositions) {
    attend_part(0);
    finish_block(block, item.kv_head, scratch.part);
    return;
  }
  // In the same parts as when several threads share the context, for the same result.
  scratch.whole.clear(queries, c.head_dim);
  for (int part = 0; part * kSplitPositions < positions; ++part) {
    attend_part(part);
    for (int i = 0; i < queries; ++i) {
      merge(&scratch.part.output[static_cast<size_t>(i) * c.head_dim], scratch.part.maximum[i],
            scratch.part.total[i], c.head_dim, scratch.whole, i);
    }
  }
  finish_block(block, item.kv_head, scratch.whole);
}

size_t Session::first_partial(int block, int kv_head, int split) const {
  const int group = model_.config.heads / model_.config.kv_heads;
  return first_partial_[block] +
         (static_cast<size_t>(kv_head) * blocks_[block].splits + split) * group;
}

void Session::store_partial(const AttentionItem& item, const AttentionState& state) {
  const ModelConfig& c = model_.config;
  const int group = c.heads / c.kv_heads;
  const size_t first = first_partial(item.block, item.kv_head, item.split);
  for (int g = 0; g < group; ++g) partials_[first + g] = {state.maximum[g], state.total[g]};
  std::copy_n(state.output.data(), static_cast<size_t>(group) * c.head_dim,
              &partial_outputs_[first * c.head_dim]);
}

void Session::merge_splits(int block_index, int kv_head, AttentionState& state) {
  const ModelConfig& c = model_.config;
  const RowBlock& block = blocks_[block_index];
  const int group = c.heads / c.kv_heads;
  state.clear(group, c.head_dim);
  for (int s = 0; s < block.splits; ++s) {
    const size_t first = first_partial(block_index, kv_head, s);
    for (int g = 0; g < group; ++g) {
      merge(&partial_outputs_[(first + g) * c.head_dim], partials_[first + g].maximum,
            partials_[first + g].total, c.head_dim, state, g);
    }
  }
  finish_block(block, kv_head, state);
}

void Session::attention(int layer, int thread) {
  const int kv_heads = model_.config.kv_heads;
  AttentionScratch& scratch = threads_[thread].attention;
  int begin, end;
  if (!fused_store_) {
    WorkCounter& work = counter(thread);
    while (work.take(static_cast<int>(rows_.size()), 1, &begin, &end)) {
      for (int h = 0; h < kv_heads; ++h) store_keys_values(layer, begin, h);
    }
    pool_.barrier();
  }
  WorkCounter& work = counter(thread);
  while (work.take(static_cast<int>(items_.size()), 1, &begin, &end)) {
    attend_item(layer, items_[begin], scratch);
  }
  if (split_) {
    pool_.barrier();
    WorkCounter& merges = counter(thread);
    while (merges.take(static_cast<int>(blocks_.size()) * kv_heads, 1, &begin, &end)) {
      if (blocks_[begin / kv_heads].splits > 1) {
        merge_splits(begin / kv_heads, begin % kv_heads, scratch.whole);
      }
    }
  }
}

void Session::project_add(const Matrix& weights, const Activations& input, int thread) {
  const int tiles = weights.tiles(), rows = static_cast<int>(rows_.size());
  const size_t stride = hidden_.cols();
  int begin, end;
  WorkCounter& work = counter(thread);
  while (work.take_share(tiles, kTileStep, active_, &begin, &end)) {
    linear(weights, input, rows, begin, end, projected_.data(), stride);
    const int column = begin * kTileRows;
    const int columns = std::min(end * kTileRows, weights.rows) - column;
    for (int i = 0; i < rows; ++i) {
      kernels_.isa->add(hidden_.row(i) + column, projected_.data() + i * stride + column, columns);
    }
  }
}

void Session::feed_forward(const LayerWeights& weights, const Activations& input, int thread) {
  constexpr int kTiles = kFeedForwardColumns / kTileRows;
  ThreadScratch& scratch = threads_[thread];
  const int rows = static_cast<int>(rows_.size());
  const int tiles = weights.gate.tiles(), pieces = (tiles + kTiles - 1) / kTiles;
  const auto slice = [](Matrix matrix, int tile, int tile_count) {
    const size_t row_bytes = matrix.type == Type::kF32 ? 4 : 2;
    matrix.data +=
        matrix.group > 0 ? tile * matrix.tile_bytes() : tile * kTileRows * row_bytes * matrix.cols;
    matrix.rows = std::min(matrix.rows - tile * kTileRows, tile_count * kTileRows);
    return matrix;
  };
  const bool keep = kernels_.reference != nullptr || weights.down.group == 0;
  int begin, end;
  WorkCounter& work = counter(thread);
  while (work.take_share(pieces, 1, active_, &begin, &end)) {
    for (int piece = begin; piece < end; ++piece) {
      const int count = std::min(tiles - piece * kTiles, kTiles);
      const int column = piece * kFeedForwardColumns;
      const Matrix gate = slice(weights.gate, piece * kTiles, count);
      linear(gate, input, rows, 0, count, scratch.gate.data(), kFeedForwardColumns);
      linear(slice(weights.up, piece * kTiles, count), input, rows, 0, count, scratch.up.data(),
             kFeedForwardColumns);
      for (int i = 0; i < rows; ++i) {
        const size_t at = static_cast<size_t>(i) * kFeedForwardColumns;
        // Only kernels that take fp32 activations need them for longer than this.
        float* out = keep ? activated_.row(i) + column : &scratch.gate[at];
        kernels_.isa->silu_mul(&scratch.gate[at], &scratch.up[at], gate.rows, out);
        if (kernels_.reference == nullptr) {
          // The last piece may be narrower than a group.
          if (!keep) std::fill(out + gate.rows, out + kFeedForwardColumns, 0.0f);
          activated_.quantize(*kernels_.isa, i, rows, column, out, gate.rows);
        }
      }
    }
  }
}

void Session::compute_logits(int thread) {
  const Activations& input = normalize(model_.final_norm, &logit_rows_, thread);
  const int tiles = model_.head.tiles(), rows = static_cast<int>(logit_rows_.size());
  int begin, end;
  WorkCounter& work = counter(thread);
  while (work.take_share(tiles, kTileStep, active_, &begin, &end)) {
    linear(model_.head, input, rows, begin, end, logits_.data(), logits_stride_);
  }
}

}  // namespace qe
