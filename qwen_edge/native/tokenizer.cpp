#include "tokenizer.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>

#include "normalizer.h"
#include "pretokenizer.h"
#include "status.h"

namespace qe {

namespace {

constexpr char kMagic[8] = {'Q', 'E', 'T', 'O', 'K', 'E', 'N', 'S'};
constexpr uint32_t kMaxVocab = 1u << 24, kMaxMergeSlots = 1u << 26, kMaxProbes = 4096;
constexpr uint64_t kAlignment = 64;
// Up to this length a scan for the best merge beats a heap.
constexpr size_t kShortPiece = 48;

// merge_slots is at least 2. Fibonacci hashing; pack_tokenizer.py computes the same.
uint32_t home_slot(uint32_t left, uint32_t right, uint32_t shift) {
  const uint32_t mixed = (left ^ right * 0x85EBCA6Bu) * 0x9E3779B1u;
  return (mixed ^ mixed >> 15) * 0x2C1B3C6Du >> shift;
}

[[noreturn]] void damaged(const char* what) {
  throw Error(kFormat, std::string("the tokenizer is damaged: ") + what);
}

}  // namespace

Tokenizer::Tokenizer(const void* blob, uint64_t size) {
  const auto* base = static_cast<const uint8_t*>(blob);
  if (!blob || reinterpret_cast<uintptr_t>(blob) % 8) {
    throw Error(kArgument, "the tokenizer's address is not aligned");
  }
  if (size < sizeof(header_)) damaged("it is too short");
  std::memcpy(&header_, blob, sizeof(header_));
  if (std::memcmp(header_.magic, kMagic, sizeof(kMagic))) damaged("it does not start as one");
  if (header_.version != kTokenizerVersion) {
    throw Error(kFormat, "the tokenizer has format version " + std::to_string(header_.version) +
                             ", this program reads " + std::to_string(kTokenizerVersion));
  }
  const uint64_t total = header_.total_bytes, vocab = header_.vocab_count;
  const uint64_t slots = header_.merge_slots;
  if (total > size) damaged("it is truncated");
  if (vocab < 256 || vocab > kMaxVocab || slots < 2 || slots > kMaxMergeSlots ||
      (slots & (slots - 1)) || header_.max_probes > kMaxProbes || header_.added_count > vocab) {
    damaged("its counts are out of range");
  }
  const auto section = [&](uint64_t at, uint64_t bytes) {
    if (at % kAlignment || at > total || bytes > total - at) damaged("a section lies outside");
    return base + at;
  };
  const auto words = [&](uint64_t at, uint64_t count) {
    return reinterpret_cast<const uint32_t*>(section(at, count * sizeof(uint32_t)));
  };
  offsets_ = words(header_.offsets_at, vocab + 1);
  bytes_ = section(header_.bytes_at, header_.bytes_size);
  flags_ = section(header_.flags_at, vocab);
  byte_ids_ = words(header_.byte_ids_at, 256);
  merges_ =
      reinterpret_cast<const MergeSlot*>(section(header_.merges_at, slots * sizeof(MergeSlot)));
  added_ids_ = words(header_.added_ids_at, header_.added_count);
  merge_shift_ = 32;
  for (uint64_t rest = slots; rest > 1; rest >>= 1) --merge_shift_;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const TokenBytes bytes = token(byte_ids_[byte]);
    if (bytes.size != 1 || bytes.data[0] != byte) damaged("a byte has no token");
  }
  check_added();
}

void Tokenizer::check_added() {
  TokenBytes before{nullptr, 0};
  for (uint32_t i = 0; i < header_.added_count; ++i) {
    const TokenBytes bytes = token(added_ids_[i]);
    if (!bytes.size) damaged("an added token is empty");
    const int order = std::memcmp(before.data ? before.data : bytes.data, bytes.data,
                                  std::min(before.size, bytes.size));
    if (order > 0 || (order == 0 && before.size >= bytes.size)) damaged("added tokens in disorder");
    starts_added_[bytes.data[0]] = true;
    before = bytes;
  }
}

TokenBytes Tokenizer::token(uint32_t id) const {
  if (id >= header_.vocab_count) damaged("a token does not exist");
  const uint32_t start = offsets_[id], end = offsets_[id + 1];
  if (start > end || end > header_.bytes_size) damaged("a token lies outside");
  return {bytes_ + start, end - start};
}

const MergeSlot* Tokenizer::find_merge(uint32_t left, uint32_t right) const {
  const uint32_t mask = header_.merge_slots - 1;
  uint32_t slot = home_slot(left, right, merge_shift_);
  for (uint32_t probe = 0; probe <= header_.max_probes; ++probe) {
    const MergeSlot& merge = merges_[slot];
    if (merge.left == left && merge.right == right) {
      if (merge.id >= header_.vocab_count) damaged("a merge makes no token");
      return &merge;
    }
    if (merge.left == kNoToken) return nullptr;
    slot = (slot + 1) & mask;
  }
  return nullptr;
}

// Kept through one call so that long texts do not allocate for each piece.
struct Tokenizer::Scratch {
  struct Symbol {
    uint32_t id;
    uint32_t previous, next;  // kNoToken at the ends
    uint32_t rank;            // of the merge with the next symbol, kNoToken: none
    uint32_t merged;          // what that merge makes
  };
  std::string normalized;
  std::vector<Symbol> symbols;
  std::vector<uint64_t> queue;  // rank in the high half, place in the low one
};

