// Real numbers and 32-bit integers of kBytes positions, as vectors of the compiler's: +, *, comparisons and ?: work on
// them as on numbers. What an instruction set packs and unpacks its own way stands in its own header.
#pragma once

#include <stdint.h>
#include <string.h>

namespace signbit {
namespace SIGNBIT_NS {

typedef float Floats __attribute__((vector_size(kBytes)));
typedef int32_t Ints __attribute__((vector_size(kBytes)));
constexpr int kInts = kBytes / 4;
// kBytes positions of each, in order.
struct FloatBlock {
  Floats v[4];
};
struct IntBlock {
  Ints v[4];
};
// 16-bit integers, which are as many to a vector as two vectors of Ints hold.
typedef int16_t Shorts __attribute__((vector_size(kBytes)));
constexpr int kShorts = kBytes / 2;
struct ShortBlock {
  Shorts v[2];
};

static inline Floats all_floats(float x) { return x - (Floats){}; }  // x - 0 is x, also for -0.0
static inline Ints all_ints(int32_t x) { return x - (Ints){}; }
static inline Shorts all_shorts(int16_t x) { return x - (Shorts){}; }

// The same at any address. Not memcpy, which GCC cuts into pieces that are too small to be forwarded to later loads.
typedef float FloatsAnywhere __attribute__((vector_size(kBytes), aligned(4), may_alias));
typedef int32_t IntsAnywhere __attribute__((vector_size(kBytes), aligned(4), may_alias));

static inline FloatBlock load_floats(const float* p) {
  FloatBlock b;
  for (int i = 0; i < 4; i++) b.v[i] = *reinterpret_cast<const FloatsAnywhere*>(p + i * kInts);
  return b;
}
static inline void store_floats(float* p, const FloatBlock& b) {
  for (int i = 0; i < 4; i++) *reinterpret_cast<FloatsAnywhere*>(p + i * kInts) = b.v[i];
}
static inline IntBlock load_ints(const int32_t* p) {
  IntBlock b;
  for (int i = 0; i < 4; i++) b.v[i] = *reinterpret_cast<const IntsAnywhere*>(p + i * kInts);
  return b;
}
static inline void store_ints(int32_t* p, const IntBlock& b) {
  for (int i = 0; i < 4; i++) *reinterpret_cast<IntsAnywhere*>(p + i * kInts) = b.v[i];
}

typedef int16_t ShortsAnywhere __attribute__((vector_size(kBytes), aligned(2), may_alias));
typedef int16_t HalfShorts __attribute__((vector_size(kBytes / 2), aligned(2), may_alias));
typedef int8_t HalfBytes __attribute__((vector_size(kBytes / 2), aligned(1), may_alias));
static inline Shorts shorts_at(const int16_t* p) { return *reinterpret_cast<const ShortsAnywhere*>(p); }
static inline void put_shorts(int16_t* p, Shorts x) { *reinterpret_cast<ShortsAnywhere*>(p) = x; }
static inline ShortBlock load_shorts(const int16_t* p) { return {{shorts_at(p), shorts_at(p + kShorts)}}; }
static inline void store_shorts(int16_t* p, const ShortBlock& b) {
  put_shorts(p, b.v[0]);
  put_shorts(p + kShorts, b.v[1]);
}
// GCC widens what __builtin_convertvector is given in two halves.
#if defined(SIGNBIT_BUILD_AVX512)
static inline Shorts shorts_of(const HalfBytes* p) { return Shorts(_mm512_cvtepi8_epi16(__m256i(*p))); }
static inline Ints ints_of(const HalfShorts* p) { return Ints(_mm512_cvtepi16_epi32(__m256i(*p))); }
#elif defined(SIGNBIT_BUILD_AVX2)
static inline Shorts shorts_of(const HalfBytes* p) { return Shorts(_mm256_cvtepi8_epi16(__m128i(*p))); }
static inline Ints ints_of(const HalfShorts* p) { return Ints(_mm256_cvtepi16_epi32(__m128i(*p))); }
#else
static inline Shorts shorts_of(const HalfBytes* p) { return __builtin_convertvector(*p, Shorts); }
static inline Ints ints_of(const HalfShorts* p) { return __builtin_convertvector(*p, Ints); }
#endif
static inline ShortBlock load_bytes_as_shorts(const int8_t* p) {
  ShortBlock b;
  for (int i = 0; i < 2; i++) b.v[i] = shorts_of(reinterpret_cast<const HalfBytes*>(p + i * kShorts));
  return b;
}
// kInts numbers, from 16 or 32 bits each.
static inline Ints ints_at(const int16_t* p) { return ints_of(reinterpret_cast<const HalfShorts*>(p)); }
static inline Ints ints_at(const int32_t* p) { return *reinterpret_cast<const IntsAnywhere*>(p); }
static inline IntBlock load_shorts_as_ints(const int16_t* p) {
  IntBlock b;
  for (int i = 0; i < 4; i++) b.v[i] = ints_at(p + i * kInts);
  return b;
}
// Two bytes a number.
typedef uint16_t BytePairs __attribute__((vector_size(kBytes)));
typedef uint16_t BytePairsAnywhere __attribute__((vector_size(kBytes), aligned(1), may_alias));
static inline BytePairs byte_pairs_at(const uint8_t* p) {
  BytePairs x = *reinterpret_cast<const BytePairsAnywhere*>(p);
  // Loaded once, and not by each instruction that uses it: half of these loads cross a cache line.
#if defined(SIGNBIT_BUILD_AVX2)
  asm("" : "+x"(x));
#elif defined(SIGNBIT_BUILD_AVX512) && !defined(SIGNBIT_EMULATE_AVX512)
  asm("" : "+v"(x));
#endif
  return x;
}

static inline Floats floats_at(const float* p) { return *reinterpret_cast<const FloatsAnywhere*>(p); }

static inline FloatBlock to_floats(const IntBlock& x) {
  FloatBlock b;
  for (int i = 0; i < 4; i++) b.v[i] = __builtin_convertvector(x.v[i], Floats);
  return b;
}
// Whole numbers that fit.
static inline Ints truncated(Floats x) { return __builtin_convertvector(x, Ints); }

// Round to nearest even for |x| < 2^22. The compiler may not fuse the sums (-ffp-contract=off).
static inline Floats round_half_even(Floats x) { return (x + 12582912.0f) - 12582912.0f; }
// x < limit ? limit : x and its like, NaN staying NaN: max and min give their second operand unless the first is beyond it.
// `rounded` is round_half_even to 32-bit integers, for the same numbers.
#if defined(SIGNBIT_BUILD_AVX512)
static inline Floats below_becomes(Floats x, Floats limit) { return Floats(_mm512_max_ps(__m512(limit), __m512(x))); }
static inline Floats above_becomes(Floats x, Floats limit) { return Floats(_mm512_min_ps(__m512(limit), __m512(x))); }
static inline Ints rounded(Floats x) { return Ints(_mm512_cvtps_epi32(__m512(x))); }
#elif defined(SIGNBIT_BUILD_AVX2)
static inline Floats below_becomes(Floats x, Floats limit) { return Floats(_mm256_max_ps(__m256(limit), __m256(x))); }
static inline Floats above_becomes(Floats x, Floats limit) { return Floats(_mm256_min_ps(__m256(limit), __m256(x))); }
static inline Ints rounded(Floats x) { return Ints(_mm256_cvtps_epi32(__m256(x))); }
#else
static inline Floats below_becomes(Floats x, Floats limit) { return x < limit ? limit : x; }
static inline Floats above_becomes(Floats x, Floats limit) { return x > limit ? limit : x; }
static inline Ints rounded(Floats x) { return truncated(round_half_even(x)); }
#endif

}  // namespace SIGNBIT_NS
}  // namespace signbit
