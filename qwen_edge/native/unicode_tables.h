// Character properties as the Hugging Face tokenizers library sees them; see generate_unicode.py.
#pragma once

#include <cstdint>

namespace qe::unicode {

enum Category : uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3, kNewline = 4 };

// kNeedsCheck: NFC may change the character or join it to the one before (NFC_QC is not Yes).
// kBoundary: a starter that NFC leaves alone and never joins to anything before it.
enum Flag : uint8_t { kNeedsCheck = 1, kBoundary = 2 };

struct Properties {
  uint8_t category;
  uint8_t combining_class;
  uint8_t flags;
};

// One step: `first` may decompose further, `second` (0 if absent) never does.
struct Decomposition {
  uint32_t code_point;
  uint32_t first;
  uint32_t second;
};

extern const uint32_t kBlockCount;
extern const uint32_t kDecompositionCount;
extern const uint32_t kCompositeCount;
extern const Properties kProperties[];
extern const uint16_t kBlocks[];
extern const uint8_t kPropertyOf[];
extern const Decomposition kDecompositions[];  // sorted by code point, Hangul left out
extern const uint16_t kComposites[];           // places in kDecompositions, sorted by their parts

constexpr uint32_t kBlockShift = 5;

inline const Properties& properties(uint32_t code_point) {
  const uint32_t block = code_point >> kBlockShift;
  if (block >= kBlockCount) return kProperties[0];
  const uint32_t place = code_point & ((1u << kBlockShift) - 1);
  return kProperties[kPropertyOf[(uint32_t{kBlocks[block]} << kBlockShift) + place]];
}

}  // namespace qe::unicode
