#include "kv_file.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "checksum.h"
#include "parallel_for.h"
#include "status.h"

namespace qe {
namespace {

// POSIX lets a system take as few as 16 pieces in one call; Linux takes 1,024.
constexpr size_t kPieces = 512;
constexpr uintptr_t kHugePage = 2 << 20;

int chunks_of(int positions) { return (positions + kChunkPositions - 1) / kChunkPositions; }

// Blocks that chunk `index` uses of `positions` in all.
int blocks_of(int positions, int index) {
  const int rest = std::min(positions - index * kChunkPositions, kChunkPositions);
  return (rest + kKvBlock - 1) / kKvBlock;
}

uint64_t part_bytes(const KvShape& shape, int blocks) {
  return shape.chunk_bytes() / shape.layers / kChunkBlocks * blocks;
}

// Where a part lies in memory: the used blocks of each run, neighbouring runs joined.
std::vector<iovec> pieces_of(const KvShape& shape, KvChunk& chunk, int layer, int blocks) {
  const size_t bytes = shape.run_bytes() / kChunkBlocks * blocks;
  std::vector<iovec> pieces;
  const auto add = [&](uint8_t* run) {
    if (!pieces.empty()) {
      iovec& last = pieces.back();
      if (static_cast<uint8_t*>(last.iov_base) + last.iov_len == run) {
        last.iov_len += bytes;
        return;
      }
    }
    pieces.push_back({run, bytes});
  };
  for (int head = 0; head < shape.kv_heads; ++head) {
    add(chunk.keys(layer, head));
    add(chunk.values(layer, head));
  }
  return pieces;
}

uint64_t checksum_of(const std::vector<iovec>& pieces) {
  uint64_t sum = 0;
  for (const iovec& piece : pieces) sum = checksum(piece.iov_base, piece.iov_len, sum);
  return sum;
}

// Calls transfer (preadv or pwritev) until all pieces are through; returns the errno of a failure,
// 0 for success, -1 where the file ends before they do.
template <typename Transfer>
int transfer_all(Transfer transfer, int descriptor, std::vector<iovec> pieces, uint64_t offset) {
  for (size_t first = 0; first < pieces.size();) {
    const size_t count = std::min(pieces.size() - first, kPieces);
    const ssize_t done =
        transfer(descriptor, &pieces[first], static_cast<int>(count), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return errno;
    if (done == 0) return -1;
    offset += static_cast<uint64_t>(done);
    size_t rest = static_cast<size_t>(done);
    while (rest > 0 && rest >= pieces[first].iov_len) rest -= pieces[first++].iov_len;
    if (rest > 0) {
      pieces[first].iov_base = static_cast<uint8_t*>(pieces[first].iov_base) + rest;
      pieces[first].iov_len -= rest;
    }
  }
  return 0;
}

[[noreturn]] void fail_with(int number, KvFile* file) {
  if (number < 0) throw Error(kFormat, "the file is too short");
  file->error_number = number;
  throw Error(kIo, std::strerror(number));
}

// Fewer page faults where the system has huge pages: all of the chunk is about to be written.
void prefer_huge_pages(const KvShape& shape, KvChunk& chunk) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(chunk.keys(0, 0));
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (begin + shape.chunk_bytes()) / kHugePage * kHugePage;
  if (first < end)
    static_cast<void>(madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE));
}

}  // namespace

uint64_t kv_file_bytes(const KvShape& shape, int positions) {
  uint64_t bytes = 0;
  for (int i = 0; i < chunks_of(positions); ++i) {
    bytes += part_bytes(shape, blocks_of(positions, i)) * shape.layers;
  }
  return bytes;
}

size_t kv_file_parts(const KvShape& shape, int positions) {
  return static_cast<size_t>(chunks_of(positions)) * shape.layers;
}

void save_positions(const KvSequence& sequence, int positions, KvFile* file, uint64_t* checksums) {
  if (positions < 1 || positions > sequence.length()) {
    throw Error(kArgument, "cannot save " + std::to_string(positions) + " of " +
                               std::to_string(sequence.length()) + " positions");
  }
  const KvShape& shape = sequence.shape();
  uint64_t offset = file->offset;
  for (int i = 0; i < chunks_of(positions); ++i) {
    const int blocks = blocks_of(positions, i);
    for (int layer = 0; layer < shape.layers; ++layer) {
      const std::vector<iovec> pieces = pieces_of(shape, sequence.chunk(i), layer, blocks);
      *checksums++ = checksum_of(pieces);
      const int problem = transfer_all(pwritev, file->descriptor, pieces, offset);
      if (problem != 0) fail_with(problem < 0 ? EIO : problem, file);
      offset += part_bytes(shape, blocks);
    }
  }
}

void load_positions(KvSequence* sequence, int wanted, int stored, int threads, KvFile* file,
                    const uint64_t* checksums) {
  if (wanted < 1 || wanted > stored) {
    throw Error(kArgument, "cannot load " + std::to_string(wanted) + " of " +
                               std::to_string(stored) + " positions");
  }
  const KvShape& shape = sequence->shape();
  std::vector<std::shared_ptr<KvChunk>> chunks;
  for (int i = 0; i < chunks_of(wanted); ++i) {
    chunks.push_back(std::make_shared<KvChunk>(shape));
    if (blocks_of(stored, i) == kChunkBlocks) prefer_huge_pages(shape, *chunks.back());
  }
  std::atomic<int> problem{0};
  const uint64_t whole_chunk = part_bytes(shape, kChunkBlocks) * shape.layers;
  const auto load_part = [&](int64_t part) {
    const int index = static_cast<int>(part / shape.layers);
    const int layer = static_cast<int>(part % shape.layers);
    const int blocks = blocks_of(stored, index);
    const std::vector<iovec> pieces = pieces_of(shape, *chunks[index], layer, blocks);
    const uint64_t offset = file->offset + whole_chunk * index + part_bytes(shape, blocks) * layer;
    const int failure = transfer_all(preadv, file->descriptor, pieces, offset);
    if (failure != 0) {
      problem = failure;
      throw Error(kIo, "the file cannot be read");
    }
    if (checksum_of(pieces) != checksums[part]) throw Error(kFormat, "a checksum is wrong");
  };
  try {
    parallel_for(static_cast<int64_t>(chunks.size()) * shape.layers, threads, 1, load_part);
  } catch (const Error&) {
    if (problem != 0) fail_with(problem, file);
    throw;
  }
  sequence->adopt(std::move(chunks), wanted);
}

}  // namespace qe
