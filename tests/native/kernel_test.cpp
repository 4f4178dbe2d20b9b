// Holds the kernel tables against the scalar one. Build it together with native/isa/*.cpp:
//   g++ -std=c++17 -O3 -pthread -I qwen_edge/native tests/native/kernel_test.cpp
//       qwen_edge/native/isa/*.cpp -o kernel_test
//   kernel_test [--list | --speed [--threads N]] [table ...]
// Without names it takes every table that this processor runs; a named table is run unasked. --list
// only says which tables those are, --speed measures them.
//
// Integers must agree bit for bit. A float's error is |ours - scalar's| over the largest magnitude
// of its output row, so that cancellation within one sum does not count ("row"), or over its own
// magnitude where nothing cancels ("each").
#include <algorithm>
#include <vector>

#include "kernel_cases.h"
#include "kernel_speed.h"

namespace qe_test {
namespace {

constexpr double kTolerance = 1e-5;
int passed = 0, failed = 0;

// One line of the report: the worst error of many cases.
class Check {
 public:
  Check(const IsaTable& isa, const std::string& what, double tolerance)
      : name_(std::string(isa.name) + " " + what), tolerance_(tolerance) {}
  Check(const Check&) = delete;
  ~Check() {
    const bool ok = first_failure_.empty() && cases_ > 0;
    ++(ok ? passed : failed);
    std::printf("%s %s: %ld cases, worst %.3g%s%s\n", ok ? "ok  " : "FAIL", name_.c_str(), cases_,
                worst_, ok ? "" : ", first at ", first_failure_.c_str());
  }

  void error(double error, const std::string& where) {
    ++cases_;
    // Not a number is a failure as well.
    if (!(error <= tolerance_) && first_failure_.empty()) first_failure_ = where;
    if (!(error <= worst_)) worst_ = error;
  }

  // The largest error over a row of n floats.
  void row(const float* ours, const float* truth, int n, const std::string& where) {
    double largest = 1e-30, worst = 0;
    for (int i = 0; i < n; ++i) largest = std::max(largest, std::fabs(double(truth[i])));
    for (int i = 0; i < n; ++i) {
      const double error = std::fabs(double(ours[i]) - truth[i]) / largest;
      if (!(error <= worst)) worst = error;
    }
    error(worst, where);
  }

  void each(const float* ours, const float* truth, int n, const std::string& where) {
    for (int i = 0; i < n; ++i) {
      const double size = std::max(std::fabs(double(truth[i])), 1e-25);
      error(std::fabs(double(ours[i]) - truth[i]) / size, where);
    }
  }

  // Counts the elements that differ in any bit.
  template <typename T>
  void same(const T* ours, const T* truth, size_t n, const std::string& where) {
    int different = 0;
    for (size_t i = 0; i < n; ++i) different += std::memcmp(&ours[i], &truth[i], sizeof(T)) != 0;
    error(different, where);
  }

