// The scalar table: complete, portable, and the truth the other tables are tested against.
#include <algorithm>
#include <cmath>

#include "kv_i4.h"

namespace qe {
namespace {

float block_scale(const uint8_t* scales, int row) {
  uint16_t half;
  std::memcpy(&half, scales + 2 * row, 2);
  return half_to_float(half);
}

// --- linear

void sums_q4(const uint8_t* codes, const int8_t* codebook, const int8_t* x, int32_t, int32_t* out) {
  for (int r = 0; r < kTileRows; ++r) out[r] = 0;
  for (int j = 0; j < 4; ++j) {
    for (int r = 0; r < kTileRows; ++r) {
      for (int i = 0; i < 4; ++i) {
        const uint8_t byte = codes[64 * j + 4 * r + i];
        out[r] += codebook[byte & 15] * x[8 * j + i] + codebook[byte >> 4] * x[8 * j + 4 + i];
      }
    }
  }
}

void sums_q8(const int8_t* codes, const int8_t* x, int32_t, int32_t* out) {
  for (int r = 0; r < kTileRows; ++r) out[r] = 0;
  for (int j = 0; j < 8; ++j) {
    for (int r = 0; r < kTileRows; ++r) {
      for (int i = 0; i < 4; ++i) out[r] += codes[64 * j + 4 * r + i] * x[4 * j + i];
    }
  }
}

// take_sums(codes, x, x_sum, out) takes the 16 integer sums over the 32 columns of one part.
template <size_t kPartBytes, typename Sums>
void multiply(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end, float* out,
              size_t out_stride, const Sums& take_sums) {
  const int groups = w.groups(), parts = w.group / kActivationGroup;
  const size_t bytes = block_bytes(w.type, w.group, w.has_min);
  for (int t = tile_begin; t < tile_end; ++t) {
    for (int i = 0; i < x.n; ++i) {
      float acc[kTileRows] = {};
      const uint8_t* block = w.data + t * w.tile_bytes();
      for (int g = 0; g < groups; ++g, block += bytes) {
        const uint8_t* scales = block + kPartBytes * static_cast<size_t>(parts);
        for (int p = 0; p < parts; ++p) {
          const size_t at = x.at(i, g * parts + p);
          const float x_scale = x.scale[at];
          const int32_t x_sum = x.sum[at];
          int32_t sums[kTileRows];
          take_sums(block + kPartBytes * p, x.codes + kActivationGroup * at, x_sum, sums);
          for (int r = 0; r < kTileRows; ++r) {
            const float scale = block_scale(scales, r);
            acc[r] += static_cast<float>(sums[r]) * (x_scale * scale);
            if (w.has_min) {
              float minimum = block_scale(scales + kScaleBytes, r);
              if (w.has_zero) minimum *= -scale;
              acc[r] += minimum * (x_scale * static_cast<float>(x_sum));
            }
          }
        }
      }
      std::memcpy(out + i * out_stride + kTileRows * t, acc, sizeof(acc));
    }
  }
}

void linear_q4(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end, float* out,
               size_t out_stride) {
  multiply<256>(w, x, tile_begin, tile_end, out, out_stride,
                [&](const uint8_t* codes, const int8_t* from, int32_t x_sum, int32_t* sums) {
                  sums_q4(codes, w.codebook, from, x_sum, sums);
                });
}

void linear_q8(const Matrix& w, const QuantizedRows& x, int tile_begin, int tile_end, float* out,
               size_t out_stride) {
  multiply<512>(w, x, tile_begin, tile_end, out, out_stride,
                [](const uint8_t* codes, const int8_t* from, int32_t x_sum, int32_t* sums) {
                  sums_q8(reinterpret_cast<const int8_t*>(codes), from, x_sum, sums);
                });
}

float dense_value(const Matrix& w, size_t index) {
  if (w.type == Type::kF32) {
    float value;
    std::memcpy(&value, w.data + 4 * index, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, w.data + 2 * index, 2);
  return w.type == Type::kF16 ? half_to_float(bits) : bfloat16_to_float(bits);
}

void linear_dense(const Matrix& w, const float* x, size_t x_stride, int n, int tile_begin,
                  int tile_end, float* out, size_t out_stride) {
  for (int row = tile_begin * kTileRows; row < tile_end * kTileRows; ++row) {
    for (int i = 0; i < n; ++i) {
      double acc = 0;
      if (row < w.rows) {
        for (int c = 0; c < w.cols; ++c) {
          acc += static_cast<double>(dense_value(w, static_cast<size_t>(row) * w.cols + c)) *
                 x[i * x_stride + c];
        }
      }
      out[i * out_stride + row] = static_cast<float>(acc);
    }
  }
}

void add_low_rank(const uint16_t* w, int tiles, int cols, const float* x, size_t x_stride, int n,
                  float* out, size_t out_stride) {
  for (int row = 0; row < tiles * kTileRows; ++row) {
    const uint16_t* tile = w + static_cast<size_t>(row / kTileRows) * kTileRows * cols;
    for (int i = 0; i < n; ++i) {
      double sum = 0;
      for (int c = 0; c < cols; ++c) {
        sum += static_cast<double>(half_to_float(tile[kTileRows * c + row % kTileRows])) *
               x[i * x_stride + c];
      }
      out[i * out_stride + row] += static_cast<float>(sum);
    }
  }
}

// --- rows

void quantize(const float* x, int n, int panel, int8_t* codes, float* scale, int32_t* sum) {
  for (int g = 0; g < n / kActivationGroup; ++g) {
    const size_t at = static_cast<size_t>(panel) * g;
    float largest = 0;
    for (int i = 0; i < kActivationGroup; ++i) {
      largest = std::fmax(largest, std::fabs(x[kActivationGroup * g + i]));
    }
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    int32_t total = 0;
    for (int i = 0; i < kActivationGroup; ++i) {
      const int code = static_cast<int>(std::lrintf(x[kActivationGroup * g + i] * inverse));
      codes[kActivationGroup * at + i] = static_cast<int8_t>(code);
      total += code;
    }
    scale[at] = largest / 127.0f;
    sum[at] = total;
  }
}

void rms_norm(const float* x, const float* weight, int n, float eps, float* out) {
  double squares = 0;
  for (int i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const float factor = static_cast<float>(1.0 / std::sqrt(squares / n + eps));
  for (int i = 0; i < n; ++i) out[i] = x[i] * factor * weight[i];
}

void rope(float* x, const float* cosine, const float* sine, int half) {
  for (int i = 0; i < half; ++i) {
    const float low = x[i], high = x[i + half];
    x[i] = low * cosine[i] - high * sine[i];
    x[i + half] = high * cosine[i] + low * sine[i];
  }
}

void silu_mul(const float* gate, const float* up, int n, float* out) {
  for (int i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void add(float* accumulator, const float* x, int n) {
  for (int i = 0; i < n; ++i) accumulator[i] += x[i];
}

// --- attention, fp16 and fp32 cache

struct Half {
  static constexpr KvType kType = KvType::kF16;
  static constexpr size_t kBytes = 2;
  static void store(uint8_t* at, float value) {
    const uint16_t half = float_to_half(value);
    std::memcpy(at, &half, kBytes);
  }
  static float load(const uint8_t* at) {
    uint16_t half;
    std::memcpy(&half, at, kBytes);
    return half_to_float(half);
  }
};

struct Single {
  static constexpr KvType kType = KvType::kF32;
  static constexpr size_t kBytes = 4;
  static void store(uint8_t* at, float value) { std::memcpy(at, &value, kBytes); }
  static float load(const uint8_t* at) {
    float value;
    std::memcpy(&value, at, kBytes);
    return value;
  }
};

template <typename Element>
void store_key(uint8_t* block, int slot, const float* x, int head_dim) {
  for (int d = 0; d < head_dim; ++d) {
    Element::store(block + Element::kBytes * (kKvBlock * d + slot), x[d]);
  }
}

template <typename Element>
void store_value(uint8_t* block, int slot, const float* x, int head_dim) {
  for (int d = 0; d < head_dim; ++d) {
    Element::store(block + Element::kBytes * (head_dim * slot + d), x[d]);
  }
}

template <typename Element>
void scores(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
            size_t out_stride, const uint8_t*) {
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * kv_block_bytes(Element::kType, head_dim);
    for (int i = 0; i < q.n; ++i) {
      float* row = out + i * out_stride + kKvBlock * b;
      for (int s = 0; s < kKvBlock; ++s) row[s] = 0;
      for (int d = 0; d < head_dim; ++d) {
        const float x = q.x[static_cast<size_t>(i) * head_dim + d];
        for (int s = 0; s < kKvBlock; ++s) {
          row[s] += x * Element::load(block + Element::kBytes * (kKvBlock * d + s));
        }
      }
    }
  }
}

template <typename Element>
void accumulate(const uint8_t* blocks, int n_blocks, int head_dim, const float* p, size_t p_stride,
                int n, float* out, size_t out_stride, const uint8_t*) {
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * kv_block_bytes(Element::kType, head_dim);
    for (int i = 0; i < n; ++i) {
      for (int s = 0; s < kKvBlock; ++s) {
        const float weight = p[i * p_stride + kKvBlock * b + s];
        for (int d = 0; d < head_dim; ++d) {
          out[i * out_stride + d] +=
              weight * Element::load(block + Element::kBytes * (head_dim * s + d));
        }
      }
    }
  }
}

// --- attention, INT8 cache

// Returns the inverse of the fp16 scale that is stored for the vector.
float store_scale_i8(uint8_t* scales, int slot, const float* x, int head_dim) {
  float largest = 0;
  for (int d = 0; d < head_dim; ++d) largest = std::fmax(largest, std::fabs(x[d]));
  const uint16_t half = float_to_half(largest / 127.0f);
  std::memcpy(scales + 2 * slot, &half, 2);
  const float scale = half_to_float(half);
  return scale > 0 ? 1.0f / scale : 0.0f;
}

int8_t code_i8(float x, float inverse) {
  const long code = std::lrintf(std::fmin(std::fmax(x * inverse, -127.0f), 127.0f));
  return static_cast<int8_t>(code);
}

void store_key_i8(uint8_t* block, int slot, const float* x, int head_dim) {
  const float inverse =
      store_scale_i8(block + static_cast<size_t>(kKvBlock) * head_dim, slot, x, head_dim);
  for (int d = 0; d < head_dim; ++d) {
    block[kKvBlock * (d & ~3) + 4 * slot + (d & 3)] = static_cast<uint8_t>(code_i8(x[d], inverse));
  }
}

void store_value_i8(uint8_t* block, int slot, const float* x, int head_dim) {
  const float inverse =
      store_scale_i8(block + static_cast<size_t>(kKvBlock) * head_dim, slot, x, head_dim);
  for (int d = 0; d < head_dim; ++d) {
    block[4 * (head_dim * (slot / 4) + d) + (slot & 3)] =
        static_cast<uint8_t>(code_i8(x[d], inverse));
  }
}

int8_t key_code(const uint8_t* block, int slot, int d) {
  return static_cast<int8_t>(block[kKvBlock * (d & ~3) + 4 * slot + (d & 3)]);
}

int8_t value_code(const uint8_t* block, int slot, int d, int head_dim) {
  return static_cast<int8_t>(block[4 * (head_dim * (slot / 4) + d) + (slot & 3)]);
}

void scores_i8(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride, const uint8_t*) {
  const int groups = head_dim / kActivationGroup;
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * kv_block_bytes(KvType::kI8, head_dim);
    const uint8_t* scales = block + static_cast<size_t>(kKvBlock) * head_dim;
    for (int i = 0; i < q.n; ++i) {
      float acc[kKvBlock] = {};
      for (int g = 0; g < groups; ++g) {
        int32_t sums[kKvBlock];
        sums_q8(reinterpret_cast<const int8_t*>(block) + 512 * g,
                q.quantized.codes + static_cast<size_t>(i) * head_dim + kActivationGroup * g, 0,
                sums);
        const float scale = q.quantized.scale[i * groups + g];
        for (int s = 0; s < kKvBlock; ++s) acc[s] += static_cast<float>(sums[s]) * scale;
      }
      for (int s = 0; s < kKvBlock; ++s) {
        out[i * out_stride + kKvBlock * b + s] = acc[s] * block_scale(scales, s);
      }
    }
  }
}

void accumulate_i8(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride, const uint8_t*) {
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * kv_block_bytes(KvType::kI8, head_dim);
    const uint8_t* scales = block + static_cast<size_t>(kKvBlock) * head_dim;
    for (int i = 0; i < n; ++i) {
      float weight[kKvBlock], largest = 0;
      for (int s = 0; s < kKvBlock; ++s) {
        const float probability = p[i * p_stride + kKvBlock * b + s];
        weight[s] = probability > 0 ? probability * block_scale(scales, s) : 0.0f;
        largest = std::fmax(largest, weight[s]);
      }
      if (largest == 0) continue;
      const float inverse = 127.0f / largest, step = largest / 127.0f;
      int codes[kKvBlock];
      for (int s = 0; s < kKvBlock; ++s) {
        codes[s] = static_cast<int>(std::lrintf(weight[s] * inverse));
      }
      for (int d = 0; d < head_dim; ++d) {
        int32_t sum = 0;
        for (int s = 0; s < kKvBlock; ++s) sum += codes[s] * value_code(block, s, d, head_dim);
        out[i * out_stride + d] += static_cast<float>(sum) * step;
      }
    }
  }
}

// --- attention, INT4 cache

// Writes the nibbles of one group and returns its scale.
uint16_t quantize_i4(const float* x, uint8_t* nibbles) {
  float high = x[0], low = x[0];
  for (int i = 1; i < kI4Group; ++i) {
    high = std::fmax(high, x[i]);
    low = std::fmin(low, x[i]);
  }
  const float extreme = high >= -low ? high : low, largest = std::fabs(extreme);
  if (!(largest >= kI4Least)) {
    std::memset(nibbles, 8, kI4Group);
    return 0;
  }
  const float steps = kI4Steps / largest;
  int32_t best_product = 0, best_squares = 1;
  for (int k = 0; k < kI4Ratios; ++k) {
    const float inverse = -kI4Ratio[k] / extreme;
    int codes[kI4Group];
    int32_t product = 0, squares = 0;
    for (int i = 0; i < kI4Group; ++i) {
      codes[i] = std::min(std::max(static_cast<int>(std::lrintf(x[i] * inverse)), -8), 7);
      product += codes[i] * static_cast<int32_t>(std::lrintf(x[i] * steps));
      squares += codes[i] * codes[i];
    }
    if (explained_i4(product, squares) <= explained_i4(best_product, best_squares)) continue;
    best_product = product;
    best_squares = squares;
    for (int i = 0; i < kI4Group; ++i) nibbles[i] = static_cast<uint8_t>(codes[i] + 8);
  }
  return scale_i4(best_product, best_squares, extreme);
}

template <void (*kPlace)(uint8_t*, int, const uint8_t*, uint16_t)>
void store_i4(uint8_t* block, int slot, const float* x, int head_dim) {
  for (int g = 0; g < head_dim / kI4Group; ++g) {
    uint8_t nibbles[kI4Group];
    const uint16_t scale = quantize_i4(x + kI4Group * g, nibbles);
    kPlace(block + kI4GroupBytes * g, slot, nibbles, scale);
  }
}

int key_code_i4(const uint8_t* block, int slot, int d) {
  const int k = d % kI4Group;
  const uint8_t byte = block[kI4GroupBytes * (d / kI4Group) + 64 * (k / 8) + 4 * slot + (k & 3)];
  return (k & 4 ? byte >> 4 : byte & 15) - 8;
}

int value_code_i4(const uint8_t* block, int slot, int d) {
  const int k = d % kI4Group;
  const uint8_t* group = block + kI4GroupBytes * (d / kI4Group);
  const uint8_t byte = group[64 * (slot / 4) + 4 * (k % 16) + slot % 4];
  return (k & 16 ? byte >> 4 : byte & 15) - 8;
}

float group_scale(const uint8_t* block, int slot, int group) {
  return block_scale(block + kI4GroupBytes * group + kI4CodeBytes, slot);
}

void scores_i4(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride, const uint8_t*) {
  linear_q4(keys_i4(blocks, n_blocks, head_dim), q.quantized, 0, n_blocks, out, out_stride);
}

void accumulate_i4(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride, const uint8_t*) {
  const int groups = head_dim / kI4Group;
  for (int part = 0; part < n_blocks * groups; ++part) {
    const int b = part / groups, g = part % groups;
    const uint8_t* block = blocks + b * kv_block_bytes(KvType::kI4, head_dim);
    for (int i = 0; i < n; ++i) {
      float weight[kKvBlock], largest = 0;
      for (int s = 0; s < kKvBlock; ++s) {
        const float probability = p[i * p_stride + kKvBlock * b + s];
        weight[s] = probability > 0 ? probability * group_scale(block, s, g) : 0.0f;
        largest = std::fmax(largest, std::fabs(weight[s]));
      }
      if (largest == 0) continue;
      const float inverse = 127.0f / largest, step = largest / 127.0f;
      for (int d = kI4Group * g; d < kI4Group * (g + 1); ++d) {
        int32_t sum = 0;
        for (int s = 0; s < kKvBlock; ++s) {
          sum += static_cast<int>(std::lrintf(weight[s] * inverse)) * value_code_i4(block, s, d);
        }
        out[i * out_stride + d] += static_cast<float>(sum) * step;
      }
    }
  }
}

// --- softmax and sampling

float exp_sum(float* x, int n, float maximum) {
  double total = 0;
  for (int i = 0; i < n; ++i) {
    x[i] = std::exp(x[i] - maximum);
    total += x[i];
  }
  return static_cast<float>(total);
}

float maximum(const float* x, size_t n) {
  float largest = -INFINITY;
  for (size_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

size_t collect(const float* x, size_t n, float threshold, int32_t* indexes, size_t capacity) {
  size_t found = 0;
  for (size_t i = 0; i < n; ++i) {
    if (x[i] >= threshold) {
      if (found < capacity) indexes[found] = static_cast<int32_t>(i);
      ++found;
    }
  }
  return found;
}

double sum_exp(const float* x, size_t n, float largest) {
  double total = 0;
  for (size_t i = 0; i < n; ++i) total += std::exp(x[i] - largest);
  return total;
}

// --- the oracle

void reference_linear(const Matrix& w, const float* x, size_t x_stride, int n, int tile_begin,
                      int tile_end, float* out, size_t out_stride) {
  constexpr int kChunk = 512;
  float weights[kChunk];
  for (int row = tile_begin * kTileRows; row < tile_end * kTileRows; ++row) {
    for (int i = 0; i < n; ++i) out[i * out_stride + row] = 0;
    if (row >= w.rows) continue;
    for (int begin = 0; begin < w.cols; begin += kChunk) {
      const int end = begin + kChunk < w.cols ? begin + kChunk : w.cols;
      dequantize_columns(w, row, begin, end, weights);
      for (int i = 0; i < n; ++i) {
        double acc = 0;
        for (int c = begin; c < end; ++c) {
          acc += static_cast<double>(weights[c - begin]) * x[i * x_stride + c];
        }
        out[i * out_stride + row] += static_cast<float>(acc);
      }
    }
  }
}

void reference_scores_i8(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q,
                         float* out, size_t out_stride, const uint8_t*) {
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * kv_block_bytes(KvType::kI8, head_dim);
    const uint8_t* scales = block + static_cast<size_t>(kKvBlock) * head_dim;
    for (int i = 0; i < q.n; ++i) {
      for (int s = 0; s < kKvBlock; ++s) {
        double acc = 0;
        for (int d = 0; d < head_dim; ++d) {
          acc += static_cast<double>(q.x[static_cast<size_t>(i) * head_dim + d]) *
                 key_code(block, s, d);
        }
        out[i * out_stride + kKvBlock * b + s] = static_cast<float>(acc * block_scale(scales, s));
      }
    }
  }
}

void reference_accumulate_i8(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                             size_t p_stride, int n, float* out, size_t out_stride,
                             const uint8_t*) {
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * kv_block_bytes(KvType::kI8, head_dim);
    const uint8_t* scales = block + static_cast<size_t>(kKvBlock) * head_dim;
    for (int i = 0; i < n; ++i) {
      for (int s = 0; s < kKvBlock; ++s) {
        if (p[i * p_stride + kKvBlock * b + s] == 0) continue;
        const float weight = p[i * p_stride + kKvBlock * b + s] * block_scale(scales, s);
        for (int d = 0; d < head_dim; ++d) {
          out[i * out_stride + d] += weight * value_code(block, s, d, head_dim);
        }
      }
    }
  }
}

void reference_scores_i4(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q,
                         float* out, size_t out_stride, const uint8_t*) {
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * kv_block_bytes(KvType::kI4, head_dim);
    for (int i = 0; i < q.n; ++i) {
      for (int s = 0; s < kKvBlock; ++s) {
        double acc = 0;
        for (int d = 0; d < head_dim; ++d) {
          acc += static_cast<double>(q.x[static_cast<size_t>(i) * head_dim + d]) *
                 (key_code_i4(block, s, d) * group_scale(block, s, d / kI4Group));
        }
        out[i * out_stride + kKvBlock * b + s] = static_cast<float>(acc);
      }
    }
  }
}

void reference_accumulate_i4(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                             size_t p_stride, int n, float* out, size_t out_stride,
                             const uint8_t*) {
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + b * kv_block_bytes(KvType::kI4, head_dim);
    for (int i = 0; i < n; ++i) {
      for (int s = 0; s < kKvBlock; ++s) {
        const float probability = p[i * p_stride + kKvBlock * b + s];
        if (probability == 0) continue;
        for (int d = 0; d < head_dim; ++d) {
          out[i * out_stride + d] += probability * group_scale(block, s, d / kI4Group) *
                                     static_cast<float>(value_code_i4(block, s, d));
        }
      }
    }
  }
}

}  // namespace

