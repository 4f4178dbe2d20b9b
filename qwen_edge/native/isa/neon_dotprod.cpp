// The neon_dotprod table: ARMv8.2 with the dot product instructions (SDOT).
#include "isa.h"

#if defined(__aarch64__)
#include "neon_math.h"

// arm_neon.h has to be outside the region. gcc asks for the architecture that brought SDOT, unless
// the whole library is compiled for a processor that has it.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#if !defined(__ARM_FEATURE_DOTPROD)
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#endif
#include "neon_attention.h"
#include "neon_sdot.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace qe {

const IsaTable* neon_dotprod_table() {
  static const IsaTable table = [] {
    IsaTable wider = *neon_table();
    wider.name = "neon_dotprod";
    wider.linear_q4 = linear_q4<SdotIsa>;
    wider.linear_q8 = linear_q8<SdotIsa>;
    wider.sums_q4 = sums_q4<SdotIsa>;
    wider.sums_q8 = sums_q8<SdotIsa>;
    wider.scores[static_cast<int>(KvType::kI8)] = scores_i8<SdotIsa>;
    wider.scores[static_cast<int>(KvType::kI4)] = scores_i4<SdotIsa>;
    wider.accumulate[static_cast<int>(KvType::kI8)] = accumulate_i8<SdotIsa>;
    wider.accumulate[static_cast<int>(KvType::kI4)] = accumulate_i4<SdotIsa>;
    return wider;
  }();
  return &table;
}

}  // namespace qe
#else
namespace qe {
const IsaTable* neon_dotprod_table() { return nullptr; }
}  // namespace qe
#endif
