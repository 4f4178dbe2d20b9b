// Sums of products of codes, and matrices packed and dense.
#pragma once

#include "kernel_check.h"

namespace qe_test {
namespace {

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

void linear_case(Check& check, const IsaTable& isa, Random& random, Type type, int group,
                 Extra extra, int codebook, bool exact, int n, int max_groups) {
  const int groups = random.between(1, max_groups), tiles = random.between(1, 5);
  const int cols = groups * group - random.between(0, std::min(31, group - 1));
  const int rows = tiles * kTileRows - random.between(0, 7);
  const int begin = random.between(0, tiles - 1), end = random.between(begin + 1, tiles);
  Weights w = packed_weights(random, type, rows, cols, group, extra, codebook, exact);
  const int x_cols =
      random.between(0, 1) ? w.matrix.padded_cols() : static_cast<int>(round_up(cols, 128));
  ActivationRows x(random, n, cols, x_cols, exact,
                   exact ? random.between(0, kCodePatterns - 1) : 0);
  const size_t stride = tiles * kTileRows + random.between(0, 9);
  Guarded<float> ours(n * stride), truth(n * stride);
  const bool q4 = type == Type::kQ4;
  const auto linear = q4 ? isa.linear_q4 : isa.linear_q8;
  const auto true_linear = q4 ? scalar_table()->linear_q4 : scalar_table()->linear_q8;
  linear(w.matrix, x.panels, begin, end, ours.data(), stride);
  true_linear(w.matrix, x.rows, begin, end, truth.data(), stride);
  const std::string where =
      format("n %d, rows %d, cols %d of %d, tiles %d to %d", n, rows, cols, x_cols, begin, end);
  compare_tiles(check, exact, ours, truth, n, stride, begin, end, rows, where);
  const Some some(random, n);
  Guarded<float> apart(some.n * stride);
  linear(w.matrix, x.part(some.first, some.n), begin, end, apart.data(), stride);
  compare_apart(check, ours, apart, some, stride, where);
}

void check_linear(const IsaTable& isa) {
  Random random(2);
  for (int group : {32, 64, 128}) {
    for (int variant = 0; variant < 3 * (kCodebooks + 1); ++variant) {
      static const char* const with[] = {"", " with minimums", " with zero points"};
      const bool q8 = variant / 3 == kCodebooks;
      const Extra extra = static_cast<Extra>(variant % 3);
      const Type type = q8 ? Type::kQ8 : Type::kQ4;
      const std::string what =
          format("linear_%s group %d%s%s", q8 ? "q8" : "q4", group, with[variant % 3],
                 q8 ? "" : format(", %s", codebook_name(variant / 3)).c_str());
      {
        // With unit scales every float is an integer below 2^24, whatever the order.
        Check check(isa, what + ", integers", 0);
        for (int n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 33}) {
          linear_case(check, isa, random, type, group, extra, variant / 3, true, n, 512 / group);
        }
      }
      Check check(isa, what + ", row", kTolerance);
      for (int n = 1; n <= 40; n += q8 || variant < 3 ? 1 : random.between(1, 5)) {
        linear_case(check, isa, random, type, group, extra, variant / 3, false, n,
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
      const std::string where =
          format("n %d, rows %d, cols %d, tiles %d to %d", n, rows, cols, begin, end);
      compare_tiles(check, false, ours, truth, n, stride, begin, end, rows, where);
      const Some some(random, n);
      Guarded<float> apart(some.n * stride);
      isa.linear_dense(w.matrix, &x[some.first * x_stride], x_stride, some.n, begin, end,
                       apart.data(), stride);
      compare_apart(check, ours, apart, some, stride, where);
    }
  }
}

void check_low_rank(const IsaTable& isa) {
  Random random(6);
  Check check(isa, "add_low_rank, row", kTolerance);
  for (int repeat = 0; repeat < 90; ++repeat) {
    const int n = repeat < 20 ? repeat + 1 : random.between(1, 9);
    const int cols = repeat % 3 ? random.between(1, 70) : random.between(1, 1100);
    const int tiles = random.between(1, 5);
    const size_t x_stride = cols + random.between(0, 5);
    const size_t stride = tiles * kTileRows + random.between(0, 9);
    Guarded<uint16_t> w(static_cast<size_t>(tiles) * kTileRows * cols);
    for (size_t i = 0; i < w.size(); ++i) w[i] = float_to_half(random.around_zero(2));
    Guarded<float> x = random_floats(random, (n - 1) * x_stride + cols, 3);
    const Guarded<float> before = random_floats(random, n * stride, 1);
    Guarded<float> ours(before), truth(before), apart(before);
    isa.add_low_rank(w.data(), tiles, cols, x.data(), x_stride, n, ours.data(), stride);
    scalar_table()->add_low_rank(w.data(), tiles, cols, x.data(), x_stride, n, truth.data(),
                                 stride);
    const std::string where = format("n %d, cols %d, tiles %d", n, cols, tiles);
    for (int i = 0; i < n; ++i) {
      check.row(&ours[i * stride], &truth[i * stride], tiles * kTileRows, where);
      // One row at a time, to the last bit.
      isa.add_low_rank(w.data(), tiles, cols, &x[i * x_stride], x_stride, 1, &apart[i * stride],
                       stride);
    }
    check.same(ours.data(), apart.data(), ours.size(), where + ", row by row");
  }
}

}  // namespace
}  // namespace qe_test
