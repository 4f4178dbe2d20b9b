#include "file_map.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace qe {
namespace {

[[noreturn]] void fail_with(int number, int32_t* error_number) {
  *error_number = number;
  const Status status = number == ENOMEM ? kMemory : kIo;
  throw Error(status, std::string("the file cannot be mapped: ") + std::strerror(number));
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

const void* map_file(const char* path, uint64_t* size, int32_t* error_number) {
  // O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
  const Descriptor file(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.number() < 0) fail_with(errno, error_number);
  struct stat info;
  if (fstat(file.number(), &info) != 0) fail_with(errno, error_number);
  if (S_ISDIR(info.st_mode)) fail_with(EISDIR, error_number);
  if (!S_ISREG(info.st_mode)) fail_with(EINVAL, error_number);
  *size = static_cast<uint64_t>(info.st_size);
  if (*size == 0) return nullptr;
  if (*size > SIZE_MAX / 2) fail_with(ENOMEM, error_number);
  void* address =
      mmap(nullptr, static_cast<size_t>(*size), PROT_READ, MAP_SHARED, file.number(), 0);
  if (address == MAP_FAILED) fail_with(errno, error_number);
  return address;
}

int system_advice(int32_t advice) {
  switch (advice) {
    case kQeWillNeed:
      return MADV_WILLNEED;
    case kQeDontNeed:
      return MADV_DONTNEED;
    case kQeSequential:
      return MADV_SEQUENTIAL;
  }
  throw Error(kArgument, "unknown advice for a file mapping");
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_file_map_open(const char* path, const void** address, uint64_t* size,
                                int32_t* error_number) {
  return qe::guarded([&] {
    *error_number = 0;
    *address = qe::map_file(path, size, error_number);
  });
}

QE_API int32_t qe_file_map_close(const void* address, uint64_t size) {
  return qe::guarded([&] {
    if (address == nullptr) return;
    if (munmap(const_cast<void*>(address), static_cast<size_t>(size)) != 0) {
      throw qe::Error(qe::kArgument, "this is not a file mapping");
    }
  });
}

QE_API int32_t qe_file_map_advise(const void* address, uint64_t size, int32_t advice) {
  return qe::guarded([&] {
    const int system = qe::system_advice(advice);
    const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t begin = reinterpret_cast<uintptr_t>(address) / page * page;
    const uintptr_t end = reinterpret_cast<uintptr_t>(address) + static_cast<size_t>(size);
    if (end <= begin) return;
    // A kernel that does not follow the advice is slower, never wrong.
    static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, system));
  });
}
