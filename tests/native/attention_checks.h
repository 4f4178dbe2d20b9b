// Storing keys and values, scores and weighted sums.
#pragma once

#include "kernel_check.h"

namespace qe_test {
namespace {

constexpr int kI8 = static_cast<int>(KvType::kI8), kI4 = static_cast<int>(KvType::kI4);

void check_stores(const IsaTable& isa) {
  const IsaTable& truth = *scalar_table();
  Random random(6);
  const float sizes[] = {1, 1e-6f, 30, 1e7f, 1e-3f, 0};
  for (int type = 0; type < kKvTypes; ++type) {
    Check check(isa, format("store_key, store_value %s: codes, scales", kv_type_name(type)), 0);
    for (int head_dim : {32, 64, 96, 128, 256}) {
      const size_t bytes = kv_block_bytes(static_cast<KvType>(type), head_dim);
      Guarded<uint8_t> key(bytes), value(bytes), true_key(bytes), true_value(bytes);
      for (int slot = 0; slot < kKvBlock; ++slot) {
        Guarded<float> x = random_floats(random, head_dim, sizes[random.between(0, 5)]);
        if (slot % 4 == 0) {  // ties, and a scale of exactly 1
          for (int d = 0; d < head_dim; ++d) x[d] = 0.5f * float(random.between(-253, 253));
          x[random.between(0, head_dim - 1)] = 127;
        }
        if (slot % 4 == 1) x[random.between(0, head_dim - 1)] = random.around_zero(65536);
        if (slot % 4 == 2) {  // near ties with any scale
          const float largest = 1 + random.uniform();
          const float scale = half_to_float(float_to_half(largest / 127.0f));
          for (int d = 0; d < head_dim; ++d) x[d] = 0.5f * float(random.between(-253, 253)) * scale;
          x[random.between(0, head_dim - 1)] = largest;
        }
        if (slot % 8 == 5) {  // a group of zeros, and one whose extremes differ in sign only
          for (int d = 0; d < 32; ++d) x[d] = slot == 5 ? 0.0f : float(d % 15 - 7);
        }
        const std::string where = format("head_dim %d, slot %d", head_dim, slot);
        isa.store_key[type](key.data(), slot, x.data(), head_dim);
        isa.store_value[type](value.data(), slot, x.data(), head_dim);
        truth.store_key[type](true_key.data(), slot, x.data(), head_dim);
        truth.store_value[type](true_value.data(), slot, x.data(), head_dim);
        check.same(key.data(), true_key.data(), bytes, where + ", key");
        check.same(value.data(), true_value.data(), bytes, where + ", value");
      }
    }
  }
}

// A vector whose INT8 or INT4 scales are exactly 1, or any.
void make_vector(Random& random, bool integers, int type, Guarded<float>& x) {
  const int most = type == kI4 ? 7 : 127, least = type == kI4 ? -8 : -127;
  for (size_t d = 0; d < x.size(); ++d) {
    x[d] = integers ? static_cast<float>(random.between(least, most)) : random.around_zero(4);
  }
  for (size_t g = 0; g < x.size() && integers; g += kActivationGroup) {
    const bool positive = type != kI4 && random.between(0, 1);
    x[g + random.between(0, kActivationGroup - 1)] = static_cast<float>(positive ? most : least);
  }
}

void scores_case(Check& check, const IsaTable& isa, Random& random, int type, int head_dim, int n,
                 int n_blocks, bool exact) {
  const int positions = n_blocks * kKvBlock - random.between(0, kKvBlock - 1);
  const Guarded<uint8_t> blocks =
      kv_blocks(static_cast<KvType>(type), true, n_blocks, head_dim, positions,
                [&](Guarded<float>& x) { make_vector(random, exact, type, x); });
  Guarded<float> x(static_cast<size_t>(n) * head_dim), scale(x.size() / kActivationGroup);
  Guarded<int8_t> codes(x.size());
  Guarded<int32_t> sum(scale.size());
  make_vector(random, exact, kI8, x);
  scalar_table()->quantize(x.data(), n * head_dim, 1, codes.data(), scale.data(), sum.data());
  Queries queries{x.data(), {}, n};
  if (type != 0) queries.quantized = {codes.data(), scale.data(), sum.data(), n, head_dim};
  const size_t stride = n_blocks * kKvBlock + random.between(0, 9);
  Guarded<float> ours(n * stride), truth(n * stride);
  isa.scores[type](blocks.data(), n_blocks, head_dim, queries, ours.data(), stride, nullptr);
  scalar_table()->scores[type](blocks.data(), n_blocks, head_dim, queries, truth.data(), stride,
                               nullptr);
  const std::string where = format("head_dim %d, n %d, %d blocks", head_dim, n, n_blocks);
  compare_tiles(check, exact, ours, truth, n, stride, 0, n_blocks, n_blocks * kKvBlock, where);
  const Some some(random, n);
  const size_t at = static_cast<size_t>(some.first) * head_dim, group = at / kActivationGroup;
  Queries few{&x[at], {}, some.n};
  if (type != 0) few.quantized = {&codes[at], &scale[group], &sum[group], some.n, head_dim};
  Guarded<float> apart(some.n * stride);
  isa.scores[type](blocks.data(), n_blocks, head_dim, few, apart.data(), stride, nullptr);
  compare_apart(check, ours, apart, some, stride, where);
}

// With integers, value scales are 1 and the largest weight is 127 (exact) or any (near ties).
void accumulate_case(Check& check, const IsaTable& isa, Random& random, int type, int head_dim,
                     int n, int n_blocks, bool exact) {
  const bool ties = type != 0 && !exact && random.between(0, 1) == 0, integers = exact || ties;
  const int positions = n_blocks * kKvBlock - random.between(0, kKvBlock - 1);
  Guarded<uint8_t> blocks =
      kv_blocks(static_cast<KvType>(type), false, n_blocks, head_dim, positions,
                [&](Guarded<float>& x) { make_vector(random, integers, type, x); });
  for (int s = positions % kKvBlock; type != 0 && s % kKvBlock != 0; ++s) {
    // An empty slot's scale may be anything: its weight is 0.
    const uint16_t infinity = 0x7c00;
    std::memcpy(&blocks[blocks.size() - 2 * (kKvBlock - s)], &infinity, 2);
  }
  const size_t p_stride = n_blocks * kKvBlock + random.between(0, 9);
  Guarded<float> p((n - 1) * p_stride + n_blocks * kKvBlock);
  for (int i = 0; i < n; ++i) {
    for (int b = 0; b < n_blocks; ++b) {
      const bool nothing = random.between(0, 6) == 0;
      const float size = random.between(0, 3) ? 1.0f : 1e-20f;
      const float largest = exact ? 127.0f : 1 + random.uniform();
      for (int s = 0; s < kKvBlock; ++s) {
        const bool zero = nothing || random.between(0, 5) == 0 || kKvBlock * b + s >= positions;
        const float half = 0.5f * static_cast<float>(random.between(0, 253));
        const float value = integers ? half / (127.0f / largest) : random.uniform() * size;
        p[i * p_stride + kKvBlock * b + s] = zero ? 0.0f : value;
      }
      if (integers && !nothing) p[i * p_stride + kKvBlock * b] = largest;
    }
  }
  const size_t stride = head_dim + random.between(0, 9);
  Guarded<float> ours(n * stride);
  for (size_t i = 0; i < ours.size(); ++i) {
    ours[i] = exact ? static_cast<float>(random.between(-99, 99)) : random.around_zero(1);
  }
  const Some some(random, n);
  Guarded<float> truth(ours), apart(some.n * stride);
  std::memcpy(apart.data(), &ours[some.first * stride], apart.bytes());
  isa.accumulate[type](blocks.data(), n_blocks, head_dim, p.data(), p_stride, n, ours.data(),
                       stride, nullptr);
  scalar_table()->accumulate[type](blocks.data(), n_blocks, head_dim, p.data(), p_stride, n,
                                   truth.data(), stride, nullptr);
  const std::string where = format("head_dim %d, n %d, %d blocks", head_dim, n, n_blocks);
  isa.accumulate[type](blocks.data(), n_blocks, head_dim, &p[some.first * p_stride], p_stride,
                       some.n, apart.data(), stride, nullptr);
  compare_apart(check, ours, apart, some, stride, where);
  for (int i = 0; i < n; ++i) {
    const int used = i == n - 1 ? static_cast<int>(stride) : head_dim;
    if (exact) {
      check.same(&ours[i * stride], &truth[i * stride], used, where);
    } else {
      check.row(&ours[i * stride], &truth[i * stride], head_dim, where);
      check.same(&ours[i * stride + head_dim], &truth[i * stride + head_dim], stride - head_dim,
                 where + ", writes past the head");
    }
  }
}

void check_attention(const IsaTable& isa) {
  Random random(7);
  for (int type = 0; type < kKvTypes; ++type) {
    // Exact integers: unit scales in an INT8 or INT4 cache.
    for (bool exact : {false, true}) {
      if (exact && type == 0) continue;
      const char* norm = exact ? "integers" : "row";
      Check scores(isa, format("scores %s, %s", kv_type_name(type), norm), exact ? 0 : kTolerance);
      Check accumulate(isa, format("accumulate %s, %s", kv_type_name(type), norm),
                       exact ? 0 : kTolerance);
      for (int head_dim : {32, 64, 96, 128, 256}) {
        for (int n = 1; n <= 20; ++n) {
          const int n_blocks = 1 + (n * 7 + head_dim / 32) % 9;
          scores_case(scores, isa, random, type, head_dim, n, n_blocks, exact);
          accumulate_case(accumulate, isa, random, type, head_dim, n, n_blocks, exact);
        }
      }
    }
  }
}

}  // namespace
}  // namespace qe_test
