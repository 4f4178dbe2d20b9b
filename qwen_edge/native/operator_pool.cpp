#include "operator_pool.h"

#include "dispatch.h"

namespace qe {
namespace {

constexpr int kPhases = 3;
// About a millisecond: from one operation to the next Python may be at work, and a thread that
// sleeps takes longer to wake than many an operation to compute.
constexpr int kSpins = 30000;

}  // namespace

Kernels kernels_for(bool fp32) {
  if (fp32) return {scalar_table(), &reference_table()};
  return {&active_table(), nullptr};
}

void OperatorPool::set_threads(int threads, int prefill_threads) {
  if (threads == threads_ && prefill_threads == prefill_threads_) return;
  pool_.reset();
  threads_ = threads;
  prefill_threads_ = prefill_threads;
}

ThreadPool& OperatorPool::pool() {
  if (!pool_) {
    const ThreadPool::Idle idle{kSpins,
                                [](const void* context, int thread, int count) {
                                  static_cast<const ReadAhead*>(context)->fetch(thread, count);
                                },
                                &ahead};
    pool_ = std::make_unique<ThreadPool>(size(), kPhases, idle);
  }
  return *pool_;
}

}  // namespace qe
