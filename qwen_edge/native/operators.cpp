#include "operators.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "activations.h"
#include "attention.h"
#include "dispatch.h"
#include "session_limits.h"
#include "tensor_checks.h"
#include "thread_pool.h"

namespace qe {
namespace {

constexpr int kPhases = 3;
// About a millisecond: from one operation to the next Python may be at work, and a thread that
// sleeps takes longer to wake than many an operation to compute.
constexpr int kSpins = 30000;
// Threads that read ahead, how far, how much at a time, and how often the calling thread does so
// before it returns.
constexpr int kMostAhead = 16, kCallerSteps = 32;
constexpr size_t kAheadBytes = 256 << 10, kAheadStep = 1024;
constexpr int kMostThreads = 256, kMostWeights = 8, kMostRows = 1 << 16;

void check(bool condition, const char* message) {
  if (!condition) throw Error(kArgument, message);
}

// Consecutive rows of one sequence, attended together.
struct Block {
  int sequence, first_row, rows, first_position, splits, first_part;
};

struct Item {
  int block, kv_head, split;
};

class Operators {
 public:
  void set_threads(int threads, int prefill_threads) {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (threads == threads_ && prefill_threads == prefill_threads_) return;
    pool_.reset();
    threads_ = threads;
    prefill_threads_ = prefill_threads;
    scratch_.clear();
  }

  void linear(const std::vector<Matrix>& weights, const int32_t* order, const float* x,
              int64_t x_stride, int n, bool fp32, float* out);
  // body(i) for each of n rows.
  template <typename Body>
  void each_row(int n, const Body& body) {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (n == 1) return body(0);
    run(n, [&](int thread) {
      pool_->share(thread, n, std::clamp(n / (active(n) * 2), 1, 16), [&](int begin, int end) {
        for (int i = begin; i < end; ++i) body(i);
      });
    });
  }
  void embed(const Matrix& weight, const int64_t* ids, int n, float* out);
  void attend_rows(const qe_attention& call, float* out);

 private:
  // The weights that followed others the last time, by the address of the first: where each thread
  // begins. While Python gets to the next operation, threads read ahead there.
  struct Ahead {
    std::atomic<const uint8_t*> begin[kMostAhead] = {};
    std::atomic<size_t> bytes[kMostAhead] = {};
  };

  ThreadPool& pool() {
    if (!pool_) {
      const ThreadPool::Idle idle{kSpins,
                                  [](const void* context, int thread, int count) {
                                    static_cast<const Operators*>(context)->fetch(thread, count);
                                  },
                                  this};
      pool_ = std::make_unique<ThreadPool>(std::max(threads_, prefill_threads_), kPhases, idle);
    }
    return *pool_;
  }
  int active(int n) const { return n == 1 ? threads_ : prefill_threads_; }
  template <typename Job>
  void run(int n, const Job& job) {
    pool().run(active(n), n >= kLongPhaseRows, job);
  }
  Activations& input(int n, int cols);
  void foresee(const std::vector<Matrix>& weights, int n);
  void note(const std::vector<Matrix>& weights, Ahead* ahead) const;
  void fetch(int thread, int count) const;
  void plan(const qe_attention& call);
  AttentionState& gather(const Kernels& kernels, const qe_attention& call, const Block& block,
                         int kv_head, int first_split, int splits, AttentionScratch& scratch);

