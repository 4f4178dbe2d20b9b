#include "scale_search.h"

#include <algorithm>
#include <cstring>

#include "no_contraction.h"

#define QE_INLINE inline __attribute__((always_inline))

namespace qe {
namespace {

constexpr int kRefinements = 4;
// Groups whose largest weight is below this have scale 0 in fp16 whatever the codebook.
constexpr float kNothing = 1e-30f;

// A vector of the widest registers that the surrounding function may use.
struct Lanes4 {
  typedef float Vector __attribute__((vector_size(16)));
  static constexpr int kWidth = 4;
};
#if defined(__x86_64__)
struct Lanes8 {
  typedef float Vector __attribute__((vector_size(32)));
  static constexpr int kWidth = 8;
};
#endif

template <typename Vector>
QE_INLINE void read(Vector& to, const float* from) {
  std::memcpy(&to, from, sizeof(Vector));
}

template <typename Vector>
QE_INLINE void write(float* to, const Vector& from) {
  std::memcpy(to, &from, sizeof(Vector));
}

// to = numerator / denominator, or 0 where the denominator is not above the limit.
template <typename Vector>
QE_INLINE void divide(Vector& to, const Vector& numerator, const Vector& denominator,
                      const Vector& limit) {
  const Vector one = Vector{} + 1.0f;
  to = denominator > limit ? numerator / (denominator > limit ? denominator : one) : Vector{};
}

template <typename Vector>
QE_INLINE void invert(Vector& value) {
  const Vector zero = {};
  const Vector one = zero + 1.0f;
  value = value == zero ? zero : one / (value == zero ? one : value);
}

template <typename Vector>
QE_INLINE void round_to_half(Vector& value) {
  float lanes[sizeof(Vector) / sizeof(float)];
  write(lanes, value);
  for (float& lane : lanes) lane = half_to_float(float_to_half(lane));
  read(value, lanes);
}

// Books turn y, a weight over its scale, into the nearest value of the codebook.
struct Linear {
  float low, high;
  explicit Linear(const Codebook& book) : low(book.low), high(book.high) {}
  template <typename Vector>
  QE_INLINE void nearest(Vector& y) const {
    // Adding 1.5 * 2^23 leaves no bits for a fraction: round to nearest, ties to even.
    const Vector magic = Vector{} + 12582912.0f;
    const Vector least = Vector{} + low;
    const Vector largest = Vector{} + high;
    y = y < least ? least : y;
    y = y > largest ? largest : y;
    y = (y + magic) - magic;
  }
};

struct Table {
  const Codebook& book;
  explicit Table(const Codebook& book) : book(book) {}
  template <typename Vector>
  QE_INLINE void nearest(Vector& y) const {
    const Vector zero = {};
    Vector value = zero + book.low;
    for (int k = 0; k < 15; ++k) {
      value += y > zero + book.threshold[k] ? zero + book.step[k] : zero;
    }
    y = value;
  }
};

// Sums over a group's columns, for the values v that a scale and a minimum lead to.
template <typename Vector>
struct Sums {
  Vector v = {}, vv = {}, xv = {}, error = {};
};

// Works on Lanes::kWidth rows of a group, from row `lane` on.
template <typename Lanes, typename Book>
class Search {
 public:
  using Vector = typename Lanes::Vector;

  QE_INLINE Search(const Group& group, const Codebook& codebook, const Book& book, int lane)
      : group_(group), codebook_(codebook), book_(book), lane_(lane) {}

  // Without minimums.
  QE_INLINE void fit_scale(bool search, Vector& scale) const {
    Vector least, largest;
    find_range(least, largest);
    if (search) {
      search_scale(-least > largest ? least : largest, scale);
      refine_scale(scale);
    } else {
      scale = (-least > largest ? -least : largest) /
              (codebook_.high > 0 ? codebook_.high : codebook_.low);
      round_to_half(scale);
    }
  }

  QE_INLINE void fit_minimum(bool search, Vector& scale, Vector& minimum) const {
    Vector least, largest;
    find_range(least, largest);
    const Vector range = largest - least;
    if (search) {
      // The middle is taken out, so that the sums do not cancel.
      const Vector middle = least + 0.5f * range;
      Vector x_sum = {};
      for (int c = 0; c < group_.valid; ++c) {
        Vector x;
        read(x, &group_.x[c][lane_]);
        x_sum += (x - middle) * group_.w[c];
      }
      search_minimum(range, middle, x_sum, scale, minimum);
      refine_minimum(middle, x_sum, scale, minimum);
      minimum += middle;
    } else {
      scale = range / (codebook_.high - codebook_.low);
      minimum = least - scale * codebook_.low;
    }
    // Exact after the search: the sum is the fp16 value that was tried.
    round_to_half(scale);
    round_to_half(minimum);
  }

  QE_INLINE void store_values(bool has_min, const Vector& scale, const Vector& minimum,
                              Fit& fit) const {
    Vector inverse = scale;
    invert(inverse);
    for (int c = 0; c < group_.cols; ++c) {
      Vector y;
      read(y, &group_.x[c][lane_]);
      y = has_min ? (y - minimum) * inverse : y * inverse;
      book_.nearest(y);
      write(&fit.values[c][lane_], y);
    }
    write(&fit.scale[lane_], scale);
    write(&fit.minimum[lane_], minimum);
  }

