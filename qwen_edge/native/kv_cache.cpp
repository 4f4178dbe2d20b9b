#include "kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace qe {

KvChunk::KvChunk(const KvShape& shape)
    : bytes_(shape.chunk_bytes()), run_bytes_(shape.run_bytes()), kv_heads_(shape.kv_heads) {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<uint8_t*>(memory);
}

KvChunk::~KvChunk() { munmap(data_, bytes_); }

void KvChunk::copy_positions(const KvChunk& source, int positions) {
  const size_t blocks = (positions + kKvBlock - 1) / kKvBlock;
  const size_t used = blocks * (run_bytes_ / kChunkBlocks);
  for (size_t run = 0; run < bytes_; run += run_bytes_) {
    std::memcpy(data_ + run, source.data_ + run, used);
  }
}

void KvChunk::repeat_block(const KvChunk& source, int first, int end) {
  const size_t block = run_bytes_ / kChunkBlocks;
  for (size_t run = 0; run < bytes_; run += run_bytes_) {
    for (int i = first; i < end; ++i) {
      std::memcpy(data_ + run + i * block, source.data_ + run, block);
    }
  }
}

void KvSequence::reserve(int end) {
  const size_t needed = (end + kChunkPositions - 1) / kChunkPositions;
  std::vector<std::shared_ptr<KvChunk>> chunks = chunks_;
  const size_t first = static_cast<size_t>(length_) / kChunkPositions;
  const int kept = length_ % kChunkPositions;
  // Only the chunk that holds the next position can be both shared and written to.
  if (first < chunks.size() && chunks[first].use_count() > 2) {
    auto copy = std::make_shared<KvChunk>(shape_);
    copy->copy_positions(*chunks[first], kept);
    chunks[first] = std::move(copy);
  }
  while (chunks.size() < needed) chunks.push_back(std::make_shared<KvChunk>(shape_));
  chunks_.swap(chunks);
}

void KvSequence::truncate(int length) {
  length_ = length;
  const size_t needed = (length + kChunkPositions - 1) / kChunkPositions;
  if (chunks_.size() > needed) chunks_.resize(needed);
}

void KvSequence::fork(const KvSequence& source, int length) {
  const size_t whole = static_cast<size_t>(length) / kChunkPositions;
  std::vector<std::shared_ptr<KvChunk>> chunks(source.chunks_.begin(),
                                               source.chunks_.begin() + whole);
  if (length % kChunkPositions != 0) {
    auto copy = std::make_shared<KvChunk>(shape_);
    copy->copy_positions(*source.chunks_[whole], length % kChunkPositions);
    chunks.push_back(std::move(copy));
  }
  chunks_.swap(chunks);
  length_ = length;
}

void KvSequence::stretch(int length) {
  // A block that is begun keeps what it has; its other slots stay zero.
  const int begin = (length_ + kKvBlock - 1) / kKvBlock;
  const int end = (length + kKvBlock - 1) / kKvBlock;
  reserve(length);
  for (int c = begin / kChunkBlocks; c < chunks(); ++c) {
    const int first = c * kChunkBlocks;
    chunk(c).repeat_block(chunk(0), std::max(begin - first, 0),
                          std::min(end - first, kChunkBlocks));
  }
  length_ = length;
}

}  // namespace qe
