// Setting up a session and planning one call; the arithmetic is in transformer.cpp.
#include "session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

#include "session_limits.h"
#include "status.h"

namespace qe {

Session::Session(const Model& model, const IsaTable& isa, const SessionParams& params)
    : model_(model),
      kernels_{&isa, params.fp32_activations ? &reference_table() : nullptr},
      params_(params),
      kv_shape_{params.kv_type, model.config.layers, model.config.kv_heads, model.config.head_dim},
      pool_(std::max(params.threads, params.prefill_threads),
            model.config.layers * kPhasesPerLayer + kPhasesPerCall) {
  const ModelConfig& c = model.config;
  const int rows = params.max_rows;
  hidden_ = Activations(rows, c.hidden);
  normed_ = Activations(rows, c.hidden);
  attended_ = Activations(rows, c.heads * c.head_dim);
  activated_ = Activations(rows, c.intermediate);
  key_offset_ = round_up(c.heads * c.head_dim, kTileRows);
  value_offset_ = key_offset_ + round_up(c.kv_heads * c.head_dim, kTileRows);
  qkv_stride_ = value_offset_ + round_up(c.kv_heads * c.head_dim, kTileRows);
  qkv_.reset(rows * qkv_stride_);
  projected_.reset(static_cast<size_t>(rows) * hidden_.cols());
  cosine_.reset(static_cast<size_t>(rows) * c.head_dim / 2);
  sine_.reset(cosine_.size());
  logits_stride_ = round_up(c.vocab, kTileRows);
  for (int i = 0; i < params.sequences; ++i) {
    sequences_.push_back(std::make_unique<KvSequence>(kv_shape_));
  }
  threads_.reserve(pool_.size());
  const int queries = std::min(rows, kBlockRows) * (c.heads / c.kv_heads);
  size_t unordered = 0;
  for (const LayerWeights& layer : model.layers) {
    for (const int32_t* order : layer.order) {
      if (order) unordered = std::max({c.hidden, c.heads * c.head_dim, c.intermediate});
    }
  }
  const size_t gate = static_cast<size_t>(std::max(rows, kFeedForwardGroups)) * kFeedForwardColumns;
  for (int i = 0; i < pool_.size(); ++i) {
    threads_.push_back({Activations(1, c.hidden), AlignedArray<float>(gate),
                        AlignedArray<float>(gate), AlignedArray<float>(unordered),
                        AttentionScratch(queries, c.head_dim)});
  }
  balance_norms();
}

// Moves what makes some dimensions of the keys larger than others from the keys' norm to the
// queries': their products stay as they are, and a quantized cache does not spend its range on a
// few dimensions. Factors are powers of two, so that nothing is rounded, and the same for the two
// dimensions that rope turns into each other.
void Session::balance_norms() {
  const ModelConfig& c = model_.config;
  const int half = c.head_dim / 2;
  query_norms_.resize(static_cast<size_t>(c.layers) * c.head_dim);
  key_norms_.resize(query_norms_.size());
  for (int layer = 0; layer < c.layers; ++layer) {
    for (int d = 0; d < half; ++d) {
      const float* key = model_.layers[layer].key_norm;
      const float* query = model_.layers[layer].query_norm;
      const double size =
          std::sqrt((double{key[d]} * key[d] + double{key[d + half]} * key[d + half]) / 2);
      const double bits = std::round(std::log2(size));
      // Norms that are 0 or out of all bounds stay as they are.
      const float factor = std::fabs(bits) <= 32 ? static_cast<float>(std::exp2(bits)) : 1.0f;
      for (const int i : {d, d + half}) {
        const size_t at = static_cast<size_t>(layer) * c.head_dim + i;
        key_norms_[at] = key[i] / factor;
        query_norms_[at] = query[i] * factor;
      }
    }
  }
}

KvSequence& Session::sequence(int index) {
  if (index < 0 || index >= params_.sequences) {
    throw Error(kArgument, "there is no sequence " + std::to_string(index));
  }
  return *sequences_[index];
}

void Session::truncate(int index, int length) {
  KvSequence& target = sequence(index);
  if (length < 0 || length > target.length()) {
    throw Error(kArgument, "cannot truncate " + std::to_string(target.length()) + " positions to " +
                               std::to_string(length));
  }
  target.truncate(length);
}

void Session::fork(int source, int target, int length) {
  const KvSequence& from = sequence(source);
  if (length < 0 || length > from.length()) {
    throw Error(kArgument, "cannot fork " + std::to_string(length) + " of " +
                               std::to_string(from.length()) + " positions");
  }
  if (source == target) {
    truncate(source, length);
  } else {
    sequence(target).fork(from, length);
  }
}

void Session::stretch(int index, int length) {
  KvSequence& target = sequence(index);
  if (target.length() < kKvBlock || length < target.length() || length > params_.context) {
    throw Error(kArgument, "cannot stretch " + std::to_string(target.length()) + " positions to " +
                               std::to_string(length));
  }
  target.stretch(length);
}

void Session::set_adapter(const Adapter* adapter) {
  const ModelConfig& c = model_.config;
  AlignedArray<float> reduced;
  int phases = kPhasesPerLayer;
  if (adapter) {
    const ModelConfig& other = adapter->config();
    if (other.layers != c.layers || other.hidden != c.hidden || other.heads != c.heads ||
        other.kv_heads != c.kv_heads || other.head_dim != c.head_dim ||
        other.intermediate != c.intermediate) {
      throw Error(kArgument, "the adapter is of another model");
    }
    reduced.reset(static_cast<size_t>(params_.max_rows) * adapter->width());
    phases += kAdapterPhases;
  }
  pool_.set_phases(c.layers * phases + kPhasesPerCall);
  adapter_ = adapter;
  reduced_ = std::move(reduced);
  for (const auto& sequence : sequences_) sequence->truncate(0);
}

size_t Session::scratch_bytes() const {
  size_t bytes = hidden_.bytes() + normed_.bytes() + attended_.bytes() + activated_.bytes() +
                 qkv_.bytes() + projected_.bytes() + cosine_.bytes() + sine_.bytes() +
                 logits_.bytes() + reduced_.bytes() +
                 (partial_outputs_.capacity() + 2 * partials_.capacity()) * 4;
  for (const ThreadScratch& thread : threads_) {
    bytes += thread.normed.bytes() + thread.gate.bytes() + thread.up.bytes() +
             thread.unordered.bytes() + thread.attention.bytes();
  }
  return bytes;
}

void Session::check_rows(const Row* rows, int n) const {
  if (n < 1 || n > params_.max_rows) {
    throw Error(kArgument, std::to_string(n) + " rows in a call that takes 1 to " +
                               std::to_string(params_.max_rows));
  }
  std::vector<int> next(params_.sequences);
  for (int s = 0; s < params_.sequences; ++s) next[s] = sequences_[s]->length();
  for (int i = 0; i < n; ++i) {
    const Row& row = rows[i];
    if (row.sequence < 0 || row.sequence >= params_.sequences) {
      throw Error(kArgument, "there is no sequence " + std::to_string(row.sequence));
    }
    if (row.token < 0 || row.token >= model_.config.vocab) {
      throw Error(kArgument, "there is no token " + std::to_string(row.token));
    }
    if (row.position != next[row.sequence]) {
      throw Error(kArgument, "position " + std::to_string(row.position) + " does not follow on " +
                                 std::to_string(next[row.sequence]));
    }
    if (++next[row.sequence] > params_.context) {
      throw Error(kArgument,
                  "the context of " + std::to_string(params_.context) + " positions is full");
    }
  }
}

void Session::reserve_positions() {
  std::vector<int> end(params_.sequences, 0);
  for (const Row& row : rows_) end[row.sequence] = row.position + 1;
  for (int s = 0; s < params_.sequences; ++s) {
    if (end[s] > 0) sequences_[s]->reserve(end[s]);
  }
}

void Session::prepare_row(int i) {
  const int half = model_.config.head_dim / 2;
  for (int k = 0; k < half; ++k) {
    const double angle = rows_[i].position * model_.inverse_frequency[k];
    cosine_[static_cast<size_t>(i) * half + k] = static_cast<float>(std::cos(angle));
    sine_[static_cast<size_t>(i) * half + k] = static_cast<float>(std::sin(angle));
  }
  dequantize_row(model_.embedding, rows_[i].token, hidden_.row(i));
}

void Session::plan_blocks() {
  blocks_.clear();
  const int n = static_cast<int>(rows_.size());
  bool single_rows = true;
  std::vector<int> blocks_of(params_.sequences, 0);
  for (int i = 0; i < n;) {
    int end = i + 1;
    while (end < n && end - i < kBlockRows && rows_[end].sequence == rows_[i].sequence) ++end;
    blocks_.push_back({rows_[i].sequence, i, end - i, rows_[i].position, 1});
    single_rows = single_rows && end - i == 1 && ++blocks_of[rows_[i].sequence] == 1;
    i = end;
  }
  // With one row a sequence nobody reads what another item writes, so that storing the keys and
  // values needs no phase of its own.
  fused_store_ = single_rows;
}

void Session::plan_items() {
  const ModelConfig& c = model_.config;
  const int tasks = static_cast<int>(blocks_.size()) * c.kv_heads;
  const int group = c.heads / c.kv_heads;
  items_.clear();
  first_partial_.clear();
  split_ = false;
  size_t partials = 0;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    RowBlock& block = blocks_[b];
    const int positions = block.first_position + block.rows;
    if (active_ > 1 && block.rows == 1 && tasks < kTasksPerThread * active_) {
      block.splits = (positions + kSplitPositions - 1) / kSplitPositions;
    }
    first_partial_.push_back(static_cast<int>(partials));
    if (block.splits > 1) {
      partials += static_cast<size_t>(c.kv_heads) * block.splits * group;
      split_ = true;
    }
    for (int h = 0; h < c.kv_heads; ++h) {
      for (int s = 0; s < block.splits; ++s) items_.push_back({static_cast<int>(b), h, s});
    }
  }
  if (split_) {
    fused_store_ = false;
    partials_.resize(partials);
    partial_outputs_.resize(partials * c.head_dim);
  }
}