 private:
  std::string name_;
  double tolerance_, worst_ = 0;
  long cases_ = 0;
  std::string first_failure_;
};

// --- linear

void check_sums(const IsaTable& isa) {
  const IsaTable& truth = *scalar_table();
  Random random(1);
  for (int kind = 0; kind <= kCodebooks; ++kind) {
    const bool q8 = kind == kCodebooks;
    Check check(isa, q8 ? "sums_q8" : format("sums_q4 %s", codebook_name(kind)), 0);
    for (int repeat = 0; repeat < 200; ++repeat) {
      int8_t codebook[16];
      if (!q8) fill_codebook(kind, random, codebook);
      Guarded<uint8_t> codes(q8 ? 512 : 256);
      fill_codes(random, codes.data(), codes.size(), true);
      for (size_t i = 0; i < codes.size() && q8 && repeat % 4 == 0; ++i) {
        codes[i] = static_cast<uint8_t>(127 + random.between(0, 1));  // 127 and -128
      }
      Guarded<int8_t> x(kActivationGroup);
      int32_t sum = 0;
      for (int i = 0; i < kActivationGroup; ++i) {
        x[i] = pattern_code(repeat % kCodePatterns, random, i);
        sum += x[i];
      }
      int32_t ours[kTileRows], expected[kTileRows];
      if (q8) {
        const int8_t* bytes = reinterpret_cast<const int8_t*>(codes.data());
        isa.sums_q8(bytes, x.data(), sum, ours);
        truth.sums_q8(bytes, x.data(), sum, expected);
      } else {
        isa.sums_q4(codes.data(), codebook, x.data(), sum, ours);
        truth.sums_q4(codes.data(), codebook, x.data(), sum, expected);
      }
      check.same(ours, expected, kTileRows, format("repeat %d", repeat));
    }
  }
}

// Compares rows of outputs, [n, stride], of tiles [begin, end) and sees that nothing else changed.
void compare_tiles(Check& check, bool exact, const Guarded<float>& ours,
                   const Guarded<float>& truth, int n, size_t stride, int begin, int end, int rows,
                   const std::string& where) {
  uint32_t untouched = 0xa5a5a5a5;
  size_t stray = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const int column = static_cast<int>(i % stride);
    if (column >= begin * kTileRows && column < end * kTileRows) continue;
    stray += std::memcmp(&ours[i], &untouched, 4) != 0;
  }
  if (stray > 0) check.error(INFINITY, where + ", writes outside of its tiles");
  const int first = begin * kTileRows, used = std::min(end * kTileRows, rows) - first;
  for (int i = 0; i < n; ++i) {
    const float* a = &ours[i * stride + first];
    const float* b = &truth[i * stride + first];
    exact ? check.same(a, b, used, where) : check.row(a, b, used, where);
    for (int c = used; c < (end - begin) * kTileRows; ++c) {
      if (!std::isfinite(a[c])) check.error(INFINITY, where + ", padding is not finite");
    }
  }
}

void linear_case(Check& check, const IsaTable& isa, Random& random, Type type, int group,
                 bool has_min, int codebook, bool exact, int n, int max_groups) {
  const int groups = random.between(1, max_groups), tiles = random.between(1, 5);
  const int cols = groups * group - random.between(0, std::min(31, group - 1));
  const int rows = tiles * kTileRows - random.between(0, kTileRows - 1);
  const int begin = random.between(0, tiles - 1), end = random.between(begin + 1, tiles);
  Weights w = packed_weights(random, type, rows, cols, group, has_min, codebook, exact);
  const int x_cols =
      random.between(0, 1) ? w.matrix.padded_cols() : static_cast<int>(round_up(cols, 128));
  ActivationRows x(random, n, cols, x_cols, exact,
                   exact ? random.between(0, kCodePatterns - 1) : 0);
  const size_t stride = tiles * kTileRows + random.between(0, 9);
  Guarded<float> ours(n * stride), truth(n * stride);
  const bool q4 = type == Type::kQ4;
  (q4 ? isa.linear_q4 : isa.linear_q8)(w.matrix, x.rows, begin, end, ours.data(), stride);
  (q4 ? scalar_table()->linear_q4 : scalar_table()->linear_q8)(w.matrix, x.rows, begin, end,
                                                               truth.data(), stride);
  compare_tiles(
      check, exact, ours, truth, n, stride, begin, end, rows,
      format("n %d, rows %d, cols %d of %d, tiles %d to %d", n, rows, cols, x_cols, begin, end));
}

void check_linear(const IsaTable& isa) {
  Random random(2);
  for (int group : {32, 64, 128}) {
    for (int variant = 0; variant <= 2 * kCodebooks; ++variant) {
      const bool q8 = variant == 2 * kCodebooks, has_min = variant % 2 == 1;
      const Type type = q8 ? Type::kQ8 : Type::kQ4;
      const std::string what =
          q8 ? format("linear_q8 group %d", group)
             : format("linear_q4 group %d%s, %s", group, has_min ? " with minimums" : "",
                      codebook_name(variant / 2));
      {
        // With unit scales every float is an integer below 2^24, whatever the order.
        Check check(isa, what + ", integers", 0);
        for (int n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 33}) {
          linear_case(check, isa, random, type, group, has_min, variant / 2, true, n, 512 / group);
        }
      }
      Check check(isa, what + ", row", kTolerance);
      for (int n = 1; n <= 40; n += q8 || variant < 2 ? 1 : random.between(1, 5)) {
        linear_case(check, isa, random, type, group, has_min, variant / 2, false, n,
                    n % 4 == 0 ? 1056 / group : 288 / group);
      }
    }
  }
}

