// The KV cache in a file: what is loaded is what was saved, byte for byte, and nothing else is ever
// taken in. Prints "N passed, N failed" and exits 1 on a failure.
#include "kv_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "checksum.h"
#include "status.h"

namespace {

using qe::KvFile;
using qe::KvSequence;
using qe::KvShape;
using qe::KvType;

int passed = 0, failed = 0;
constexpr uint64_t kOffset = 192;

void check(bool condition, const std::string& name) {
  condition ? ++passed : ++failed;
  if (!condition) std::printf("FAILED %s\n", name.c_str());
}

// A file that is gone when the program ends.
class TemporaryFile {
 public:
  TemporaryFile() {
    char name[] = "/tmp/kv_file_testXXXXXX";
    descriptor_ = mkstemp(name);
    if (descriptor_ < 0) std::abort();
    unlink(name);
  }
  ~TemporaryFile() { close(descriptor_); }
  KvFile kv(uint64_t offset = kOffset) const { return {descriptor_, offset, 0}; }
  int descriptor() const { return descriptor_; }
  uint64_t size() const { return static_cast<uint64_t>(lseek(descriptor_, 0, SEEK_END)); }
  void flip(uint64_t at) const {
    uint8_t byte = 0;
    if (pread(descriptor_, &byte, 1, static_cast<off_t>(at)) != 1) std::abort();
    byte ^= 0x10;
    if (pwrite(descriptor_, &byte, 1, static_cast<off_t>(at)) != 1) std::abort();
  }

 private:
  int descriptor_;
};

// The bytes of the blocks in use, in the order layer, head, keys, values, position.
std::vector<uint8_t> used_bytes(const KvSequence& sequence, int positions) {
  const KvShape& shape = sequence.shape();
  const size_t block = shape.run_bytes() / qe::kChunkBlocks;
  std::vector<uint8_t> all;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      for (int kind = 0; kind < 2; ++kind) {
        for (int at = 0; at < positions; at += qe::kKvBlock) {
          qe::KvChunk& chunk = sequence.chunk(at / qe::kChunkPositions);
          const uint8_t* run = kind ? chunk.values(layer, head) : chunk.keys(layer, head);
          const uint8_t* from = run + at % qe::kChunkPositions / qe::kKvBlock * block;
          all.insert(all.end(), from, from + block);
        }
      }
    }
  }
  return all;
}

void fill(KvSequence& sequence, int positions, uint32_t seed) {
  sequence.reserve(positions);
  sequence.set_length(positions);
  std::mt19937 random(seed);
  const KvShape& shape = sequence.shape();
  for (int c = 0; c < sequence.chunks(); ++c) {
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        uint8_t* runs[] = {sequence.chunk(c).keys(layer, head),
                           sequence.chunk(c).values(layer, head)};
        for (uint8_t* run : runs) {
          for (size_t i = 0; i < shape.run_bytes(); ++i) run[i] = static_cast<uint8_t>(random());
        }
      }
    }
  }
}

// The status of what the body throws, or kOk.
qe::Status status_of(const std::function<void()>& body) {
  try {
    body();
    return qe::kOk;
  } catch (const qe::Error& error) {
    return error.status;
  }
}

void test_round_trips(const KvShape& shape, const std::string& name) {
  for (int stored : {1, 16, 17, 255, 256, 257, 530}) {
    KvSequence source(shape);
    fill(source, stored, 5);
    const TemporaryFile file;
    std::vector<uint64_t> sums(qe::kv_file_parts(shape, stored));
    KvFile out = file.kv();
    qe::save_positions(source, stored, &out, sums.data());
    const std::string label = name + " " + std::to_string(stored);
    check(file.size() == kOffset + qe::kv_file_bytes(shape, stored), label + " has its size");
    for (int wanted : {1, stored / 2 + 1, stored}) {
      for (int threads : {1, 3}) {
        KvSequence target(shape);
        fill(target, 40, 6);
        KvFile in = file.kv();
        qe::load_positions(&target, wanted, stored, threads, &in, sums.data());
        check(target.length() == wanted && used_bytes(target, wanted) == used_bytes(source, wanted),
              label + " comes back");
        // The loaded chunks are ordinary ones: they can grow, be shared and be cut.
        target.reserve(wanted + 300);
        KvSequence copy(shape);
        copy.fork(target, wanted);
        target.truncate(wanted / 2);
        check(used_bytes(copy, wanted) == used_bytes(source, wanted), label + " can be forked");
      }
    }
  }
}

