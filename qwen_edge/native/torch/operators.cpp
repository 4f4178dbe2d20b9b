// The native operations as operators of torch, through its stable ABI: one build serves every
// version of torch from 2.10 on. A meta implementation for each is in model/operator_shapes.py.
//
// It is compiled by itself, on the machine where torch is, and given the functions of the native
// library when it is loaded, so that neither has to find the other.
#include "../operators.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../isa/isa.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct Functions {
  decltype(&qe_operator_linear) linear;
  decltype(&qe_operator_embedding) embedding;
  decltype(&qe_operator_rms_norm) rms_norm;
  decltype(&qe_operator_rotate) rotate;
  decltype(&qe_operator_silu_mul) silu_mul;
  decltype(&qe_operator_attention) attention;
  decltype(&qe_last_error) last_error;
};
Functions native = {};

void require(bool condition, const char* message) {
  if (!condition) throw std::runtime_error(message);
}

void succeed(int32_t status) {
  if (status != qe::kOk) throw std::runtime_error(native.last_error());
}

// Rows whose elements lie together, whatever the step from one row to the next.
const float* rows_of(const Tensor& x, int dims, const char* name) {
  require(x.dim() == dims && x.scalar_type() == ScalarType::Float && x.is_cpu(), name);
  int64_t step = 1;
  for (int i = dims - 1; i > 0; --i) {
    require(x.size(i) == 1 || x.stride(i) == step, name);
    step *= x.size(i);
  }
  return static_cast<const float*>(x.data_ptr());
}

const int64_t* integers(const Tensor& x, const char* name) {
  require(x.dim() == 1 && x.scalar_type() == ScalarType::Long && x.is_contiguous() && x.is_cpu(),
          name);
  return static_cast<const int64_t*>(x.data_ptr());
}

// The layouts are bytes of a QeLayout each.
qe_tensor operand(const Tensor& weight, const Tensor& layouts, int64_t index) {
  require(layouts.scalar_type() == ScalarType::Byte && layouts.is_contiguous() &&
              layouts.dim() == 2 && layouts.size(1) == sizeof(QeLayout) &&
              index < layouts.size(0) && layouts.is_cpu(),
          "layouts must be bytes [weights, bytes of a layout]");
  require(weight.is_contiguous() && weight.is_cpu(), "a weight must be contiguous");
  qe_tensor result;
  result.data = weight.data_ptr();
  result.bytes = static_cast<uint64_t>(weight.numel()) * weight.element_size();
  std::memcpy(
      &result.layout,
      static_cast<const char*>(layouts.data_ptr()) + static_cast<size_t>(index) * sizeof(QeLayout),
      sizeof(QeLayout));
  return result;
}

Tensor linear(const Tensor& x, const std::vector<Tensor>& weights, const Tensor& layouts,
              const std::optional<Tensor>& order, int64_t rows, bool fp32) {
  const float* data = rows_of(x, 2, "x must be f32 [n, cols] with contiguous rows");
  require(rows >= 1 && static_cast<int64_t>(weights.size()) == layouts.size(0),
          "each weight needs a layout");
  std::vector<qe_tensor> operands;
  for (size_t i = 0; i < weights.size(); ++i) {
    operands.push_back(operand(weights[i], layouts, static_cast<int64_t>(i)));
  }
  qe_order columns = {};
  if (order) {
    require(order->scalar_type() == ScalarType::Int && order->is_contiguous() && order->is_cpu(),
            "an order must be contiguous int32");
    columns = {static_cast<const int32_t*>(order->data_ptr()),
               static_cast<uint64_t>(order->numel())};
  }
  const std::array<int64_t, 2> shape = {x.size(0), rows};
  Tensor out = torch::stable::new_empty(x, shape);
  succeed(native.linear(operands.data(), static_cast<int32_t>(operands.size()), &columns, data,
                        x.stride(0), static_cast<int32_t>(x.size(0)),
                        static_cast<int32_t>(x.size(1)), fp32, static_cast<float*>(out.data_ptr()),
                        static_cast<uint64_t>(out.numel())));
  return out;
}

Tensor embedding(const Tensor& ids, const Tensor& weight, const Tensor& layout, int64_t cols) {
  const int64_t* data = integers(ids, "ids must be contiguous int64 [n]");
  const qe_tensor table = operand(weight, layout, 0);
  require(cols >= 1, "an embedding must have columns");
  const std::array<int64_t, 2> shape = {ids.size(0), cols};
  Tensor out = torch::stable::new_empty(ids, shape, ScalarType::Float);
  succeed(native.embedding(&table, data, static_cast<int32_t>(ids.size(0)),
                           static_cast<float*>(out.data_ptr()),
                           static_cast<uint64_t>(out.numel())));
  return out;
}

// Contiguous f32 of a given number of elements.
const float* values(const Tensor& x, int64_t count, const char* name) {
  require(
      x.scalar_type() == ScalarType::Float && x.is_contiguous() && x.numel() == count && x.is_cpu(),
      name);
  return static_cast<const float*>(x.data_ptr());
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const int64_t dims = x.dim();
  require(dims == 2 || dims == 3, "x must be f32 [n, cols] or [n, heads, cols]");
  const float* data = rows_of(x, static_cast<int>(dims), "x must be f32 with contiguous rows");
  const int64_t cols = x.size(dims - 1), heads = dims == 3 ? x.size(1) : 1;
  const float* scale = values(weight, cols, "the weight must be f32 [cols]");
  std::vector<int64_t> shape = {x.size(0), cols};
  if (dims == 3) shape.insert(shape.begin() + 1, heads);
  Tensor out = torch::stable::new_empty(x, shape);
  succeed(native.rms_norm(data, x.stride(0), scale, static_cast<int32_t>(x.size(0)),
                          static_cast<int32_t>(heads), static_cast<int32_t>(cols),
                          static_cast<float>(eps), static_cast<float*>(out.data_ptr())));
  return out;
}

