// A persistent pool whose threads run one job together.
//
// The caller is thread 0. A job is a sequence of phases. Of a phase's items each thread has a range
// of its own, so that it reads memory in one stream; whoever is through with his takes half of what
// is left to another, so that a fast core does more of them. A phase is over when all of its items
// are done, wherever the threads are: one that the system has taken off its core between two phases
// holds nobody up, and finds its place again when it goes on. One that was taken off in the middle
// of an item is brought to the core of a thread that waits for it, where phases are long enough for
// that to be worth it. Waiting spins for a bounded time and then sleeps on a futex, so that an idle
// pool uses no processor.
//
// Threads can be tied to cores. Android takes cores away from an app in the background, and its
// older kernels forget what a thread was tied to when they do: the caller looks before each job
// whether it still has the cores that it got, and all place themselves anew if not.
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
  // Returns once the word is no longer `seen`; looks `spins` times before it sleeps, and does
  // something useful in between: meanwhile(i).
  template <typename Meanwhile>
  void wait_change(uint32_t seen, int spins, const Meanwhile& meanwhile) {
    for (int i = 0; i < spins; ++i) {
      if (value_.load(std::memory_order_acquire) != seen) return;
      meanwhile(i);
    }
    sleep_until_change(seen);
  }
  // Sleeps while the word is `seen`, for about `microseconds` at most. May return for no reason.
  void sleep(uint32_t seen, int microseconds);
  // Changes the word and wakes all waiters. One thread at a time publishes.
  void publish(uint32_t value);
  // Adds one and wakes all waiters; any number of threads at a time.
  void advance();

 private:
  void sleep_until_change(uint32_t seen);
  void wake();

  std::atomic<uint32_t> value_{0};
  std::atomic<int32_t> sleepers_{0};
};

// The items of one phase that a thread has still to do, as one word that others can take from.
class WorkRange {
 public:
  void reset() { word_.store(kUntouched, std::memory_order_relaxed); }

  struct Items {
    int begin, end;
    int count() const { return end - begin; }
  };

  // What is left. Until somebody has touched it, that is `initial`.
  Items left(const Items& initial) const { return unpack(word_.load(relaxed), initial); }

  // Takes items from the front, where the owner goes on in memory: a share of what is left, in
  // whole steps, or one step. False if nothing is left.
  bool take_front(const Items& initial, int step, int shares, Items* taken) {
    uint64_t seen = word_.load(relaxed);
    for (;;) {
      const Items own = unpack(seen, initial);
      if (own.count() <= 0) return false;
      *taken = {own.begin, own.begin + share_of(own.count(), step, shares)};
      if (word_.compare_exchange_weak(seen, pack({taken->end, own.end}), relaxed)) return true;
    }
  }

  // Takes half of the steps, from the back. False if the range has changed since it was `seen`, or
  // is empty.
  bool take_back(const Items& initial, int step, Items* taken) {
    uint64_t seen = word_.load(relaxed);
    const Items others = unpack(seen, initial);
    if (others.count() <= 0) return false;
    *taken = {others.begin + others.count() / step / 2 * step, others.end};
    return word_.compare_exchange_strong(seen, pack({others.begin, taken->begin}), relaxed);
  }

  // For the owner of an empty range, which nobody takes from.
  void refill(const Items& items) { word_.store(pack(items), relaxed); }

  static int share_of(int left, int step, int shares) {
    const int size = left / shares / step * step;
    return size >= step ? size : left < step ? left : step;
  }

 private:
  static constexpr auto relaxed = std::memory_order_relaxed;
  // No packed range is 0: the end is counted from 1.
  static constexpr uint64_t kUntouched = 0;
  static uint64_t pack(const Items& items) {
    return static_cast<uint64_t>(items.end + 1) << 32 | static_cast<uint32_t>(items.begin);
  }
  static Items unpack(uint64_t word, const Items& initial) {
    if (word == kUntouched) return initial;
    return {static_cast<int>(word & 0xffffffff), static_cast<int>(word >> 32) - 1};
  }

  std::atomic<uint64_t> word_{kUntouched};
};

class ThreadPool {
 public:
  // About 20 microseconds: longer than a phase's imbalance, short enough not to cost battery.
  static constexpr int kSpins = 600;

  // What threads without a job do while they spin: called with the thread and a count from 0.
  using Meanwhile = void (*)(const void* context, int thread, int count);
  struct Idle {
    int spins = kSpins;  // how often a thread looks for a job before it sleeps
    Meanwhile meanwhile = nullptr;
    const void* context = nullptr;
  };

