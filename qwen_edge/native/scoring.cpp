// How well rows of logits predict: log probabilities, divergences, and rows packed for a file. All
// sums are taken in double, in an order that depends on nothing but the vocabulary.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "c_api.h"
#include "dispatch.h"
#include "no_contraction.h"
#include "parallel_for.h"
#include "status.h"

namespace qe {
namespace {

// Sums run in this many lanes, so that compilers find vectors in them without reordering anything.
constexpr int kLanes = 8;
constexpr float kMostCode = 65535.0f;

// e^x for x <= 0 to about 1e-15, as arithmetic without branches or calls: 2^n times the series of
// the rest, with n taken from the bits that adding 1.5 * 2^52 leaves.
inline double exp_of_negative(double x) {
  constexpr double kRounder = 0x1.8p52, kLog2E = 1.4426950408889634;
  constexpr double kLn2High = 0x1.62e42fefap-1, kLn2Low = 0x1.cf79abc9e3b3ap-40;
  x = x < -700.0 ? -700.0 : x;  // a NaN stays one
  double n = x * kLog2E + kRounder;
  uint64_t bits;
  std::memcpy(&bits, &n, sizeof(bits));
  n -= kRounder;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  // Not by Horner: these products wait less for each other.
  const double r2 = r * r, r4 = r2 * r2;
  const double low = (1.0 + r) + r2 * (1.0 / 2 + r * (1.0 / 6));
  const double middle = (1.0 / 24 + r * (1.0 / 120)) + r2 * (1.0 / 720 + r * (1.0 / 5040));
  const double high =
      (1.0 / 40320 + r * (1.0 / 362880)) + r2 * (1.0 / 3628800 + r * (1.0 / 39916800));
  const double series = low + r4 * (middle + r4 * high);
  bits = (bits + 1023) << 52;
  double power;
  std::memcpy(&power, &bits, sizeof(power));
  return series * power;
}

double sum_of(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
         ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

double finite(double value) {
  if (!std::isfinite(value)) throw Error(kFormat, "it computes what is not a number");
  return value;
}

// Logarithm of the sum of e^logit.
double log_total(const float* row, int vocab, float maximum) {
  double lanes[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= vocab; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += exp_of_negative(static_cast<double>(row[i + lane]) - maximum);
    }
  }
  for (; i < vocab; ++i) lanes[i % kLanes] += exp_of_negative(double{row[i]} - maximum);
  return finite(maximum + std::log(sum_of(lanes)));
}

double divergence(const float* truth, const float* row, int vocab) {
  const IsaTable& isa = active_table();
  const float maximum = isa.maximum(truth, vocab);
  double totals[kLanes] = {}, weighed[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= vocab; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = truth[i + lane];
      const double share = exp_of_negative(value - maximum);
      totals[lane] += share;
      weighed[lane] += share * (value - row[i + lane]);
    }
  }
  for (; i < vocab; ++i) {
    const double share = exp_of_negative(double{truth[i]} - maximum);
    totals[i % kLanes] += share;
    weighed[i % kLanes] += share * (double{truth[i]} - row[i]);
  }
  const double total = sum_of(totals), difference = sum_of(weighed) / total;
  const double between = maximum + std::log(total) - log_total(row, vocab, isa.maximum(row, vocab));
  // Of equal rows rounding may leave a little below nothing.
  return std::max(finite(difference - between), 0.0);
}

struct PackedRange {
  float lowest;  // log probability that code 0 stands for
  float step;    // between two codes, in nats
};

void pack_row(const float* row, int vocab, PackedRange* range, uint16_t* codes) {
  const float highest = active_table().maximum(row, vocab);
  const float lowest = *std::min_element(row, row + vocab);
  const double total = log_total(row, vocab, highest);
  finite(lowest);
  range->lowest = static_cast<float>(lowest - total);
  range->step = (highest - lowest) / kMostCode;
  const float codes_per_nat = range->step > 0.0f ? 1.0f / range->step : 0.0f;
  for (int i = 0; i < vocab; ++i) {
    const float code = std::min((row[i] - lowest) * codes_per_nat + 0.5f, kMostCode);
    codes[i] = static_cast<uint16_t>(static_cast<int32_t>(code));
  }
}

void unpack_row(PackedRange range, const uint16_t* codes, int vocab, float* row) {
  for (int i = 0; i < vocab; ++i) {
    row[i] = range.lowest + range.step * static_cast<float>(codes[i]);
  }
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_score_rows(const float* const* rows, int32_t n, int32_t vocab,
                             const int32_t* tokens, int32_t threads, double* logprobs,
                             int32_t* top) {
  return qe::guarded([&] {
    for (int i = 0; i < n; ++i) {
      if (tokens[i] < 0 || tokens[i] >= vocab) {
        throw qe::Error(qe::kArgument, "a token is out of range");
      }
    }
    qe::parallel_for(n, threads, 1, [&](int64_t i) {
      const float* row = rows[i];
      const float maximum = qe::active_table().maximum(row, vocab);
      logprobs[i] = row[tokens[i]] - qe::log_total(row, vocab, maximum);
      top[i] = static_cast<int32_t>(std::find(row, row + vocab, maximum) - row);
    });
  });
}

QE_API int32_t qe_compare_rows(const float* const* truth, const float* const* rows, int32_t n,
                               int32_t vocab, int32_t threads, double* divergences) {
  return qe::guarded([&] {
    qe::parallel_for(n, threads, 1,
                     [&](int64_t i) { divergences[i] = qe::divergence(truth[i], rows[i], vocab); });
  });
}

QE_API int32_t qe_pack_rows(const float* const* rows, int32_t n, int32_t vocab, int32_t threads,
                            float* ranges, uint16_t* codes) {
  return qe::guarded([&] {
    qe::parallel_for(n, threads, 1, [&](int64_t i) {
      qe::PackedRange range;
      qe::pack_row(rows[i], vocab, &range, codes + i * vocab);
      ranges[2 * i] = range.lowest;
      ranges[2 * i + 1] = range.step;
    });
  });
}

QE_API int32_t qe_unpack_rows(const float* ranges, const uint16_t* codes, int32_t n, int32_t vocab,
                              int32_t threads, float* rows) {
  return qe::guarded([&] {
    qe::parallel_for(n, threads, 1, [&](int64_t i) {
      const qe::PackedRange range = {ranges[2 * i], ranges[2 * i + 1]};
      qe::unpack_row(range, codes + i * vocab, vocab, rows + i * vocab);
    });
  });
}
