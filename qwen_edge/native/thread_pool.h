// A persistent pool whose threads run one job together.
//
// The caller is thread 0. A job is a sequence of phases; the items of a phase are shared out as the
// threads ask for them, so that a fast core takes more of them. A phase is over when all of its
// items are done, wherever the threads are: one that the system has taken off its core between two
// phases holds nobody up, and finds its place again when it goes on. One that was taken off in the
// middle of an item is brought to the core of a thread that waits for it, where phases are long
// enough for that to be worth it. Waiting spins for a
// bounded time and then sleeps on a futex, so that an idle pool uses no processor.
#pragma once

#include <sched.h>

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
  // Sleeps while the word is `seen`, for about `microseconds` at most. May return for no reason.
  void sleep(uint32_t seen, int microseconds);
  // Changes the word and wakes all waiters. One thread at a time publishes.
  void publish(uint32_t value);
  // Adds one and wakes all waiters; any number of threads at a time.
  void advance();

 private:
  void wake();

  std::atomic<uint32_t> value_{0};
  std::atomic<int32_t> sleepers_{0};
};

// Items [0, total) of a phase, handed out in runs.
class WorkCounter {
 public:
  void reset() {
    next_.store(0, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
  }
  // Takes the next run of at most `chunk` items; returns false when none are left.
  bool take(int total, int chunk, int* begin, int* end) {
    // A thread that comes late must not push the counter on for ever.
    if (next_.load(std::memory_order_relaxed) >= total) return false;
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

  // Counts items that are done; true for the last of them.
  bool finish(int items, int total) {
    return done_.fetch_add(items, std::memory_order_acq_rel) + items == total;
  }
  bool finished(int total) const { return done_.load(std::memory_order_acquire) == total; }

 private:
  static constexpr int kShares = 4;
  // A line of its own: the counters of neighbouring phases are used by different threads.
  alignas(64) std::atomic<int> next_{0};
  std::atomic<int> done_{0};
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
  // throw. With `long_phases`, of a millisecond and more, moving a thread that is waited for to
  // another core is worth it.
  template <typename Job>
  void run(int n, bool long_phases, const Job& job) {
    start(
        n, long_phases,
        [](const void* context, int thread) { (*static_cast<const Job*>(context))(thread); }, &job);
  }

  // A phase of the running job, called by all of its threads: body(begin, end) for runs of at most
  // `chunk` items. Returns when all items are done, by whomever. Only between taking items and
  // returning from the body may a thread touch what the phases share.
  template <typename Body>
  void share(int thread, WorkCounter& work, int total, int chunk, const Body& body) {
    const auto take = [&](int* begin, int* end) { return work.take(total, chunk, begin, end); };
    phase(thread, work, total, take, body);
  }

  // Likewise in shares that shrink, of whole steps.
  template <typename Body>
  void share_shrinking(int thread, WorkCounter& work, int total, int step, const Body& body) {
    const auto take = [&](int* begin, int* end) {
      return work.take_share(total, step, active_, begin, end);
    };
    phase(thread, work, total, take, body);
  }

 private:
  using Function = void (*)(const void* context, int thread);

  // What the others know of a thread.
  struct alignas(64) Member {
    // Outside of a job nobody may move it: it would stay there, asleep.
    enum State : int { kAway, kInJob, kBeingMoved, kMoved };
    std::atomic<int> id{0};
    std::atomic<bool> holds_items{false};
    std::atomic<int> state{kAway};
    int moved_to = 0;
    cpu_set_t allowed;
  };

  template <typename Take, typename Body>
  void phase(int thread, WorkCounter& work, int total, const Take& take, const Body& body) {
    std::atomic<bool>& holds_items = members_[thread].holds_items;
    int done = 0, begin, end;
    while (take(&begin, &end)) {
      if (done == 0) holds_items.store(true, std::memory_order_relaxed);
      body(begin, end);
      done += end - begin;
    }
    if (active_ == 1) return;
    if (done > 0) {
      holds_items.store(false, std::memory_order_relaxed);
      if (work.finish(done, total)) passed_.advance();
    }
    if (members_[thread].state.load(std::memory_order_relaxed) > Member::kInJob) {
      move_back(members_[thread], Member::kInJob);
    }
    if (!work.finished(total)) await(thread, work, total);
  }

  void start(int n, bool long_phases, Function function, const void* context);
  void work(int thread);
  void stop();
  void await(int thread, const WorkCounter& work, int total);
  void await_workers();
  void fetch(Member& member);
  void enter(Member& member);
  void leave(Member& member);
  void move_back(Member& member, Member::State next);

  std::vector<std::thread> workers_;
  std::unique_ptr<Member[]> members_;
  // The job's number in the high bits, how many threads take part in the low ones: a worker that
  // wakes late decides from the one word that it read whether this job is its own.
  Signal started_;
  Function function_ = nullptr;
  const void* context_ = nullptr;
  int active_ = 1;
  bool long_phases_ = false;
  Signal passed_;
  std::atomic<int> running_{0};
  Signal finished_;
};

}  // namespace qe
