// The AVX-512 intrinsics in portable code, so that the avx512 kernels' logic runs on CPUs without AVX-512: SIMDe's,
// and below what SIMDe 0.7.4 lacks. For tests alone (SIGNBIT_EMULATE_AVX512).
//
// An intrinsic that neither has ends the build with "target specific option mismatch": write it here, lane by lane
// from its description, and name it as the others are.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <stdint.h>
#include <string.h>

namespace signbit {
namespace SIGNBIT_NS {
namespace emulated {

// A register's lanes, of type T.
template <typename T>
struct Lanes {
  static constexpr int kCount = 64 / sizeof(T);
  T lane[kCount];
  Lanes() = default;
  explicit Lanes(const __m512i& x) { memcpy(lane, &x, sizeof lane); }
  __m512i whole() const {
    __m512i x;
    memcpy(&x, lane, sizeof lane);
    return x;
  }
};

// A mask register: bit i says whether `holds` for lane i of x and y.
template <typename T, typename Holds>
static inline uint64_t compare(const __m512i& x, const __m512i& y, Holds holds) {
  const Lanes<T> a(x), b(y);
  uint64_t mask = 0;
  for (int i = 0; i < Lanes<T>::kCount; i++) mask |= uint64_t(holds(a.lane[i], b.lane[i])) << i;
  return mask;
}

static inline __mmask32 cmpgt_epi16_mask(const __m512i& x, const __m512i& y) {
  return __mmask32(compare<int16_t>(x, y, [](int16_t a, int16_t b) { return a > b; }));
}

// Lanes of one type as lanes of another one.
template <typename To, typename From, typename Register>
static inline __m512i convert(const Register& x, To (*change)(From)) {
  From from[64 / sizeof(To)];
  memcpy(from, &x, sizeof from);
  Lanes<To> to;
  for (int i = 0; i < Lanes<To>::kCount; i++) to.lane[i] = change(from[i]);
  return to.whole();
}
static inline __m512i cvtepi8_epi32(const __m128i& x) {
  return convert<int32_t, int8_t>(x, [](int8_t a) { return int32_t(a); });
}
static inline __m512i cvtepi16_epi32(const __m256i& x) {
  return convert<int32_t, int16_t>(x, [](int16_t a) { return int32_t(a); });
}
static inline __m512i cvtps_epi32(const __m512& x) {
  return convert<int32_t, float>(x, [](float a) { return int32_t(__builtin_rintf(a)); });
}

}  // namespace emulated
}  // namespace SIGNBIT_NS
}  // namespace signbit

// A later SIMDe may have them too.
#undef _mm512_cmpgt_epi16_mask
#define _mm512_cmpgt_epi16_mask emulated::cmpgt_epi16_mask
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32 emulated::cvtepi8_epi32
#undef _mm512_cvtepi16_epi32
#define _mm512_cvtepi16_epi32 emulated::cvtepi16_epi32
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 emulated::cvtps_epi32

// SIMDe 0.7.4 has it, but its alias counts the parameters wrongly.
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 simde_mm512_madd_epi16
