// A persistent pool whose threads run one job together, in step.
//
// The caller is thread 0. Inside a job the threads meet at barrier() and share work through
// counters: a fast core takes more items, a slow one never holds the others up for long. Waiting
// spins for a bounded time and then sleeps on a futex, so that an idle pool uses no processor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace qe {

// A 32-bit word threads can wait on until it changes.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  // Returns once the word is no longer `seen`.
  void wait_change(uint32_t seen);
  // Changes the word and wakes all waiters. One thread at a time publishes.
  void publish(uint32_t value);

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<int32_t> sleepers_{0};
};

class ThreadPool {
 public:
  // Throws Error(kMemory) if the threads cannot be started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs job(thread) on threads 0 .. n - 1 and returns when all have finished. The job must not
  // throw.
  template <typename Job>
  void run(int n, const Job& job) {
    start(
        n, [](const void* context, int thread) { (*static_cast<const Job*>(context))(thread); },
        &job);
  }

  // Called by every thread of the running job: none goes on before all have arrived.
  void barrier();

 private:
  using Function = void (*)(const void* context, int thread);

  void start(int n, Function function, const void* context);
  void work(int thread);
  void stop();

  std::vector<std::thread> workers_;
  // The job's number in the high bits, how many threads take part in the low ones: a worker that
  // wakes late decides from the one word that it read whether this job is its own.
  Signal started_;
  Function function_ = nullptr;
  const void* context_ = nullptr;
  int active_ = 1;
  std::atomic<int> arrived_{0};
  Signal passed_;
  std::atomic<int> running_{0};
  Signal finished_;
};

// Items [0, total) handed out in runs; one for each phase of a job.
class WorkCounter {
 public:
  void reset() { next_.store(0, std::memory_order_relaxed); }
  // Takes the next run of at most `chunk` items; returns false when none are left.
  bool take(int total, int chunk, int* begin, int* end) {
    const int first = next_.fetch_add(chunk, std::memory_order_relaxed);
    if (first >= total) return false;
    *begin = first;
    *end = first + chunk < total ? first + chunk : total;
    return true;
  }
  // Takes a share of what is left, in multiples of `step` items: long runs first, which read memory
  // in one stream, and ever shorter ones, so that the threads come to the end together. The share
  // is small enough for a slow core not to be the last with its first one.
  bool take_share(int total, int step, int threads, int* begin, int* end) {
    int first = next_.load(std::memory_order_relaxed), size;
    do {
      if (first >= total) return false;
      const int left = total - first;
      size = threads == 1 ? left : left / (kShares * threads) / step * step;
      if (size < step) size = left < step ? left : step;
    } while (!next_.compare_exchange_weak(first, first + size, std::memory_order_relaxed));
    *begin = first;
    *end = first + size;
    return true;
  }

 private:
  static constexpr int kShares = 4;
  // A line of its own: the counters of neighbouring phases are used by different threads.
  alignas(64) std::atomic<int> next_{0};
};

}  // namespace qe
