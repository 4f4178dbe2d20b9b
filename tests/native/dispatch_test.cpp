// Prints how the kernels are chosen: a line each for the list, the active table, what
// qe_isa_select(name) answered for each argument, and the active table after it.
#include "dispatch.h"

#include <cstdio>

QE_API const char* qe_last_error();

namespace {

void select(const char* name) {
  const int status = qe_isa_select(name);
  std::printf("%s: %d %s\n", qe_isa_name(), status, status == 0 ? "" : qe_last_error());
}

}  // namespace

int main(int count, char** arguments) {
  std::printf("%s\n[%s]\n", qe_isa_list(), qe_isa_name());
  select(nullptr);
  for (int i = 1; i < count; ++i) select(arguments[i]);
  return 0;
}
