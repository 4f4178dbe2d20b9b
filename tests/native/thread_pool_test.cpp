// The thread pool: every item done once, phases in order whatever holds a thread up, and threads
// where they were afterwards. Prints "N passed, N failed" and exits 1 on a failure.
#include "thread_pool.h"

#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "c_api.h"
#include "status.h"

namespace {

int passed = 0, failed = 0;

void check(bool condition, const char* name, long value = 0) {
  condition ? ++passed : ++failed;
  if (!condition) std::printf("FAILED %s: %ld\n", name, value);
}

double processor_seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

cpu_set_t allowed(int id) {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(id, sizeof set, &set);
  return set;
}

void sleep_milliseconds(int time) { std::this_thread::sleep_for(std::chrono::milliseconds(time)); }

// A job of phases each of which reads what the one before has written, without atomics: a thread
// sanitizer sees it if a phase begins too early.
struct Chain {
  static constexpr int kPhases = 40, kItems = 37;

  Chain() : values(kPhases, std::vector<int>(kItems)) {}

  // Computes phase by phase; before(thread, phase, item) may hold a thread up.
  template <typename Before>
  void run(qe::ThreadPool& pool, int threads, const Before& before) {
    for (std::vector<int>& phase : values) std::fill(phase.begin(), phase.end(), 0);
    pool.run(threads, true, [&](int thread) {
      for (int p = 0; p < kPhases; ++p) {
        const auto body = [&](int begin, int end) {
          before(thread, p, begin);
          for (int i = begin; i < end; ++i) {
            values[p][i] += p == 0 ? i : values[p - 1][(i + 5) % kItems] + 1;
          }
        };
        if (p % 2 == 0) {
          pool.share(thread, kItems, 1 + p % 5, body);
        } else {
          pool.share_shrinking(thread, kItems, 2, body);
        }
      }
    });
  }

  bool right() const {
    for (int i = 0; i < kItems; ++i) {
      if (values[kPhases - 1][i] != (i + 5 * (kPhases - 1)) % kItems + kPhases - 1) return false;
    }
    return true;
  }

  std::vector<std::vector<int>> values;
};

void every_item_once(int threads, int rounds) {
  qe::ThreadPool pool(threads, Chain::kPhases);
  Chain chain;
  for (int round = 0; round < rounds; ++round) {
    for (int active = 1; active <= threads; ++active) {
      chain.run(pool, active, [](int, int, int) {});
      check(chain.right(), "every item is done once, in order", active);
    }
  }
}

// A thread that holds items for long is brought to another core, if there is one, and afterwards
// all may run where they might before.
void held_up(int threads, int slow_thread) {
  qe::ThreadPool pool(threads, Chain::kPhases);
  Chain chain;
  const cpu_set_t before = allowed(0);
  std::mutex lock;
  std::set<int> ids;
  int narrowed = 0;
  const auto note_thread = [&](int, int, int) {
    const std::lock_guard<std::mutex> guard(lock);
    ids.insert(static_cast<int>(syscall(SYS_gettid)));
  };
  chain.run(pool, threads, [&](int thread, int phase, int item) {
    note_thread(thread, phase, item);
    if (phase > 2) return;
    // Others get their share; the slow one keeps its items long enough to be waited for.
    sleep_milliseconds(thread == slow_thread ? 20 : 1);
    const cpu_set_t now = allowed(0);
    if (thread == slow_thread && CPU_COUNT(&now) < CPU_COUNT(&before)) ++narrowed;
  });
  check(chain.right(), "a slow thread's items are waited for", slow_thread);
  if (CPU_COUNT(&before) > 1) check(narrowed > 0, "a slow thread is fetched", slow_thread);
  // Whoever was fetched at the very end goes back as soon as it has found that the job is over.
  for (int tries = 0; tries < 3; ++tries) chain.run(pool, threads, note_thread);
  sleep_milliseconds(50);
  for (const int id : ids) {
    const cpu_set_t after = allowed(id);
    check(CPU_EQUAL(&before, &after), "threads may run where they might before", id);
  }
  check(chain.right(), "and so are later ones", slow_thread);
}

// The cores that each thread of a job has.
std::vector<cpu_set_t> cores_in_job(qe::ThreadPool& pool, int threads) {
  std::vector<cpu_set_t> cores(threads);
  for (cpu_set_t& set : cores) CPU_ZERO(&set);
  pool.run(threads, false, [&](int thread) { cores[thread] = allowed(0); });
  return cores;
}

void tie(const cpu_set_t& cores) { sched_setaffinity(0, sizeof cores, &cores); }

// Threads run where they are placed, whatever the system does to them meanwhile.
void placed(int threads) {
  const cpu_set_t before = allowed(0);
  cpu_set_t none, first, last, nowhere;
  for (cpu_set_t* set : {&none, &first, &last, &nowhere}) CPU_ZERO(set);
  CPU_SET(CPU_SETSIZE - 1, &nowhere);
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &before)) continue;
    if (CPU_COUNT(&first) == 0) CPU_SET(core, &first);
    CPU_ZERO(&last);
    CPU_SET(core, &last);
  }
  {
    qe::ThreadPool pool(threads, Chain::kPhases);
    const auto expect = [&](const cpu_set_t& own, const cpu_set_t& others, const char* name) {
      const std::vector<cpu_set_t> cores = cores_in_job(pool, threads);
      check(CPU_EQUAL(&cores[0], &own), name, 0);
      for (int i = 1; i < threads; ++i) check(CPU_EQUAL(&cores[i], &others), name, i);
    };
    expect(before, before, "threads run anywhere at first");
    pool.place(1, last, first);
    expect(last, first, "threads run where they are placed");
    tie(first);
    expect(last, first, "and do so again after the system has moved the caller");
    pool.place(threads, first, none);
    expect(first, first, "all of them may be the first ones");
    pool.place(1, first, none);
    expect(first, before, "the others may run anywhere");
    pool.place(threads, nowhere, nowhere);
    expect(before, before, "cores that may not be used are left out");
    pool.place(1, none, last);
    expect(before, last, "the first ones may run anywhere");
    Chain chain;
    chain.run(pool, threads, [](int, int, int) {});
    check(chain.right(), "placed threads do every item once");
  }
  const cpu_set_t after = allowed(0);
  check(CPU_EQUAL(&before, &after), "the caller is given back its cores");
}

