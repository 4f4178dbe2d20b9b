// Moves weights between plain arrays and the packed tiles of format.h.
#pragma once

#include "format.h"
#include "status.h"

// How a tensor lies in memory; mirrored by quant/packing.py.
struct QeLayout {
  int32_t type;  // qe::Type
  int32_t rows;
  int32_t cols;
  int32_t group;     // 32, 64 or 128; 0 for dense types
  int32_t has_min;   // 0 or 1
  int32_t has_zero;  // 0 or 1: what has_min announces are zero points
  int8_t codebook[16];
  float levels[16];  // what the codebook stands for, see format.h
  float unit;        // 0 if there are no levels
};

namespace qe {

// Throws unless the layout is one that format.h describes.
void check_layout(const QeLayout& layout);

// Bytes of the whole tensor.
uint64_t layout_bytes(const QeLayout& layout);

// Throws unless the layout is sound and takes exactly `bytes` bytes.
void check_buffer(const QeLayout& layout, const void* data, uint64_t bytes);

inline bool is_packed(const QeLayout& layout) {
  return layout.type >= static_cast<int32_t>(Type::kQ8);
}

// One block's place in a packed tensor.
template <typename Byte>
struct BlockView {
  Byte* codes;
  Byte* scales;    // 16 fp16
  Byte* minimums;  // 16 fp16, or zero points; null if the tensor has none of either
};

template <typename Byte>
BlockView<Byte> block_at(const QeLayout& layout, Byte* data, int64_t tile, int64_t group_index) {
  const size_t bytes =
      block_bytes(static_cast<Type>(layout.type), layout.group, layout.has_min != 0);
  const int64_t groups = (layout.cols + layout.group - 1) / layout.group;
  Byte* block = data + static_cast<size_t>(tile * groups + group_index) * bytes;
  Byte* scales = block + bytes - kScaleBytes * (layout.has_min != 0 ? 2 : 1);
  return {block, scales, layout.has_min != 0 ? scales + kScaleBytes : nullptr};
}

// Writes a block's codes; codes[c * 16 + r] is row r's column c.
void write_codes(const QeLayout& layout, const uint8_t* codes, uint8_t* block);

// Any type of weights to fp32 [rows][cols], on the calling thread.
void dequantize(const QeLayout& layout, const uint8_t* data, float* output);

}  // namespace qe

// Packs codes[rows][cols] (a byte each: 0..15 for INT4, two's complement for INT8), scales and
// minimums or zero points [rows][groups] (fp16 bits) as they are.
QE_API int32_t qe_pack_codes(const QeLayout* layout, const uint8_t* codes, const uint16_t* scales,
                             const uint16_t* minimums, void* packed, uint64_t packed_bytes);
// The reverse; minimums may be null if the tensor has none.
QE_API int32_t qe_unpack_codes(const QeLayout* layout, const void* packed, uint64_t packed_bytes,
                               uint8_t* codes, uint16_t* scales, uint16_t* minimums);
// Any type to fp32 [rows][cols].
QE_API int32_t qe_dequantize(const QeLayout* layout, const void* packed, uint64_t packed_bytes,
                             int32_t threads, float* output);
// Fills tiles with random codes and scales such that weights have mean 0 and about the deviation
// `sigma`. The bytes depend on the seed and the tile's number, first_tile for the first one.
QE_API int32_t qe_random_tiles(const QeLayout* layout, uint64_t seed, uint64_t first_tile,
                               float sigma, int32_t threads, void* packed, uint64_t packed_bytes);
