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

}  // namespace SIGNBIT_NS
}  // namespace signbit
