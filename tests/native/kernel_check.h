// The report of the kernel tests: one line a check, with the worst error of its cases.
//
// Integers must agree bit for bit. A float's error is |ours - scalar's| over the largest magnitude
// of its output row or the root mean square of all rows, so that cancellation within one sum does
// not count ("row"), or over its own magnitude where nothing cancels ("each").
#pragma once

#include <algorithm>
#include <vector>

#include "kernel_cases.h"

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

  // The largest error over a row of n floats; least is a bound from below of their magnitude.
  void row(const float* ours, const float* truth, int n, const std::string& where,
           double least = 1e-30) {
    double largest = least, worst = 0;
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

// Some of n rows, to be computed by themselves: a row's result must not depend on the others.
struct Some {
  Some(Random& random, int n) : first(random.between(0, n - 1)), n(random.between(1, n - first)) {}
  int first, n;
};

// Compares rows first.. of ours to those computed apart, both [.., stride], bit for bit.
void compare_apart(Check& check, const Guarded<float>& ours, const Guarded<float>& apart,
                   const Some& some, size_t stride, const std::string& where) {
  check.same(apart.data(), &ours[some.first * stride], some.n * stride,
             where + format(", rows %d to %d by themselves", some.first, some.first + some.n));
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
  double squares = 1e-60;
  for (int i = 0; i < n; ++i) {
    for (int c = 0; c < used; ++c) {
      squares += double(truth[i * stride + first + c]) * truth[i * stride + first + c];
    }
  }
  const double typical = std::sqrt(squares / n / used);
  for (int i = 0; i < n; ++i) {
    const float* a = &ours[i * stride + first];
    const float* b = &truth[i * stride + first];
    exact ? check.same(a, b, used, where) : check.row(a, b, used, where, typical);
    for (int c = used; c < (end - begin) * kTileRows; ++c) {
      if (!std::isfinite(a[c])) check.error(INFINITY, where + ", padding is not finite");
    }
  }
}

}  // namespace
}  // namespace qe_test
