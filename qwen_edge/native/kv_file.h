// The first positions of a KV cache in a file, and back.
//
// Chunk by chunk, and in a chunk layer by layer: the used blocks of each head's keys, then of its
// values, as they lie in memory. A layer of a chunk is a part; each part has a checksum of its own.
//
// Loading copies the file into ordinary chunks. Mapping it would be faster still (1,000 tokens of
// Qwen3-0.6B, 58 MB: 5 ms instead of 11 to 17, where computing them takes 2,500), but whoever
// shortens a mapped file kills the process, and whoever writes to it changes what was verified. A
// copy can neither be pulled away nor changed, it is counted and freed like any other chunk, and
// needs no alignment in the file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kv_cache.h"

namespace qe {

struct KvFile {
  int descriptor;
  uint64_t offset;   // of the first part
  int error_number;  // errno of the call that failed, or 0
};

uint64_t kv_file_bytes(const KvShape& shape, int positions);
size_t kv_file_parts(const KvShape& shape, int positions);

// Writes the first `positions` of a sequence; checksums[kv_file_parts]. Throws Error(kIo), or
// Error(kArgument) if there are not so many.
void save_positions(const KvSequence& sequence, int positions, KvFile* file, uint64_t* checksums);

// Reads the first `wanted` of the `stored` positions into a sequence, in place of what it held.
// Throws std::bad_alloc, Error(kArgument), Error(kIo), or Error(kFormat) where a checksum is wrong
// or the file too short; the sequence is then as it was.
void load_positions(KvSequence* sequence, int wanted, int stored, int threads, KvFile* file,
                    const uint64_t* checksums);

}  // namespace qe