 private:
  QE_INLINE void find_range(Vector& least, Vector& largest) const {
    read(least, &group_.x[0][lane_]);
    largest = least;
    for (int c = 1; c < group_.valid; ++c) {
      Vector x;
      read(x, &group_.x[c][lane_]);
      least = x < least ? x : least;
      largest = x > largest ? x : largest;
    }
  }

  // Sums for the values nearest to (x - middle - minimum) * inverse.
  template <bool kHasMin>
  QE_INLINE void project(const Vector& inverse, const Vector& middle, const Vector& minimum,
                         Sums<Vector>& sums) const {
    sums = {};
    for (int c = 0; c < group_.cols; ++c) {
      Vector x;
      read(x, &group_.x[c][lane_]);
      if (kHasMin) x -= middle;
      Vector v = kHasMin ? (x - minimum) * inverse : x * inverse;
      book_.nearest(v);
      const Vector wv = v * group_.w[c];
      if (kHasMin) sums.v += wv;
      sums.vv += wv * v;
      sums.xv += wv * x;
    }
  }

  // The same for a scale and a minimum as stored, with the error that they truly make.
  template <bool kHasMin>
  QE_INLINE void evaluate(const Vector& scale, const Vector& middle, const Vector& minimum,
                          Sums<Vector>& sums) const {
    Vector inverse = scale;
    invert(inverse);
    sums = {};
    for (int c = 0; c < group_.cols; ++c) {
      Vector x;
      read(x, &group_.x[c][lane_]);
      if (kHasMin) x -= middle;
      Vector v = kHasMin ? (x - minimum) * inverse : x * inverse;
      book_.nearest(v);
      const Vector wv = v * group_.w[c];
      const Vector off = kHasMin ? x - (v * scale + minimum) : x - v * scale;
      if (kHasMin) sums.v += wv;
      sums.vv += wv * v;
      sums.xv += wv * x;
      sums.error += off * off * group_.w[c];
    }
  }

  QE_INLINE void search_scale(const Vector& extreme, Vector& scale) const {
    const Vector zero = {};
    const Vector size = extreme < zero ? -extreme : extreme;
    const Vector nothing = zero + kNothing;
    Vector unit, best = zero;
    divide(unit, zero + 1.0f, size, nothing);
    unit = extreme < zero ? -unit : unit;
    scale = zero;
    for (const float candidate : codebook_.candidates) {
      Sums<Vector> sums;
      project<false>(unit * candidate, zero, zero, sums);
      // With the best scale xv / vv the error falls by xv^2 / vv.
      Vector solved;
      divide(solved, sums.xv, sums.vv, zero);
      const Vector gain = solved * sums.xv;
      scale = gain > best ? solved : scale;
      best = gain > best ? gain : best;
    }
  }

  QE_INLINE void refine_scale(Vector& scale) const {
    const Vector zero = {};
    Vector trial = scale, best = {};
    for (int round = 0; round <= kRefinements; ++round) {
      Sums<Vector> sums;
      round_to_half(trial);
      evaluate<false>(trial, zero, zero, sums);
      if (round == 0) best = sums.error;
      scale = sums.error <= best ? trial : scale;
      best = sums.error <= best ? sums.error : best;
      divide(trial, sums.xv, sums.vv, zero);
    }
    round_to_half(scale);
  }

  // Least squares for scale and minimum; scale 0 and the mean where all values are one.
  QE_INLINE void solve(const Sums<Vector>& sums, const Vector& x_sum, Vector& scale,
                       Vector& minimum) const {
    const float w = group_.w_sum;
    divide(scale, w * sums.xv - x_sum * sums.v, w * sums.vv - sums.v * sums.v, 1e-6f * w * sums.vv);
    minimum = (x_sum - scale * sums.v) / w;
  }

  QE_INLINE void search_minimum(const Vector& range, const Vector& middle, const Vector& x_sum,
                                Vector& scale, Vector& minimum) const {
    const Vector zero = {};
    const float span = codebook_.high - codebook_.low;
    const float centre = 0.5f * (codebook_.high + codebook_.low);
    scale = zero;
    minimum = x_sum / group_.w_sum;
    Vector best = minimum * x_sum;
    for (const float candidate : codebook_.candidates) {
      const Vector trial = range / (span * candidate);
      Vector inverse;
      divide(inverse, zero + 1.0f, trial, zero + kNothing);
      Sums<Vector> sums;
      project<true>(inverse, middle, -trial * centre, sums);
      Vector solved, offset;
      solve(sums, x_sum, solved, offset);
      const Vector gain = solved * sums.xv + offset * x_sum;
      scale = gain > best ? solved : scale;
      minimum = gain > best ? offset : minimum;
      best = gain > best ? gain : best;
    }
  }

