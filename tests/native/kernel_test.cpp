// Holds the kernel tables against the scalar one. Build it together with native/isa/*.cpp:
//   g++ -std=c++17 -O3 -pthread -I qwen_edge/native tests/native/kernel_test.cpp
//       qwen_edge/native/isa/*.cpp -o kernel_test
//   kernel_test [--list | --speed [--threads N]] [table ...]
// Without names it takes every table that this processor runs; a named table is run unasked. --list
// only says which tables those are, --speed measures them.
#include "attention_checks.h"
#include "kernel_speed.h"
#include "linear_checks.h"
#include "row_checks.h"

namespace qe_test {
namespace {

void check_table(const IsaTable& isa) {
  check_sums(isa);
  check_linear(isa);
  check_dense(isa);
  check_low_rank(isa);
  check_quantize(isa);
  check_rows(isa);
  check_stores(isa);
  check_attention(isa);
  check_exp(isa);
  check_sampling(isa);
}

struct Candidate {
  const char* name;
  const IsaTable* (*table)();
  bool (*supported)();
};

constexpr Candidate kCandidates[] = {
    {"avx2", avx2_table, avx2_supported},
    {"avx512_vnni", avx512_vnni_table, avx512_vnni_supported},
    {"neon", neon_table, neon_supported},
    {"neon_dotprod", neon_dotprod_table, neon_dotprod_supported},
    {"neon_i8mm", neon_i8mm_table, neon_i8mm_supported},
};

int run(int count, char** arguments) {
  setvbuf(stdout, nullptr, _IOLBF, 0);  // a crash shall not take the lines before it along
  std::vector<std::string> names;
  bool speed = false, list = false;
  int threads = 1;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument == "--list") {
      list = true;
    } else if (argument == "--speed") {
      speed = true;
    } else if (argument == "--threads" && i + 1 < count) {
      threads = std::max(1, std::atoi(arguments[++i]));
    } else {
      names.push_back(argument);
    }
  }
  std::vector<const IsaTable*> tables;
  for (const std::string& name : names) {
    const IsaTable* table = name == "scalar" ? scalar_table() : nullptr;
    for (const Candidate& candidate : kCandidates) {
      if (name == candidate.name) table = candidate.table();
    }
    if (table == nullptr) {
      std::fprintf(stderr, "kernel_test: no table named %s was compiled in\n", name.c_str());
      return 2;
    }
    tables.push_back(table);
  }
  if (names.empty()) {
    for (const Candidate& candidate : kCandidates) {
      if (candidate.table() != nullptr && candidate.supported()) {
        tables.push_back(candidate.table());
      }
    }
  }
  std::printf("tables:");
  for (const IsaTable* table : tables) std::printf(" %s", table->name);
  std::printf("\n");
  if (list) return 0;
  if (speed) {
    measure_speed(tables, threads);
    return 0;
  }
  for (const IsaTable* table : tables) check_table(*table);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace qe_test

int main(int count, char** arguments) { return qe_test::run(count, arguments); }