// When cores are taken away, there are no more threads at work than are left.
void fewer_cores(int threads) {
  const cpu_set_t before = allowed(0);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  qe::ThreadPool pool(threads, Chain::kPhases);
  std::atomic<int> ran{0};
  const auto count = [&] {
    ran.store(0);
    pool.run(threads, false, [&](int) { ran.fetch_add(1); });
    return ran.load();
  };
  check(count() == threads, "as many threads as asked for", threads);
  tie(one);
  check(count() == (CPU_COUNT(&before) > 1 ? 1 : threads), "as many threads as cores are left");
  tie(before);
  check(count() == threads, "and all when they are back", threads);
}

// A thread that computes for long, as a slow core's does: whether it runs all the time or is taken
// off its core meanwhile, its items are waited for, and all may run where they might before.
void slow(int threads, int slow_thread) {
  qe::ThreadPool pool(threads, Chain::kPhases);
  Chain chain;
  const cpu_set_t before = allowed(0);
  std::mutex lock;
  std::set<int> ids;
  for (const int long_phases : {0, 8}) {
    chain.run(pool, threads, [&](int thread, int phase, int) {
      {
        const std::lock_guard<std::mutex> guard(lock);
        ids.insert(static_cast<int>(syscall(SYS_gettid)));
      }
      if (thread != slow_thread || phase >= long_phases) return;
      const double end = processor_seconds(CLOCK_THREAD_CPUTIME_ID) + 0.005;
      while (processor_seconds(CLOCK_THREAD_CPUTIME_ID) < end) {
      }
    });
    check(chain.right(), "a thread that computes for long is waited for", slow_thread);
  }
  for (int tries = 0; tries < 3; ++tries) chain.run(pool, threads, [](int, int, int) {});
  sleep_milliseconds(50);
  for (const int id : ids) {
    const cpu_set_t after = allowed(id);
    check(CPU_EQUAL(&before, &after), "and all may run where they might before", id);
  }
}

// A thread that does not come at all takes no items, and nobody waits for it before the end.
void absent(int threads) {
  qe::ThreadPool pool(threads, Chain::kPhases);
  std::atomic<bool> over{false};
  bool absent_got_items = false;
  pool.run(threads, true, [&](int thread) {
    if (thread == 1) {
      while (!over.load()) std::this_thread::yield();
    }
    for (int phase = 0; phase < 2; ++phase) {
      pool.share(thread, 10, 1, [&](int, int) {
        if (thread == 1) absent_got_items = true;
      });
    }
    if (thread == 0) over.store(true);
  });
  check(!absent_got_items, "phases end without a thread that is elsewhere");
}

// Processor time, not time on the clock: other programs do not change it.
void idle(int threads) {
  qe::ThreadPool pool(threads, Chain::kPhases);
  Chain chain;
  chain.run(pool, threads, [](int, int, int) {});
  const double begin = processor_seconds(CLOCK_PROCESS_CPUTIME_ID);
  sleep_milliseconds(500);
  const double used = processor_seconds(CLOCK_PROCESS_CPUTIME_ID) - begin;
  check(used < 0.005, "an idle pool uses no processor, microseconds",
        static_cast<long>(used * 1e6));
}

// Its passes go through a pool of their own.
void bandwidth(int threads) {
  double seconds[3] = {};
  check(qe_read_bandwidth(8 << 20, threads, 3, seconds) == 0, "bandwidth is measured", threads);
  for (const double pass : seconds) check(pass > 0, "every pass takes time", threads);
  check(qe_read_bandwidth(8 << 20, 0, 3, seconds) != 0, "and needs a thread");
}

void bad_number(int threads) {
  bool refused = false;
  try {
    qe::ThreadPool pool(threads, Chain::kPhases);
  } catch (const qe::Error&) {
    refused = true;
  }
  check(refused, "so many threads are refused", threads);
}

}  // namespace

int main() {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  for (const int threads : {1, 2, 3, 2 * cores, 9}) every_item_once(threads, 20);
  for (const int threads : {2, 4}) {
    for (int held = 0; held < threads; ++held) held_up(threads, held);
    slow(threads, 0);
    slow(threads, threads - 1);
    absent(threads);
  }
  for (const int threads : {1, 2, 5}) {
    placed(threads);
    fewer_cores(threads);
  }
  for (const int threads : {1, 2, 8}) idle(threads);
  for (const int threads : {1, 3}) bandwidth(threads);
  bad_number(0);
  bad_number(255);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