  QE_INLINE void refine_minimum(const Vector& middle, const Vector& x_sum, Vector& scale,
                                Vector& minimum) const {
    Vector trial = scale, offset = minimum, best = {};
    for (int round = 0; round <= kRefinements; ++round) {
      Sums<Vector> sums;
      round_to_half(trial);
      offset += middle;
      round_to_half(offset);
      offset -= middle;
      evaluate<true>(trial, middle, offset, sums);
      if (round == 0) best = sums.error;
      scale = sums.error <= best ? trial : scale;
      minimum = sums.error <= best ? offset : minimum;
      best = sums.error <= best ? sums.error : best;
      solve(sums, x_sum, trial, offset);
      // The minimum that is best for the scale as it will be stored.
      round_to_half(trial);
      offset = (x_sum - trial * sums.v) / group_.w_sum;
    }
  }

  const Group& group_;
  const Codebook& codebook_;
  const Book& book_;
  int lane_;
};

template <typename Lanes, typename Book>
QE_INLINE void fit_group(const Group& group, const Codebook& codebook, bool has_min, bool search,
                         Fit& fit) {
  const Book book(codebook);
  for (int lane = 0; lane < kTileRows; lane += Lanes::kWidth) {
    const Search<Lanes, Book> rows(group, codebook, book, lane);
    typename Lanes::Vector scale = {}, minimum = {};
    if (has_min) {
      rows.fit_minimum(search, scale, minimum);
    } else {
      rows.fit_scale(search, scale);
    }
    rows.store_values(has_min, scale, minimum, fit);
  }
}

void fit_linear(const Group& group, const Codebook& book, bool has_min, bool search, Fit& fit) {
  fit_group<Lanes4, Linear>(group, book, has_min, search, fit);
}
void fit_table(const Group& group, const Codebook& book, bool has_min, bool search, Fit& fit) {
  fit_group<Lanes4, Table>(group, book, has_min, search, fit);
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) void fit_linear_avx2(const Group& group, const Codebook& book,
                                                     bool has_min, bool search, Fit& fit) {
  fit_group<Lanes8, Linear>(group, book, has_min, search, fit);
}
__attribute__((target("avx2"))) void fit_table_avx2(const Group& group, const Codebook& book,
                                                    bool has_min, bool search, Fit& fit) {
  fit_group<Lanes8, Table>(group, book, has_min, search, fit);
}
#endif

// Factors that, over the largest weight, give the inverse scales to try: an end of the codebook,
// stretched (the largest weight is cut) or shrunk (the codebook's end stays unused). With minimums:
// the factor by which the codebook's span is laid over the group's range. The ranges are those
// beyond which a search of 400 candidates finds no more on Gaussian and Student-t weights.
std::vector<float> make_candidates(const Codebook& book, bool is_q8, bool has_min) {
  std::vector<float> candidates;
  if (is_q8) {
    const float unit = has_min ? book.high : 1;
    for (int i = -20; i <= 0; ++i) {
      candidates.push_back((book.high + static_cast<float>(i)) / unit);
    }
    return candidates;
  }
  const int steps = 15;
  const float first = !book.linear ? 0.7f : has_min ? 0.9f : 0.85f;
  const float last = book.linear ? 1.3f : 1.2f;
  for (int i = 0; i <= steps; ++i) {
    const float factor = first + (last - first) * static_cast<float>(i) / steps;
    if (has_min) {
      candidates.push_back(factor);
      continue;
    }
    if (book.low < 0) candidates.push_back(book.low * factor);
    if (book.high > 0) candidates.push_back(book.high * factor);
  }
  return candidates;
}

}  // namespace

Codebook prepare_codebook(const QeLayout& layout) {
  const bool is_q8 = layout.type == static_cast<int32_t>(Type::kQ8);
  Codebook book = {};
  book.linear = true;
  if (is_q8) {
    // -127 to 127: a kernel may negate a code.
    book.low = -127;
    book.high = 127;
    for (int i = 0; i < 256; ++i) book.code_of_value[i] = static_cast<uint8_t>(i - 128);
  } else {
    int8_t sorted[16];
    std::memcpy(sorted, layout.codebook, 16);
    std::sort(sorted, sorted + 16);
    if (sorted[0] == sorted[15]) throw Error(kArgument, "the codebook has a single value");
    book.low = sorted[0];
    book.high = sorted[15];
    for (int k = 0; k < 15; ++k) {
      book.step[k] = static_cast<float>(sorted[k + 1] - sorted[k]);
      book.threshold[k] = 0.5f * static_cast<float>(sorted[k + 1] + sorted[k]);
      book.linear = book.linear && sorted[k + 1] - sorted[k] == 1;
    }
    for (int i = 15; i >= 0; --i) {
      book.code_of_value[layout.codebook[i] + 128] = static_cast<uint8_t>(i);
    }
  }
  book.candidates = make_candidates(book, is_q8, layout.has_min != 0);
  return book;
}

FitGroup choose_fit(const Codebook& codebook) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return codebook.linear ? fit_linear_avx2 : fit_table_avx2;
#endif
  return codebook.linear ? fit_linear : fit_table;
}

}  // namespace qe
