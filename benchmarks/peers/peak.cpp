// The most INT8 multiply-adds a second that a core can do, all in registers: VPDPBUSD where there
// is AVX512-VNNI, the three instructions that stand in for it on AVX2. Built and called by
// machine.py.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

// Twelve independent sums hide the latency of a product. In assembly: a compiler sees that all
// sums are alike, and computes one.
constexpr int kSums = 12;
#define FOR_ALL_SUMS(f) \
  f("0") f("1") f("2") f("3") f("4") f("5") f("6") f("7") f("8") f("9") f("10") f("11")
#define CHANGED                                                                            \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

#define VNNI_STEP(sum) "vpdpbusd %%zmm12, %%zmm13, %%zmm" sum "\n\t"
void vnni(int64_t steps) {
  for (int64_t i = 0; i < steps; ++i) asm volatile(FOR_ALL_SUMS(VNNI_STEP) : : : CHANGED);
  asm volatile("vzeroupper");
}

#define AVX2_STEP(sum)                       \
  "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n\t" \
  "vpmaddwd %%ymm14, %%ymm15, %%ymm14\n\t"   \
  "vpaddd %%ymm14, %%ymm" sum ", %%ymm" sum "\n\t"
void avx2(int64_t steps) {
  for (int64_t i = 0; i < steps; ++i) asm volatile(FOR_ALL_SUMS(AVX2_STEP) : : : CHANGED);
  asm volatile("vzeroupper");
}

}  // namespace

// Multiply-adds a second of so many threads together, the best of three tries.
extern "C" double peak(int threads) {
  using Clock = std::chrono::steady_clock;
  const bool wide = __builtin_cpu_supports("avx512vnni");
  const int64_t steps = 10'000'000;
  double best = 0;
  for (int pass = 0; pass < 3; ++pass) {
    const auto start = Clock::now();
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(wide ? vnni : avx2, steps);
    (wide ? vnni : avx2)(steps);
    for (std::thread& other : others) other.join();
    const std::chrono::duration<double> passed = Clock::now() - start;
    const double products = double(steps) * kSums * (wide ? 64 : 32) * threads;
    best = std::max(best, products / passed.count());
  }
  return best;
}
