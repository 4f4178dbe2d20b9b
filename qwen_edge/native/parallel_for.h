// Runs a body over a range on short-lived threads: for conversions, not for the token loop.
#pragma once

#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace qe {

// Calls body(i) for every i in [0, count), `grain` at a time, and rethrows the exception of the
// lowest i: items are handed out in order, so that it is the same whatever the threads.
template <typename Body>
void parallel_for(int64_t count, int threads, int64_t grain, const Body& body) {
  std::atomic<int64_t> next{0};
  std::exception_ptr problem;
  int64_t problem_at = count;
  std::mutex problem_lock;
  const auto work = [&] {
    int64_t i = 0;
    try {
      for (;;) {
        const int64_t begin = next.fetch_add(grain);
        if (begin >= count) return;
        for (i = begin; i < begin + grain && i < count; ++i) body(i);
      }
    } catch (...) {
      next = count;
      const std::lock_guard<std::mutex> guard(problem_lock);
      if (i < problem_at) {
        problem = std::current_exception();
        problem_at = i;
      }
    }
  };
  std::vector<std::thread> helpers;
  const int64_t wanted = (count + grain - 1) / grain;
  try {
    for (int i = 1; i < threads && i < wanted; ++i) helpers.emplace_back(work);
  } catch (const std::exception&) {
    // The system grants no more threads: those that run, and this one, do it all.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (problem) std::rethrow_exception(problem);
}

}  // namespace qe