void dequantize_columns(const Matrix& w, int row, int begin, int end, float* out) {
  if (w.type != Type::kQ4 && w.type != Type::kQ8) {
    for (int c = begin; c < end; ++c) {
      out[c - begin] = dense_value(w, static_cast<size_t>(row) * w.cols + c);
    }
    return;
  }
  const bool is_q4 = w.type == Type::kQ4;
  const uint8_t* tile = w.data + (row / kTileRows) * w.tile_bytes();
  const size_t bytes = block_bytes(w.type, w.group, w.has_min);
  const int r = row % kTileRows;
  for (int c = begin; c < end; ++c) {
    const uint8_t* block = tile + (c / w.group) * bytes;
    const uint8_t* scales = block + static_cast<size_t>(w.group) * (is_q4 ? 8 : 16);
    const int k = c % w.group;
    float value;
    if (is_q4) {
      const uint8_t byte = block[64 * (k / 8) + 4 * r + (k & 3)];
      const int code = k & 4 ? byte >> 4 : byte & 15;
      value = w.unit != 0 ? w.levels[code] : static_cast<float>(w.codebook[code]);
    } else {
      value = static_cast<float>(static_cast<int8_t>(block[64 * (k / 4) + 4 * r + (k & 3)]));
    }
    float scale = block_scale(scales, r);
    if (w.unit != 0) scale *= w.unit;
    const float minimum = w.has_min ? block_scale(scales + kScaleBytes, r) : 0;
    out[c - begin] = w.has_zero ? (value - minimum) * scale : value * scale + minimum;
  }
}

const IsaTable* scalar_table() {
  static const IsaTable table = {
      "scalar",
      linear_q4,
      linear_q8,
      linear_dense,
      add_low_rank,
      sums_q4,
      sums_q8,
      quantize,
      rms_norm,
      rope,
      silu_mul,
      add,
      {store_key<Half>, store_key_i8, store_i4<place_key_i4>},
      {store_value<Half>, store_value_i8, store_i4<place_value_i4>},
      {scores<Half>, scores_i8, scores_i4},
      {accumulate<Half>, accumulate_i8, accumulate_i4},
      exp_sum,
      maximum,
      collect,
      sum_exp,
  };
  return &table;
}

const ReferenceTable& reference_table() {
  static const ReferenceTable table = {
      reference_linear,
      {store_key<Half>, store_key_i8, store_i4<place_key_i4>, store_key<Single>},
      {store_value<Half>, store_value_i8, store_i4<place_value_i4>, store_value<Single>},
      {scores<Half>, reference_scores_i8, reference_scores_i4, scores<Single>},
      {accumulate<Half>, reference_accumulate_i8, reference_accumulate_i4, accumulate<Single>},
  };
  return table;
}

}  // namespace qe
