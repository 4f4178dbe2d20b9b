// The avx512_vnni table: the avx2 table with VPDPBUSD and 16 lanes in the linear and attention
// kernels. It needs avx512f, avx512bw and avx512vnni: Intel from Cascade Lake and Ice Lake on, AMD
// from Zen 4 on.
#include "isa.h"

#if defined(__x86_64__)
#include "x86.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vnni"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vnni")
#endif
#include "avx512_attention.h"
#include "avx512_linear.h"
#include "avx512_values.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace qe {

const IsaTable* avx512_vnni_table() {
  static const IsaTable table = [] {
    IsaTable wider = *avx2_table();
    wider.name = "avx512_vnni";
    wider.linear_q4 = avx512::linear_q4;
    wider.linear_q8 = avx512::linear_q8;
    wider.add_low_rank = avx512::add_low_rank;
    wider.sums_q4 = avx512::sums_q4;
    wider.sums_q8 = avx512::sums_q8;
    const int f16 = static_cast<int>(KvType::kF16), i8 = static_cast<int>(KvType::kI8);
    const int i4 = static_cast<int>(KvType::kI4);
    wider.scores[f16] = avx512::scores_f16;
    wider.scores[i8] = avx512::scores_i8;
    wider.scores[i4] = avx512::scores_i4;
    wider.accumulate[f16] = avx512::accumulate_f16;
    wider.accumulate[i8] = avx512::accumulate_i8;
    wider.accumulate[i4] = avx512::accumulate_i4;
    wider.exp_sum = avx512::exp_sum;
    return wider;
  }();
  return &table;
}

bool avx512_vnni_supported() {
  // The builtins ask the system as well whether it saves the wide registers.
  return avx2_supported() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
}

}  // namespace qe
#else
namespace qe {
const IsaTable* avx512_vnni_table() { return nullptr; }
bool avx512_vnni_supported() { return false; }
}  // namespace qe
#endif
