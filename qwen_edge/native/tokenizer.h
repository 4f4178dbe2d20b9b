// Byte-level byte pair encoding over tables that lie ready in the model file.
//
// The blob, little-endian, is made by qwen_edge/text/pack_tokenizer.py. It starts with a Header;
// every section starts at a multiple of 64 from the start of the blob.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace qe {

struct TokenizerHeader {
  char magic[8];  // "QETOKENS"
  uint32_t version;
  uint32_t vocab_count;  // ids are 0 .. vocab_count - 1
  uint32_t merge_slots;  // a power of two
  uint32_t max_probes;   // no merge lies further from its home slot
  uint32_t added_count;
  uint32_t reserved;
  uint64_t total_bytes;
  uint64_t bytes_size;
  // From the start of the blob: uint32_t offsets[vocab_count + 1] into bytes, the tokens' bytes,
  // uint8_t flags[vocab_count], uint32_t byte_ids[256], MergeSlot merges[merge_slots],
  // uint32_t added_ids[added_count] in the order of their bytes.
  uint64_t offsets_at, bytes_at, flags_at, byte_ids_at, merges_at, added_ids_at;
};
static_assert(sizeof(TokenizerHeader) == 96, "the layout is fixed by the file format");

constexpr uint32_t kTokenizerVersion = 1;
constexpr uint8_t kTokenSpecial = 1, kTokenAdded = 2;

// A slot of the open-addressed table; an empty one has left == kNoToken.
struct MergeSlot {
  uint32_t left, right, rank, id;
};
constexpr uint32_t kNoToken = 0xFFFFFFFF;

struct TokenBytes {
  const uint8_t* data;
  size_t size;
};

// Where ids go: the first `capacity` are stored, all are counted.
struct IdSink {
  int32_t* out;
  uint64_t capacity;
  uint64_t count;

  void push(uint32_t id) {
    if (count < capacity) out[count] = static_cast<int32_t>(id);
    ++count;
  }
};

// Reads the blob in place. Constant after construction, so threads may share it. The constructor
// checks what is cheap; the rest is checked at each access, and damage throws kFormat.
class Tokenizer {
 public:
  Tokenizer(const void* blob, uint64_t size);

  uint32_t vocab_count() const { return header_.vocab_count; }
  uint32_t added_count() const { return header_.added_count; }
  uint32_t added_id(uint32_t index) const { return added_ids_[index]; }
  bool is_special(uint32_t id) const { return flags_[id] & kTokenSpecial; }
  TokenBytes token(uint32_t id) const;

  // Valid UTF-8 in, ids out. Without allow_added the text of added tokens is plain text.
  void encode(const uint8_t* text, size_t length, bool allow_added, IdSink& sink) const;

 private:
  struct Scratch;
  struct Match {
    const uint8_t* start;
    size_t length;  // 0: none
    uint32_t id;
  };
  Match find_added(const uint8_t* p, const uint8_t* end) const;
  void encode_plain(const uint8_t* text, size_t length, Scratch& scratch, IdSink& sink) const;
  void encode_piece(const uint8_t* piece, size_t length, Scratch& scratch, IdSink& sink) const;
  void merge_short(const uint8_t* piece, size_t length, IdSink& sink) const;
  void merge_long(const uint8_t* piece, size_t length, Scratch& scratch, IdSink& sink) const;
  const MergeSlot* find_merge(uint32_t left, uint32_t right) const;
  void check_added();

  TokenizerHeader header_;
  const uint32_t* offsets_;
  const uint8_t* bytes_;
  const uint8_t* flags_;
  const uint32_t* byte_ids_;
  const MergeSlot* merges_;
  const uint32_t* added_ids_;
  uint32_t merge_shift_;
  std::array<bool, 256> starts_added_{};
};

}  // namespace qe
