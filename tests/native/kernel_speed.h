// How fast the kernels of a table are, beside the speed at which the same threads can read memory.
#pragma once

#include <time.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "kernel_cases.h"

namespace qe_test {

// Memory that no cache holds, filled cheaply with finite numbers of every format.
class Stream {
 public:
  explicit Stream(size_t bytes) : words_((bytes + 7) / 8) {
    Random random(11);
    uint64_t pattern[64];
    for (uint64_t& word : pattern) {
      // Bytes below 0x40: fp16 numbers below 2, fp32 below 2, any code.
      word = (uint64_t{random.bits()} << 32 | random.bits()) & 0x3f3f3f3f3f3f3f3full;
    }
    for (size_t i = 0; i < words_.size(); ++i) words_[i] = pattern[i % 64];
  }
  const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(words_.data()); }
  const uint64_t* words() const { return words_.data(); }
  size_t size() const { return words_.size(); }

 private:
  std::vector<uint64_t> words_;
};

// Processor time of the calling thread: other programs on the machine do not count.
inline double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Runs work(thread) on all threads at once and gives the median over the repeats of the slowest
// thread's processor time.
template <typename Work>
double seconds(int threads, int repeats, Work&& work) {
  std::vector<double> slowest;
  for (int repeat = 0; repeat <= repeats; ++repeat) {
    std::vector<double> taken(threads);
    const auto timed = [&](int t) {
      const double start = thread_seconds();
      work(t);
      taken[t] = thread_seconds() - start;
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(timed, t);
    timed(0);
    for (std::thread& other : others) other.join();
    if (repeat > 0) slowest.push_back(*std::max_element(taken.begin(), taken.end()));
  }
  std::nth_element(slowest.begin(), slowest.begin() + slowest.size() / 2, slowest.end());
  return slowest[slowest.size() / 2];
}

inline double read_seconds(const Stream& stream, int threads) {
  std::vector<uint64_t> sums(threads);
  const double result = seconds(threads, 9, [&](int t) {
    const size_t begin = stream.size() * t / threads, end = stream.size() * (t + 1) / threads;
    const uint64_t* words = stream.words();
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t i = begin; i + 8 <= end; i += 8) {
      a += words[i] + words[i + 4];
      b += words[i + 1] + words[i + 5];
      c += words[i + 2] + words[i + 6];
      d += words[i + 3] + words[i + 7];
    }
    sums[t] = a + b + c + d;
  });
  volatile uint64_t kept = sums[0];  // so that the sums are needed
  static_cast<void>(kept);
  return result;
}

inline void report(const char* what, double time, double bytes, double operations) {
  std::printf("  %-44s %10.0f us %7.2f GB/s %8.1f GOPS\n", what, time * 1e6, bytes / time * 1e-9,
              operations / time * 1e-9);
  std::fflush(stdout);
}

// One row streams all weights; many rows reuse a matrix that fits a cache.
inline void measure_linear(const IsaTable& isa, int threads, const Stream& stream, const char* name,
                           Type type, int group, bool has_min, int codebook) {
  Random random(12);
  for (int cols : {1024, 3072}) {
    for (int n : {1, 4, 128, 512}) {
      Matrix w;
      w.data = stream.data();
      w.type = type;
      w.cols = cols;
      w.group = group;
      w.has_min = has_min;
      if (type == Type::kQ4) fill_codebook(codebook, random, w.codebook);
      const size_t tiles = n > 4 ? 4096 / kTileRows : stream.size() * 8 / w.tile_bytes();
      w.rows = static_cast<int>(tiles) * kTileRows;
      ActivationRows x(random, n, cols, cols, false, 0);
      std::vector<float> out(static_cast<size_t>(n) * w.rows);
      const auto linear = type == Type::kQ4 ? isa.linear_q4 : isa.linear_q8;
      const double time = seconds(threads, 9, [&](int t) {
        // Tiles come in the portions that a thread pool hands out.
        const int begin = static_cast<int>(tiles * t / threads);
        const int end = static_cast<int>(tiles * (t + 1) / threads);
        for (int at = begin; at < end; at += 8) {
          linear(w, x.rows, at, std::min(at + 8, end), out.data(), w.rows);
        }
      });
      report(format("%s cols %d n %d", name, cols, n).c_str(), time,
             static_cast<double>(tiles) * w.tile_bytes(), 2.0 * n * w.rows * cols);
    }
  }
}