void check_dense(const IsaTable& isa) {
  Random random(3);
  for (Type type : {Type::kF32, Type::kF16, Type::kBF16}) {
    const char* name = type == Type::kF32 ? "F32" : type == Type::kF16 ? "F16" : "BF16";
    Check check(isa, format("linear_dense %s, row", name), kTolerance);
    for (int repeat = 0; repeat < 60; ++repeat) {
      const int n = repeat < 20 ? repeat + 1 : random.between(1, 9);
      const int cols = repeat % 3 ? random.between(1, 300) : 32 * random.between(1, 33);
      const int rows = random.between(1, 80), tiles = (rows + kTileRows - 1) / kTileRows;
      const int begin = random.between(0, tiles - 1), end = random.between(begin + 1, tiles);
      const size_t x_stride = cols + random.between(0, 5);
      const size_t stride = tiles * kTileRows + random.between(0, 9);
      Weights w = dense_weights(random, type, rows, cols);
      Guarded<float> x = random_floats(random, (n - 1) * x_stride + cols, 3);
      Guarded<float> ours(n * stride), truth(n * stride);
      isa.linear_dense(w.matrix, x.data(), x_stride, n, begin, end, ours.data(), stride);
      scalar_table()->linear_dense(w.matrix, x.data(), x_stride, n, begin, end, truth.data(),
                                   stride);
      compare_tiles(check, false, ours, truth, n, stride, begin, end, rows,
                    format("n %d, rows %d, cols %d, tiles %d to %d", n, rows, cols, begin, end));
    }
  }
}

// --- rows

void check_quantize(const IsaTable& isa) {
  Random random(4);
  Check check(isa, "quantize: codes, scales, sums", 0);
  for (int repeat = 0; repeat < 200; ++repeat) {
    const int groups = random.between(1, 9), n = groups * kActivationGroup;
    Guarded<float> x = random_floats(random, n, std::pow(10.0f, float(random.between(-20, 20))));
    for (int g = 0; g < groups; ++g) {
      float* part = &x[g * kActivationGroup];
      const int kind = random.between(0, 7), place = random.between(0, kActivationGroup - 1);
      const float largest = kind < 2 ? 127.0f : std::fabs(part[place]) + 1e-30f;
      if (kind == 7) continue;  // anything
      // Ties, exact or as near as rounding comes; a lone value; nothing at all.
      for (int i = 0; i < kActivationGroup; ++i) {
        const float half = 0.5f * static_cast<float>(random.between(-253, 253));
        part[i] = kind == 5 || kind == 6 ? 0.0f : half / (127.0f / largest);
      }
      if (kind < 6) part[place] = -largest;
    }
    Guarded<int8_t> codes(n), true_codes(n);
    Guarded<float> scale(groups), true_scale(groups);
    Guarded<int32_t> sum(groups), true_sum(groups);
    isa.quantize(x.data(), n, codes.data(), scale.data(), sum.data());
    scalar_table()->quantize(x.data(), n, true_codes.data(), true_scale.data(), true_sum.data());
    const std::string where = format("repeat %d, n %d", repeat, n);
    check.same(codes.data(), true_codes.data(), n, where);
    check.same(scale.data(), true_scale.data(), groups, where);
    check.same(sum.data(), true_sum.data(), groups, where);
  }
}

