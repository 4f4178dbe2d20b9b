// The native operations as operators of torch, through its stable ABI: one build serves every
// version of torch from 2.10 on. A meta implementation for each is in model/operator_shapes.py.
//
// It is compiled by itself, on the machine where torch is, and given the functions of the native
// library when it is loaded, so that neither has to find the other.
#include "../operators.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../isa/isa.h"

namespace {

using torch::stable::Tensor;

// Deletes a tensor that nobody has taken.
class Handle {
 public:
  explicit Handle(AtenTensorHandle tensor) : tensor_(tensor) {}
  ~Handle() {
    if (tensor_) aoti_torch_delete_tensor_object(tensor_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  AtenTensorHandle release() {
    const AtenTensorHandle tensor = tensor_;
    tensor_ = nullptr;
    return tensor;
  }

 private:
  AtenTensorHandle tensor_;
};

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

void call(AOTITorchError error) { require(error == 0, "torch's C interface failed"); }

// What an operator needs to know of a tensor.
struct View {
  explicit View(AtenTensorHandle tensor) {
    int32_t device = 0;
    void* address = nullptr;
    int64_t *size = nullptr, *stride = nullptr;
    call(aoti_torch_get_data_ptr(tensor, &address));
    call(aoti_torch_get_dim(tensor, &dims));
    call(aoti_torch_get_sizes(tensor, &size));
    call(aoti_torch_get_strides(tensor, &stride));
    call(aoti_torch_get_dtype(tensor, &type));
    call(aoti_torch_get_device_type(tensor, &device));
    require(device == aoti_torch_device_type_cpu(), "a tensor is not on the CPU");
    data = address;
    sizes = size;
    strides = stride;
  }

  int64_t size(int64_t i) const { return sizes[i]; }
  int64_t count() const {
    int64_t product = 1;
    for (int64_t i = 0; i < dims; ++i) product *= sizes[i];
    return product;
  }
  // Whether the elements lie together, from dimension `first` on.
  bool contiguous(int64_t first = 0) const {
    int64_t step = 1;
    for (int64_t i = dims - 1; i >= first; --i) {
      if (sizes[i] != 1 && strides[i] != step) return false;
      step *= sizes[i];
    }
    return true;
  }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }

  void* data;
  int64_t dims;
  const int64_t *sizes, *strides;
  int32_t type;
};

// f32 rows whose elements lie together, whatever the step from one row to the next.
const float* rows_of(const View& x, int64_t dims, const char* message) {
  require(x.dims == dims && x.type == aoti_torch_dtype_float32() && x.contiguous(1), message);
  return x.as<float>();
}

// Contiguous f32 of a given number of elements.
const float* values(const View& x, int64_t count, const char* message) {
  require(x.type == aoti_torch_dtype_float32() && x.contiguous() && x.count() == count, message);
  return x.as<float>();
}

const int64_t* integers(const View& x, const char* message) {
  require(x.dims == 1 && x.type == aoti_torch_dtype_int64() && x.contiguous(), message);
  return x.as<int64_t>();
}

// The layouts are bytes of a QeLayout each.
qe_tensor operand(const View& weight, const View& layouts, int64_t index) {
  require(layouts.type == aoti_torch_dtype_uint8() && layouts.dims == 2 && layouts.contiguous() &&
              layouts.size(1) == sizeof(QeLayout) && index < layouts.size(0),
          "layouts must be bytes [weights, bytes of a layout]");
  require(weight.contiguous(), "a weight must be contiguous");
  qe_tensor result;
  result.data = weight.data;
  result.bytes = static_cast<uint64_t>(weight.count()) * aoti_torch_dtype_element_size(weight.type);
  std::memcpy(&result.layout, layouts.as<char>() + static_cast<size_t>(index) * sizeof(QeLayout),
              sizeof(QeLayout));
  return result;
}

// A new f32 tensor, and where it lies.
template <size_t kDims>
AtenTensorHandle new_tensor(const std::array<int64_t, kDims>& sizes, float** data) {
  std::array<int64_t, kDims> strides;
  int64_t step = 1;
  for (size_t i = kDims; i-- > 0; step *= sizes[i]) strides[i] = step;
  AtenTensorHandle tensor = nullptr;
  call(aoti_torch_empty_strided(kDims, sizes.data(), strides.data(), aoti_torch_dtype_float32(),
                                aoti_torch_device_type_cpu(), 0, &tensor));
  void* address = nullptr;
  call(aoti_torch_get_data_ptr(tensor, &address));
  *data = static_cast<float*>(address);
  return tensor;
}

int32_t small(int64_t n) {
  require(n >= 0 && n <= INT32_MAX, "a dimension is out of range");
  return static_cast<int32_t>(n);
}

AtenTensorHandle linear(AtenTensorHandle x_, const AtenTensorHandle* weights, int64_t n_weights,
                        AtenTensorHandle layouts_, const AtenTensorHandle* order_, int64_t rows,
                        bool fp32) {
  constexpr int64_t kMostWeights = 8;
  const View x(x_), layouts(layouts_);
  const float* data = rows_of(x, 2, "x must be f32 [n, cols] with contiguous rows");
  require(
      rows >= 1 && n_weights <= kMostWeights && layouts.dims == 2 && n_weights == layouts.size(0),
      "each weight, of 8 at most, needs a layout");
  qe_tensor operands[kMostWeights];
  for (int64_t i = 0; i < n_weights; ++i) operands[i] = operand(View(weights[i]), layouts, i);
  qe_order columns = {};
  if (order_) {
    const View order(*order_);
    require(order.type == aoti_torch_dtype_int32() && order.contiguous(),
            "an order must be contiguous int32");
    columns = {order.as<int32_t>(), static_cast<uint64_t>(order.count())};
  }
  float* out = nullptr;
  Handle result(new_tensor<2>({x.size(0), rows}, &out));
  succeed(native.linear(operands, small(n_weights), &columns, data, x.strides[0], small(x.size(0)),
                        small(x.size(1)), fp32, out, static_cast<uint64_t>(x.size(0) * rows)));
  return result.release();
}

AtenTensorHandle embedding(AtenTensorHandle ids_, AtenTensorHandle weight, AtenTensorHandle layout,
                           int64_t cols) {
  const View ids(ids_);
  const int64_t* data = integers(ids, "ids must be contiguous int64 [n]");
  const qe_tensor table = operand(View(weight), View(layout), 0);
  require(cols >= 1, "an embedding must have columns");
  float* out = nullptr;
  Handle result(new_tensor<2>({ids.size(0), cols}, &out));
  succeed(native.embedding(&table, data, small(ids.size(0)), out,
                           static_cast<uint64_t>(ids.size(0) * cols)));
  return result.release();
}

AtenTensorHandle rms_norm(AtenTensorHandle x_, AtenTensorHandle weight, double eps) {
  const View x(x_);
  require(x.dims == 2 || x.dims == 3, "x must be f32 [n, cols] or [n, heads, cols]");
  const float* data = rows_of(x, x.dims, "x must be f32 with contiguous rows");
  const int64_t n = x.size(0), heads = x.dims == 3 ? x.size(1) : 1, cols = x.size(x.dims - 1);
  const float* scale = values(View(weight), cols, "the weight must be f32 [cols]");
  float* out = nullptr;
  Handle result(x.dims == 3 ? new_tensor<3>({n, heads, cols}, &out)
                            : new_tensor<2>({n, cols}, &out));
  succeed(native.rms_norm(data, x.strides[0], scale, small(n), small(heads), small(cols),
                          static_cast<float>(eps), out));
  return result.release();
}

AtenTensorHandle rotate(AtenTensorHandle x_, AtenTensorHandle cosine, AtenTensorHandle sine) {
  const View x(x_);
  const float* data = rows_of(x, 3, "x must be f32 [n, heads, head_dim]");
  const int64_t n = x.size(0), heads = x.size(1), head_dim = x.size(2), angles = n * (head_dim / 2);
  const float* cosines = values(View(cosine), angles, "the cosine must be [n, head_dim / 2]");
  const float* sines = values(View(sine), angles, "the sine must be [n, head_dim / 2]");
  float* out = nullptr;
  Handle result(new_tensor<3>({n, heads, head_dim}, &out));
  succeed(native.rotate(data, x.strides[0], cosines, sines, small(n), small(heads), small(head_dim),
                        out));
  return result.release();
}

AtenTensorHandle silu_mul(AtenTensorHandle x_) {
  const View x(x_);
  const float* data = rows_of(x, 2, "x must be f32 [n, 2 * cols] with contiguous rows");
  require(x.size(1) % 2 == 0, "x must have as many gates as values");
  float* out = nullptr;
  Handle result(new_tensor<2>({x.size(0), x.size(1) / 2}, &out));
  succeed(native.silu_mul(data, x.strides[0], small(x.size(0)), small(x.size(1) / 2), out));
  return result.release();
}

AtenTensorHandle attention(AtenTensorHandle query_, AtenTensorHandle key_, AtenTensorHandle value_,
                           AtenTensorHandle cache_, AtenTensorHandle sequences_,
                           AtenTensorHandle positions_, int64_t kv_type, bool fp32) {
  const View query(query_), key(key_), value(value_), cache(cache_), sequences(sequences_),
      positions(positions_);
  qe_attention call = {};
  call.query = rows_of(query, 3, "the query must be f32 [n, heads, head_dim]");
  call.key = rows_of(key, 3, "the key must be f32 [n, kv_heads, head_dim]");
  call.value = rows_of(value, 3, "the value must be f32 [n, kv_heads, head_dim]");
  call.sequence = integers(sequences, "sequences must be contiguous int64 [n]");
  call.position = integers(positions, "positions must be contiguous int64 [n]");
  require(cache.type == aoti_torch_dtype_uint8() && cache.dims == 5 && cache.contiguous(),
          "the cache must be contiguous bytes [sequences, kv_heads, 2, blocks, bytes of a block]");
  const int64_t n = query.size(0), heads = query.size(1), head_dim = query.size(2);
  require(key.size(0) == n && value.size(0) == n && sequences.size(0) == n &&
              positions.size(0) == n && key.size(2) == head_dim && value.size(2) == head_dim &&
              key.size(1) == value.size(1) && cache.size(1) == key.size(1) && cache.size(2) == 2,
          "the shapes of an attention do not fit each other");
  require(kv_type >= 0 && kv_type < qe::kReferenceKvTypes && head_dim < 1 << 20 &&
              cache.size(4) == static_cast<int64_t>(qe::kv_block_bytes(
                                   static_cast<qe::KvType>(kv_type), static_cast<int>(head_dim))),
          "the cache's blocks are of another type");
  call.query_stride = query.strides[0];
  call.key_stride = key.strides[0];
  call.value_stride = value.strides[0];
  call.cache = static_cast<uint8_t*>(cache.data);
  call.n = small(n);
  call.heads = small(heads);
  call.kv_heads = small(key.size(1));
  call.head_dim = small(head_dim);
  call.sequences = small(cache.size(0));
  call.blocks = small(cache.size(3));
  call.kv_type = small(kv_type);
  call.fp32 = fp32;
  float* out = nullptr;
  Handle result(new_tensor<2>({n, heads * head_dim}, &out));
  succeed(native.attention(&call, out));
  return result.release();
}

// The same with what torch's dispatcher hands over.
Tensor boxed_linear(const Tensor& x, const std::vector<Tensor>& weights, const Tensor& layouts,
                    const std::optional<Tensor>& order, int64_t rows, bool fp32) {
  std::vector<AtenTensorHandle> handles;
  for (const Tensor& weight : weights) handles.push_back(weight.get());
  const AtenTensorHandle columns = order ? order->get() : nullptr;
  return Tensor(linear(x.get(), handles.data(), static_cast<int64_t>(handles.size()), layouts.get(),
                       order ? &columns : nullptr, rows, fp32));
}

Tensor boxed_embedding(const Tensor& ids, const Tensor& weight, const Tensor& layout,
                       int64_t cols) {
  return Tensor(embedding(ids.get(), weight.get(), layout.get(), cols));
}

Tensor boxed_rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  return Tensor(rms_norm(x.get(), weight.get(), eps));
}

Tensor boxed_rotate(const Tensor& x, const Tensor& cosine, const Tensor& sine) {
  return Tensor(rotate(x.get(), cosine.get(), sine.get()));
}

Tensor boxed_silu_mul(const Tensor& x) { return Tensor(silu_mul(x.get())); }

Tensor boxed_attention(const Tensor& query, const Tensor& key, const Tensor& value, Tensor cache,
                       const Tensor& sequences, const Tensor& positions, int64_t kv_type,
                       bool fp32) {
  return Tensor(attention(query.get(), key.get(), value.get(), cache.get(), sequences.get(),
                          positions.get(), kv_type, fp32));
}

// For compiled code, which calls the operators directly. Exceptions must not leave C functions.
template <typename Operator>
AOTITorchError guarded(const Operator& compute, AtenTensorHandle* out) noexcept {
  try {
    *out = compute();
    return 0;
  } catch (const std::exception&) {
    // What the native library has to say is in qe_last_error.
    return 1;
  }
}

}  // namespace

