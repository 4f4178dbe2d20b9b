// Single operations against sums in double, and against themselves: however rows are spread over
// calls and threads, the results must be the same to the last bit. Prints "ISA: N passed, N failed"
// and exits 1 on a failure.
#include "operators.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"
#include "isa/isa.h"

namespace {

using Floats = std::vector<float>;

int passed = 0, failed = 0;
std::mt19937 engine(5);

void check(bool condition, const std::string& name, double value = 0) {
  condition ? ++passed : ++failed;
  if (!condition) std::printf("FAILED %s: %g\n", name.c_str(), value);
}

float uniform() { return static_cast<float>(engine() % 65536) / 32768.0f - 1; }

Floats random_floats(size_t n) {
  Floats values(n);
  for (float& value : values) value = uniform();
  return values;
}

void require(int32_t status) {
  if (status != 0) {
    std::printf("FAILED: %s\n", qe_last_error());
    std::exit(1);
  }
}

struct Weight {
  Weight(int rows, int cols, qe::Type type, int group, bool has_min) {
    QeLayout& l = tensor.layout;
    l = {static_cast<int32_t>(type), rows, cols, group, has_min, 0, {}, {}, 0};
    for (int i = 0; i < 16; ++i) l.codebook[i] = static_cast<int8_t>(i - 8);
    matrix.type = type;
    matrix.rows = rows;
    matrix.cols = cols;
    matrix.group = group;
    matrix.has_min = has_min;
    std::memcpy(matrix.codebook, l.codebook, 16);
    if (group == 0) {
      const Floats values = random_floats(static_cast<size_t>(rows) * cols);
      bytes.resize(values.size() * 4);
      std::memcpy(bytes.data(), values.data(), bytes.size());
    } else {
      const size_t block = qe::block_bytes(type, group, has_min);
      const size_t codes = static_cast<size_t>(group) * (type == qe::Type::kQ4 ? 8 : 16);
      bytes.resize(matrix.tile_bytes() * matrix.tiles());
      for (size_t at = 0; at < bytes.size(); at += block) {
        for (size_t i = 0; i < codes; ++i) bytes[at + i] = static_cast<uint8_t>(engine());
        for (size_t i = codes; i < block; i += 2) {
          const uint16_t half = qe::float_to_half(0.01f + 0.01f * std::fabs(uniform()));
          std::memcpy(&bytes[at + i], &half, 2);
        }
      }
    }
    tensor.data = matrix.data = bytes.data();
    tensor.bytes = bytes.size();
  }
  Weight(const Weight&) = delete;

  Floats row(int r) const {
    Floats values(matrix.cols);
    qe::dequantize_row(matrix, r, values.data());
    return values;
  }

  std::vector<uint8_t> bytes;
  qe_tensor tensor;
  qe::Matrix matrix;
};

double relative(const Floats& found, const std::vector<double>& expected) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    difference += std::pow(found[i] - expected[i], 2);
    size += std::pow(expected[i], 2);
  }
  return std::sqrt(difference / size);
}

void check_linear(const std::string& name, const std::vector<const Weight*>& weights,
                  bool ordered) {
  const int cols = weights[0]->matrix.cols, n = 37, stride = cols + 3;
  int rows = 0;
  std::vector<qe_tensor> tensors;
  for (const Weight* w : weights) {
    tensors.push_back(w->tensor);
    rows += w->matrix.rows;
  }
  std::vector<int32_t> columns(cols);
  std::iota(columns.begin(), columns.end(), 0);
  if (ordered) std::shuffle(columns.begin(), columns.end(), engine);
  const qe_order order = {ordered ? columns.data() : nullptr, static_cast<uint64_t>(cols)};
  const Floats x = random_floats(static_cast<size_t>(n) * stride);
  std::vector<double> expected;
  for (int i = 0; i < n; ++i) {
    for (const Weight* w : weights) {
      for (int r = 0; r < w->matrix.rows; ++r) {
        const Floats values = w->row(r);
        double sum = 0;
        for (int c = 0; c < cols; ++c) sum += double{values[c]} * x[i * stride + columns[c]];
        expected.push_back(sum);
      }
    }
  }
  const auto compute = [&](int first, int count, bool fp32) {
    Floats out(static_cast<size_t>(count) * rows);
    require(qe_operator_linear(tensors.data(), static_cast<int32_t>(tensors.size()), &order,
                               &x[first * stride], stride, count, cols, fp32, out.data(),
                               out.size()));
    return out;
  };
  for (const bool fp32 : {true, false}) {
    const Floats whole = compute(0, n, fp32);
    const double error = relative(whole, expected);
    check(error <= (fp32 ? 1e-5 : 2e-2), name + (fp32 ? " fp32" : " int8"), error);
    for (const int threads : {1, 2, 5}) {
      require(qe_operators_threads(threads, threads));
      for (const int step : {1, 4, n}) {
        Floats parts;
        for (int first = 0; first < n; first += step) {
          const Floats part = compute(first, std::min(step, n - first), fp32);
          parts.insert(parts.end(), part.begin(), part.end());
        }
        check(parts == whole, name + " in calls of " + std::to_string(step));
      }
    }
  }
}

