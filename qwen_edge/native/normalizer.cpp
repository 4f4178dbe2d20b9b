#include "normalizer.h"

#include <algorithm>
#include <vector>

#include "unicode_tables.h"
#include "utf8.h"

namespace qe {

namespace {

using unicode::properties;

// Hangul syllables are composed by arithmetic: The Unicode Standard, section 3.12.
constexpr uint32_t kSyllableBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161;
constexpr uint32_t kTrailBase = 0x11A7, kLeads = 19, kVowels = 21, kTrails = 28;
constexpr uint32_t kSyllables = kLeads * kVowels * kTrails;

struct Mark {
  uint32_t code_point;
  uint8_t combining_class;
};

const unicode::Decomposition* find_decomposition(uint32_t c) {
  const auto* end = unicode::kDecompositions + unicode::kDecompositionCount;
  const auto* found = std::lower_bound(
      unicode::kDecompositions, end, c,
      [](const unicode::Decomposition& entry, uint32_t key) { return entry.code_point < key; });
  return found != end && found->code_point == c ? found : nullptr;
}

void decompose(uint32_t c, std::vector<Mark>& out) {
  if (c - kSyllableBase < kSyllables) {
    const uint32_t place = c - kSyllableBase;
    out.push_back({kLeadBase + place / (kVowels * kTrails), 0});
    out.push_back({kVowelBase + place / kTrails % kVowels, 0});
    if (place % kTrails) out.push_back({kTrailBase + place % kTrails, 0});
    return;
  }
  // Only the first part ever decomposes further, so the second parts come out last to first.
  uint32_t tail[8];
  size_t length = 0;
  while (const auto* entry = find_decomposition(c)) {
    if (entry->second && length < 8) tail[length++] = entry->second;
    c = entry->first;
  }
  out.push_back({c, properties(c).combining_class});
  while (length) {
    const uint32_t part = tail[--length];
    out.push_back({part, properties(part).combining_class});
  }
}

// Marks between two starters in the order of their classes, equal classes as they stood.
void reorder(std::vector<Mark>& marks) {
  const auto is_starter = [](const Mark& mark) { return mark.combining_class == 0; };
  for (auto run = marks.begin(); run != marks.end();) {
    run = std::find_if_not(run, marks.end(), is_starter);
    const auto end = std::find_if(run, marks.end(), is_starter);
    std::stable_sort(run, end, [](const Mark& a, const Mark& b) {
      return a.combining_class < b.combining_class;
    });
    run = end;
  }
}

// The character that the two compose to, or 0.
uint32_t composite(uint32_t first, uint32_t second) {
  if (first - kLeadBase < kLeads && second - kVowelBase < kVowels) {
    return kSyllableBase + ((first - kLeadBase) * kVowels + (second - kVowelBase)) * kTrails;
  }
  if (first - kSyllableBase < kSyllables && (first - kSyllableBase) % kTrails == 0 &&
      second > kTrailBase && second < kTrailBase + kTrails) {
    return first + (second - kTrailBase);
  }
  const auto* end = unicode::kComposites + unicode::kCompositeCount;
  const auto* found = std::lower_bound(unicode::kComposites, end, 0, [&](uint16_t place, int) {
    const auto& entry = unicode::kDecompositions[place];
    return entry.first != first ? entry.first < first : entry.second < second;
  });
  if (found == end) return 0;
  const auto& entry = unicode::kDecompositions[*found];
  return entry.first == first && entry.second == second ? entry.code_point : 0;
}

// Joins each character to the last starter unless one of the same or a higher class is between.
void compose(std::vector<Mark>& marks) {
  size_t kept = 0, starter = 0;
  bool has_starter = false;
  for (const Mark mark : marks) {
    const bool adjacent = has_starter && kept == starter + 1;
    const bool blocked =
        !has_starter || (!adjacent && marks[kept - 1].combining_class >= mark.combining_class);
    if (!blocked) {
      const uint32_t joined = composite(marks[starter].code_point, mark.code_point);
      if (joined) {
        marks[starter].code_point = joined;
        continue;
      }
    }
    if (mark.combining_class == 0) {
      starter = kept;
      has_starter = true;
    }
    marks[kept++] = mark;
  }
  marks.resize(kept);
}

void append_normalized(const uint8_t* p, const uint8_t* end, std::vector<Mark>& marks,
                       std::string& out) {
  marks.clear();
  while (p < end) decompose(utf8::next(p), marks);
  reorder(marks);
  compose(marks);
  for (const Mark& mark : marks) {
    uint8_t bytes[4];
    const size_t length = utf8::put(mark.code_point, bytes);
    out.append(reinterpret_cast<const char*>(bytes), length);
  }
}

}  // namespace

bool normalize_nfc(const uint8_t* text, size_t length, std::string& out) {
  const uint8_t* const end = text + length;
  const uint8_t* copied = text;    // everything before is in `out`
  const uint8_t* boundary = text;  // nothing before can interact with what follows
  uint8_t last_class = 0;
  std::vector<Mark> marks;
  bool changed = false;
  for (const uint8_t* p = text; p < end;) {
    if (const size_t ascii = utf8::ascii_prefix(p, end)) {
      p += ascii;
      boundary = p - 1;
      last_class = 0;
      continue;
    }
    const uint8_t* const start = p;
    const auto& entry = properties(utf8::next(p));
    if (entry.flags & unicode::kBoundary) {
      boundary = start;
      last_class = 0;
      continue;
    }
    const uint8_t cls = entry.combining_class;
    if (!(entry.flags & unicode::kNeedsCheck) && (cls == 0 || cls >= last_class)) {
      last_class = cls;
      continue;
    }
    while (p < end) {
      const uint8_t* after = p;
      if (properties(utf8::next(after)).flags & unicode::kBoundary) break;
      p = after;
    }
    if (!changed) {
      changed = true;
      out.clear();
      out.reserve(length + length / 8);
    }
    out.append(reinterpret_cast<const char*>(copied), static_cast<size_t>(boundary - copied));
    append_normalized(boundary, p, marks, out);
    copied = boundary = p;
    last_class = 0;
  }
  if (!changed) return false;
  out.append(reinterpret_cast<const char*>(copied), static_cast<size_t>(end - copied));
  return true;
}

}  // namespace qe
