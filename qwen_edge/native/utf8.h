// UTF-8 reading and writing. Readers trust their input: validate first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace qe::utf8 {

// Length of the ASCII text at the start of [p, end).
inline size_t ascii_prefix(const uint8_t* p, const uint8_t* end) {
  const uint8_t* start = p;
  while (end - p >= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    if (word & 0x8080808080808080u) break;
    p += 8;
  }
  while (p < end && *p < 0x80) ++p;
  return static_cast<size_t>(p - start);
}

// Reads the character at p, which must be the start of a valid one, and moves p past it.
inline uint32_t next(const uint8_t*& p) {
  const uint32_t a = *p++;
  if (a < 0x80) return a;
  const uint32_t b = *p++ & 0x3Fu;
  if (a < 0xE0) return (a & 0x1Fu) << 6 | b;
  const uint32_t c = *p++ & 0x3Fu;
  if (a < 0xF0) return (a & 0x0Fu) << 12 | b << 6 | c;
  const uint32_t d = *p++ & 0x3Fu;
  return (a & 0x07u) << 18 | b << 12 | c << 6 | d;
}

// Writes a character to out (room for 4 bytes) and returns its length.
inline size_t put(uint32_t c, uint8_t* out) {
  if (c < 0x80) {
    out[0] = static_cast<uint8_t>(c);
    return 1;
  }
  if (c < 0x800) {
    out[0] = static_cast<uint8_t>(0xC0 | c >> 6);
    out[1] = static_cast<uint8_t>(0x80 | (c & 0x3F));
    return 2;
  }
  if (c < 0x10000) {
    out[0] = static_cast<uint8_t>(0xE0 | c >> 12);
    out[1] = static_cast<uint8_t>(0x80 | (c >> 6 & 0x3F));
    out[2] = static_cast<uint8_t>(0x80 | (c & 0x3F));
    return 3;
  }
  out[0] = static_cast<uint8_t>(0xF0 | c >> 18);
  out[1] = static_cast<uint8_t>(0x80 | (c >> 12 & 0x3F));
  out[2] = static_cast<uint8_t>(0x80 | (c >> 6 & 0x3F));
  out[3] = static_cast<uint8_t>(0x80 | (c & 0x3F));
  return 4;
}

// Whether [p, end) is well-formed UTF-8: no overlong forms, no surrogates, nothing past U+10FFFF.
inline bool valid(const uint8_t* p, const uint8_t* end) {
  const auto continues = [](uint8_t byte) { return (byte & 0xC0) == 0x80; };
  while (true) {
    p += ascii_prefix(p, end);
    if (p == end) return true;
    const uint8_t a = *p;
    const ptrdiff_t left = end - p;
    if (a >= 0xC2 && a <= 0xDF) {
      if (left < 2 || !continues(p[1])) return false;
      p += 2;
    } else if (a >= 0xE0 && a <= 0xEF) {
      if (left < 3 || !continues(p[1]) || !continues(p[2])) return false;
      if ((a == 0xE0 && p[1] < 0xA0) || (a == 0xED && p[1] > 0x9F)) return false;
      p += 3;
    } else if (a >= 0xF0 && a <= 0xF4) {
      if (left < 4 || !continues(p[1]) || !continues(p[2]) || !continues(p[3])) return false;
      if ((a == 0xF0 && p[1] < 0x90) || (a == 0xF4 && p[1] > 0x8F)) return false;
      p += 4;
    } else {
      return false;
    }
  }
}

}  // namespace qe::utf8
