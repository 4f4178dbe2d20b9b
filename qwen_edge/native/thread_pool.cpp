#include "thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <system_error>

#include "status.h"

namespace qe {
namespace {

constexpr uint32_t kThreadBits = 8, kAllThreads = (1u << kThreadBits) - 1;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

int thread_id() { return static_cast<int>(syscall(SYS_gettid)); }

// The cores of the calling thread; none where there are more than a set can name.
cpu_set_t own_cores() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) CPU_ZERO(&cores);
  return cores;
}

// Of a clock; -1 if it cannot be read.
int64_t nanoseconds(clockid_t clock) {
  timespec time{};
  if (clock_gettime(clock, &time) != 0) return -1;
  return time.tv_sec * int64_t{1000000000} + time.tv_nsec;
}

// The clock that runs while a thread of this process does: what pthread_getcpuclockid gives, for
// which only the thread itself can be asked without a risk that it is gone.
clockid_t processor_clock(int id) {
  constexpr int kOfOneThread = 4, kExact = 2;
  return static_cast<clockid_t>(~static_cast<unsigned>(id) << 3 | kOfOneThread | kExact);
}

}  // namespace

void Signal::sleep_until_change(uint32_t seen) {
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == seen) {
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

void Signal::sleep(uint32_t seen, int microseconds) {
  const timespec limit{microseconds / 1000000, microseconds % 1000000 * 1000L};
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  if (value_.load(std::memory_order_seq_cst) == seen) {
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, &limit, nullptr, 0);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

void Signal::publish(uint32_t value) {
  value_.store(value, std::memory_order_seq_cst);
  wake();
}

void Signal::advance() {
  value_.fetch_add(1, std::memory_order_seq_cst);
  wake();
}

void Signal::wake() {
  if (sleepers_.load(std::memory_order_seq_cst) > 0) {
    syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
  }
}

ThreadPool::ThreadPool(int threads, int phases, const Idle& idle) : idle_(idle) {
  if (threads < 1 || threads >= static_cast<int>(kAllThreads)) {
    throw Error(kArgument, "the number of threads must be between 1 and 254");
  }
  original_ = own_cores();
  usable_ = CPU_COUNT(&original_);
  members_ = std::make_unique<Member[]>(threads);
  members_[0].got = original_;
  workers_.reserve(threads - 1);
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
    set_phases(phases);
  } catch (const std::system_error&) {
    stop();
    throw Error(kMemory, "the worker threads could not be started");
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stop();
  if (tied_) sched_setaffinity(0, sizeof original_, &original_);
}

void ThreadPool::set_phases(int phases) {
  for (int i = 0; i < size(); ++i) members_[i].left = std::make_unique<WorkRange[]>(phases);
  done_ = std::make_unique<Done[]>(phases);
  phases_ = phases;
}

void ThreadPool::place(int first, const cpu_set_t& cores, const cpu_set_t& rest) {
  first_ = first;
  cores_ = cores;
  rest_ = rest;
  ++placement_;
  tied_ = tied_ || CPU_COUNT(&cores) > 0 || CPU_COUNT(&rest) > 0;
}

void ThreadPool::stop() {
  function_ = nullptr;
  started_.publish(((started_.value() >> kThreadBits) + 1) << kThreadBits | kAllThreads);
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::start(int n, bool long_phases, Function function, const void* context) {
  function_ = function;
  context_ = context;
  long_phases_ = long_phases;
  check_cores();
  active_ = n < 1 ? 1 : (n > size() ? size() : n);
  // More threads than cores are as they were asked for at first, but not when cores went away.
  if (usable_ < CPU_COUNT(&original_) && active_ > usable_) active_ = usable_ < 1 ? 1 : usable_;
  running_.store(active_ - 1, std::memory_order_relaxed);
  for (int i = 0; i < active_; ++i) {
    for (int p = 0; p < phases_; ++p) members_[i].left[p].reset();
    members_[i].phase = 0;
  }
  for (int p = 0; p < phases_; ++p) done_[p].items.store(0, std::memory_order_relaxed);
  if (active_ == 1) {
    function(context, 0);
    return;
  }
  members_[0].id.store(thread_id(), std::memory_order_relaxed);
  // One that has not woken yet can be waited for, too.
  for (int i = 0; i < active_; ++i) enter(members_[i]);
  started_.publish(((started_.value() >> kThreadBits) + 1) << kThreadBits |
                   static_cast<uint32_t>(active_));
  function(context, 0);
  await_workers();
  leave(members_[0]);
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  Member& member = members_[thread];
  member.id.store(thread_id(), std::memory_order_relaxed);
  while (true) {
    started_.wait_change(seen, idle_.spins, [&](int count) {
      if (idle_.meanwhile) idle_.meanwhile(idle_.context, thread, count);
      pause_cpu();
    });
    seen = started_.value();
    if (thread >= static_cast<int>(seen & kAllThreads)) continue;
    if (function_ == nullptr) return;
    enter(member);
    if (member.placement != placement_) place_worker(thread);
    function_(context_, thread);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) finished_.advance();
    leave(member);
  }
}

// A thread's part of a phase before anybody has taken from it: equal parts, of whole steps.
WorkRange::Items ThreadPool::initial(int thread, const Phase& work) const {
  const int64_t steps = (work.total + work.step - 1) / work.step;
  const auto boundary = [&](int i) {
    return std::min(static_cast<int>(steps * i / active_) * work.step, work.total);
  };
  return {boundary(thread), boundary(thread + 1)};
}

// The next items for a thread: of its own, or else half of the most that is left to another, which
// become its own.
bool ThreadPool::take(int thread, int number, const Phase& work, WorkRange::Items* items) {
  WorkRange& own = members_[thread].left[number];
  if (own.take_front(initial(thread, work), work.step, work.shares, items)) return true;
  for (;;) {
    int victim = -1, most = 0;
    for (int i = 0; i < active_; ++i) {
      if (i == thread) continue;
      const int left = members_[i].left[number].left(initial(i, work)).count();
      if (left > most) {
        victim = i;
        most = left;
      }
    }
    if (victim < 0) return false;
    WorkRange::Items taken;
    if (!members_[victim].left[number].take_back(initial(victim, work), work.step, &taken))
      continue;
    *items = {taken.begin,
              taken.begin + WorkRange::share_of(taken.count(), work.step, work.shares)};
    own.refill({items->end, taken.end});
    return true;
  }
}

void ThreadPool::await(int thread, const std::atomic<int>& done, int total) {
  wait(
      passed_, [&] { return done.load(std::memory_order_acquire) == total; },
      [&](int i) {
        return i != thread && members_[i].holds_items.load(std::memory_order_relaxed);
      });
}

void ThreadPool::await_workers() {
  wait(
      finished_, [&] { return running_.load(std::memory_order_acquire) == 0; },
      [&](int i) {
        return i != 0 && members_[i].state.load(std::memory_order_relaxed) == Member::kInJob;
      });
}

// Spins until `finished` and, in long phases, looks meanwhile at the threads that are awaited, one
// after the other. One that does not run is fetched, and this one makes room for it; one that does
// is slow, and left alone.
template <typename Finished, typename Awaited>
void ThreadPool::wait(Signal& signal, const Finished& finished, const Awaited& awaited) {
  int watched = -1;
  int64_t ran = 0;
  for (int round = 0;; ++round) {
    const uint32_t seen = signal.value();
    for (int i = 0; i < kSpins; ++i) {
      if (finished()) return;
      pause_cpu();
    }
    const bool fetched = watched >= 0 && awaited(watched) && ran >= 0 &&
                         processor_time(members_[watched]) == ran && fetch(members_[watched]);
    if (fetched || !long_phases_ || round >= kRounds) signal.sleep(seen, kNap);
    if (!long_phases_) continue;
    int tries = 0;
    do watched = (watched + 1) % active_;
    while (!awaited(watched) && ++tries < active_);
    ran = processor_time(members_[watched]);
  }
}

// Moves a thread to the core of the calling one, which is about to sleep. Only where every core is
// allowed: giving a narrower set back would keep it narrow when the system widens it, as Android
// does for an app that comes to the foreground.
bool ThreadPool::fetch(Member& member) {
  const int id = member.id.load(std::memory_order_relaxed), core = sched_getcpu();
  int state = Member::kInJob;
  if (id == 0 || core < 0 || core >= CPU_SETSIZE) return false;
  if (!member.state.compare_exchange_strong(state, Member::kBeingMoved)) return false;
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(core, &here);
  const bool moved = sched_getaffinity(id, sizeof member.allowed, &member.allowed) == 0 &&
                     CPU_COUNT(&member.allowed) >= sysconf(_SC_NPROCESSORS_ONLN) &&
                     sched_setaffinity(id, sizeof here, &here) == 0;
  member.moved_to = core;
  member.state.store(moved ? Member::kMoved : Member::kInJob, std::memory_order_release);
  return moved;
}

// How long a thread has run, in nanoseconds.
int64_t ThreadPool::processor_time(const Member& member) {
  return nanoseconds(processor_clock(member.id.load(std::memory_order_relaxed)));
}

void ThreadPool::enter(Member& member) {
  int state = Member::kAway;
  member.state.compare_exchange_strong(state, Member::kInJob);
}

void ThreadPool::leave(Member& member) {
  int state = Member::kInJob;
  if (!member.state.compare_exchange_strong(state, Member::kAway)) {
    move_back(member, Member::kAway);
  }
}

// Leaves the core that this thread was brought to for the one that was there before.
void ThreadPool::move_back(Member& member, Member::State next) {
  for (;;) {
    int state = member.state.load(std::memory_order_acquire);
    if (state == Member::kBeingMoved) {
      sched_yield();
    } else if (state == Member::kMoved) {
      cpu_set_t elsewhere = member.allowed;
      CPU_CLR(member.moved_to, &elsewhere);
      if (CPU_COUNT(&elsewhere) > 0) sched_setaffinity(0, sizeof elsewhere, &elsewhere);
      sched_setaffinity(0, sizeof member.allowed, &member.allowed);
      member.state.store(next, std::memory_order_release);
      return;
    } else if (state == next || member.state.compare_exchange_strong(state, next)) {
      return;
    }
  }
}

// Whether the caller still has the cores it got; all threads place themselves anew if not.
void ThreadPool::check_cores() {
  const cpu_set_t now = own_cores();
  if (!CPU_EQUAL(&now, &members_[0].got)) ++placement_;
  if (members_[0].placement != placement_) place_self(0);
}

// On the thread itself, and while nobody else may move it.
void ThreadPool::place_self(int thread) {
  Member& member = members_[thread];
  const cpu_set_t& wanted = thread < first_ ? cores_ : rest_;
  // First all: what that leaves is what may be used at the moment. Each of the two fails, and
  // leaves the thread where it is, if the system allows none of the cores.
  if (tied_) sched_setaffinity(0, sizeof original_, &original_);
  if (thread == 0) {
    const cpu_set_t allowed = own_cores();
    usable_ = CPU_COUNT(&allowed);
  }
  if (CPU_COUNT(&wanted) > 0) sched_setaffinity(0, sizeof wanted, &wanted);
  member.got = own_cores();
  member.placement = placement_;
}

// A worker may be about to be brought to another's core.
void ThreadPool::place_worker(int thread) {
  Member& member = members_[thread];
  for (int state = Member::kInJob;
       !member.state.compare_exchange_strong(state, Member::kBeingMoved); state = Member::kInJob) {
    move_back(member, Member::kInJob);
  }
  place_self(thread);
  member.state.store(Member::kInJob, std::memory_order_release);
}

}  // namespace qe
