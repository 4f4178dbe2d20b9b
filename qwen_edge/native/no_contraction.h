// From here to the end of the file a * b + c is two operations. A fused multiply-add rounds
// differently, and not every machine has it.
#pragma once

#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