struct Sequence {
  int id, length;
};

// Rows of several sequences in turn, each attending to what came before it.
void check_attention(int kv_type, bool fp32, int long_rows) {
  constexpr int kHeads = 4, kKvHeads = 2, kDim = 32, kSequences = 3, kBlocks = 80;
  const std::string name = "attention over cache type " + std::to_string(kv_type);
  std::vector<int64_t> sequence, position;
  std::vector<int> lengths(kSequences, 0);
  const auto add = [&](int id, int count) {
    for (int i = 0; i < count; ++i) {
      sequence.push_back(id);
      position.push_back(lengths[id]++);
    }
  };
  add(1, 40);
  add(0, 1);
  add(2, 17);
  add(1, 5);
  add(0, long_rows);
  add(2, 1);
  const int n = static_cast<int>(sequence.size());
  const size_t query_row = kHeads * kDim, key_row = kKvHeads * kDim;
  const Floats query = random_floats(n * query_row), key = random_floats(n * key_row),
               value = random_floats(n * key_row);
  const size_t block = qe::kv_block_bytes(static_cast<qe::KvType>(kv_type), kDim);
  const auto compute = [&](const std::vector<int>& sizes) {
    std::vector<uint8_t> cache(kSequences * kKvHeads * 2 * kBlocks * block);
    Floats out(n * query_row);
    int first = 0;
    for (size_t i = 0; first < n; ++i) {
      const int count = std::min(sizes[i % sizes.size()], n - first);
      const qe_attention call = {&query[first * query_row],
                                 &key[first * key_row],
                                 &value[first * key_row],
                                 query_row,
                                 key_row,
                                 key_row,
                                 cache.data(),
                                 &sequence[first],
                                 &position[first],
                                 count,
                                 kHeads,
                                 kKvHeads,
                                 kDim,
                                 kSequences,
                                 kBlocks,
                                 kv_type,
                                 fp32};
      require(qe_operator_attention(&call, &out[first * query_row]));
      first += count;
    }
    return out;
  };
  std::vector<double> expected;
  for (int i = 0; i < n; ++i) {
    for (int h = 0; h < kHeads; ++h) {
      std::vector<double> weights, sums(kDim);
      std::vector<int> seen;
      for (int j = 0; j < n; ++j) {
        if (sequence[j] == sequence[i] && position[j] <= position[i]) seen.push_back(j);
      }
      double total = 0;
      for (const int j : seen) {
        double score = 0;
        for (int d = 0; d < kDim; ++d) {
          score +=
              double{query[i * query_row + h * kDim + d]} * key[j * key_row + h / 2 * kDim + d];
        }
        weights.push_back(std::exp(score / std::sqrt(double{kDim})));
        total += weights.back();
      }
      for (size_t s = 0; s < seen.size(); ++s) {
        for (int d = 0; d < kDim; ++d) {
          sums[d] += weights[s] / total * value[seen[s] * key_row + h / 2 * kDim + d];
        }
      }
      expected.insert(expected.end(), sums.begin(), sums.end());
    }
  }
  require(qe_operators_threads(1, 1));
  const Floats whole = compute({n});
  const double error = relative(whole, expected);
  const double bounds[] = {1e-3, 3e-2, 2e-1, 1e-5};
  check(error <= bounds[kv_type], name, error);
  for (const int threads : {1, 3}) {
    require(qe_operators_threads(threads, threads));
    for (const std::vector<int>& sizes : {std::vector<int>{1}, {7, 1, 64}, {n}}) {
      check(compute(sizes) == whole, name + " in other calls");
    }
  }
}

