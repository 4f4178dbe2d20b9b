#include "checksum.h"

#include <cstring>

namespace qe {
namespace {

constexpr int kLanes = 8;
constexpr uint64_t kOdd = 0xa0761d6478bd642fu, kStart = 0x9fb21c651e98df25u;

uint64_t mix(uint64_t state, uint64_t word) {
  const uint64_t product = (state ^ word) * kOdd;
  // A product carries differences upwards only; the rotation brings them back down.
  return product << 29 | product >> 35;
}

}  // namespace

uint64_t checksum(const void* data, size_t bytes, uint64_t seed) {
  const auto* in = static_cast<const uint8_t*>(data);
  uint64_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = mix(seed + i, kStart);
  size_t done = 0;
  for (; done + sizeof(lanes) <= bytes; done += sizeof(lanes)) {
    uint64_t words[kLanes];
    std::memcpy(words, in + done, sizeof(words));
    for (int i = 0; i < kLanes; ++i) lanes[i] = mix(lanes[i], words[i]);
  }
  if (done < bytes) {
    uint64_t words[kLanes] = {};
    std::memcpy(words, in + done, bytes - done);
    for (int i = 0; i < kLanes; ++i) lanes[i] = mix(lanes[i], words[i]);
  }
  uint64_t state = mix(kStart, bytes);
  for (uint64_t lane : lanes) state = mix(state, lane);
  return mix(state ^ state >> 32, kStart);
}

}  // namespace qe

QE_API uint64_t qe_checksum(const void* data, uint64_t bytes, uint64_t seed) {
  return qe::checksum(data, static_cast<size_t>(bytes), seed);
}
