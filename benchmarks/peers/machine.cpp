// What this machine can do at most, measured when asked: reads lines of JSON as pipe.py writes
// them and answers likewise. Built and started by machine.py.
//
//   ["bandwidth", {"threads": n}]  bytes a second at which n threads together read memory
//   ["peak", {"threads": n}]       INT8 multiply-adds a second of n threads, in registers
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBufferBytes = size_t{1} << 29;
constexpr int kPasses = 5;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Where results go that nobody reads: without it the compiler drops the work.
volatile int sink;

void run_on(int threads, const std::function<void(int)>& work) {
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& other : others) other.join();
}

// One stream a thread with a prefetch: of the ways of reading that were tried (1 to 16 streams,
// with and without prefetch, 32 and 64 bytes at a time) none is faster, so that shares are not
// flattered.
__attribute__((target("avx2"))) void read(const uint8_t* data, size_t bytes) {
  __m256i sum = _mm256_setzero_si256();
  for (size_t i = 0; i < bytes; i += 64) {
    const auto* line = reinterpret_cast<const __m256i*>(data + i);
    _mm_prefetch(reinterpret_cast<const char*>(line) + 4096, _MM_HINT_T0);
    sum = _mm256_or_si256(sum, _mm256_or_si256(line[0], line[1]));
  }
  sink = _mm256_movemask_epi8(sum);
}

double bandwidth(int threads) {
  static uint8_t* buffer = nullptr;
  if (buffer == nullptr) {
    buffer = static_cast<uint8_t*>(std::aligned_alloc(size_t{1} << 21, kBufferBytes));
    // Written in every byte: untouched pages all show the same zeros, from the cache.
    for (size_t i = 0; i < kBufferBytes; ++i) buffer[i] = static_cast<uint8_t>(i * 7);
  }
  const size_t part = kBufferBytes / threads / 64 * 64;
  std::vector<double> rates;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = Clock::now();
    run_on(threads, [part](int i) { read(buffer + i * part, part); });
    rates.push_back(part * threads / seconds_since(start));
  }
  std::sort(rates.begin(), rates.end());
  return rates[kPasses / 2];
}

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

double peak(int threads) {
  const bool wide = __builtin_cpu_supports("avx512vnni");
  const int64_t steps = 20'000'000;
  double best = 0;
  for (int pass = 0; pass < 3; ++pass) {
    const auto start = Clock::now();
    run_on(threads, [&](int) { wide ? vnni(steps) : avx2(steps); });
    const double products = double(steps) * kSums * (wide ? 64 : 32) * threads;
    best = std::max(best, products / seconds_since(start));
  }
  return best;
}

}  // namespace

int main() {
  char line[4096];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    const char* digits = std::strstr(line, "\"threads\":");
    const int threads = digits != nullptr ? std::atoi(digits + 10) : 0;
    if (threads < 1 || threads > 256) {
      std::puts("{\"error\": \"threads is not a number from 1 to 256\"}");
    } else {
      const bool memory = std::strstr(line, "\"bandwidth\"") != nullptr;
      std::printf("{\"value\": %.0f}\n", memory ? bandwidth(threads) : peak(threads));
    }
    std::fflush(stdout);
  }
}