void check_rows() {
  constexpr int kRows = 9, kHeads = 3, kDim = 64, kStride = kHeads * kDim + 5;
  const Floats x = random_floats(kRows * kStride), weight = random_floats(kDim),
               angle = random_floats(kRows * kDim / 2);
  Floats cosine, sine, normed(kRows * kHeads * kDim), rotated(normed.size());
  for (const float a : angle) {
    cosine.push_back(std::cos(a));
    sine.push_back(std::sin(a));
  }
  require(qe_operator_rms_norm(x.data(), kStride, weight.data(), kRows, kHeads, kDim, 1e-6f,
                               normed.data()));
  require(qe_operator_rotate(x.data(), kStride, cosine.data(), sine.data(), kRows, kHeads, kDim,
                             rotated.data()));
  Floats gated(kRows * kDim);
  require(qe_operator_silu_mul(x.data(), kStride, kRows, kDim, gated.data()));
  std::vector<double> norms, turns, gates;
  for (int i = 0; i < kRows; ++i) {
    for (int h = 0; h < kHeads; ++h) {
      const float* head = &x[i * kStride + h * kDim];
      double square = 0;
      for (int d = 0; d < kDim; ++d) square += double{head[d]} * head[d];
      for (int d = 0; d < kDim; ++d) {
        norms.push_back(head[d] / std::sqrt(square / kDim + 1e-6) * weight[d]);
        const int half = kDim / 2, k = i * half + d % half;
        turns.push_back(d < half ? double{head[d]} * cosine[k] - double{head[d + half]} * sine[k]
                                 : double{head[d]} * cosine[k] + double{head[d - half]} * sine[k]);
      }
    }
    for (int d = 0; d < kDim; ++d) {
      const double gate = x[i * kStride + d];
      gates.push_back(gate / (1 + std::exp(-gate)) * x[i * kStride + kDim + d]);
    }
  }
  check(relative(normed, norms) <= 1e-6, "rms_norm", relative(normed, norms));
  check(relative(rotated, turns) <= 1e-6, "rotate", relative(rotated, turns));
  check(relative(gated, gates) <= 1e-6, "silu_mul", relative(gated, gates));
}

void check_refusals() {
  const Weight weight(48, 64, qe::Type::kQ4, 32, false);
  const Floats x = random_floats(64);
  Floats out(48);
  const std::vector<int32_t> outside(64, 64);
  const qe_order none = {}, wrong = {outside.data(), 64};
  const auto linear = [&](const qe_tensor& tensor, const qe_order& order, int cols, size_t size) {
    return qe_operator_linear(&tensor, 1, &order, x.data(), 64, 1, cols, 0, out.data(), size);
  };
  check(linear(weight.tensor, none, 64, 48) == 0, "a sound call");
  check(linear(weight.tensor, none, 32, 48) != 0, "other columns");
  check(linear(weight.tensor, none, 64, 47) != 0, "a short result");
  check(linear(weight.tensor, wrong, 64, 48) != 0, "an order that points outside");
  qe_tensor tensor = weight.tensor;
  tensor.bytes -= 1;
  check(linear(tensor, none, 64, 48) != 0, "a short weight");
  tensor = weight.tensor;
  tensor.layout.rows = 1 << 21;
  check(linear(tensor, none, 64, 48) != 0, "too many rows");
  const int64_t ids[] = {48};
  check(qe_operator_embedding(&weight.tensor, ids, 1, out.data(), 64) != 0, "an unknown id");
  check(qe_operators_threads(0, 1) != 0, "no threads");
  std::vector<uint8_t> cache(2 * qe::kv_block_bytes(qe::KvType::kF16, 32));
  for (const int64_t position : {int64_t{-1}, int64_t{16}, int64_t{1} << 40}) {
    const int64_t sequence = 0;
    const qe_attention call = {x.data(),     x.data(),  x.data(),  32, 32, 32,
                               cache.data(), &sequence, &position, 1,  1,  1,
                               32,           1,         1,         0,  0};
    check(qe_operator_attention(&call, out.data()) != 0, "a position outside the cache");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int long_rows = argc > 1 ? std::atoi(argv[1]) : 1200;
  using qe::Type;
  const Weight q4(64, 96, Type::kQ4, 32, false), q8(32, 96, Type::kQ8, 32, true);
  const Weight odd(21, 96, Type::kQ4, 64, true), dense(16, 96, Type::kF32, 0, false);
  const Weight narrow(40, 50, Type::kQ4, 32, false);
  check_linear("one weight", {&q4}, false);
  check_linear("several weights", {&q4, &q8, &dense}, true);
  check_linear("rows that fill no tile", {&odd, &q8, &odd}, false);
  check_linear("columns that fill no group", {&narrow}, true);
  for (const int kv_type : {0, 1, 2}) check_attention(kv_type, false, long_rows);
  check_attention(3, true, long_rows / 4);
  check_rows();
  check_refusals();
  std::printf("%s: %d passed, %d failed\n", qe::active_table().name, passed, failed);
  return failed > 0;
}
