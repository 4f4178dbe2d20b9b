// Status codes of the C interface and the sentence that explains the last failure of a thread.
#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#define QE_API extern "C" __attribute__((visibility("default")))

namespace qe {

enum Status : int32_t { kOk = 0, kArgument = 1, kMemory = 2, kFormat = 3, kIo = 4 };

// Thrown inside the library, never across the C interface.
struct Error : std::runtime_error {
  Error(Status status, const std::string& message) : std::runtime_error(message), status(status) {}
  Status status;
};

// Stores the message for qe_last_error and returns the status.
int32_t fail(Status status, const char* message) noexcept;

// Runs the body of a C function and turns what it throws into a status.
template <typename Body>
int32_t guarded(Body&& body) noexcept {
  try {
    body();
    return kOk;
  } catch (const Error& error) {
    return fail(error.status, error.what());
  } catch (const std::bad_alloc&) {
    return fail(kMemory, "an allocation failed");
  } catch (const std::exception& error) {
    return fail(kIo, error.what());
  }
}

}  // namespace qe