void Session::place(int threads, int prefill_threads, const cpu_set_t& cores,
                    const cpu_set_t& rest) {
  const int most = pool_.size();
  if (threads < 1 || prefill_threads < 1 || threads > most || prefill_threads > most) {
    throw Error(kArgument, "the number of threads is more than the session has, or less than one");
  }
  params_.threads = threads;
  params_.prefill_threads = prefill_threads;
  pool_.place(threads, cores, rest);
}

void Session::forward(const Row* rows, int n) {
  check_rows(rows, n);
  rows_.assign(rows, rows + n);
  logit_rows_.clear();
  for (int i = 0; i < n; ++i) {
    if (rows[i].wants_logits) logit_rows_.push_back(i);
  }
  if (logits_.size() < logit_rows_.size() * logits_stride_) {
    logits_.reset(logit_rows_.size() * logits_stride_);
  }
  active_ = n == 1 ? params_.threads : params_.prefill_threads;
  plan_blocks();
  plan_items();
  reserve_positions();
  const auto begin = std::chrono::steady_clock::now();
  pool_.run(active_, n >= kLongPhaseRows || long_phases_,
            [this](int thread) { run_thread(thread); });
  if (n < kLongPhaseRows) {
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    long_phases_ = taken.count() > kLongPhase * pool_.phases_run();
  }
  for (int i = 0; i < n; ++i) sequences_[rows[i].sequence]->set_length(rows[i].position + 1);
}

}  // namespace qe