void check_rows(const IsaTable& isa) {
  const IsaTable& truth = *scalar_table();
  Random random(5);
  Check norm(isa, "rms_norm, row", kTolerance), rope(isa, "rope, row", kTolerance);
  Check silu(isa, "silu_mul, each", kTolerance), add(isa, "add, each", kTolerance);
  for (int n = 1; n <= 1100; n += n < 70 ? 1 : 103) {
    const std::string where = format("n %d", n);
    const Guarded<float> x = random_floats(random, n, 5), y = random_floats(random, n, 2);
    Guarded<float> ours(x), expected(x);
    isa.rms_norm(x.data(), y.data(), n, 1e-6f, ours.data());
    truth.rms_norm(x.data(), y.data(), n, 1e-6f, expected.data());
    norm.row(ours.data(), expected.data(), n, where);
    std::memcpy(ours.data(), x.data(), x.bytes());
    isa.rms_norm(ours.data(), y.data(), n, 1e-6f, ours.data());
    norm.row(ours.data(), expected.data(), n, where + " in place");

    const Guarded<float> angle = random_floats(random, n, 3.2f);
    Guarded<float> cosine(n), sine(n), head(2 * static_cast<size_t>(n));
    for (int i = 0; i < n; ++i) {
      cosine[i] = std::cos(angle[i]);
      sine[i] = std::sin(angle[i]);
      head[i] = x[i];
      head[n + i] = y[i];
    }
    Guarded<float> true_head(head);
    isa.rope(head.data(), cosine.data(), sine.data(), n);
    truth.rope(true_head.data(), cosine.data(), sine.data(), n);
    rope.row(head.data(), true_head.data(), 2 * n, where);

    const float size = n % 3 == 0 ? 100.0f : n % 3 == 1 ? 10.0f : 0.5f;
    Guarded<float> gate = random_floats(random, n, size);
    if (n % 3 == 0) gate[random.between(0, n - 1)] = random.between(0, 1) ? 100.0f : -100.0f;
    isa.silu_mul(gate.data(), y.data(), n, ours.data());
    truth.silu_mul(gate.data(), y.data(), n, expected.data());
    silu.each(ours.data(), expected.data(), n, where);
    isa.silu_mul(gate.data(), y.data(), n, gate.data());
    silu.each(gate.data(), expected.data(), n, where + " in place");

    Guarded<float> total(x), true_total(x);
    isa.add(total.data(), y.data(), n);
    truth.add(true_total.data(), y.data(), n);
    add.each(total.data(), true_total.data(), n, where);
  }
}

// --- attention

const char* kv_name(int type) { return type == 0 ? "F16" : "I8"; }

