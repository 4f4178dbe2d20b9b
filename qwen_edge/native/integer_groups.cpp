#include "integer_groups.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "format.h"
#include "parallel_for.h"

namespace qe {
namespace {

using Source = QeIntegerGroups;

constexpr float kLargestHalf = 65504.0f;
constexpr int kAwqPlace[8] = {0, 4, 1, 5, 2, 6, 3, 7};

template <typename T>
T element(const void* array, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(array) + index * sizeof(T), sizeof(T));
  return value;
}

void check(const Source& s) {
  const int n = s.bits == 4 ? 8 : 4;
  if ((s.bits != 4 && s.bits != 8) || (s.is_awq != 0 && s.bits != 4)) {
    throw Error(kArgument, "weights of other than 4 or 8 bits");
  }
  if (s.scale_type < 0 || s.scale_type > static_cast<int32_t>(Type::kBF16)) {
    throw Error(kArgument, "scales of an unknown type");
  }
  if (s.rows < 1 || s.cols < 1 || s.rows % n != 0 || (s.is_awq == 0 && s.cols % n != 0)) {
    throw Error(kArgument, "rows or columns that do not fill their words");
  }
  if (s.groups < 1 ||
      (s.group_of == nullptr && (s.group_size < 1 || (s.cols - 1) / s.group_size >= s.groups))) {
    throw Error(kArgument, "fewer groups than the columns need");
  }
}

void check_rows(const Source& s, int first, int rows) {
  check(s);
  if (first < 0 || rows < 1 || rows > s.rows || first > s.rows - rows) {
    throw Error(kArgument, "rows that are not there");
  }
}

int group_of(const Source& s, int column) {
  if (s.group_of == nullptr) return column / s.group_size;
  const int32_t group = element<int32_t>(s.group_of, column);
  if (group < 0 || group >= s.groups) {
    throw Error(kFormat, "column " + std::to_string(column) + " is of group " +
                             std::to_string(group) + " of " + std::to_string(s.groups));
  }
  return group;
}

int zero_of(const Source& s, int group, int row) {
  const int n = 32 / s.bits;
  const auto word = element<uint32_t>(s.zeros, int64_t{group} * (s.rows / n) + row / n);
  const int place = s.is_awq != 0 ? kAwqPlace[row % n] : row % n;
  return static_cast<int>((word >> place * s.bits) + static_cast<uint32_t>(s.zero_step)) &
         ((1 << s.bits) - 1);
}

float scale_of(const Source& s, int group, int row) {
  const int64_t at = int64_t{group} * s.rows + row;
  const Type type = static_cast<Type>(s.scale_type);
  const float scale = type == Type::kF32   ? element<float>(s.scales, at)
                      : type == Type::kF16 ? half_to_float(element<uint16_t>(s.scales, at))
                                           : bfloat16_to_float(element<uint16_t>(s.scales, at));
  if (!(std::fabs(scale) <= kLargestHalf)) {
    throw Error(kFormat, "the scale of row " + std::to_string(row) + ", group " +
                             std::to_string(group) + " is not a number that fp16 holds");
  }
  return scale;
}

// The codes of up to 16 rows, columns in their own order: codes[r * cols + c].
void read_codes(const Source& s, int first, int rows, uint8_t* codes) {
  const int n = 32 / s.bits;
  const uint32_t mask = (1u << s.bits) - 1;
  if (s.is_awq != 0) {
    for (int c = 0; c < s.cols; ++c) {
      for (int r = 0; r < rows; ++r) {
        const int row = first + r;
        const auto word = element<uint32_t>(s.words, int64_t{c} * (s.rows / n) + row / n);
        codes[int64_t{r} * s.cols + c] =
            static_cast<uint8_t>(word >> 4 * kAwqPlace[row % n] & mask);
      }
    }
    return;
  }
  for (int k = 0; k < s.cols / n; ++k) {
    for (int r = 0; r < rows; ++r) {
      const auto word = element<uint32_t>(s.words, int64_t{k} * s.rows + first + r);
      uint8_t* to = codes + int64_t{r} * s.cols + int64_t{k} * n;
      for (int i = 0; i < n; ++i) to[i] = static_cast<uint8_t>(word >> i * s.bits & mask);
    }
  }
}

// Calls body(first row, rows, their codes, columns in their own order) for 16 rows at a time.
template <typename Body>
void for_tiles(const Source& s, int first, int rows, int threads, const Body& body) {
  parallel_for((rows + kTileRows - 1) / kTileRows, threads, 1, [&](int64_t tile) {
    const int begin = static_cast<int>(tile) * kTileRows;
    const int count = rows - begin < kTileRows ? rows - begin : kTileRows;
    std::vector<uint8_t> codes(static_cast<size_t>(count) * static_cast<size_t>(s.cols));
    read_codes(s, first + begin, count, codes.data());
    body(begin, count, codes.data());
  });
}

void inspect(const Source& s, int32_t* order, int32_t* unit, int32_t* moved, int32_t* symmetric) {
  check(s);
  // A counting sort: first where each group begins, then its columns one after the other.
  std::vector<int> place(static_cast<size_t>(s.groups) + 1);
  for (int c = 0; c < s.cols; ++c) ++place[static_cast<size_t>(group_of(s, c)) + 1];
  *unit = 128;
  for (size_t g = 1; g < place.size(); ++g) {
    place[g] += place[g - 1];
    // The last group of all may end anywhere: what follows is padding.
    while (place[g] < s.cols && *unit >= 32 && place[g] % *unit != 0) *unit /= 2;
  }
  if (*unit < 32) *unit = 0;
  *moved = 0;
  for (int c = 0; c < s.cols; ++c) {
    const int to = place[static_cast<size_t>(group_of(s, c))]++;
    order[to] = c;
    if (to != c) *moved = 1;
  }
  *symmetric = 1;
  for (int g = 0; g < s.groups && *symmetric != 0; ++g) {
    for (int row = 0; row < s.rows; ++row) {
      if (zero_of(s, g, row) != 1 << (s.bits - 1)) *symmetric = 0;
    }
  }
}

void write_codes(const Source& s, const int32_t* order, int unit, int first, int rows, int threads,
                 uint8_t* codes, uint16_t* scales, uint16_t* zeros) {
  check_rows(s, first, rows);
  if (unit != 32 && unit != 64 && unit != 128) throw Error(kArgument, "the group size is wrong");
  const int units = (s.cols + unit - 1) / unit;
  std::vector<int> groups(static_cast<size_t>(units));
  for (int u = 0; u < units; ++u) {
    groups[static_cast<size_t>(u)] = group_of(s, order != nullptr ? order[u * unit] : u * unit);
  }
  // Bytes become signed ones, and their zero points move along.
  const uint8_t flip = s.bits == 8 ? 128 : 0;
  for_tiles(s, first, rows, threads, [&](int begin, int count, const uint8_t* from) {
    for (int r = 0; r < count; ++r, from += s.cols) {
      uint8_t* to = codes + (int64_t{begin} + r) * s.cols;
      for (int c = 0; c < s.cols; ++c) to[c] = from[order != nullptr ? order[c] : c] ^ flip;
      for (int u = 0; u < units; ++u) {
        const int group = groups[static_cast<size_t>(u)], row = first + begin + r;
        const int64_t at = (int64_t{begin} + r) * units + u;
        scales[at] = float_to_half(scale_of(s, group, row));
        if (zeros != nullptr) {
          zeros[at] = float_to_half(static_cast<float>(zero_of(s, group, row) - flip));
        }
      }
    }
  });
}

void write_floats(const Source& s, const int32_t* order, int first, int rows, int threads,
                  float* output) {
  check_rows(s, first, rows);
  std::vector<int> groups(static_cast<size_t>(s.cols));
  for (int c = 0; c < s.cols; ++c) {
    groups[static_cast<size_t>(c)] = group_of(s, order != nullptr ? order[c] : c);
  }
  for_tiles(s, first, rows, threads, [&](int begin, int count, const uint8_t* codes) {
    std::vector<float> scale(static_cast<size_t>(s.groups)), zero(scale.size());
    for (int r = 0; r < count; ++r, codes += s.cols) {
      for (int g = 0; g < s.groups; ++g) {
        scale[static_cast<size_t>(g)] = scale_of(s, g, first + begin + r);
        zero[static_cast<size_t>(g)] = static_cast<float>(zero_of(s, g, first + begin + r));
      }
      float* to = output + (int64_t{begin} + r) * s.cols;
      for (int c = 0; c < s.cols; ++c) {
        const size_t group = static_cast<size_t>(groups[static_cast<size_t>(c)]);
        const uint8_t code = codes[order != nullptr ? order[c] : c];
        to[c] = (static_cast<float>(code) - zero[group]) * scale[group];
      }
    }
  });
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_integer_groups_inspect(const QeIntegerGroups* source, int32_t* order,
                                         int32_t* unit, int32_t* moved, int32_t* symmetric) {
  return qe::guarded([&] { qe::inspect(*source, order, unit, moved, symmetric); });
}

QE_API int32_t qe_integer_groups_codes(const QeIntegerGroups* source, const int32_t* order,
                                       int32_t unit, int32_t first, int32_t rows, int32_t threads,
                                       uint8_t* codes, uint16_t* scales, uint16_t* zeros) {
  return qe::guarded(
      [&] { qe::write_codes(*source, order, unit, first, rows, threads, codes, scales, zeros); });
}

QE_API int32_t qe_integer_groups_floats(const QeIntegerGroups* source, const int32_t* order,
                                        int32_t first, int32_t rows, int32_t threads,
                                        float* output) {
  return qe::guarded([&] { qe::write_floats(*source, order, first, rows, threads, output); });
}
