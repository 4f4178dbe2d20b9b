#include "quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "compensation.h"
#include "no_contraction.h"
#include "parallel_for.h"
#include "scale_search.h"

namespace qe {
namespace {

constexpr float kLargestHalf = 65504.0f;
constexpr float kLargestFloat = 3.4028234e38f;

// A whole tensor's quantization.
struct Job {
  const QeLayout& layout;
  const uint8_t* source;
  Type source_type;
  const float* importance;
  const float* panels;
  bool search;
  uint8_t* packed;
  Codebook book;
  FitGroup fit;
};

float read_float(const uint8_t* source, Type type, int64_t index) {
  if (type == Type::kF32) {
    float value;
    std::memcpy(&value, source + 4 * index, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, source + 2 * index, 2);
  return type == Type::kF16 ? half_to_float(bits) : bfloat16_to_float(bits);
}

[[noreturn]] void refuse_weight(int64_t row, int64_t col, const char* what) {
  throw Error(kFormat, "the weight in row " + std::to_string(row) + ", column " +
                           std::to_string(col) + " is " + what);
}

void read_group(const Job& job, int64_t tile, int64_t group_index, Group& group) {
  const QeLayout& layout = job.layout;
  const int64_t first = group_index * layout.group;
  group.cols = layout.group;
  group.valid = static_cast<int>(std::min<int64_t>(layout.group, layout.cols - first));
  if (group.valid < group.cols) std::memset(group.x, 0, sizeof(group.x));
  group.w_sum = 0;
  for (int c = 0; c < group.cols; ++c) {
    const float equal = c < group.valid ? 1.0f : 0.0f;
    group.w[c] = equal != 0 && job.importance != nullptr ? job.importance[first + c] : equal;
    group.w_sum += group.w[c];
  }
  if (!(group.w_sum > 0)) {
    for (int c = 0; c < group.valid; ++c) group.w[c] = 1;
    group.w_sum = static_cast<float>(group.valid);
  }
  for (int r = 0; r < kTileRows; ++r) {
    const int64_t row = tile * kTileRows + r;
    if (row >= layout.rows) {
      for (int c = 0; c < group.valid; ++c) group.x[c][r] = 0;
      continue;
    }
    for (int c = 0; c < group.valid; ++c) {
      const float x = read_float(job.source, job.source_type, row * layout.cols + first + c);
      if (!(std::fabs(x) <= kLargestFloat)) refuse_weight(row, first + c, "not a finite number");
      group.x[c][r] = x;
    }
  }
}

void add_errors(const Group& group, const Fit& fit, int rows, QeErrorSums& sums) {
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < group.valid; ++c) {
      const double x = group.x[c][r];
      const double off = x - static_cast<double>(fit.values[c][r] * fit.scale[r] + fit.minimum[r]);
      sums.squared_error += off * off;
      sums.squared_weight += x * x;
      sums.largest_error = std::max(sums.largest_error, std::fabs(off));
    }
  }
  sums.count += static_cast<uint64_t>(rows) * static_cast<uint64_t>(group.valid);
}

void check_fit(const Job& job, int64_t tile, int64_t group_index, const Fit& fit) {
  for (int r = 0; r < kTileRows; ++r) {
    if (std::fabs(fit.scale[r]) <= kLargestHalf && std::fabs(fit.minimum[r]) <= kLargestHalf) {
      continue;
    }
    refuse_weight(tile * kTileRows + r, group_index * job.layout.group,
                  "in a group too large for an fp16 scale");
  }
}

void store_group(const Job& job, int64_t tile, int64_t group_index, const Fit& fit, int cols) {
  uint8_t codes[kMaxGroup * kTileRows];
  for (int c = 0; c < cols; ++c) {
    for (int r = 0; r < kTileRows; ++r) {
      codes[c * kTileRows + r] = job.book.code_of_value[static_cast<int>(fit.values[c][r]) + 128];
    }
  }
  const BlockView<uint8_t> block = block_at(job.layout, job.packed, tile, group_index);
  write_codes(job.layout, codes, block.codes);
  for (int r = 0; r < kTileRows; ++r) {
    const uint16_t scale = float_to_half(fit.scale[r]);
    std::memcpy(block.scales + 2 * r, &scale, 2);
    if (block.minimums == nullptr) continue;
    const uint16_t minimum = float_to_half(fit.minimum[r]);
    std::memcpy(block.minimums + 2 * r, &minimum, 2);
  }
}

void quantize_tile(const Job& job, int64_t tile, QeErrorSums& sums) {
  const int64_t groups = (job.layout.cols + job.layout.group - 1) / job.layout.group;
  const int rows =
      static_cast<int>(std::min<int64_t>(kTileRows, job.layout.rows - tile * kTileRows));
  Group group;
  Fit fit;
  std::optional<Compensation> compensation;
  if (job.panels != nullptr) compensation.emplace(job.panels, job.layout.cols);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = g * job.layout.group;
    read_group(job, tile, g, group);
    if (compensation) compensation->shift(first, group);
    job.fit(group, job.book, job.layout.has_min != 0, job.search, fit);
    check_fit(job, tile, g, fit);
    if (compensation) compensation->round(first, job.book, group, fit);
    store_group(job, tile, g, fit, group.cols);
    add_errors(group, fit, rows, sums);
  }
}

