// The avx2 table: AVX2, FMA and F16C, which every x86 processor since 2013 (Intel) and 2015 (AMD)
// has together.
#include "isa.h"

#if defined(__x86_64__)
#include "x86.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#include "avx2_attention.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace qe {

const IsaTable* avx2_table() {
  static const IsaTable table = {
      "avx2",
      avx2::linear_q4,
      avx2::linear_q8,
      avx2::linear_dense,
      avx2::add_low_rank,
      avx2::sums_q4,
      avx2::sums_q8,
      avx2::quantize,
      avx2::rms_norm,
      avx2::rope,
      avx2::silu_mul,
      avx2::add,
      {avx2::store_key_f16, avx2::store_key_i8, avx2::store_key_i4},
      {avx2::store_value_f16, avx2::store_value_i8, avx2::store_value_i4},
      {avx2::scores_f16, avx2::scores_i8, avx2::scores_i4},
      {avx2::accumulate_f16, avx2::accumulate_i8, avx2::accumulate_i4},
      avx2::exp_sum,
      avx2::maximum,
      avx2::collect,
      avx2::sum_exp,
  };
  return &table;
}

bool avx2_supported() {
  unsigned eax, ebx, ecx, edx;
  // The builtins ask the system as well whether it saves the wide registers.
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

}  // namespace qe
#else
namespace qe {
const IsaTable* avx2_table() { return nullptr; }
bool avx2_supported() { return false; }
}  // namespace qe
#endif
