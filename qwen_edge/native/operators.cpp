#include "operators.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "dispatch.h"
#include "operator_attention.h"
#include "operator_linear.h"
#include "operator_pool.h"
#include "tensor_checks.h"

namespace qe {
namespace {

constexpr int kMostThreads = 254, kMostWeights = 8, kMostRows = 1 << 16;

void check(bool condition, const char* message) {
  if (!condition) throw Error(kArgument, message);
}

struct Operators {
  std::mutex mutex;
  OperatorPool pool;
  LinearOperator linear;
  AttentionOperator attention;
};

// The operators of the process, for one operation at a time. They are never destroyed: threads of
// their own must not outlive them.
class Use {
 public:
  Use() : guard_(instance().mutex) {}
  Operators* operator->() const { return &instance(); }

 private:
  static Operators& instance() {
    static Operators* operators = new Operators;
    return *operators;
  }

  std::lock_guard<std::mutex> guard_;
};

// body(i) for each of n rows; sharing a single one out takes longer than most.
template <typename Body>
void each_row(int n, const Body& body) {
  if (n == 1) return body(0);
  const Use operators;
  operators->pool.run(n, [&](int thread) { operators->pool.share_rows(thread, n, body); });
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
    const qe::Use operators;
    operators->pool.set_threads(threads, prefill_threads);
    operators->attention.reset();
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
    const qe::Use operators;
    operators->linear.compute(matrices, columns, x, x_stride, n, fp32 != 0, operators->pool, out);
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
    qe::each_row(n, [&](int i) {
      qe::dequantize_row(matrix, static_cast<int>(ids[i]),
                         out + static_cast<size_t>(i) * matrix.cols);
    });
  });
}

QE_API int32_t qe_operator_rms_norm(const float* x, int64_t x_stride, const float* weight,
                                    int32_t n, int32_t heads, int32_t cols, float eps, float* out) {
  return qe::guarded([&] {
    qe::check(n >= 1 && n <= qe::kMostRows && heads >= 1 && cols >= 1,
              "the rows to normalize are out of range");
    const qe::IsaTable& isa = qe::active_table();
    qe::each_row(n, [&](int i) {
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
    qe::each_row(n, [&](int i) {
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
    qe::each_row(n, [&](int i) {
      const float* gate = x + i * x_stride;
      isa.silu_mul(gate, gate + cols, cols, out + static_cast<size_t>(i) * cols);
    });
  });
}

QE_API int32_t qe_operator_attention(const qe_attention* call, float* out) {
  return qe::guarded([&] {
    qe::check_attention(*call);
    const qe::Use operators;
    operators->attention.compute(*call, operators->pool, out);
  });
}
