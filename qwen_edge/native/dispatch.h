// Which table of kernels this process runs: the widest that the processor has, chosen once.
#pragma once

#include <vector>

#include "isa/isa.h"
#include "status.h"

namespace qe {

// The tables that this processor runs, the fastest first; scalar is always the last.
const std::vector<const IsaTable*>& available_tables();

// The table that QWEN_EDGE_ISA names or, without it, the first available one that passes a
// self-test of a few microseconds. The same for the whole process unless select_table changes it.
// Throws Error(kArgument) if the variable names a table that this processor or build lacks.
const IsaTable& active_table();

// Makes the named table active for whatever is created from now on; for tests and comparisons.
// Throws Error(kArgument) as above.
void select_table(const char* name);

}  // namespace qe

// The active table's name, or an empty one as long as none is chosen.
QE_API const char* qe_isa_name();
// The names of the available tables, the fastest first, with commas between them.
QE_API const char* qe_isa_list();
// select_table; null makes the choice of active_table if there was none yet.
QE_API int32_t qe_isa_select(const char* name);
