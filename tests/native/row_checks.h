// Quantizing, elementwise kernels, softmax and the sampler's passes.
#pragma once

#include "kernel_check.h"

namespace qe_test {
namespace {

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
    const int panel = random.between(0, 1) ? 1 : 8 * random.between(1, 3);
    const size_t steps = static_cast<size_t>(panel) * (groups - 1) + 1;
    Guarded<int8_t> codes(steps * kActivationGroup), true_codes(n);
    Guarded<float> scale(steps), true_scale(groups);
    Guarded<int32_t> sum(steps), true_sum(groups);
    isa.quantize(x.data(), n, panel, codes.data(), scale.data(), sum.data());
    scalar_table()->quantize(x.data(), n, 1, true_codes.data(), true_scale.data(), true_sum.data());
    const std::string where = format("repeat %d, n %d, panel %d", repeat, n, panel);
    for (int g = 0; g < groups; ++g) {
      const size_t at = static_cast<size_t>(panel) * g;
      check.same(&codes[kActivationGroup * at], &true_codes[size_t{kActivationGroup} * g],
                 kActivationGroup, where);
      check.same(&scale[at], &true_scale[g], 1, where);
      check.same(&sum[at], &true_sum[g], 1, where);
    }
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

}  // namespace
}  // namespace qe_test
