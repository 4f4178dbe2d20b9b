// Whether this processor runs the Arm tables: the system's word, which on a phone with several
// kinds of cores covers all of them.
#include "isa.h"

#if defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace qe {
namespace {

// The kernel's bits by value: older C libraries have no names for the later ones.
constexpr unsigned long kDotProduct = 1ul << 20;  // AT_HWCAP, "asimddp"
constexpr unsigned long kI8mm = 1ul << 13;        // AT_HWCAP2, "i8mm"

bool has_dot_product() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & kDotProduct) != 0;
#elif defined(__ARM_FEATURE_DOTPROD)
  return true;
#else
  return false;
#endif
}

bool has_i8mm() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP2) & kI8mm) != 0;
#elif defined(__ARM_FEATURE_MATMUL_INT8)
  return true;
#else
  return false;
#endif
}

}  // namespace

// Every 64-bit Arm processor that runs an application has it.
bool neon_supported() { return true; }
bool neon_dotprod_supported() { return has_dot_product(); }
bool neon_i8mm_supported() { return has_dot_product() && has_i8mm(); }

}  // namespace qe
#else
namespace qe {
bool neon_supported() { return false; }
bool neon_dotprod_supported() { return false; }
bool neon_i8mm_supported() { return false; }
}  // namespace qe
#endif