  std::mutex mutex_;
  int threads_ = 1, prefill_threads_ = 1;
  std::unique_ptr<ThreadPool> pool_;
  // Rows of activations, by their columns.
  struct Input {
    int rows;
    Activations activations;
  };
  std::map<int, Input> inputs_;
  AlignedArray<float> padded_;
  std::unordered_map<const void*, Ahead> following_;
  const void* previous_ = nullptr;
  std::atomic<const Ahead*> ahead_{nullptr};
  int max_queries_ = 0, group_ = 0, head_dim_ = 0;
  std::vector<AttentionScratch> scratch_;  // of each thread
  std::vector<Block> blocks_;
  std::vector<Item> items_;
  std::vector<AttentionState> parts_;
};

// For the process: its threads are, too. Never destroyed, since its threads must not outlive it.
Operators& operators() {
  static Operators* instance = new Operators;
  return *instance;
}

Kernels kernels_for(bool fp32) {
  if (fp32) return {scalar_table(), &reference_table()};
  return {&active_table(), nullptr};
}

Activations& Operators::input(int n, int cols) {
  Input& found = inputs_[cols];
  if (found.rows < n) found = {n, Activations(n, cols)};
  return found.activations;
}

// Notes what follows what, for a single row: in a pass over a model it is always the same.
void Operators::foresee(const std::vector<Matrix>& weights, int n) {
  ahead_.store(nullptr, std::memory_order_relaxed);
  if (n > 1) {
    previous_ = nullptr;
    return;
  }
  if (previous_) note(weights, &following_[previous_]);
  previous_ = weights[0].data;
  const auto next = following_.find(previous_);
  if (next != following_.end()) ahead_.store(&next->second, std::memory_order_release);
}

void Operators::note(const std::vector<Matrix>& weights, Ahead* ahead) const {
  int tiles = 0;
  for (const Matrix& w : weights) tiles += w.tiles();
  for (int thread = 0; thread < std::min(threads_, kMostAhead); ++thread) {
    // Where ThreadPool::share_shrinking has the thread begin.
    int64_t tile = int64_t{tiles / kTileStep} * thread / threads_ * kTileStep;
    for (const Matrix& w : weights) {
      if (tile < w.tiles()) {
        const size_t bytes = w.group > 0 ? (w.tiles() - tile) * w.tile_bytes() : 0;
        ahead->begin[thread].store(bytes > 0 ? w.data + tile * w.tile_bytes() : nullptr,
                                   std::memory_order_relaxed);
        ahead->bytes[thread].store(std::min(bytes, kAheadBytes), std::memory_order_relaxed);
        break;
      }
      tile -= w.tiles();
    }
  }
}

// A hint to the processor: what it names need not be there any more.
void Operators::fetch(int thread, int count) const {
  const Ahead* ahead = ahead_.load(std::memory_order_acquire);
  if (ahead == nullptr || thread >= kMostAhead) return;
  const size_t at = count * kAheadStep;
  if (at >= ahead->bytes[thread].load(std::memory_order_relaxed)) return;
  const uint8_t* begin = ahead->begin[thread].load(std::memory_order_relaxed) + at;
  for (size_t i = 0; i < kAheadStep; i += 64) __builtin_prefetch(begin + i, 0, 2);
}

void multiply(const Kernels& kernels, const Matrix& w, const float* x, int64_t x_stride,
              const QuantizedRows& quantized, int n, int begin, int end, float* out,
              size_t out_stride) {
  if (kernels.reference) {
    kernels.reference->linear(w, x, x_stride, n, begin, end, out, out_stride);
  } else if (w.type == Type::kQ4) {
    kernels.isa->linear_q4(w, quantized, begin, end, out, out_stride);
  } else if (w.type == Type::kQ8) {
    kernels.isa->linear_q8(w, quantized, begin, end, out, out_stride);
  } else {
    kernels.isa->linear_dense(w, x, x_stride, n, begin, end, out, out_stride);
  }
}

void Operators::linear(const std::vector<Matrix>& weights, const int32_t* order, const float* x,
                       int64_t x_stride, int n, bool fp32, float* out) {
  const std::lock_guard<std::mutex> guard(mutex_);
  const Kernels kernels = kernels_for(fp32);
  foresee(weights, n);
  const int cols = weights[0].cols;
  int tiles = 0, rows = 0;
  bool quantizes = false, whole_tiles = true;
  for (const Matrix& w : weights) {
    tiles += w.tiles();
    rows += w.rows;
    quantizes = quantizes || (w.group > 0 && !fp32);
    whole_tiles = whole_tiles && w.rows % kTileRows == 0;
  }
  Activations& rows_in = input(n, cols);
  // What is not whole groups is continued with zeros.
  const bool copies = order != nullptr || cols % kActivationGroup != 0;
  const float* read = copies ? rows_in.row(0) : x;
  const int64_t read_stride = copies ? rows_in.cols() : x_stride;
  const auto prepare = [&](int i) {
    const float* row = x + i * x_stride;
    if (copies) {
      float* to = rows_in.row(i);
      for (int c = 0; c < cols; ++c) to[c] = row[order ? order[c] : c];
      row = to;
    }
    if (quantizes) rows_in.quantize(*kernels.isa, i, n, 0, row, cols);
  };
  // A kernel writes whole tiles: where those are wider than the matrix, not to where others lie.
  const size_t stride = whole_tiles ? rows : static_cast<size_t>(tiles) * kTileRows;
  if (!whole_tiles && padded_.size() < n * stride) padded_.reset(n * stride);
  float* target = whole_tiles ? out : padded_.data();
  // A single row takes less time than it would to share it.
  if (n == 1) prepare(0);
  run(n, [&](int thread) {
    if (n > 1) {
      const int step = std::clamp(n / (active(n) * 2), 1, 16);
      pool_->share(thread, n, step, [&](int begin, int end) {
        for (int i = begin; i < end; ++i) prepare(i);
      });
    }
    pool_->share_shrinking(thread, tiles, kTileStep, [&](int begin, int end) {
      int first = 0;
      for (const Matrix& w : weights) {
        const int from = std::max(begin - first, 0), to = std::min(end - first, w.tiles());
        if (from < to) {
          multiply(kernels, w, read, read_stride, rows_in.quantized(n), n, from, to,
                   target + static_cast<size_t>(first) * kTileRows, stride);
        }
        first += w.tiles();
      }
    });
  });
  for (int count = 0; count < kCallerSteps; ++count) fetch(0, count);
  if (whole_tiles) return;
  for (int i = 0; i < n; ++i) {
    const float* from = target + i * stride;
    for (const Matrix& w : weights) {
      out = std::copy_n(from, w.rows, out);
      from += static_cast<size_t>(w.tiles()) * kTileRows;
    }
  }
}

void Operators::embed(const Matrix& weight, const int64_t* ids, int n, float* out) {
  each_row(n, [&](int i) {
    dequantize_row(weight, static_cast<int>(ids[i]), out + static_cast<size_t>(i) * weight.cols);
  });
}

void Operators::plan(const qe_attention& call) {
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
    if (active(call.n) > 1 && block.rows == 1 && tasks < kTasksPerThread * active(call.n)) {
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
AttentionState& Operators::gather(const Kernels& kernels, const qe_attention& call,
                                  const Block& block, int kv_head, int first_split, int splits,
                                  AttentionScratch& scratch) {
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

void write(const qe_attention& call, const Block& block, int kv_head, const AttentionState& state,
           float* out) {
  const int group = call.heads / call.kv_heads;
  for (int i = 0; i < block.rows * group; ++i) {
    const size_t row = block.first_row + i / group;
    float* to = out + (row * call.heads + kv_head * group + i % group) * call.head_dim;
    const float* from = &state.output[static_cast<size_t>(i) * call.head_dim];
    const float inverse = 1.0f / state.total[i];
    for (int d = 0; d < call.head_dim; ++d) to[d] = from[d] * inverse;
  }
}

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

void Operators::attend_rows(const qe_attention& call, float* out) {
  const std::lock_guard<std::mutex> guard(mutex_);
  const Kernels kernels = kernels_for(call.fp32 != 0);
  const int group = call.heads / call.kv_heads;
  const int queries = std::min(call.n, kBlockRows) * group;
  // Models of other shapes may take turns.
  if (max_queries_ < queries || group_ != group || head_dim_ != call.head_dim) {
    scratch_.clear();
    parts_.clear();
    max_queries_ = queries;
    group_ = group;
    head_dim_ = call.head_dim;
  }
  while (static_cast<int>(scratch_.size()) < pool().size()) {
    scratch_.emplace_back(max_queries_, head_dim_);
  }
  plan(call);
  bool split = false;
  for (const Block& block : blocks_) split = split || block.splits > 1;
  // With a single row nobody reads what another item writes.
  const bool stores = call.n == 1 && !split;
  run(call.n, [&](int thread) {
    AttentionScratch& scratch = scratch_[thread];
    if (!stores) {
      pool_->share(thread, call.n, 1, [&](int row, int) {
        for (int h = 0; h < call.kv_heads; ++h) store(kernels, call, row, h);
      });
    }
    pool_->share(thread, static_cast<int>(items_.size()), 1, [&](int i, int) {
      const Item& item = items_[i];
      const Block& block = blocks_[item.block];
      if (stores) store(kernels, call, 0, item.kv_head);
      if (block.splits > 1) {
        const AttentionState& state =
            gather(kernels, call, block, item.kv_head, item.split, 1, scratch);
        AttentionState& part = parts_[block.first_part + item.kv_head * block.splits + item.split];
        const int group = call.heads / call.kv_heads;
        std::copy_n(state.output.data(), static_cast<size_t>(group) * call.head_dim,
                    part.output.data());
        std::copy_n(state.maximum.data(), group, part.maximum.data());
        std::copy_n(state.total.data(), group, part.total.data());
        return;
      }
      const int all = (block.first_position + block.rows - 1) / kSplitPositions + 1;
      write(call, block, item.kv_head, gather(kernels, call, block, item.kv_head, 0, all, scratch),
            out);
    });
    if (!split) return;
    const int merges = static_cast<int>(blocks_.size()) * call.kv_heads;
    pool_->share(thread, merges, 1, [&](int i, int) {
      const Block& block = blocks_[i / call.kv_heads];
      const int kv_head = i % call.kv_heads, group = call.heads / call.kv_heads;
      if (block.splits == 1) return;
      scratch.whole.clear(group, call.head_dim);
      for (int s = 0; s < block.splits; ++s) {
        const AttentionState& part = parts_[block.first_part + kv_head * block.splits + s];
        for (int g = 0; g < group; ++g) {
          merge(&part.output[static_cast<size_t>(g) * call.head_dim], part.maximum[g],
                part.total[g], call.head_dim, scratch.whole, g);
        }
      }
      write(call, block, kv_head, scratch.whole, out);
    });
  });
}

Matrix checked(const qe_tensor& tensor) {
  const QeLayout& l = tensor.layout;
  require(l.rows >= 1 && l.rows <= kLargestDimension && l.cols >= 1 && l.cols <= kLargestDimension,
          "a weight's shape is out of range");
  return matrix(tensor, l.rows, l.cols, "of an operator");
}

void check_attention(const qe_attention& a) {
  check(a.n >= 1 && a.n <= kMostRows, "the number of rows is out of range");
  check(a.heads >= 1 && a.kv_heads >= 1 && a.heads % a.kv_heads == 0 && a.heads <= kMostRows,
        "the numbers of heads do not fit each other");
  check(a.head_dim >= kActivationGroup && a.head_dim <= 1024 && a.head_dim % kActivationGroup == 0,
        "the head dimension must be a multiple of 32 up to 1024");
  check(a.kv_type >= 0 && a.kv_type < (a.fp32 ? kReferenceKvTypes : kKvTypes),
        "the type of the KV cache is unknown, or f32 without fp32 activations");
  for (int i = 0; i < a.n; ++i) {
    check(a.sequence[i] >= 0 && a.sequence[i] < a.sequences, "a sequence is out of range");
    check(a.position[i] >= 0 && a.position[i] < int64_t{a.blocks} * kKvBlock,
          "a position is beyond the KV cache");
  }
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_operators_threads(int32_t threads, int32_t prefill_threads) {
  return qe::guarded([&] {
    const auto in_range = [](int n) { return n >= 1 && n <= qe::kMostThreads; };
    qe::check(in_range(threads) && in_range(prefill_threads),
              "the number of threads is out of range");
    qe::operators().set_threads(threads, prefill_threads);
  });
}

QE_API int32_t qe_operator_linear(const qe_tensor* weights, int32_t n_weights,
                                  const qe_order* order, const float* x, int64_t x_stride,
                                  int32_t n, int32_t cols, int32_t fp32, float* out,
                                  uint64_t out_size) {
  return qe::guarded([&] {
    qe::check(n_weights >= 1 && n_weights <= qe::kMostWeights,
              "the number of weights is out of range");
    qe::check(n >= 1 && n <= qe::kMostRows, "the number of rows is out of range");
    std::vector<qe::Matrix> matrices;
    uint64_t rows = 0;
    for (int i = 0; i < n_weights; ++i) {
      matrices.push_back(qe::checked(weights[i]));
      qe::check(matrices[i].cols == cols, "a weight has other columns than the activations");
      rows += matrices[i].rows;
    }
    qe::check(rows * n == out_size, "the result has not the size of the weights' rows");
    const int32_t* columns = order->data;
    if (columns) {
      qe::check(order->count == static_cast<uint64_t>(cols), "the order has another length");
      bool inside = true;
      for (int c = 0; c < cols; ++c) inside &= columns[c] >= 0 && columns[c] < cols;
      qe::check(inside, "the order points outside the columns");
    }
    qe::operators().linear(matrices, columns, x, x_stride, n, fp32 != 0, out);
  });
}

QE_API int32_t qe_operator_embedding(const qe_tensor* weight, const int64_t* ids, int32_t n,
                                     float* out, uint64_t out_size) {
  return qe::guarded([&] {
    const qe::Matrix matrix = qe::checked(*weight);
    qe::check(n >= 1 && n <= qe::kMostRows && out_size == static_cast<uint64_t>(n) * matrix.cols,
              "the result has another size than the embeddings");
    for (int i = 0; i < n; ++i) {
      qe::check(ids[i] >= 0 && ids[i] < matrix.rows, "an id is outside the vocabulary");
    }
    qe::operators().embed(matrix, ids, n, out);
  });
}

QE_API int32_t qe_operator_rms_norm(const float* x, int64_t x_stride, const float* weight,
                                    int32_t n, int32_t heads, int32_t cols, float eps, float* out) {
  return qe::guarded([&] {
    qe::check(n >= 1 && n <= qe::kMostRows && heads >= 1 && cols >= 1,
              "the rows to normalize are out of range");
    const qe::IsaTable& isa = qe::active_table();
    qe::operators().each_row(n, [&](int i) {
      for (int h = 0; h < heads; ++h) {
        const size_t at = static_cast<size_t>(h) * cols;
        isa.rms_norm(x + i * x_stride + at, weight, cols, eps,
                     out + static_cast<size_t>(i) * heads * cols + at);
      }
    });
  });
}

QE_API int32_t qe_operator_rotate(const float* x, int64_t x_stride, const float* cosine,
                                  const float* sine, int32_t n, int32_t heads, int32_t head_dim,
                                  float* out) {
  return qe::guarded([&] {
    qe::check(n >= 1 && n <= qe::kMostRows && heads >= 1 && head_dim >= 2 && head_dim % 2 == 0,
              "the heads to rotate are out of range");
    const qe::IsaTable& isa = qe::active_table();
    const int half = head_dim / 2;
    qe::operators().each_row(n, [&](int i) {
      float* to = out + static_cast<size_t>(i) * heads * head_dim;
      std::copy_n(x + i * x_stride, static_cast<size_t>(heads) * head_dim, to);
      for (int h = 0; h < heads; ++h) {
        isa.rope(to + static_cast<size_t>(h) * head_dim, cosine + static_cast<size_t>(i) * half,
                 sine + static_cast<size_t>(i) * half, half);
      }
    });
  });
}

QE_API int32_t qe_operator_silu_mul(const float* x, int64_t x_stride, int32_t n, int32_t cols,
                                    float* out) {
  return qe::guarded([&] {
    qe::check(n >= 1 && n <= qe::kMostRows && cols >= 1, "the rows are out of range");
    const qe::IsaTable& isa = qe::active_table();
    qe::operators().each_row(n, [&](int i) {
      const float* gate = x + i * x_stride;
      isa.silu_mul(gate, gate + cols, cols, out + static_cast<size_t>(i) * cols);
    });
  });
}

QE_API int32_t qe_operator_attention(const qe_attention* call, float* out) {
  return qe::guarded([&] {
    qe::check_attention(*call);
    qe::operators().attend_rows(*call, out);
  });
}