inline void measure_attention(const IsaTable& isa, int threads, const Stream& stream, int type) {
  constexpr int kHeadDim = 128, kChunk = 16;
  Random random(13);
  const size_t bytes = kv_block_bytes(static_cast<KvType>(type), kHeadDim);
  for (int n : {2, 64}) {
    const size_t blocks = (n > 2 ? size_t{8} << 20 : stream.size() * 8) / bytes / kChunk * kChunk;
    ActivationRows codes(random, n, kHeadDim, kHeadDim, false, 0);
    const Guarded<float> x = random_floats(random, n * kHeadDim, 1);
    const Queries queries{x.data(), codes.rows, n};
    for (bool keys : {true, false}) {
      const double time = seconds(threads, 9, [&](int t) {
        std::vector<float> p(n * kChunk * kKvBlock, 0.5f), out(n * kHeadDim);
        const size_t begin = blocks / kChunk * t / threads * kChunk;
        const size_t end = blocks / kChunk * (t + 1) / threads * kChunk;
        for (size_t b = begin; b < end; b += kChunk) {
          const uint8_t* at = stream.data() + b * bytes;
          const uint8_t* next = b + kChunk < end ? at + kChunk * bytes : nullptr;
          if (keys) {
            isa.scores[type](at, kChunk, kHeadDim, queries, p.data(), kChunk * kKvBlock, next);
          } else {
            isa.accumulate[type](at, kChunk, kHeadDim, p.data(), kChunk * kKvBlock, n, out.data(),
                                 kHeadDim, next);
          }
        }
      });
      report(format("%s %s n %d", keys ? "scores" : "accumulate", kv_type_name(type), n).c_str(),
             time, static_cast<double>(blocks) * bytes, 2.0 * n * blocks * kKvBlock * kHeadDim);
    }
  }
}

inline void measure_rows(const IsaTable& isa) {
  constexpr int kSize = 3072, kRepeats = 2000, kVocabulary = 151936;
  Random random(14);
  Guarded<float> x = random_floats(random, kSize, 5), y = random_floats(random, kSize, 5);
  Guarded<float> out(kSize), logits = random_floats(random, kVocabulary, 20);
  Guarded<int8_t> codes(kSize);
  Guarded<float> scale(kSize / kActivationGroup);
  Guarded<int32_t> sum(scale.size());
  const auto line = [](const char* what, size_t n, int repeats, double time) {
    std::printf("  %-44s %10.3f ns/value\n", what, time / repeats / n * 1e9);
  };
  const auto each = [&](const char* what, auto&& kernel) {
    line(what, kSize, kRepeats, seconds(1, 5, [&](int) {
           for (int i = 0; i < kRepeats; ++i) kernel();
         }));
  };
  each("quantize",
       [&] { isa.quantize(x.data(), kSize, 1, codes.data(), scale.data(), sum.data()); });
  each("rms_norm", [&] { isa.rms_norm(x.data(), y.data(), kSize, 1e-6f, out.data()); });
  each("silu_mul", [&] { isa.silu_mul(x.data(), y.data(), kSize, out.data()); });
  each("exp_sum", [&] { isa.exp_sum(out.data(), kSize, 5); });
  volatile double kept = 0;
  const auto sampling = [&](const char* what, auto&& kernel) {
    line(what, kVocabulary, 50, seconds(1, 5, [&](int) {
           for (int i = 0; i < 50; ++i) kept = kernel();
         }));
  };
  int32_t found[64];
  sampling("maximum", [&] { return isa.maximum(logits.data(), kVocabulary); });
  sampling("collect", [&] { return isa.collect(logits.data(), kVocabulary, 19.99f, found, 64); });
  sampling("sum_exp", [&] { return isa.sum_exp(logits.data(), kVocabulary, 20); });
}

inline void measure_speed(const std::vector<const IsaTable*>& tables, int threads) {
  const Stream stream(size_t{160} << 20);
  for (const IsaTable* isa : tables) {
    const double time = read_seconds(stream, threads);
    std::printf("%s, %d threads\n", isa->name, threads);
    report("plain reading", time, static_cast<double>(stream.size()) * 8, 0);
    measure_linear(*isa, threads, stream, "int4 group 32", Type::kQ4, 32, false, 0);
    measure_linear(*isa, threads, stream, "int4 group 128 with minimums", Type::kQ4, 128, true, 0);
    measure_linear(*isa, threads, stream, "nf4 group 64", Type::kQ4, 64, false, 6);
    measure_linear(*isa, threads, stream, "int8 group 32", Type::kQ8, 32, false, 0);
    for (int type = 0; type < kKvTypes; ++type) measure_attention(*isa, threads, stream, type);
    measure_rows(*isa);
  }
}

}  // namespace qe_test
