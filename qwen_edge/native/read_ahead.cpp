#include "read_ahead.h"

#include <algorithm>

#include "session_limits.h"

namespace qe {

// Only single rows wait for memory, and in a pass over a model what follows is always the same.
void ReadAhead::begin(const std::vector<Matrix>& weights, int n, int threads) {
  next_.store(nullptr, std::memory_order_relaxed);
  if (n > 1) {
    previous_ = nullptr;
    return;
  }
  if (previous_) note(weights, threads, &following_[previous_]);
  previous_ = weights[0].data;
  const auto next = following_.find(previous_);
  if (next != following_.end()) next_.store(&next->second, std::memory_order_release);
}

void ReadAhead::note(const std::vector<Matrix>& weights, int threads, Places* places) {
  int tiles = 0;
  for (const Matrix& w : weights) tiles += w.tiles();
  for (int thread = 0; thread < std::min(threads, kMostThreads); ++thread) {
    // Where ThreadPool::share_shrinking has the thread begin.
    int64_t tile = int64_t{tiles / kTileStep} * thread / threads * kTileStep;
    for (const Matrix& w : weights) {
      if (tile < w.tiles()) {
        const size_t bytes = w.group > 0 ? (w.tiles() - tile) * w.tile_bytes() : 0;
        places->begin[thread].store(bytes > 0 ? w.data + tile * w.tile_bytes() : nullptr,
                                    std::memory_order_relaxed);
        places->bytes[thread].store(std::min(bytes, kBytes), std::memory_order_relaxed);
        break;
      }
      tile -= w.tiles();
    }
  }
}

// A hint to the processor: what it names need not be there any more.
void ReadAhead::fetch(int thread, int count) const {
  const Places* places = next_.load(std::memory_order_acquire);
  if (places == nullptr || thread >= kMostThreads) return;
  const size_t at = count * kStep;
  if (at >= places->bytes[thread].load(std::memory_order_relaxed)) return;
  const uint8_t* begin = places->begin[thread].load(std::memory_order_relaxed) + at;
  for (size_t i = 0; i < kStep; i += 64) __builtin_prefetch(begin + i, 0, 2);
}

}  // namespace qe
