// The forward pass: every thread runs it from end to end, sharing each phase's work.
#include <algorithm>
#include <cmath>

#include "session.h"
#include "session_limits.h"

namespace qe {

namespace {

const Adapter::Layer kNoAdapter;

}  // namespace

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
  pool_.share(thread, n, 1, [&](int row, int) { prepare_row(row); });
  for (int layer = 0; layer < model_.config.layers; ++layer) run_layer(layer, thread);
  if (!logit_rows_.empty()) compute_logits(thread);
}

void Session::run_layer(int layer, int thread) {
  const LayerWeights& weights = model_.layers[layer];
  const Adapter::Layer& adapter = adapter_ ? adapter_->layer(layer) : kNoAdapter;
  project_qkv(weights, adapter, thread);
  attention(layer, thread);
  arrange(attended_, weights.output.cols, weights.order[kOutput], thread);
  share_reduced(adapter.down[kOutput], attended_, thread);
  project_add(weights.output, attended_, adapter.up[kOutputPart], thread);
  feed_forward(weights, adapter, thread);
  arrange(activated_, weights.down.cols, weights.order[kDown], thread);
  share_reduced(adapter.down[kDown], activated_, thread);
  project_add(weights.down, activated_, adapter.up[kDownPart], thread);
}

void Session::normalize_row(const float* weight, const int32_t* order, int row, int thread,
                            Activations& out, int out_row, int out_rows) {
  const int hidden = model_.config.hidden;
  float* normed = order ? threads_[thread].unordered.data() : out.row(out_row);
  kernels_.isa->rms_norm(hidden_.row(row), weight, hidden, model_.config.rms_eps, normed);
  for (int c = 0; order && c < hidden; ++c) out.row(out_row)[c] = normed[order[c]];
  if (kernels_.reference == nullptr) out.quantize(*kernels_.isa, out_row, out_rows, 0, hidden);
}

// Puts the columns of all rows into an order, if one is given, and quantizes them, which was left
// to this.
void Session::arrange(Activations& rows, int cols, const int32_t* order, int thread) {
  if (order == nullptr) return;
  const int n = static_cast<int>(rows_.size());
  float* unordered = threads_[thread].unordered.data();
  pool_.share(thread, n, row_chunk(n), [&](int begin, int end) {
    for (int i = begin; i < end; ++i) {
      float* row = rows.row(i);
      std::copy_n(row, cols, unordered);
      for (int c = 0; c < cols; ++c) row[c] = unordered[order[c]];
      if (kernels_.reference == nullptr) rows.quantize(*kernels_.isa, i, n, 0, cols);
    }
  });
}

// A phase in which body(input, begin, end) sees the normalized and quantized residual rows (those
// listed, or all), their columns in an order if one is given. Several rows are normalized in a
// phase before it. A single one is cheaper to compute in every thread than to wait for, but not
// before the thread has items: until then the others may be anywhere, and the row with them.
template <typename Body>
void Session::share_normalized(const float* weight, const int32_t* order,
                               const std::vector<int>* rows, const Adapter::Down& down, int thread,
                               int total, int step, const Body& body) {
  const int n = rows ? static_cast<int>(rows->size()) : static_cast<int>(rows_.size());
  const auto source = [&](int i) { return rows ? (*rows)[i] : i; };
  if (n > 1) {
    pool_.share(thread, n, row_chunk(n), [&](int begin, int end) {
      for (int i = begin; i < end; ++i) {
        normalize_row(weight, order, source(i), thread, normed_, i, n);
      }
      reduce(down, normed_, begin, end, 0, down.tiles);
    });
    pool_.share_shrinking(thread, total, step,
                          [&](int begin, int end) { body(normed_, begin, end); });
    return;
  }
  Activations& own = threads_[thread].normed;
  bool ready = false;
  const auto prepare = [&] {
    if (!ready) normalize_row(weight, order, source(0), thread, own, 0, 1);
    ready = true;
  };
  if (down.tiles > 0) {
    pool_.share(thread, down.tiles, 1, [&](int begin, int end) {
      prepare();
      reduce(down, own, 0, 1, begin, end);
    });
  }
  pool_.share_shrinking(thread, total, step, [&](int begin, int end) {
    prepare();
    body(own, begin, end);
  });
}

// An adapter's A x for some rows of its input.
void Session::reduce(const Adapter::Down& down, const Activations& input, int row_begin,
                     int row_end, int tile_begin, int tile_end) {
  if (tile_begin == tile_end) return;
  const size_t stride = adapter_->width();
  const int lane = tile_begin * kTileRows, lanes = (tile_end - tile_begin) * kTileRows;
  float* out = reduced_.data() + row_begin * stride + lane;
  for (int i = 0; i < row_end - row_begin; ++i) std::fill_n(out + i * stride, lanes, 0.0f);
  kernels_.isa->add_low_rank(down.weights + static_cast<size_t>(lane) * down.cols,
                             tile_end - tile_begin, down.cols, input.row(row_begin), input.cols(),
                             row_end - row_begin, out, stride);
  for (int i = 0; i < row_end - row_begin; ++i) {
    for (int r = 0; r < lanes; ++r) out[i * stride + r] *= down.factor[lane + r];
  }
}

