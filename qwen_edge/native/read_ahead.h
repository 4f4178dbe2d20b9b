// Reading weights ahead while no operation runs: what comes next is what came next the last time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "format.h"

namespace qe {

class ReadAhead {
 public:
  // An operation of n rows is about to multiply by these weights, shared by so many threads as
  // ThreadPool::share_shrinking does.
  void begin(const std::vector<Matrix>& weights, int n, int threads);
  // A thread without work asks its processor for the next kStep bytes of what it will read. Called
  // with a count from 0 on, while others call `begin`.
  void fetch(int thread, int count) const;

 private:
  static constexpr int kMostThreads = 16;
  // Less than the cache of a core, about as much as it reads between two operations.
  static constexpr size_t kBytes = 256 << 10, kStep = 1024;

  // Where each thread begins.
  struct Places {
    std::atomic<const uint8_t*> begin[kMostThreads] = {};
    std::atomic<size_t> bytes[kMostThreads] = {};
  };

  static void note(const std::vector<Matrix>& weights, int threads, Places* places);

  std::unordered_map<const void*, Places> following_;  // by the address of the first weight
  const void* previous_ = nullptr;
  std::atomic<const Places*> next_{nullptr};
};

}  // namespace qe