  // `phases`: the most of a job. Throws Error(kMemory) if the threads cannot be started.
  ThreadPool(int threads, int phases, const Idle& idle);
  ThreadPool(int threads, int phases) : ThreadPool(threads, phases, Idle()) {}
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }
  // Of the last job.
  int phases_run() const { return members_[0].phase; }
  // Not while a job runs.
  void set_phases(int phases);
  // Ties threads 0 .. first - 1, the caller among them, to `cores` and the others to `rest`, from
  // the next job on and until the pool ends; an empty set leaves it to the system. Where nothing of
  // a set may be used, all that may be is. Not while a job runs.
  void place(int first, const cpu_set_t& cores, const cpu_set_t& rest);

  // Runs job(thread) on threads 0 .. n - 1 and returns when all have finished. The job must not
  // throw. With `long_phases`, of a millisecond and more, moving a thread that is waited for to
  // another core is worth it.
  template <typename Job>
  void run(int n, bool long_phases, const Job& job) {
    start(
        n, long_phases,
        [](const void* context, int thread) { (*static_cast<const Job*>(context))(thread); }, &job);
  }

  // The next phase of the running job, called by all of its threads: body(begin, end) for runs of
  // `step` items, or fewer at the end. Returns when all items are done, by whomever. Only between
  // taking items and returning from the body may a thread touch what the phases share.
  template <typename Body>
  void share(int thread, int total, int step, const Body& body) {
    phase(thread, {total, step, kSingleSteps}, body);
  }

  // Likewise in runs of several steps, long ones first: a call of the body costs something.
  template <typename Body>
  void share_shrinking(int thread, int total, int step, const Body& body) {
    phase(thread, {total, step, active_ == 1 ? 1 : kShares}, body);
  }

 private:
  using Function = void (*)(const void* context, int thread);

  static constexpr int kShares = 4, kSingleSteps = 1 << 30;

  struct Phase {
    int total, step, shares;
  };

  // What the others know of a thread.
  struct alignas(64) Member {
    // Outside of a job nobody may move it: it would stay there, asleep.
    enum State : int { kAway, kInJob, kBeingMoved, kMoved };
    std::atomic<int> id{0};
    std::atomic<bool> holds_items{false};
    std::atomic<int> state{kAway};
    int moved_to = 0;
    cpu_set_t allowed;
    // The cores that it got, and as of which placement.
    cpu_set_t got;
    int placement = 0;
    // What is left to it of each phase, and the phase that it is in.
    alignas(64) std::unique_ptr<WorkRange[]> left;
    int phase = 0;
  };

  // A line of its own: those of neighbouring phases are used by different threads.
  struct alignas(64) Done {
    std::atomic<int> items{0};
  };

  template <typename Body>
  void phase(int thread, const Phase& work, const Body& body) {
    const int number = members_[thread].phase++;
    std::atomic<bool>& holds_items = members_[thread].holds_items;
    int done = 0;
    for (WorkRange::Items items; take(thread, number, work, &items);) {
      if (done == 0) holds_items.store(true, std::memory_order_relaxed);
      body(items.begin, items.end);
      done += items.count();
    }
    if (active_ == 1) return;
    std::atomic<int>& all_done = done_[number].items;
    if (done > 0) {
      holds_items.store(false, std::memory_order_relaxed);
      if (all_done.fetch_add(done, std::memory_order_acq_rel) + done == work.total) {
        passed_.advance();
      }
    }
    if (members_[thread].state.load(std::memory_order_relaxed) > Member::kInJob) {
      move_back(members_[thread], Member::kInJob);
    }
    if (all_done.load(std::memory_order_acquire) != work.total) await(thread, all_done, work.total);
  }

  bool take(int thread, int number, const Phase& work, WorkRange::Items* items);
  WorkRange::Items initial(int thread, const Phase& work) const;
  void start(int n, bool long_phases, Function function, const void* context);
  void work(int thread);
  void stop();
  // How often a thread with nothing to do spins and looks at another that it waits for in a long
  // phase, before it sleeps for so many microseconds at a time.
  static constexpr int kRounds = 5, kNap = 1000;
  void await(int thread, const std::atomic<int>& done, int total);
  void await_workers();
  template <typename Finished, typename Awaited>
  void wait(Signal& signal, const Finished& finished, const Awaited& awaited);
  bool fetch(Member& member);
  static int64_t processor_time(const Member& member);
  void enter(Member& member);
  void leave(Member& member);
  void move_back(Member& member, Member::State next);
  void check_cores();
  void place_self(int thread);
  void place_worker(int thread);

  std::vector<std::thread> workers_;
  std::unique_ptr<Member[]> members_;
  std::unique_ptr<Done[]> done_;
  int phases_ = 0;
  Idle idle_;
  // The job's number in the high bits, how many threads take part in the low ones: a worker that
  // wakes late decides from the one word that it read whether this job is its own.
  Signal started_;
  Function function_ = nullptr;
  const void* context_ = nullptr;
  int active_ = 1;
  bool long_phases_ = false;
  // What the process might use at first, and how many of that it may use now.
  cpu_set_t original_;
  int usable_;
  // Which threads are tied to what; the number counts the changes, 0 for none yet.
  int first_ = 0;
  cpu_set_t cores_, rest_;
  int placement_ = 0;
  bool tied_ = false;
  Signal passed_;
  std::atomic<int> running_{0};
  Signal finished_;
};

}  // namespace qe