void Tokenizer::merge_short(const uint8_t* piece, size_t length, IdSink& sink) const {
  uint32_t ids[kShortPiece], ranks[kShortPiece], merged[kShortPiece];
  const auto look_up = [&](size_t i) {
    const MergeSlot* merge = find_merge(ids[i], ids[i + 1]);
    ranks[i] = merge ? merge->rank : kNoToken;
    merged[i] = merge ? merge->id : 0;
  };
  for (size_t i = 0; i < length; ++i) ids[i] = byte_ids_[piece[i]];
  for (size_t i = 0; i + 1 < length; ++i) look_up(i);
  while (length > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < length; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNoToken) break;
    ids[best] = merged[best];
    --length;
    for (size_t i = best + 1; i < length; ++i) {
      ids[i] = ids[i + 1];
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    if (best > 0) look_up(best - 1);
    if (best + 1 < length) look_up(best);
  }
  for (size_t i = 0; i < length; ++i) sink.push(ids[i]);
}

void Tokenizer::merge_long(const uint8_t* piece, size_t length, Scratch& scratch,
                           IdSink& sink) const {
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  const auto later = std::greater<uint64_t>();
  symbols.resize(length);
  queue.clear();
  for (size_t i = 0; i < length; ++i) {
    const auto place = static_cast<uint32_t>(i);
    symbols[i] = {byte_ids_[piece[i]], place - 1, i + 1 < length ? place + 1 : kNoToken, kNoToken,
                  0};
  }
  const auto look_up = [&](uint32_t place) {
    auto& symbol = symbols[place];
    symbol.rank = kNoToken;
    if (symbol.next == kNoToken) return false;
    const MergeSlot* merge = find_merge(symbol.id, symbols[symbol.next].id);
    if (!merge || merge->rank == kNoToken) return false;
    symbol.rank = merge->rank;
    symbol.merged = merge->id;
    queue.push_back(uint64_t{merge->rank} << 32 | place);
    return true;
  };
  for (size_t i = 0; i + 1 < length; ++i) look_up(static_cast<uint32_t>(i));
  std::make_heap(queue.begin(), queue.end(), later);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const uint64_t entry = queue.back();
    queue.pop_back();
    const auto place = static_cast<uint32_t>(entry);
    auto& symbol = symbols[place];
    // An entry outlives its pair: the pair's rank tells, and a symbol that was merged away has
    // none.
    if (symbol.rank != static_cast<uint32_t>(entry >> 32)) continue;
    auto& gone = symbols[symbol.next];
    symbol.id = symbol.merged;
    symbol.next = gone.next;
    gone.rank = kNoToken;
    if (symbol.next != kNoToken) symbols[symbol.next].previous = place;
    if (look_up(place)) std::push_heap(queue.begin(), queue.end(), later);
    if (symbol.previous != kNoToken && look_up(symbol.previous)) {
      std::push_heap(queue.begin(), queue.end(), later);
    }
  }
  for (uint32_t place = 0; place != kNoToken; place = symbols[place].next) {
    sink.push(symbols[place].id);
  }
}

void Tokenizer::encode_piece(const uint8_t* piece, size_t length, Scratch& scratch,
                             IdSink& sink) const {
  if (length == 1) {
    sink.push(byte_ids_[*piece]);
  } else if (length <= kShortPiece) {
    merge_short(piece, length, sink);
  } else {
    merge_long(piece, length, scratch, sink);
  }
}

void Tokenizer::encode_plain(const uint8_t* text, size_t length, Scratch& scratch,
                             IdSink& sink) const {
  if (normalize_nfc(text, length, scratch.normalized)) {
    text = reinterpret_cast<const uint8_t*>(scratch.normalized.data());
    length = scratch.normalized.size();
  }
  const uint8_t* const end = text + length;
  while (text < end) {
    const uint8_t* after = next_piece(text, end);
    encode_piece(text, static_cast<size_t>(after - text), scratch, sink);
    text = after;
  }
}

// The leftmost added token in [p, end), the longest of those that start there.
Tokenizer::Match Tokenizer::find_added(const uint8_t* p, const uint8_t* end) const {
  for (; p < end; ++p) {
    if (!starts_added_[*p]) continue;
    Match found{p, 0, 0};
    // Those that agree with the text so far are neighbours: narrow them down byte by byte.
    const uint32_t* low = added_ids_;
    const uint32_t* high = added_ids_ + header_.added_count;
    const auto available = static_cast<size_t>(end - p);
    for (size_t depth = 0; low < high && depth < available; ++depth) {
      const uint8_t wanted = p[depth];
      const auto byte = [&](uint32_t id) {
        const TokenBytes bytes = token(id);
        return depth < bytes.size ? bytes.data[depth] : -1;
      };
      low = std::partition_point(low, high, [&](uint32_t id) { return byte(id) < wanted; });
      high = std::partition_point(low, high, [&](uint32_t id) { return byte(id) <= wanted; });
      if (low < high && token(*low).size == depth + 1) found = {p, depth + 1, *low};
    }
    if (found.length) return found;
  }
  return {end, 0, 0};
}

void Tokenizer::encode(const uint8_t* text, size_t length, bool allow_added, IdSink& sink) const {
  Scratch scratch;
  const uint8_t* const end = text + length;
  while (text < end) {
    const Match match = allow_added ? find_added(text, end) : Match{end, 0, 0};
    encode_plain(text, static_cast<size_t>(match.start - text), scratch, sink);
    if (match.length) sink.push(match.id);
    text = match.start + match.length;
  }
}

}  // namespace qe
