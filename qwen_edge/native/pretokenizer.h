// Cuts text into the pieces that byte pair encoding works on, one after another.
//
// It is Qwen's regular expression written out by hand, alternatives in this order:
//   (?i:'s|'t|'re|'ve|'m|'ll|'d)   [^\r\n\p{L}\p{N}]?\p{L}+   \p{N}
//   ?[^\s\p{L}\p{N}]+[\r\n]*       \s*[\r\n]+   \s+(?!\S)     \s+
#pragma once

#include <cstdint>

namespace qe {

// Returns the end of the piece that starts at p, which lies before `end` and in valid UTF-8.
const uint8_t* next_piece(const uint8_t* p, const uint8_t* end);

}  // namespace qe
