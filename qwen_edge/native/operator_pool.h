// The threads that single operations share.
#pragma once

#include <algorithm>
#include <memory>

#include "attention.h"
#include "read_ahead.h"
#include "session_limits.h"
#include "thread_pool.h"

namespace qe {

// The kernels of an operation.
Kernels kernels_for(bool fp32);

class OperatorPool {
 public:
  // Stops the threads that there are; new ones start with the next operation.
  void set_threads(int threads, int prefill_threads);

  // The most threads of an operation, and those of one of n rows.
  int size() const { return std::max(threads_, prefill_threads_); }
  int active(int n) const { return n == 1 ? threads_ : prefill_threads_; }

  // Runs job(thread) on the threads of an operation of n rows.
  template <typename Job>
  void run(int n, const Job& job) {
    pool().run(active(n), n >= kLongPhaseRows, job);
  }
  // Within a job: see ThreadPool.
  template <typename Body>
  void share(int thread, int total, int step, const Body& body) {
    pool_->share(thread, total, step, body);
  }
  template <typename Body>
  void share_shrinking(int thread, int total, int step, const Body& body) {
    pool_->share_shrinking(thread, total, step, body);
  }
  // Within a job: body(i) for each of n rows; neighbours go to one thread.
  template <typename Body>
  void share_rows(int thread, int n, const Body& body) {
    share(thread, n, std::clamp(n / (active(n) * 2), 1, 16), [&](int begin, int end) {
      for (int i = begin; i < end; ++i) body(i);
    });
  }

  ReadAhead ahead;

 private:
  ThreadPool& pool();

  int threads_ = 1, prefill_threads_ = 1;
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace qe
