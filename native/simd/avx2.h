// AVX2: 32 byte lanes.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "../kernels/kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kBytes = 32;

typedef __m256i Bytes;

static inline Bytes zero_bytes() { return _mm256_setzero_si256(); }
static inline Bytes load_bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
// A 16-entry table; an index with its top bit set looks up 0.
static inline Bytes load_table(const uint8_t* table) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}
static inline Bytes look_up(Bytes table, Bytes index) { return _mm256_shuffle_epi8(table, index); }
static inline Bytes add_bytes(Bytes x, Bytes y) { return _mm256_add_epi8(x, y); }
static inline Bytes and_bytes(Bytes x, Bytes y) { return _mm256_and_si256(x, y); }
static inline Bytes low_fields(Bytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline Bytes high_fields(Bytes x) { return low_fields(_mm256_srli_epi16(x, 4)); }
// Keeps the compiler from reassociating sums around it: it would run out of registers.
static inline void pin(Bytes& x) { asm("" : "+x"(x)); }

// In one register, which spares a loop copies between registers.
static inline void add_in_place(Bytes& x, Bytes y) { asm("vpaddb %1, %0, %0" : "+x"(x) : "x"(y)); }

// Sums of both 4-bit fields of bytes, in three instructions: `whole` adds the bytes as they are, `shifted` adds the
// bytes of x >> 4, a shift of 16-bit lanes: of a lane's odd byte the high field alone, of its even byte the high field below
// the odd one's low field. Both modulo 256. No field's sum exceeds a byte, so that `widen` finds them one from the other.
struct FieldSums {
  Bytes whole, shifted;
};
static inline void add_fields(FieldSums& f, Bytes x) {
  const Bytes high = _mm256_srli_epi16(x, 4);
  add_in_place(f.whole, x);
  add_in_place(f.shifted, high);
}

// 16-bit numbers of kBytes positions: those at even positions, and those at odd ones.
typedef __m256i Words;
struct Pairs {
  Words even, odd;
};
static inline Pairs widen_bytes(Bytes x) {
  return {_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)};
}
// Modulo 256, in 16-bit lanes: whole = low + 16 * high of either byte; shifted = high of the odd one, and of the even one
// high + 16 * (low of the odd one).
static inline Words minus_16_times(Words x, Words y) {
  return _mm256_and_si256(_mm256_sub_epi16(x, _mm256_slli_epi16(y, 4)), _mm256_set1_epi16(255));
}
static inline void widen(const FieldSums& f, Pairs& low, Pairs& high) {
  high.odd = _mm256_srli_epi16(f.shifted, 8);
  low.odd = minus_16_times(_mm256_srli_epi16(f.whole, 8), high.odd);
  high.even = minus_16_times(f.shifted, low.odd);
  low.even = minus_16_times(f.whole, high.even);
}
static inline Words load_words(const int16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline void store_words(int16_t* p, Words x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
static inline Words add_words(Words x, Words y) { return _mm256_add_epi16(x, y); }
static inline Words zero_words() { return _mm256_setzero_si256(); }
static inline Words all_words(int16_t x) { return _mm256_set1_epi16(x); }
// Both in order of their positions.
static inline void store_in_order(int16_t* p, Pairs x) {
  const __m256i low = _mm256_unpacklo_epi16(x.even, x.odd), high = _mm256_unpackhi_epi16(x.even, x.odd);
  store_words(p, _mm256_permute2x128_si256(low, high, 0x20));
  store_words(p + 16, _mm256_permute2x128_si256(low, high, 0x31));
}
// 0xFF in the byte of each position whose number is greater, else 0.
static inline Bytes greater(Pairs x, Words than) {
  const __m256i even = _mm256_cmpgt_epi16(x.even, than), odd = _mm256_cmpgt_epi16(x.odd, than);
  return _mm256_blendv_epi8(even, odd, _mm256_set1_epi16(int16_t(0xFF00)));
}
// 0xFF where low < x <= high, as signed numbers.
static inline Bytes between(Bytes x, int8_t low, int8_t high) {
  return _mm256_andnot_si256(_mm256_cmpgt_epi8(x, _mm256_set1_epi8(high)), _mm256_cmpgt_epi8(x, _mm256_set1_epi8(low)));
}
static inline Bytes all_bytes(uint8_t x) { return _mm256_set1_epi8(char(x)); }
static inline Bytes or_bytes(Bytes x, Bytes y) { return _mm256_or_si256(x, y); }
static inline Bytes xor_bytes(Bytes x, Bytes y) { return _mm256_xor_si256(x, y); }
static inline Bytes select_bytes(Bytes mask, Bytes x, Bytes y) { return _mm256_blendv_epi8(y, x, mask); }
static inline void store_bytes(uint8_t* p, Bytes x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }

// 8-bit dot products: kDots positions of four bytes each. vpmaddubsw saturates where two products of a sign exceed 16 bits:
// steps are packed in runs whose sums cannot (pack_q8), and widen once a run.
#define SIGNBIT_DOT_RUNS
constexpr int kDots = 8;
constexpr int kQuadBytes = 4;
typedef __m256i Dots;
typedef __m256i Quads;
typedef __m256i RunSums;  // of a run: two 16-bit sums a position
static inline Dots zero_dots() { return _mm256_setzero_si256(); }
static inline Quads load_quads(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline Words multiply(Quads x, const uint8_t* packed) {
  int32_t w;
  memcpy(&w, packed, 4);
  return _mm256_maddubs_epi16(x, _mm256_set1_epi32(w));
}
static inline Dots add_run(Dots sum, RunSums run) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(run, _mm256_set1_epi16(1)));
}
static inline void store_dots(int32_t* dst, Dots x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), x);
}

