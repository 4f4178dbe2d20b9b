// Read-only mappings of whole files.
#pragma once

#include "status.h"

// What the caller is about to do with a range of a mapping.
enum QeAdvice : int32_t { kQeWillNeed = 0, kQeDontNeed = 1, kQeSequential = 2 };

// Maps a regular file. Fails with kIo and the errno of the failed call in *error_number (EISDIR for
// a directory, EINVAL for a pipe or device); an empty file succeeds with *address null.
QE_API int32_t qe_file_map_open(const char* path, const void** address, uint64_t* size,
                                int32_t* error_number);
QE_API int32_t qe_file_map_close(const void* address, uint64_t size);
// The range is widened to whole pages; it must lie inside one mapping.
QE_API int32_t qe_file_map_advise(const void* address, uint64_t size, int32_t advice);
