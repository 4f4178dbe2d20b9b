// The KV cache: chunks of 256 positions, shared between sequences that have a prefix in common.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "isa/isa.h"

namespace qe {

constexpr int kChunkPositions = 256;
constexpr int kChunkBlocks = kChunkPositions / kKvBlock;

struct KvShape {
  KvType type;
  int layers, kv_heads, head_dim;

  size_t run_bytes() const { return kChunkBlocks * kv_block_bytes(type, head_dim); }
  size_t chunk_bytes() const { return run_bytes() * 2 * layers * kv_heads; }
};

// Zeroed pages of the kernel: what is never written to takes no memory.
class KvChunk {
 public:
  // Throws std::bad_alloc.
  explicit KvChunk(const KvShape& shape);
  ~KvChunk();
  KvChunk(const KvChunk&) = delete;
  KvChunk& operator=(const KvChunk&) = delete;

  // The blocks of one head of one layer, kChunkBlocks of them in a row.
  uint8_t* keys(int layer, int head) { return data_ + run(layer, head); }
  uint8_t* values(int layer, int head) { return data_ + run(layer, head) + run_bytes_; }
  void copy_positions(const KvChunk& source, int positions);
  // Fills the blocks first .. end - 1 of each run with copies of the source's first block.
  void repeat_block(const KvChunk& source, int first, int end);

 private:
  size_t run(int layer, int head) const {
    return (static_cast<size_t>(layer) * kv_heads_ + head) * 2 * run_bytes_;
  }

  size_t bytes_, run_bytes_;
  int kv_heads_;
  uint8_t* data_;
};

class KvSequence {
 public:
  explicit KvSequence(const KvShape& shape) : shape_(shape) {}

  const KvShape& shape() const { return shape_; }
  int length() const { return length_; }
  KvChunk& chunk(int index) const { return *chunks_[index]; }
  int chunks() const { return static_cast<int>(chunks_.size()); }

  // Makes room to write positions length() .. end - 1 (copying a shared chunk first); the length
  // stays. Throws std::bad_alloc and leaves the sequence as it was.
  void reserve(int end);
  void set_length(int length) { length_ = length; }
  void truncate(int length);
  // Becomes the first `length` positions of source; whole chunks are shared, the last is copied.
  void fork(const KvSequence& source, int length);
  // For measurements: lengthens the sequence without computing. The new positions hold copies of
  // the first block's, which has to be whole, so that reading them costs what it does in earnest.
  void stretch(int length);
  // Becomes what the chunks hold; they are enough for `length` positions.
  void adopt(std::vector<std::shared_ptr<KvChunk>> chunks, int length) {
    chunks_ = std::move(chunks);
    length_ = length;
  }

 private:
  KvShape shape_;
  std::vector<std::shared_ptr<KvChunk>> chunks_;
  int length_ = 0;
};

}  // namespace qe