uint16_t float_to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void convert_dense(const Job& job, QeErrorSums& sums) {
  const int64_t count = int64_t{job.layout.rows} * job.layout.cols;
  const Type type = static_cast<Type>(job.layout.type);
  for (int64_t i = 0; i < count; ++i) {
    const float x = read_float(job.source, job.source_type, i);
    float stored = x;
    if (type == Type::kF32) {
      std::memcpy(job.packed + 4 * i, &x, 4);
    } else {
      const uint16_t bits = type == Type::kF16 ? float_to_half(x) : float_to_bfloat16(x);
      stored = type == Type::kF16 ? half_to_float(bits) : bfloat16_to_float(bits);
      std::memcpy(job.packed + 2 * i, &bits, 2);
    }
    if (!(std::fabs(stored) <= kLargestFloat)) {
      refuse_weight(i / job.layout.cols, i % job.layout.cols, "not a finite number of that type");
    }
    const double off = static_cast<double>(x) - stored;
    sums.squared_error += off * off;
    sums.squared_weight += static_cast<double>(x) * x;
    sums.largest_error = std::max(sums.largest_error, std::fabs(off));
  }
  sums.count = static_cast<uint64_t>(count);
}

void add_up(const std::vector<QeErrorSums>& parts, QeErrorSums* total) {
  for (const QeErrorSums& part : parts) {
    total->squared_error += part.squared_error;
    total->squared_weight += part.squared_weight;
    total->largest_error = std::max(total->largest_error, part.largest_error);
    total->count += part.count;
  }
}

void quantize(const Job& job, int threads, QeErrorSums* total) {
  if (!is_packed(job.layout)) return convert_dense(job, *total);
  // One sum a tile, added in order: the totals do not depend on the number of threads.
  std::vector<QeErrorSums> sums(static_cast<size_t>((job.layout.rows + kTileRows - 1) / kTileRows));
  parallel_for(static_cast<int64_t>(sums.size()), threads, 1,
               [&](int64_t tile) { quantize_tile(job, tile, sums[static_cast<size_t>(tile)]); });
  add_up(sums, total);
}

// The errors of one tile's rows, or of 16 rows of a dense tensor.
void measure_tile(const QeLayout& layout, int64_t tile, const uint8_t* packed, uint64_t tile_bytes,
                  const uint8_t* source, Type source_type, QeErrorSums& sums) {
  const int64_t first = tile * kTileRows;
  QeLayout part = layout;
  part.rows = static_cast<int32_t>(std::min<int64_t>(kTileRows, layout.rows - first));
  const int64_t count = int64_t{part.rows} * part.cols;
  std::vector<float> values(static_cast<size_t>(count));
  dequantize(part, packed + static_cast<uint64_t>(tile) * tile_bytes, values.data());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = first * layout.cols + i;
    const double x = read_float(source, source_type, index);
    if (!(std::fabs(x) <= kLargestFloat)) {
      refuse_weight(index / layout.cols, index % layout.cols, "not a finite number");
    }
    const double off = x - static_cast<double>(values[static_cast<size_t>(i)]);
    sums.squared_error += off * off;
    sums.squared_weight += x * x;
    sums.largest_error = std::max(sums.largest_error, std::fabs(off));
  }
  sums.count += static_cast<uint64_t>(count);
}

void check_source_type(int32_t type) {
  if (type < 0 || type > static_cast<int32_t>(Type::kBF16)) {
    throw Error(kArgument, "weights are quantized from F32, F16 or BF16");
  }
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_quantize(const QeLayout* layout, const void* source, int32_t source_type,
                           const float* importance, const float* panels, int32_t search,
                           int32_t threads, void* packed, uint64_t packed_bytes,
                           QeErrorSums* error) {
  return qe::guarded([&] {
    qe::check_buffer(*layout, packed, packed_bytes);
    qe::check_source_type(source_type);
    if (layout->has_zero != 0) {
      throw qe::Error(qe::kArgument, "weights are quantized to minimums, not to zero points");
    }
    *error = {};
    const qe::Codebook book =
        qe::is_packed(*layout) ? qe::prepare_codebook(*layout) : qe::Codebook{};
    const qe::Job job{*layout,
                      static_cast<const uint8_t*>(source),
                      static_cast<qe::Type>(source_type),
                      importance,
                      panels,
                      search != 0,
                      static_cast<uint8_t*>(packed),
                      book,
                      qe::choose_fit(book)};
    qe::quantize(job, threads, error);
  });
}

QE_API int32_t qe_measure_error(const QeLayout* layout, const void* packed, uint64_t packed_bytes,
                                const void* source, int32_t source_type, int32_t threads,
                                QeErrorSums* error) {
  return qe::guarded([&] {
    qe::check_buffer(*layout, packed, packed_bytes);
    qe::check_source_type(source_type);
    *error = {};
    const auto tiles = (int64_t{layout->rows} + qe::kTileRows - 1) / qe::kTileRows;
    const uint64_t tile_bytes =
        qe::is_packed(*layout) ? packed_bytes / static_cast<uint64_t>(tiles)
                               : packed_bytes / static_cast<uint64_t>(layout->rows) * qe::kTileRows;
    std::vector<QeErrorSums> sums(static_cast<size_t>(tiles));
    qe::parallel_for(tiles, threads, 1, [&](int64_t tile) {
      qe::measure_tile(*layout, tile, static_cast<const uint8_t*>(packed), tile_bytes,
                       static_cast<const uint8_t*>(source), static_cast<qe::Type>(source_type),
                       sums[static_cast<size_t>(tile)]);
    });
    qe::add_up(sums, error);
  });
}
