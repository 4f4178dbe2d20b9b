// What the x86 tables share: the headers that have to come before a file switches to its
// instruction set, and helpers of the plain instruction set.
//
// A file switches with a pragma after its last #include of a header of others: an inline function
// of theirs that came to be compiled for AVX could be the copy that the whole library uses. Each
// file's kernels are in a namespace named after its set, so that a test can look for such strays
// among the symbols.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 warns of its own headers, where a register is left undefined on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include <cpuid.h>
#include <string.h>

#include "kv_i4.h"

#define QE_INLINE inline __attribute__((always_inline))

namespace qe {
namespace {

// Weights that all rows of activations pass by before the next are touched: part of an L2 cache.
constexpr size_t kPassBytes = 128 * 1024;

// Asks for what lies a few thousand bytes behind a block that is about to be read.
constexpr size_t kAhead = 4096;
QE_INLINE void prefetch_ahead(const uint8_t* block, size_t bytes, size_t ahead = kAhead) {
  for (size_t at = 0; at < bytes; at += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(block + ahead + at), _MM_HINT_T0);
  }
}

// Asks for one of the blocks that will be read after the present ones, for the second-level cache.
QE_INLINE void prefetch_next(const uint8_t* next, int block, size_t bytes) {
  if (next == nullptr) return;
  for (size_t at = 0; at < bytes; at += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(next + block * bytes + at), _MM_HINT_T1);
  }
}

// Blocks of a KV cache that are read in order, and those that will be read after them.
struct BlockRun {
  const uint8_t* blocks;
  int n;
  size_t bytes;         // of a block
  const uint8_t* next;  // or null

  // Asks for blocks while block b is worked on. Few queries wait for memory and want two blocks
  // ahead in the first-level cache; many compute for so long that as many blocks ahead as there
  // are, in the second level, come in time and cost the present ones no room.
  QE_INLINE void prefetch(int b, int queries) const {
    const int ahead = b + 2;
    if (queries > 3) {
      prefetch_next(next, b, bytes);
    } else if (ahead < n) {
      prefetch_ahead(blocks + ahead * bytes, bytes, 0);
    } else if (next != nullptr) {
      prefetch_ahead(next + (ahead - n) * bytes, bytes, 0);
    }
  }
};

// Whether a codebook's entries are even steps of one.
QE_INLINE bool is_even(const int8_t* codebook) {
  for (int i = 1; i < 16; ++i) {
    if (codebook[i] != codebook[0] + i) return false;
  }
  return true;
}

QE_INLINE int32_t load_four(const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return four;
}

}  // namespace
}  // namespace qe
