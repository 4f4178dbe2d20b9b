#include "pretokenizer.h"

#include <cstddef>

#include "unicode_tables.h"
#include "utf8.h"

namespace qe {

namespace {

using unicode::kLetter;
using unicode::kNewline;
using unicode::kNumber;
using unicode::kOther;
using unicode::kSpace;

uint8_t category_at(const uint8_t* p, const uint8_t*& after) {
  after = p;
  return unicode::properties(utf8::next(after)).category;
}

const uint8_t* skip_letters(const uint8_t* p, const uint8_t* end) {
  while (p < end) {
    const uint8_t folded = *p | 0x20;
    if (folded >= 'a' && folded <= 'z') {
      ++p;
      continue;
    }
    const uint8_t* after;
    if (category_at(p, after) != kLetter) break;
    p = after;
  }
  return p;
}

// The end of 's 't 're 've 'm 'll 'd in any case, or null. `p` is past the apostrophe.
const uint8_t* contraction(const uint8_t* p, const uint8_t* end) {
  if (p == end) return nullptr;
  const auto folded = [&](ptrdiff_t i) { return i < end - p ? p[i] | 0x20 : 0; };
  switch (folded(0)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return p + 1;
    case 'r':
    case 'v':
      return folded(1) == 'e' ? p + 2 : nullptr;
    case 'l':
      return folded(1) == 'l' ? p + 2 : nullptr;
    default:
      break;
  }
  // U+017F, the long s, is an s to a matcher that ignores case.
  return end - p >= 2 && p[0] == 0xC5 && p[1] == 0xBF ? p + 2 : nullptr;
}

// The run of white space that starts at p, cut where the last three alternatives cut it.
const uint8_t* white_space(const uint8_t* p, const uint8_t* end) {
  const uint8_t* after_newline = nullptr;
  const uint8_t* last = p;
  const uint8_t* run = p;
  while (run < end) {
    const uint8_t* after;
    const uint8_t category = category_at(run, after);
    if (category != kSpace && category != kNewline) break;
    if (category == kNewline) after_newline = after;
    last = run;
    run = after;
  }
  if (after_newline) return after_newline;
  if (run == end || last == p) return run;
  return last;  // the last space stays with the word that follows
}

}  // namespace

const uint8_t* next_piece(const uint8_t* p, const uint8_t* end) {
  if (*p == '\'') {
    if (const uint8_t* after = contraction(p + 1, end)) return after;
  }
  const uint8_t* after;
  const uint8_t category = category_at(p, after);
  if (category == kLetter) return skip_letters(after, end);
  if (category == kNumber) return after;
  if (category != kNewline && after < end) {
    const uint8_t* word;
    if (category_at(after, word) == kLetter) return skip_letters(word, end);
  }
  const uint8_t* run = category == kOther ? p : (*p == ' ' ? after : end);
  const uint8_t* const start = run;
  while (run < end) {
    const uint8_t* next;
    if (category_at(run, next) != kOther) break;
    run = next;
  }
  if (run == start) return white_space(p, end);
  while (run < end && (*run == '\r' || *run == '\n')) ++run;
  return run;
}

}  // namespace qe
