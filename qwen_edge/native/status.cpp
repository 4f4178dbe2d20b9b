#include "status.h"

#include <cstdio>

namespace qe {

namespace {
// A fixed buffer: storing the message must not allocate when memory has run out.
thread_local char last_error[512] = "";
}  // namespace

int32_t fail(Status status, const char* message) noexcept {
  std::snprintf(last_error, sizeof(last_error), "%s", message);
  return status;
}

}  // namespace qe

QE_API const char* qe_last_error() { return qe::last_error; }

// Raised whenever a signature or a struct of the C interface changes.
QE_API int32_t qe_abi_version() { return 11; }