// The same with output channels as lanes: kDots of them, each with four weights, times one quad of a pixel. Weights are
// packed [2][kDots][2], the even ones first.
struct Splat {
  __m256i even, odd;
};
static inline Splat splat_quad(const uint8_t* p) {
  int32_t quad;
  memcpy(&quad, p, 4);
  const __m256i x = _mm256_set1_epi32(quad);
  return {_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)};
}
static inline Dots add_outputs(Dots sum, const uint8_t* packed, const Splat& x) {
  const __m128i* w = reinterpret_cast<const __m128i*>(packed);
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(w)), x.even));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(w + 1)), x.odd));
}
static inline void pack_outputs(const int8_t* w, uint8_t* packed) {
  for (int lane = 0; lane < kDots; lane++)
    for (int k = 0; k < 4; k++) packed[k % 2 * 2 * kDots + 2 * lane + k / 2] = uint8_t(w[4 * lane + k]);
}

}  // namespace SIGNBIT_NS
}  // namespace signbit

#include "lanes.h"

namespace signbit {
namespace SIGNBIT_NS {

// Each number to a byte, saturating: masks stay masks.
static inline Bytes pack_ints(const IntBlock& b) {
  const __m256i low = _mm256_packs_epi32(__m256i(b.v[0]), __m256i(b.v[1]));
  const __m256i high = _mm256_packs_epi32(__m256i(b.v[2]), __m256i(b.v[3]));
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
static inline IntBlock load_int8(const int8_t* p) {
  IntBlock b;
  for (int i = 0; i < 4; i++)
    b.v[i] = Ints(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * i))));
  return b;
}
static inline IntBlock in_order(Pairs x) {
  const __m256i low = _mm256_unpacklo_epi16(x.even, x.odd), high = _mm256_unpackhi_epi16(x.even, x.odd);
  IntBlock b;
  b.v[0] = Ints(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(low)));
  b.v[1] = Ints(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(high)));
  b.v[2] = Ints(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(low, 1)));
  b.v[3] = Ints(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(high, 1)));
  return b;
}
// 16-bit integers: sums that saturate, sums of look-ups in the order of their positions, masks as bytes, and 32-bit numbers
// brought to 16 bits.
static inline Shorts add_saturated(Shorts x, Shorts y) { return Shorts(_mm256_adds_epi16(__m256i(x), __m256i(y))); }
static inline ShortBlock interleave(Shorts even, Shorts odd) {
  const __m256i low = _mm256_unpacklo_epi16(__m256i(even), __m256i(odd)), high = _mm256_unpackhi_epi16(__m256i(even), __m256i(odd));
  return {{Shorts(_mm256_permute2x128_si256(low, high, 0x20)), Shorts(_mm256_permute2x128_si256(low, high, 0x31))}};
}
static inline ShortBlock shorts_in_order(Pairs x) { return interleave(Shorts(x.even), Shorts(x.odd)); }
static inline IntBlock to_ints(const ShortBlock& x) {
  IntBlock b;
  for (int i = 0; i < 2; i++) {
    b.v[2 * i] = Ints(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(__m256i(x.v[i]))));
    b.v[2 * i + 1] = Ints(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(__m256i(x.v[i]), 1)));
  }
  return b;
}
static inline Bytes pack_shorts(const ShortBlock& b) {
  return _mm256_permute4x64_epi64(_mm256_packs_epi16(__m256i(b.v[0]), __m256i(b.v[1])), 0xD8);
}
static inline ShortBlock saturate(const IntBlock& b) {
  ShortBlock s;
  for (int i = 0; i < 2; i++)
    s.v[i] = Shorts(_mm256_permute4x64_epi64(_mm256_packs_epi32(__m256i(b.v[2 * i]), __m256i(b.v[2 * i + 1])), 0xD8));
  return s;
}

// In order, clipped to -8..7.
static inline Bytes quantise4(Pairs x, const Quant4& q) {
  const __m256i unit = _mm256_set1_epi16(q.unit), factors = _mm256_set1_epi32(uint16_t(q.multiplier) | q.offset * 65536);
  const int shift = q.shift;
  auto scale = [&](__m256i pairs) { return __m256i(Ints(_mm256_madd_epi16(pairs, factors)) >> shift); };
  auto scale_words = [&](__m256i words) {
    return _mm256_packs_epi32(scale(_mm256_unpacklo_epi16(words, unit)), scale(_mm256_unpackhi_epi16(words, unit)));
  };
  const __m256i bytes = _mm256_packs_epi16(scale_words(_mm256_unpacklo_epi16(x.even, x.odd)),
                                           scale_words(_mm256_unpackhi_epi16(x.even, x.odd)));
  return _mm256_max_epi8(_mm256_min_epi8(bytes, _mm256_set1_epi8(7)), _mm256_set1_epi8(-8));
}
// Of the numbers of both, those at even places, and at odd ones.
static inline Floats evens(Floats x, Floats y) { return __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14); }
static inline Floats odds(Floats x, Floats y) { return __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15); }

// Of each lane of `index` its lowest kIndexBits bits choose a lane of the table.
constexpr int kIndexBits = 3;
static inline Ints lanes_of(Ints table, Ints index) { return Ints(_mm256_permutevar8x32_epi32(__m256i(table), __m256i(index))); }

}  // namespace SIGNBIT_NS
}  // namespace signbit