void check_stores(const IsaTable& isa) {
  const IsaTable& truth = *scalar_table();
  Random random(6);
  const float sizes[] = {1, 1e-6f, 30, 1e7f, 1e-3f, 0};
  for (int type = 0; type < kKvTypes; ++type) {
    Check check(isa, format("store_key, store_value %s: codes, scales", kv_name(type)), 0);
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

// A vector whose INT8 scale is exactly 1, or any.
void make_vector(Random& random, bool integers, Guarded<float>& x) {
  for (size_t d = 0; d < x.size(); ++d) {
    x[d] = integers ? static_cast<float>(random.between(-127, 127)) : random.around_zero(4);
  }
  for (size_t g = 0; g < x.size() && integers; g += kActivationGroup) {
    x[g + random.between(0, kActivationGroup - 1)] = random.between(0, 1) ? 127.0f : -127.0f;
  }
}

void scores_case(Check& check, const IsaTable& isa, Random& random, int type, int head_dim, int n,
                 int n_blocks, bool exact) {
  const int positions = n_blocks * kKvBlock - random.between(0, kKvBlock - 1);
  const Guarded<uint8_t> blocks =
      kv_blocks(static_cast<KvType>(type), true, n_blocks, head_dim, positions,
                [&](Guarded<float>& x) { make_vector(random, exact, x); });
  Guarded<float> x(static_cast<size_t>(n) * head_dim), scale(x.size() / kActivationGroup);
  Guarded<int8_t> codes(x.size());
  Guarded<int32_t> sum(scale.size());
  make_vector(random, exact, x);
  scalar_table()->quantize(x.data(), n * head_dim, codes.data(), scale.data(), sum.data());
  Queries queries{x.data(), {}, n};
  if (type != 0) queries.quantized = {codes.data(), scale.data(), sum.data(), n, head_dim};
  const size_t stride = n_blocks * kKvBlock + random.between(0, 9);
  Guarded<float> ours(n * stride), truth(n * stride);
  isa.scores[type](blocks.data(), n_blocks, head_dim, queries, ours.data(), stride);
  scalar_table()->scores[type](blocks.data(), n_blocks, head_dim, queries, truth.data(), stride);
  compare_tiles(check, exact, ours, truth, n, stride, 0, n_blocks, n_blocks * kKvBlock,
                format("head_dim %d, n %d, %d blocks", head_dim, n, n_blocks));
}

// With integers, value scales are 1 and the largest weight is 127 (exact) or any (near ties).
void accumulate_case(Check& check, const IsaTable& isa, Random& random, int type, int head_dim,
                     int n, int n_blocks, bool exact) {
  const bool ties = type == 1 && !exact && random.between(0, 1) == 0, integers = exact || ties;
  const int positions = n_blocks * kKvBlock - random.between(0, kKvBlock - 1);
  Guarded<uint8_t> blocks =
      kv_blocks(static_cast<KvType>(type), false, n_blocks, head_dim, positions,
                [&](Guarded<float>& x) { make_vector(random, integers, x); });
  for (int s = positions % kKvBlock; type == 1 && s % kKvBlock != 0; ++s) {
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
  Guarded<float> truth(ours);
  isa.accumulate[type](blocks.data(), n_blocks, head_dim, p.data(), p_stride, n, ours.data(),
                       stride);
  scalar_table()->accumulate[type](blocks.data(), n_blocks, head_dim, p.data(), p_stride, n,
                                   truth.data(), stride);
  const std::string where = format("head_dim %d, n %d, %d blocks", head_dim, n, n_blocks);
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
    // Exact integers: unit scales in an INT8 cache.
    for (bool exact : {false, true}) {
      if (exact && type == 0) continue;
      const char* norm = exact ? "integers" : "row";
      Check scores(isa, format("scores %s, %s", kv_name(type), norm), exact ? 0 : kTolerance);
      Check accumulate(isa, format("accumulate %s, %s", kv_name(type), norm),
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

// --- softmax and sampling

void check_exp(const IsaTable& isa) {
  Random random(8);
  Check each(isa, "exp_sum: each exp", 3e-7), low(isa, "exp_sum: below -87", 1e-37);
  Check sum(isa, "exp_sum: the sum", 1e-6), wide(isa, "sum_exp", 1e-6);
  const float spreads[] = {1, 10, 80, 87.3f, 300, 1e4f};
  for (int n = 0; n <= 5000; n += n < 70 ? 1 : 1643) {
    const float largest = random.around_zero(50);
    const float spread = spreads[random.between(0, 5)];
    Guarded<float> x(n);
    for (int i = 0; i < n; ++i) {
      const int kind = random.between(0, 40);
      x[i] = kind == 0 ? -INFINITY : kind == 1 ? -3e38f : largest - spread * random.uniform();
    }
    if (n > 0) x[random.between(0, n - 1)] = largest;
    Guarded<float> ours(x);
    const std::string where = format("n %d, maximum %g, spread %g", n, largest, spread);
    double total = 0;
    const double returned = isa.exp_sum(ours.data(), n, largest);
    for (int i = 0; i < n; ++i) {
      const float difference = x[i] - largest;
      const double truth = std::exp(static_cast<double>(difference));
      total += truth;
      if (difference >= -87) {
        each.error(std::fabs(ours[i] - truth) / truth, where + format(", at %a", difference));
      } else {
        low.error(ours[i] >= 0 ? ours[i] : INFINITY, where + format(", at %a", difference));
      }
    }
    sum.error(std::fabs(returned - total) / std::max(total, 1e-30), where);
    const double all = isa.sum_exp(x.data(), n, largest);
    wide.error(std::fabs(all - total) / std::max(total, 1e-30), where);
  }
}

void check_sampling(const IsaTable& isa) {
  const IsaTable& truth = *scalar_table();
  Random random(9);
  Check maximum(isa, "maximum", 0), collect(isa, "collect", 0);
  for (int n = 0; n <= 5000; n += n < 70 ? 1 : 1643) {
    for (int repeat = 0; repeat < 4; ++repeat) {
      Guarded<float> x(n);
      for (int i = 0; i < n; ++i) {
        x[i] = repeat == 3 || random.between(0, 9) == 0
                   ? -INFINITY
                   : 0.25f * static_cast<float>(random.between(-40, repeat == 0 ? -20 : 40));
      }
      const std::string where = format("n %d, repeat %d", n, repeat);
      const float ours = isa.maximum(x.data(), n), expected = truth.maximum(x.data(), n);
      maximum.same(&ours, &expected, 1, where);
      const float threshold = repeat == 3 ? -INFINITY : 0.25f * float(random.between(-41, 41));
      const size_t found = truth.collect(x.data(), n, threshold, nullptr, 0);
      for (size_t capacity : {size_t{0}, found / 2, found, found + 3}) {
        Guarded<int32_t> indexes(capacity), true_indexes(capacity);
        truth.collect(x.data(), n, threshold, true_indexes.data(), capacity);
        const size_t count = isa.collect(x.data(), n, threshold, indexes.data(), capacity);
        collect.same(&count, &found, 1, where);
        collect.same(indexes.data(), true_indexes.data(), capacity, where);
      }
    }
  }
}

void check_table(const IsaTable& isa) {
  check_sums(isa);
  check_linear(isa);
  check_dense(isa);
  check_quantize(isa);
  check_rows(isa);
  check_stores(isa);
  check_attention(isa);
  check_exp(isa);
  check_sampling(isa);
}

struct Candidate {
  const char* name;
  const IsaTable* (*table)();
  bool (*supported)();
};

constexpr Candidate kCandidates[] = {
    {"avx2", avx2_table, avx2_supported},
    {"avx512_vnni", avx512_vnni_table, avx512_vnni_supported},
    {"neon", neon_table, neon_supported},
    {"neon_dotprod", neon_dotprod_table, neon_dotprod_supported},
    {"neon_i8mm", neon_i8mm_table, neon_i8mm_supported},
};

int run(int count, char** arguments) {
  setvbuf(stdout, nullptr, _IOLBF, 0);  // a crash shall not take the lines before it along
  std::vector<std::string> names;
  bool speed = false, list = false;
  int threads = 1;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument == "--list") {
      list = true;
    } else if (argument == "--speed") {
      speed = true;
    } else if (argument == "--threads" && i + 1 < count) {
      threads = std::max(1, std::atoi(arguments[++i]));
    } else {
      names.push_back(argument);
    }
  }
  std::vector<const IsaTable*> tables;
  for (const std::string& name : names) {
    const IsaTable* table = name == "scalar" ? scalar_table() : nullptr;
    for (const Candidate& candidate : kCandidates) {
      if (name == candidate.name) table = candidate.table();
    }
    if (table == nullptr) {
      std::fprintf(stderr, "kernel_test: no table named %s was compiled in\n", name.c_str());
      return 2;
    }
    tables.push_back(table);
  }
  if (names.empty()) {
    for (const Candidate& candidate : kCandidates) {
      if (candidate.table() != nullptr && candidate.supported()) {
        tables.push_back(candidate.table());
      }
    }
  }
  std::printf("tables:");
  for (const IsaTable* table : tables) std::printf(" %s", table->name);
  std::printf("\n");
  if (list) return 0;
  if (speed) {
    measure_speed(tables, threads);
    return 0;
  }
  for (const IsaTable* table : tables) check_table(*table);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace qe_test

int main(int count, char** arguments) { return qe_test::run(count, arguments); }
