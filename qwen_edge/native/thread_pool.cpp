#include "thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <system_error>

#include "status.h"

namespace qe {
namespace {

// About 20 microseconds: longer than a phase's imbalance, short enough not to cost battery.
constexpr int kSpins = 600;
constexpr uint32_t kThreadBits = 8, kAllThreads = (1u << kThreadBits) - 1;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

}  // namespace

void Signal::wait_change(uint32_t seen) {
  for (int i = 0; i < kSpins; ++i) {
    if (value_.load(std::memory_order_acquire) != seen) return;
    pause_cpu();
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == seen) {
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

void Signal::publish(uint32_t value) {
  value_.store(value, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) {
    syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
  }
}

ThreadPool::ThreadPool(int threads) {
  if (threads < 1 || threads >= static_cast<int>(kAllThreads)) {
    throw Error(kArgument, "the number of threads must be between 1 and 254");
  }
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
    stop();
    throw Error(kMemory, "the worker threads could not be started");
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  function_ = nullptr;
  started_.publish(((started_.value() >> kThreadBits) + 1) << kThreadBits | kAllThreads);
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::start(int n, Function function, const void* context) {
  function_ = function;
  context_ = context;
  active_ = n < 1 ? 1 : (n > size() ? size() : n);
  arrived_.store(0, std::memory_order_relaxed);
  const uint32_t finished = finished_.value();
  running_.store(active_ - 1, std::memory_order_relaxed);
  if (active_ > 1) {
    started_.publish(((started_.value() >> kThreadBits) + 1) << kThreadBits |
                     static_cast<uint32_t>(active_));
  }
  function(context, 0);
  if (active_ > 1) finished_.wait_change(finished);
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (true) {
    started_.wait_change(seen);
    seen = started_.value();
    if (thread >= static_cast<int>(seen & kAllThreads)) continue;
    if (function_ == nullptr) return;
    function_(context_, thread);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      finished_.publish(finished_.value() + 1);
    }
  }
}

void ThreadPool::barrier() {
  const int n = active_;
  if (n == 1) return;
  const uint32_t seen = passed_.value();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == n - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.publish(seen + 1);
  } else {
    passed_.wait_change(seen);
  }
}

}  // namespace qe
