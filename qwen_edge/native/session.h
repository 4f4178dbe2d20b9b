// A model at work: KV caches of several sequences, scratch memory, threads, and the forward pass.
#pragma once

#include <memory>
#include <vector>

#include "activations.h"
#include "adapter.h"
#include "attention.h"
#include "kv_cache.h"
#include "model.h"
#include "thread_pool.h"

namespace qe {

struct SessionParams {
  int context;          // the most positions of a sequence
  int sequences;        // how many KV caches
  int max_rows;         // the most rows of one call
  int threads;          // of a call of one row
  int prefill_threads;  // of a call of several rows
  KvType kv_type;
  bool fp32_activations;
};

struct Row {
  int32_t sequence, position, token, wants_logits;
};

class Session {
 public:
  Session(const Model& model, const IsaTable& isa, const SessionParams& params);

  // Computes the rows in one pass over the weights. Rows of a sequence continue it in order. Throws
  // Error or std::bad_alloc before anything has changed.
  void forward(const Row* rows, int n);

  // Logits [vocab] of the i-th row of the last call that wanted them.
  const float* logits(int i) const { return logits_.data() + i * logits_stride_; }
  int logits_rows() const { return static_cast<int>(logit_rows_.size()); }

  // Threads of calls of one row and of several, at most those it was made with, and where they run:
  // ThreadPool::place.
  void place(int threads, int prefill_threads, const cpu_set_t& cores, const cpu_set_t& rest);
  const SessionParams& params() const { return params_; }
  KvSequence& sequence(int index);
  void truncate(int sequence, int length);
  void fork(int source, int target, int length);
  // For measurements: see KvSequence::stretch.
  void stretch(int sequence, int length);
  // Null for none. Forgets all positions: their keys and values are another adapter's.
  void set_adapter(const Adapter* adapter);
  // Bytes of scratch memory held now, the KV cache apart.
  size_t scratch_bytes() const;

 private:
  // Consecutive rows of one sequence, attended together.
  struct RowBlock {
    int sequence, first_row, rows, first_position, splits;
  };
  // What one thread needs for itself.
  struct ThreadScratch {
    Activations normed;        // [1, hidden]
    AlignedArray<float> gate;  // some columns of all rows
    AlignedArray<float> up;
    // A row before its columns are put into an order; empty if the model has no orders.
    AlignedArray<float> unordered;
    AttentionScratch attention;
  };
  // One KV head of a block over one part of the context.
  struct AttentionItem {
    int block, kv_head, split;
  };
  // The softmax of one query head over one part of the context.
  struct Partial {
    float maximum, total;
  };

  void balance_norms();
  void check_rows(const Row* rows, int n) const;
  void reserve_positions();
  void prepare_row(int i);
  void plan_blocks();
  void plan_items();
  void run_thread(int thread);
  void run_layer(int layer, int thread);
  void normalize_row(const float* weight, const int32_t* order, int row, int thread,
                     Activations& out, int out_row, int out_rows);
  void arrange(Activations& rows, int cols, const int32_t* order, int thread);
  template <typename Body>
  void share_normalized(const float* weight, const int32_t* order, const std::vector<int>* rows,
                        const Adapter::Down& down, int thread, int total, int step,
                        const Body& body);
  void reduce(const Adapter::Down& down, const Activations& input, int row_begin, int row_end,
              int tile_begin, int tile_end);
  void share_reduced(const Adapter::Down& down, const Activations& input, int thread);
  void add_adapted(const Adapter::Up& up, int tile, int tiles, float* out, size_t out_stride) const;
  void project_qkv(const LayerWeights& weights, const Adapter::Layer& adapter, int thread);
  void attention(int layer, int thread);
  void store_keys_values(int layer, int row, int kv_head);
  void prepare_queries(int layer, const RowBlock& block, int kv_head, AttentionScratch& scratch);
  void attend_item(int layer, const AttentionItem& item, AttentionScratch& scratch);
  void finish_block(int layer, const RowBlock& block, int kv_head, const AttentionState& state);
  size_t first_partial(int block, int kv_head, int split) const;
  void store_partial(const AttentionItem& item, const AttentionState& state);
  void merge_splits(int layer, int block, int kv_head, AttentionState& state);
  void project_add(const Matrix& weights, const Activations& input, const Adapter::Up& up,
                   int thread);
  void feed_forward(const LayerWeights& weights, const Adapter::Layer& adapter, int thread);
  void feed_forward_groups(const LayerWeights& weights, const Adapter::Layer& adapter,
                           const Activations& input, int begin, int end, ThreadScratch& scratch);
  void compute_logits(int thread);
  void linear(const Matrix& weights, const Activations& input, int rows, int tile_begin,
              int tile_end, float* out, size_t out_stride) const;
  int row_chunk(int rows) const;

  const Model& model_;
  Kernels kernels_;
  SessionParams params_;
  KvShape kv_shape_;
  ThreadPool pool_;
  std::vector<std::unique_ptr<KvSequence>> sequences_;
  std::vector<float> query_norms_, key_norms_;  // [layers, head_dim]

  Activations hidden_;     // the residual stream; only its fp32 rows are used
  Activations normed_;     // [max_rows, hidden]
  Activations attended_;   // [max_rows, heads * head_dim]
  Activations activated_;  // [max_rows, intermediate]
  AlignedArray<float> qkv_;
  AlignedArray<float> projected_;
  AlignedArray<float> cosine_, sine_;  // [max_rows, head_dim / 2]
  AlignedArray<float> logits_;
  const Adapter* adapter_ = nullptr;
  AlignedArray<float> reduced_;  // A x of an adapter: [max_rows, its width]
  size_t qkv_stride_ = 0, key_offset_ = 0, value_offset_ = 0, logits_stride_ = 0;
  std::vector<ThreadScratch> threads_;

  // The call in progress.
  std::vector<Row> rows_;
  std::vector<int> logit_rows_;
  std::vector<RowBlock> blocks_;
  std::vector<AttentionItem> items_;
  std::vector<float> partial_outputs_;
  std::vector<Partial> partials_;
  std::vector<int> first_partial_;  // of each block
  bool fused_store_ = false, split_ = false;
  // Of calls of few rows, as the last one showed.
  bool long_phases_ = false;
  int active_ = 1;
};

}  // namespace qe