// Called once, before the operators are used.
QE_API void qwen_edge_bind(const Functions* functions) { native = *functions; }

// Named and called as inductor does for operators with a C interface; engine/torch_compile.py has
// the declarations.
QE_API AOTITorchError aoti_torch_cpu_linear(AtenTensorHandle x, const AtenTensorHandle* weights,
                                            int64_t n_weights, AtenTensorHandle layouts,
                                            const AtenTensorHandle* order, int64_t rows,
                                            int32_t fp32, AtenTensorHandle* out) {
  return guarded([&] { return linear(x, weights, n_weights, layouts, order, rows, fp32 != 0); },
                 out);
}
QE_API AOTITorchError aoti_torch_cpu_rms_norm(AtenTensorHandle x, AtenTensorHandle weight,
                                              double eps, AtenTensorHandle* out) {
  return guarded([&] { return rms_norm(x, weight, eps); }, out);
}
QE_API AOTITorchError aoti_torch_cpu_rotate(AtenTensorHandle x, AtenTensorHandle cosine,
                                            AtenTensorHandle sine, AtenTensorHandle* out) {
  return guarded([&] { return rotate(x, cosine, sine); }, out);
}
QE_API AOTITorchError aoti_torch_cpu_silu_mul(AtenTensorHandle x, AtenTensorHandle* out) {
  return guarded([&] { return silu_mul(x); }, out);
}
QE_API AOTITorchError aoti_torch_cpu_attention(AtenTensorHandle query, AtenTensorHandle key,
                                               AtenTensorHandle value, AtenTensorHandle cache,
                                               AtenTensorHandle sequences,
                                               AtenTensorHandle positions, int64_t kv_type,
                                               int32_t fp32, AtenTensorHandle* out) {
  return guarded(
      [&] { return attention(query, key, value, cache, sequences, positions, kv_type, fp32 != 0); },
      out);
}

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
  m.impl("linear", TORCH_BOX(&boxed_linear));
  m.impl("embedding", TORCH_BOX(&boxed_embedding));
  m.impl("rms_norm", TORCH_BOX(&boxed_rms_norm));
  m.impl("rotate", TORCH_BOX(&boxed_rotate));
  m.impl("silu_mul", TORCH_BOX(&boxed_silu_mul));
  m.impl("attention", TORCH_BOX(&boxed_attention));
}
