// A fast 64-bit checksum against damage and mistakes. It is no defence against forgery.
#pragma once

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace qe {

// Eight lanes of 64 bits take 64 bytes a step: xor, multiply by an odd constant, rotate. Each of
// these can be undone, so that damage within one aligned word (of 8 bytes, counted from data) never
// goes unseen; any other goes unseen with a probability of 2^-64. CRC32C would need an instruction
// of its own on each architecture and is no faster than one multiplication a word. The seed is the
// checksum of what comes before, or 0.
uint64_t checksum(const void* data, size_t bytes, uint64_t seed);

}  // namespace qe

QE_API uint64_t qe_checksum(const void* data, uint64_t bytes, uint64_t seed);