void test_damage(const KvShape& shape) {
  const int stored = 300;
  KvSequence source(shape);
  fill(source, stored, 8);
  const TemporaryFile file;
  std::vector<uint64_t> sums(qe::kv_file_parts(shape, stored));
  KvFile out = file.kv();
  qe::save_positions(source, stored, &out, sums.data());
  KvSequence target(shape);
  fill(target, 20, 9);
  const std::vector<uint8_t> before = used_bytes(target, 20);
  const auto load = [&] {
    KvFile in = file.kv();
    return status_of([&] { qe::load_positions(&target, stored, stored, 2, &in, sums.data()); });
  };
  const auto untouched = [&] { return target.length() == 20 && used_bytes(target, 20) == before; };
  const uint64_t size = file.size();
  bool found = true;
  for (uint64_t at = kOffset; at < size; at += 97) {
    file.flip(at);
    found = found && load() == qe::kFormat && untouched();
    file.flip(at);
  }
  check(found, "a changed byte is found");
  bool refused = true;
  for (uint64_t cut : {size - 1, size / 2, kOffset + 1, kOffset, uint64_t{0}}) {
    std::vector<uint8_t> rest(size - cut);
    if (pread(file.descriptor(), rest.data(), rest.size(), static_cast<off_t>(cut)) < 0) return;
    if (ftruncate(file.descriptor(), static_cast<off_t>(cut)) != 0) return;
    refused = refused && load() == qe::kFormat && untouched();
    if (pwrite(file.descriptor(), rest.data(), rest.size(), static_cast<off_t>(cut)) < 0) return;
  }
  check(refused, "a short file is refused");
  for (uint64_t& sum : sums) {
    sum ^= 1;
    refused = refused && load() == qe::kFormat;
    sum ^= 1;
  }
  check(refused && untouched(), "a wrong checksum is refused");
  check(load() == qe::kOk && used_bytes(target, stored) == used_bytes(source, stored),
        "the mended file loads");
}

void test_failures(const KvShape& shape) {
  KvSequence sequence(shape);
  fill(sequence, 100, 3);
  std::vector<uint64_t> sums(qe::kv_file_parts(shape, 100));
  const int full = open("/dev/full", O_WRONLY);
  KvFile file = {full, 0, 0};
  check(status_of([&] { qe::save_positions(sequence, 100, &file, sums.data()); }) == qe::kIo &&
            file.error_number == ENOSPC,
        "a full disk is told of");
  close(full);
  file = {-1, 0, 0};
  check(status_of([&] { qe::load_positions(&sequence, 100, 100, 2, &file, sums.data()); }) ==
                qe::kIo &&
            file.error_number == EBADF && sequence.length() == 100,
        "a descriptor that is none");
  const auto save = [&](int n) { qe::save_positions(sequence, n, &file, sums.data()); };
  check(status_of([&] { save(0); }) == qe::kArgument &&
            status_of([&] { save(101); }) == qe::kArgument,
        "lengths out of range");
}

void test_checksum() {
  std::vector<uint8_t> data(300);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 7);
  const uint64_t whole = qe::checksum(data.data(), data.size(), 0);
  bool found = qe::checksum(data.data(), data.size(), 1) != whole;
  for (size_t i = 0; i < data.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      data[i] ^= static_cast<uint8_t>(1 << bit);
      found = found && qe::checksum(data.data(), data.size(), 0) != whole;
      data[i] ^= static_cast<uint8_t>(1 << bit);
    }
    found = found && qe::checksum(data.data(), i, 0) != whole;
  }
  check(found, "every bit and the length count");
  const uint8_t zeros[128] = {};
  check(qe::checksum(zeros, 64, 0) != qe::checksum(zeros, 128, 0) &&
            qe::checksum(zeros, 63, 0) != qe::checksum(zeros, 64, 0),
        "zeros count");
  check(qe::checksum(data.data(), data.size(), 0) == whole, "the same each time");
}

}  // namespace

int main() {
  test_checksum();
  for (const KvType type : {KvType::kF16, KvType::kI8, KvType::kI4}) {
    const std::string name = "type " + std::to_string(static_cast<int>(type));
    test_round_trips({type, 3, 2, 32}, name);
    // More runs a layer than one call of the system takes.
    if (type == KvType::kI8) test_round_trips({type, 1, 300, 32}, name + " many heads");
  }
  test_damage({KvType::kI8, 2, 2, 32});
  test_failures({KvType::kF16, 2, 3, 64});
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
