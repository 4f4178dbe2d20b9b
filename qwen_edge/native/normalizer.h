// Unicode normalization form C.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace qe {

// Normalizes valid UTF-8. Returns false, leaving `out` alone, when the text is in form C already.
bool normalize_nfc(const uint8_t* text, size_t length, std::string& out);

}  // namespace qe