Tensor rotate(const Tensor& x, const Tensor& cosine, const Tensor& sine) {
  const float* data = rows_of(x, 3, "x must be f32 [n, heads, head_dim]");
  const int64_t n = x.size(0), heads = x.size(1), head_dim = x.size(2);
  const float* cosines = values(cosine, n * (head_dim / 2), "the cosine must be [n, head_dim / 2]");
  const float* sines = values(sine, n * (head_dim / 2), "the sine must be [n, head_dim / 2]");
  const std::array<int64_t, 3> shape = {n, heads, head_dim};
  Tensor out = torch::stable::new_empty(x, shape);
  succeed(native.rotate(data, x.stride(0), cosines, sines, static_cast<int32_t>(n),
                        static_cast<int32_t>(heads), static_cast<int32_t>(head_dim),
                        static_cast<float*>(out.data_ptr())));
  return out;
}

Tensor silu_mul(const Tensor& x) {
  const float* data = rows_of(x, 2, "x must be f32 [n, 2 * cols] with contiguous rows");
  require(x.size(1) % 2 == 0, "x must have as many gates as values");
  const std::array<int64_t, 2> shape = {x.size(0), x.size(1) / 2};
  Tensor out = torch::stable::new_empty(x, shape);
  succeed(native.silu_mul(data, x.stride(0), static_cast<int32_t>(shape[0]),
                          static_cast<int32_t>(shape[1]), static_cast<float*>(out.data_ptr())));
  return out;
}

Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, Tensor cache,
                 const Tensor& sequences, const Tensor& positions, int64_t kv_type, bool fp32) {
  qe_attention call = {};
  call.query = rows_of(query, 3, "the query must be f32 [n, heads, head_dim]");
  call.key = rows_of(key, 3, "the key must be f32 [n, kv_heads, head_dim]");
  call.value = rows_of(value, 3, "the value must be f32 [n, kv_heads, head_dim]");
  call.sequence = integers(sequences, "sequences must be contiguous int64 [n]");
  call.position = integers(positions, "positions must be contiguous int64 [n]");
  require(cache.scalar_type() == ScalarType::Byte && cache.dim() == 5 && cache.is_contiguous() &&
              cache.is_cpu(),
          "the cache must be contiguous bytes [sequences, kv_heads, 2, blocks, bytes of a block]");
  const int64_t n = query.size(0), head_dim = query.size(2);
  require(key.size(0) == n && value.size(0) == n && sequences.size(0) == n &&
              positions.size(0) == n && key.size(2) == head_dim && value.size(2) == head_dim &&
              key.size(1) == value.size(1) && cache.size(1) == key.size(1) && cache.size(2) == 2,
          "the shapes of an attention do not fit each other");
  require(kv_type >= 0 && kv_type < qe::kReferenceKvTypes &&
              cache.size(4) == static_cast<int64_t>(qe::kv_block_bytes(
                                   static_cast<qe::KvType>(kv_type), static_cast<int>(head_dim))),
          "the cache's blocks are of another type");
  call.query_stride = query.stride(0);
  call.key_stride = key.stride(0);
  call.value_stride = value.stride(0);
  call.cache = static_cast<uint8_t*>(cache.data_ptr());
  call.n = static_cast<int32_t>(n);
  call.heads = static_cast<int32_t>(query.size(1));
  call.kv_heads = static_cast<int32_t>(key.size(1));
  call.head_dim = static_cast<int32_t>(head_dim);
  call.sequences = static_cast<int32_t>(cache.size(0));
  call.blocks = static_cast<int32_t>(cache.size(3));
  call.kv_type = static_cast<int32_t>(kv_type);
  call.fp32 = fp32;
  const std::array<int64_t, 2> shape = {n, query.size(1) * head_dim};
  Tensor out = torch::stable::new_empty(query, shape);
  succeed(native.attention(&call, static_cast<float*>(out.data_ptr())));
  return out;
}

}  // namespace

// Called once, before the operators are used.
QE_API void qwen_edge_bind(const Functions* functions) { native = *functions; }

STABLE_TORCH_LIBRARY(qwen_edge, m) {
  m.def(
      "linear(Tensor x, Tensor[] weights, Tensor layouts, Tensor? order, int rows, bool fp32) -> "
      "Tensor");
  m.def("embedding(Tensor ids, Tensor weight, Tensor layout, int cols) -> Tensor");
  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor");
  m.def("rotate(Tensor x, Tensor cosine, Tensor sine) -> Tensor");
  m.def("silu_mul(Tensor x) -> Tensor");
  m.def(
      "attention(Tensor query, Tensor key, Tensor value, Tensor(a!) cache, Tensor sequences, "
      "Tensor positions, int kv_type, bool fp32) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(qwen_edge, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear));
  m.impl("embedding", TORCH_BOX(&embedding));
  m.impl("rms_norm", TORCH_BOX(&rms_norm));
  m.impl("rotate", TORCH_BOX(&rotate));
  m.impl("silu_mul", TORCH_BOX(&silu_mul));
  m.impl("attention", TORCH_BOX(&attention));
}
