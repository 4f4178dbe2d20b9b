#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <string>

namespace qe {
namespace {

struct Candidate {
  const IsaTable* (*table)();
  bool (*supported)();
};

bool always() { return true; }

// The fastest first. A table is asked for only where the processor runs it.
constexpr Candidate kCandidates[] = {
    {avx512_vnni_table, avx512_vnni_supported},
    {avx2_table, avx2_supported},
    {neon_i8mm_table, neon_i8mm_supported},
    {neon_dotprod_table, neon_dotprod_supported},
    {neon_table, neon_supported},
    {scalar_table, always},
};

std::atomic<const IsaTable*> chosen{nullptr};

const std::string& available_names() {
  static const std::string names = [] {
    std::string joined;
    for (const IsaTable* table : available_tables()) {
      joined += (joined.empty() ? "" : ",") + std::string(table->name);
    }
    return joined;
  }();
  return names;
}

// One tile by 32 columns for 8 + 2 + 1 activation rows, the ways that kernels go through rows. With
// all scales 1 the outputs are the integer sums, which must agree with scalar's to the last bit.
class SelfTest {
 public:
  SelfTest() {
    uint32_t state = 1;
    for (uint8_t& byte : weights_) byte = static_cast<uint8_t>(next(&state));
    for (int32_t& sum : sums_) sum = 0;
    for (int i = 0; i < kRows * kActivationGroup; ++i) {
      codes_[i] = static_cast<int8_t>(static_cast<int>(next(&state) % 255) - 127);
      sums_[i / kActivationGroup] += codes_[i];
    }
    for (float& scale : scales_) scale = 1;
  }

  bool passes(const IsaTable& isa) {
    constexpr int8_t kCounting[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    constexpr int8_t kUneven[16] = {-128, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  127};
    return agrees(isa, Type::kQ4, kCounting) && agrees(isa, Type::kQ4, kUneven) &&
           agrees(isa, Type::kQ8, kUneven);
  }

 private:
  static constexpr int kRows = 11;

  static uint32_t next(uint32_t* state) {
    *state = *state * 1664525 + 1013904223;
    return *state >> 16;
  }

  bool agrees(const IsaTable& isa, Type type, const int8_t* codebook) {
    Matrix w;
    w.data = weights_;
    w.type = type;
    w.rows = kTileRows;
    w.cols = w.group = kActivationGroup;
    std::memcpy(w.codebook, codebook, sizeof(w.codebook));
    constexpr uint16_t kOne = 0x3c00;
    uint8_t* scales = weights_ + block_bytes(type, w.group, false) - kScaleBytes;
    for (int r = 0; r < kTileRows; ++r) std::memcpy(scales + 2 * r, &kOne, 2);
    const QuantizedRows x = {codes_, scales_, sums_, kRows, kActivationGroup};
    float ours[kRows * kTileRows], truth[kRows * kTileRows];
    const bool q4 = type == Type::kQ4;
    const IsaTable& scalar = *scalar_table();
    (q4 ? isa.linear_q4 : isa.linear_q8)(w, x, 0, 1, ours, kTileRows);
    (q4 ? scalar.linear_q4 : scalar.linear_q8)(w, x, 0, 1, truth, kTileRows);
    return std::memcmp(ours, truth, sizeof(ours)) == 0;
  }

  alignas(64) uint8_t weights_[sizeof(Q8Block<kActivationGroup, false>)];
  alignas(64) int8_t codes_[kRows * kActivationGroup];
  float scales_[kRows];
  int32_t sums_[kRows];
};

bool passes_self_test(const IsaTable& isa) {
  return &isa == scalar_table() || SelfTest().passes(isa);
}

const IsaTable& named_table(const std::string& name) {
  for (const IsaTable* table : available_tables()) {
    if (name != table->name) continue;
    if (passes_self_test(*table)) return *table;
    throw Error(kArgument, "the kernels " + name + " compute wrongly on this processor");
  }
  throw Error(kArgument, "there are no kernels \"" + name + "\" (QWEN_EDGE_ISA) for this " +
                             "processor and build, only " + available_names());
}

const IsaTable& best_table() {
  for (const IsaTable* table : available_tables()) {
    if (passes_self_test(*table)) return *table;
  }
  return *scalar_table();
}

}  // namespace

const std::vector<const IsaTable*>& available_tables() {
  static const std::vector<const IsaTable*> tables = [] {
    std::vector<const IsaTable*> found;
    for (const Candidate& candidate : kCandidates) {
      if (!candidate.supported()) continue;
      const IsaTable* table = candidate.table();
      if (table != nullptr) found.push_back(table);
    }
    return found;
  }();
  return tables;
}

const IsaTable& active_table() {
  const IsaTable* table = chosen.load(std::memory_order_acquire);
  if (table == nullptr) {
    const char* name = std::getenv("QWEN_EDGE_ISA");
    const bool forced = name != nullptr && name[0] != '\0';
    // Two threads that come here together decide the same.
    table = forced ? &named_table(name) : &best_table();
    chosen.store(table, std::memory_order_release);
  }
  return *table;
}

void select_table(const char* name) { chosen.store(&named_table(name), std::memory_order_release); }

}  // namespace qe

QE_API const char* qe_isa_name() {
  const qe::IsaTable* table = qe::chosen.load(std::memory_order_acquire);
  return table == nullptr ? "" : table->name;
}

QE_API const char* qe_isa_list() { return qe::available_names().c_str(); }

QE_API int32_t qe_isa_select(const char* name) {
  return qe::guarded([&] {
    if (name == nullptr) {
      qe::active_table();
    } else {
      qe::select_table(name);
    }
  });
}
