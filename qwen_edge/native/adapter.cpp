// Brings an adapter's matrices into the tiles that add_low_rank reads.
#include "adapter.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "parallel_for.h"
#include "status.h"

namespace qe {
namespace {

float value_at(const uint8_t* data, Type type, size_t index) {
  if (type == Type::kF32) {
    float value;
    std::memcpy(&value, data + 4 * index, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + 2 * index, 2);
  return type == Type::kF16 ? half_to_float(bits) : bfloat16_to_float(bits);
}

struct Shape {
  int in, out;
};

Shape shape_of(const ModelConfig& c, int projection) {
  const int queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
  switch (projection) {
    case kQueryPart:
      return {c.hidden, queries};
    case kKeyPart:
    case kValuePart:
      return {c.hidden, keys};
    case kOutputPart:
      return {queries, c.hidden};
    case kDownPart:
      return {c.intermediate, c.hidden};
    default:
      return {c.hidden, c.intermediate};
  }
}

int tiles_of(int rows) { return (rows + kTileRows - 1) / kTileRows; }

// The power of two that brings the largest of n values to [1, 2); 1 for nothing but zeros.
int exponent_of(const uint8_t* data, Type type, size_t n) {
  float largest = 0;
  for (size_t i = 0; i < n; ++i) {
    const float value = value_at(data, type, i);
    if (!std::isfinite(value)) throw Error(kFormat, "a weight is not finite");
    largest = std::max(largest, std::fabs(value));
  }
  return largest > 0 ? -std::ilogb(largest) : 0;
}

}  // namespace

Adapter::Adapter(const Model& model, const AdapterPart* parts, int n, int threads)
    : config_(model.config) {
  check(parts, n);
  place(parts, n);
  parallel_for(n, threads, 1, [&](int64_t i) {
    fill(parts[i], model.layers[parts[i].layer].order[kInputOf[parts[i].projection]]);
  });
}

void Adapter::check(const AdapterPart* parts, int n) const {
  const auto require = [](bool condition, const char* message) {
    if (!condition) throw Error(kFormat, message);
  };
  require(n >= 1, "it has no matrices");
  std::vector<bool> seen(static_cast<size_t>(config_.layers) * kProjections);
  for (int i = 0; i < n; ++i) {
    const AdapterPart& part = parts[i];
    require(part.layer >= 0 && part.layer < config_.layers && part.projection >= 0 &&
                part.projection < kProjections,
            "it has matrices of another model");
    require(part.rank >= 1 && part.rank <= kMostRank, "a rank is out of range");
    require(part.a_type >= Type::kF32 && part.a_type <= Type::kBF16 && part.b_type >= Type::kF32 &&
                part.b_type <= Type::kBF16,
            "a matrix is of an unknown type");
    require(part.a != nullptr && part.b != nullptr && std::isfinite(part.scale),
            "a matrix is missing, or its scale not finite");
    const size_t at = static_cast<size_t>(part.layer) * kProjections + part.projection;
    require(!seen[at], "it has a matrix twice");
    seen[at] = true;
  }
}

// Everything lies in the order of use, in one piece of memory.
void Adapter::place(const AdapterPart* parts, int n) {
  layers_.resize(config_.layers);
  for (int i = 0; i < n; ++i) layers_[parts[i].layer].up[parts[i].projection].rank = parts[i].rank;
  std::vector<size_t> starts;
  size_t size = 0, lanes = 0;
  const auto add = [&](size_t tiles, size_t cols) {
    starts.push_back(size);
    size += tiles * cols * kTileRows;
  };
  for (Layer& layer : layers_) {
    int ranks[kInputs] = {};
    for (int p = 0; p < kProjections; ++p) {
      layer.up[p].first = ranks[kInputOf[p]];
      ranks[kInputOf[p]] += layer.up[p].rank;
    }
    for (int p = 0; p < kProjections; ++p) {
      Down& down = layer.down[kInputOf[p]];
      if (layer.up[p].first == 0 && down.tiles == 0 && ranks[kInputOf[p]] > 0) {
        down.tiles = tiles_of(ranks[kInputOf[p]]);
        down.cols = shape_of(config_, p).in;
        add(down.tiles, down.cols);
        lanes += static_cast<size_t>(down.tiles) * kTileRows;
        width_ = std::max(width_, down.tiles * kTileRows);
      }
      if (layer.up[p].rank > 0) add(tiles_of(shape_of(config_, p).out), layer.up[p].rank);
    }
  }
  weights_.reset(size);
  factors_.reset(lanes);
  std::memset(weights_.data(), 0, weights_.bytes());
  std::memset(factors_.data(), 0, factors_.bytes());
  auto start = starts.begin();
  const float* factor = factors_.data();
  for (Layer& layer : layers_) {
    for (int p = 0; p < kProjections; ++p) {
      Down& down = layer.down[kInputOf[p]];
      if (down.tiles > 0 && down.weights == nullptr) {
        down.weights = weights_.data() + *start++;
        down.factor = factor;
        factor += static_cast<size_t>(down.tiles) * kTileRows;
      }
      if (layer.up[p].rank > 0) layer.up[p].weights = weights_.data() + *start++;
    }
  }
}

void Adapter::fill(const AdapterPart& part, const int32_t* order) {
  const Shape shape = shape_of(config_, part.projection);
  const Layer& layer = layers_[part.layer];
  const Up& up = layer.up[part.projection];
  const Down& down = layer.down[kInputOf[part.projection]];
  const size_t a_size = static_cast<size_t>(part.rank) * shape.in;
  const size_t b_size = static_cast<size_t>(part.rank) * shape.out;
  const int a_power = exponent_of(part.a, part.a_type, a_size);
  const int b_power = exponent_of(part.b, part.b_type, b_size);
  const float factor = std::ldexp(part.scale, -a_power - b_power);
  if (!std::isfinite(factor)) throw Error(kFormat, "its weights are too large");
  const double a_unit = std::ldexp(1.0, a_power), b_unit = std::ldexp(1.0, b_power);
  uint16_t* const base = weights_.data();
  uint16_t* a = base + (down.weights - base);
  uint16_t* b = base + (up.weights - base);
  float* factors = factors_.data() + (down.factor - factors_.data());
  for (int r = 0; r < part.rank; ++r) {
    const int lane = up.first + r;
    factors[lane] = factor;
    uint16_t* tile = a + static_cast<size_t>(lane / kTileRows) * kTileRows * shape.in;
    for (int c = 0; c < shape.in; ++c) {
      const size_t at = static_cast<size_t>(r) * shape.in + (order ? order[c] : c);
      const float value = value_at(part.a, part.a_type, at);
      tile[static_cast<size_t>(c) * kTileRows + lane % kTileRows] =
          float_to_half(static_cast<float>(value * a_unit));
    }
  }
  for (int row = 0; row < shape.out; ++row) {
    uint16_t* tile = b + static_cast<size_t>(row / kTileRows) * kTileRows * part.rank;
    for (int r = 0; r < part.rank; ++r) {
      const float value = value_at(part.b, part.b_type, static_cast<size_t>(row) * part.rank + r);
      tile[r * kTileRows + row % kTileRows] = float_to_half(static_cast<float>(value * b_unit));
    }
  }
}

}  // namespace qe