// The same as a phase of its own, of all rows.
void Session::share_reduced(const Adapter::Down& down, const Activations& input, int thread) {
  const int rows = static_cast<int>(rows_.size());
  if (down.tiles == 0) return;
  if (rows == 1) {
    pool_.share(thread, down.tiles, 1,
                [&](int begin, int end) { reduce(down, input, 0, 1, begin, end); });
  } else {
    pool_.share(thread, rows, row_chunk(rows),
                [&](int begin, int end) { reduce(down, input, begin, end, 0, down.tiles); });
  }
}

// Adds an adapter's part of a projection to some of its tiles, which begin at `out`.
void Session::add_adapted(const Adapter::Up& up, int tile, int tiles, float* out,
                          size_t out_stride) const {
  if (up.rank == 0) return;
  kernels_.isa->add_low_rank(up.weights + static_cast<size_t>(tile) * kTileRows * up.rank, tiles,
                             up.rank, reduced_.data() + up.first, adapter_->width(),
                             static_cast<int>(rows_.size()), out, out_stride);
}

void Session::project_qkv(const LayerWeights& weights, const Adapter::Layer& adapter, int thread) {
  const struct {
    const Matrix* matrix;
    const Adapter::Up* up;
    size_t offset;
  } parts[] = {{&weights.query, &adapter.up[kQueryPart], 0},
               {&weights.key, &adapter.up[kKeyPart], key_offset_},
               {&weights.value, &adapter.up[kValuePart], value_offset_}};
  const int total = weights.query.tiles() + weights.key.tiles() + weights.value.tiles();
  const int rows = static_cast<int>(rows_.size());
  const auto project = [&](const Activations& input, int begin, int end) {
    int first = 0;
    for (const auto& part : parts) {
      const int from = std::max(begin - first, 0);
      const int to = std::min(end - first, part.matrix->tiles());
      if (from < to) {
        float* out = qkv_.data() + part.offset;
        linear(*part.matrix, input, rows, from, to, out, qkv_stride_);
        add_adapted(*part.up, from, to - from, out + from * kTileRows, qkv_stride_);
      }
      first += part.matrix->tiles();
    }
  };
  share_normalized(weights.input_norm, weights.order[kQkv], nullptr, adapter.down[kQkv], thread,
                   total, kTileStep, project);
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

void Session::finish_block(int layer, const RowBlock& block, int kv_head,
                           const AttentionState& state) {
  const ModelConfig& c = model_.config;
  const int group = c.heads / c.kv_heads;
  const bool ready = kernels_.reference == nullptr && !model_.layers[layer].order[kOutput];
  for (int r = 0; r < block.rows; ++r) {
    const int row = block.first_row + r;
    for (int g = 0; g < group; ++g) {
      const size_t i = static_cast<size_t>(r) * group + g;
      const float* output = &state.output[i * c.head_dim];
      const int column = (kv_head * group + g) * c.head_dim;
      float* out = attended_.row(row) + column;
      const float inverse = 1.0f / state.total[i];
      for (int d = 0; d < c.head_dim; ++d) out[d] = output[d] * inverse;
      if (ready) {
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
    attend(kernels_, KvHead(*sequences_[block.sequence], layer, item.kv_head), kv_shape_.type,
           c.head_dim, block.first_position, block.rows, group, begin,
           std::min(positions, begin + kSplitPositions), scratch);
  };
  if (block.splits > 1) {
    attend_part(item.split);
    store_partial(item, scratch.part);
    return;
  }
  if (positions <= kSplitPositions) {
    attend_part(0);
    finish_block(layer, block, item.kv_head, scratch.part);
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
  finish_block(layer, block, item.kv_head, scratch.whole);
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

void Session::merge_splits(int layer, int block_index, int kv_head, AttentionState& state) {
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
  finish_block(layer, block, kv_head, state);
}

void Session::attention(int layer, int thread) {
  const int kv_heads = model_.config.kv_heads;
  AttentionScratch& scratch = threads_[thread].attention;
  if (!fused_store_) {
    const int rows = static_cast<int>(rows_.size());
    pool_.share(thread, rows, 1, [&](int row, int) {
      for (int h = 0; h < kv_heads; ++h) store_keys_values(layer, row, h);
    });
  }
  pool_.share(thread, static_cast<int>(items_.size()), 1,
              [&](int item, int) { attend_item(layer, items_[item], scratch); });
  if (split_) {
    const int merges = static_cast<int>(blocks_.size()) * kv_heads;
    pool_.share(thread, merges, 1, [&](int i, int) {
      if (blocks_[i / kv_heads].splits > 1) {
        merge_splits(layer, i / kv_heads, i % kv_heads, scratch.whole);
      }
    });
  }
}

void Session::project_add(const Matrix& weights, const Activations& input, const Adapter::Up& up,
                          int thread) {
  const int rows = static_cast<int>(rows_.size());
  const size_t stride = hidden_.cols();
  pool_.share_shrinking(thread, weights.tiles(), kTileStep, [&](int begin, int end) {
    linear(weights, input, rows, begin, end, projected_.data(), stride);
    const int column = begin * kTileRows;
    add_adapted(up, begin, end - begin, projected_.data() + column, stride);
    const int columns = std::min(end * kTileRows, weights.rows) - column;
    for (int i = 0; i < rows; ++i) {
      kernels_.isa->add(hidden_.row(i) + column, projected_.data() + i * stride + column, columns);
    }
  });
}

void Session::feed_forward(const LayerWeights& weights, const Adapter::Layer& adapter, int thread) {
  constexpr int kTiles = kFeedForwardColumns / kTileRows;
  const int groups = (weights.gate.tiles() + kTiles - 1) / kTiles;
  const int room = static_cast<int>(threads_[thread].gate.size()) / kFeedForwardColumns;
  const int most = std::clamp(room / static_cast<int>(rows_.size()), 1, kFeedForwardGroups);
  share_normalized(weights.post_norm, weights.order[kGateUp], nullptr, adapter.down[kGateUp],
                   thread, groups, 1, [&](const Activations& input, int begin, int end) {
                     for (int group = begin; group < end; group += most) {
                       feed_forward_groups(weights, adapter, input, group,
                                           std::min(end, group + most), threads_[thread]);
                     }
                   });
}

// Gate, up and their product for some groups of columns.
void Session::feed_forward_groups(const LayerWeights& weights, const Adapter::Layer& adapter,
                                  const Activations& input, int begin, int end,
                                  ThreadScratch& scratch) {
  constexpr int kTiles = kFeedForwardColumns / kTileRows;
  const int rows = static_cast<int>(rows_.size()), stride = (end - begin) * kFeedForwardColumns;
  const auto slice = [](Matrix matrix, int tile, int tile_count) {
    const size_t row_bytes = matrix.type == Type::kF32 ? 4 : 2;
    matrix.data +=
        matrix.group > 0 ? tile * matrix.tile_bytes() : tile * kTileRows * row_bytes * matrix.cols;
    matrix.rows = std::min(matrix.rows - tile * kTileRows, tile_count * kTileRows);
    return matrix;
  };
  const bool ready = kernels_.reference == nullptr && !weights.order[kDown];
  const bool keep = !ready || weights.down.group == 0 || adapter.down[kDown].tiles > 0;
  const int tile = begin * kTiles, column = begin * kFeedForwardColumns;
  const int tiles = std::min(weights.gate.tiles(), end * kTiles) - tile;
  const Matrix gate = slice(weights.gate, tile, tiles);
  linear(gate, input, rows, 0, tiles, scratch.gate.data(), stride);
  linear(slice(weights.up, tile, tiles), input, rows, 0, tiles, scratch.up.data(), stride);
  add_adapted(adapter.up[kGatePart], tile, tiles, scratch.gate.data(), stride);
  add_adapted(adapter.up[kUpPart], tile, tiles, scratch.up.data(), stride);
  for (int i = 0; i < rows; ++i) {
    const size_t at = static_cast<size_t>(i) * stride;
    // Only kernels and adapters that take fp32 activations need them for longer than this, and
    // whoever puts them into another order.
    float* out = keep ? activated_.row(i) + column : &scratch.gate[at];
    kernels_.isa->silu_mul(&scratch.gate[at], &scratch.up[at], gate.rows, out);
    if (ready) {
      // The last group may be narrower than the others.
      if (!keep) std::fill(out + gate.rows, out + stride, 0.0f);
      activated_.quantize(*kernels_.isa, i, rows, column, out, gate.rows);
    }
  }
}

void Session::compute_logits(int thread) {
  const int rows = static_cast<int>(logit_rows_.size());
  share_normalized(model_.final_norm, nullptr, &logit_rows_, kNoAdapter.down[kQkv], thread,
                   model_.head.tiles(), kTileStep,
                   [&](const Activations& input, int begin, int end) {
                     linear(model_.head, input, rows, begin, end, logits_.data(), logits_stride_);
                   });
}

}  // namespace qe
