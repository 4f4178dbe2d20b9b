// Rows of floats to packed tiles: the scales are searched, not taken from the maximum.
// See scale_search.h for how.
#pragma once

#include "packing.h"

// What the packed weights are off by, over the elements that are not padding.
struct QeErrorSums {
  double squared_error;
  double squared_weight;
  double largest_error;
  uint64_t count;
};

// Packs source[rows][cols] of source_type (F32, F16 or BF16, any alignment) into `packed`. A dense
// layout rounds to nearest. `importance` is [cols], not negative, or null for all equal. With
// `panels` (hessian.h; may be null) each column is rounded to what makes up for the errors of those
// before it. With search = 0 the scale comes from the plain maximum. Fails with kFormat on a weight
// that is not finite or too large for an fp16 scale.
QE_API int32_t qe_quantize(const QeLayout* layout, const void* source, int32_t source_type,
                           const float* importance, const float* panels, int32_t search,
                           int32_t threads, void* packed, uint64_t packed_bytes,
                           QeErrorSums* error);

// What `packed` is off by from source[rows][cols] of source_type (F32, F16 or BF16, any alignment).
// Fails with kFormat where a source is not finite.
QE_API int32_t qe_measure_error(const QeLayout* layout, const void* packed, uint64_t packed_bytes,
                                const void* source, int32_t source_type, int32_t threads,
                                QeErrorSums* error);
