// Picks the instruction set that this translation unit is compiled for.
#pragma once

#if defined(SIGNBIT_BUILD_AMX)
#define SIGNBIT_NS amx
#include "amx.h"
#elif defined(SIGNBIT_BUILD_AVX512_POPCNT)
#define SIGNBIT_NS avx512_popcnt
#include "avx512_popcnt.h"
#elif defined(SIGNBIT_BUILD_AVX512)
#define SIGNBIT_NS avx512
#include "avx512.h"
#elif defined(SIGNBIT_BUILD_AVX2)
#define SIGNBIT_NS avx2
#include "avx2.h"
#elif defined(SIGNBIT_BUILD_NEON_DOT)
#define SIGNBIT_NS neon_dot
#include "neon.h"
#elif defined(SIGNBIT_BUILD_NEON)
#define SIGNBIT_NS neon
#include "neon.h"
#else
#define SIGNBIT_NS scalar
#include "scalar.h"
#endif

namespace signbit {
namespace SIGNBIT_NS {

// FieldSums hold so many bytes whose fields are at most 12: 21 * 12 = 252 <= 255.
constexpr int kGroupsBeforeWidening = 21;

// A line that will be written: where another core read it last, taking it back takes as long as hundreds of instructions.
static inline void claim_line(const void* p) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" ::"m"(*static_cast<const char*>(p)));  // nothing where a CPU has none; GCC leaves it out by default
#else
  __builtin_prefetch(p, 1);
#endif
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
