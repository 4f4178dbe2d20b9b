// Blocks of both factors are copied into panels that the innermost loop reads from end to end; it
// keeps a few rows by a few vectors of the product in registers.
#include "gemm.h"

#include <algorithm>
#include <cstring>

#include "memory.h"
#include "parallel_for.h"

#define QE_INLINE inline __attribute__((always_inline))

namespace qe {
namespace {

// Of the sums, taken at a time: a panel of that length stays in a first-level cache.
constexpr int64_t kDepth = 256;
// Rows and columns of the product that one thread computes at a time, in panels.
constexpr int64_t kRowPanels = 12, kColPanels = 8;

// Both panels are [k][kRows or kCols]; out is [kRows][kCols].
using Multiply = void (*)(int64_t k, const float* a, const float* b, float* out);

struct Kernel {
  int rows, cols;
  Multiply run;
};

template <int kWidth, int kRows, int kVectors>
QE_INLINE void multiply_panels(int64_t k, const float* a, const float* b, float* out) {
  typedef float Vector __attribute__((vector_size(4 * kWidth)));
  Vector sum[kRows][kVectors];
  for (auto& row : sum) {
    for (Vector& each : row) each = Vector{};
  }
  for (int64_t p = 0; p < k; ++p) {
    Vector right[kVectors];
    // One by one, like the stores below: whole arrays would be kept in memory, not in registers.
    for (int v = 0; v < kVectors; ++v) {
      std::memcpy(&right[v], b + (p * kVectors + v) * kWidth, sizeof(Vector));
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) sum[r][v] += right[v] * a[p * kRows + r];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      std::memcpy(out + (r * kVectors + v) * kWidth, &sum[r][v], sizeof(Vector));
    }
  }
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void multiply_avx512(int64_t k, const float* a, const float* b,
                                                        float* out) {
  multiply_panels<16, 12, 2>(k, a, b, out);
}
__attribute__((target("avx2,fma"))) void multiply_avx2(int64_t k, const float* a, const float* b,
                                                       float* out) {
  multiply_panels<8, 6, 2>(k, a, b, out);
}
void multiply_plain(int64_t k, const float* a, const float* b, float* out) {
  multiply_panels<4, 4, 2>(k, a, b, out);
}
#else
void multiply_plain(int64_t k, const float* a, const float* b, float* out) {
  multiply_panels<4, 6, 4>(k, a, b, out);
}
#endif

Kernel choose_kernel() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return {12, 32, multiply_avx512};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {6, 16, multiply_avx2};
  }
  return {4, 8, multiply_plain};
#else
  return {6, 16, multiply_plain};
#endif
}

// Copies `count` lines of k values into a panel [k][width], with zeros where there is no line.
void pack(const float* from, int64_t line_step, int64_t step, int64_t count, int width, int64_t k,
          float* panel) {
  if (count < width) std::memset(panel, 0, sizeof(float) * k * width);
  if (line_step == 1) {
    for (int64_t p = 0; p < k; ++p) {
      std::memcpy(panel + p * width, from + p * step, sizeof(float) * count);
    }
    return;
  }
  for (int64_t line = 0; line < count; ++line) {
    const float* values = from + line * line_step;
    for (int64_t p = 0; p < k; ++p) panel[p * width + line] = values[p * step];
  }
}

void store_tile(const float* tile, int width, int64_t rows, int64_t cols, Store store, float* c,
                int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* from = tile + i * width;
    float* to = c + i * stride;
    if (store == Store::kSet) {
      std::memcpy(to, from, sizeof(float) * cols);
    } else if (store == Store::kAdd) {
      for (int64_t j = 0; j < cols; ++j) to[j] += from[j];
    } else {
      for (int64_t j = 0; j < cols; ++j) to[j] -= from[j];
    }
  }
}

int64_t panels_of(int64_t n, int width) { return (n + width - 1) / width; }

}  // namespace

void multiply(int64_t m, int64_t n, int64_t k, const Strided& a, const Strided& b, Store store,
              bool upper, float* c, int64_t c_stride, int threads) {
  static const Kernel kernel = choose_kernel();
  const int64_t row_panels = panels_of(m, kernel.rows), col_panels = panels_of(n, kernel.cols);
  const int64_t depth = std::min(k, kDepth);
  AlignedArray<float> left(static_cast<size_t>(row_panels * kernel.rows * depth));
  AlignedArray<float> right(static_cast<size_t>(col_panels * kernel.cols * depth));
  const int64_t row_blocks = panels_of(row_panels, kRowPanels);
  const int64_t col_blocks = panels_of(col_panels, kColPanels);
  for (int64_t from = 0; from < k; from += depth) {
    const int64_t length = std::min(depth, k - from);
    parallel_for(row_panels + col_panels, threads, 4, [&](int64_t i) {
      if (i < row_panels) {
        const int64_t row = i * kernel.rows;
        pack(a.data + row * a.row_step + from * a.col_step, a.row_step, a.col_step,
             std::min<int64_t>(kernel.rows, m - row), kernel.rows, length,
             left.data() + row * length);
      } else {
        const int64_t col = (i - row_panels) * kernel.cols;
        pack(b.data + from * b.row_step + col * b.col_step, b.col_step, b.row_step,
             std::min<int64_t>(kernel.cols, n - col), kernel.cols, length,
             right.data() + col * length);
      }
    });
    const Store how = store == Store::kSet && from > 0 ? Store::kAdd : store;
    parallel_for(row_blocks * col_blocks, threads, 1, [&](int64_t block) {
      const int64_t first_row = block / col_blocks * kRowPanels;
      const int64_t first_col = block % col_blocks * kColPanels;
      alignas(64) float tile[12 * 32];
      for (int64_t j = first_col; j < std::min(first_col + kColPanels, col_panels); ++j) {
        const int64_t col = j * kernel.cols;
        for (int64_t i = first_row; i < std::min(first_row + kRowPanels, row_panels); ++i) {
          const int64_t row = i * kernel.rows;
          if (upper && col + kernel.cols <= row) continue;
          kernel.run(length, left.data() + row * length, right.data() + col * length, tile);
          store_tile(tile, kernel.cols, std::min<int64_t>(kernel.rows, m - row),
                     std::min<int64_t>(kernel.cols, n - col), how, c + row * c_stride + col,
                     c_stride);
        }
      }
    });
  }
}

}  // namespace qe
