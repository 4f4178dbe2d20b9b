// The machine's read bandwidth: the yardstick for decoding, which reads every weight once a token.
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <new>

#include "c_api.h"
#include "thread_pool.h"

namespace qe {
namespace {

constexpr size_t kPiece = 1 << 20;
constexpr int kAhead = 64;  // blocks of 64 bytes that are asked for in advance

using Block = uint64_t __attribute__((vector_size(64)));

// Does next to nothing but read: four independent sums keep enough loads in flight.
inline __attribute__((always_inline)) uint64_t read_blocks(const uint8_t* data, size_t bytes) {
  const Block* blocks = reinterpret_cast<const Block*>(data);
  Block a{}, b{}, c{}, d{};
  for (size_t i = 0; i < bytes / sizeof(Block); i += 4) {
    for (int k = 0; k < 4; ++k) __builtin_prefetch(blocks + i + kAhead + k);
    a ^= blocks[i];
    b ^= blocks[i + 1];
    c ^= blocks[i + 2];
    d ^= blocks[i + 3];
  }
  a ^= b ^ c ^ d;
  uint64_t all = 0;
  for (int k = 0; k < 8; ++k) all ^= a[k];
  return all;
}

using Reader = uint64_t (*)(const uint8_t*, size_t);

uint64_t read_plain(const uint8_t* data, size_t bytes) { return read_blocks(data, bytes); }

#if defined(__x86_64__)
// One core alone reads half as fast again with the widest loads.
__attribute__((target("avx512f"))) uint64_t read_wide(const uint8_t* data, size_t bytes) {
  return read_blocks(data, bytes);
}

Reader best_reader() { return __builtin_cpu_supports("avx512f") ? read_wide : read_plain; }
#else
Reader best_reader() { return read_plain; }
#endif

// Pages that are there, in huge ones where the system has them: address translation must not be
// what is measured.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) {
    void* memory =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<uint8_t*>(memory);
#if defined(MADV_HUGEPAGE)
    madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
    std::memset(data_, 1, bytes_);
  }
  ~Buffer() { munmap(data_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  const uint8_t* data() const { return data_; }

 private:
  size_t bytes_;
  uint8_t* data_;
};

void measure(size_t bytes, int threads, int passes, double* seconds) {
  if (bytes < kPiece || threads < 1 || threads > 254 || passes < 1) {
    throw Error(kArgument, "the size, threads or passes of a bandwidth measurement");
  }
  const int pieces = static_cast<int>(bytes / kPiece);
  const Buffer buffer(pieces * kPiece);
  const Reader reader = best_reader();
  ThreadPool pool(threads, 1);
  std::atomic<uint64_t> sum{0};
  // The first pass, which wakes cores and fills the address tables, does not count.
  for (int pass = -1; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.run(threads, false, [&](int thread) {
      pool.share(thread, pieces, 1, [&](int piece, int) {
        sum.fetch_xor(reader(buffer.data() + piece * kPiece, kPiece), std::memory_order_relaxed);
      });
    });
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    if (pass >= 0) seconds[pass] = passed.count();
  }
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_read_bandwidth(uint64_t bytes, int32_t threads, int32_t passes, double* seconds) {
  return qe::guarded([&] { qe::measure(bytes, threads, passes, seconds); });
}
