// AVX-512 (F, BW, VL, DQ, VNNI): 64 byte lanes.
#pragma once

#if defined(SIGNBIT_EMULATE_AVX512)
#include "avx512_emulated.h"
#else
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

#include "../kernels/kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kBytes = 64;

typedef __m512i Bytes;

static inline Bytes zero_bytes() { return _mm512_setzero_si512(); }
static inline Bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
// A 16-entry table; an index with its top bit set looks up 0.
static inline Bytes load_table(const uint8_t* table) {
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}
static inline Bytes look_up(Bytes table, Bytes index) { return _mm512_shuffle_epi8(table, index); }
static inline Bytes add_bytes(Bytes x, Bytes y) { return _mm512_add_epi8(x, y); }
static inline Bytes and_bytes(Bytes x, Bytes y) { return _mm512_and_si512(x, y); }
static inline Bytes low_fields(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
static inline Bytes high_fields(Bytes x) { return low_fields(_mm512_srli_epi16(x, 4)); }
// Keeps the compiler from reassociating sums around it: it would run out of registers.
// And an addition in one register, which spares a loop copies between registers.
#if defined(SIGNBIT_EMULATE_AVX512)
static inline void pin(Bytes&) {}
static inline void add_in_place(Bytes& x, Bytes y) { x = _mm512_add_epi8(x, y); }
#else
static inline void pin(Bytes& x) { asm("" : "+v"(x)); }
static inline void add_in_place(Bytes& x, Bytes y) { asm("vpaddb %1, %0, %0" : "+v"(x) : "v"(y)); }
#endif

// Sums of both 4-bit fields of bytes, in three instructions: `whole` adds the bytes as they are, `shifted` adds the
// bytes of x >> 4, a shift of 16-bit lanes: of a lane's odd byte the high field alone, of its even byte the high field below
// the odd one's low field. Both modulo 256. No field's sum exceeds a byte, so that `widen` finds them one from the other.
struct FieldSums {
  Bytes whole, shifted;
};
static inline void add_fields(FieldSums& f, Bytes x) {
  const Bytes high = _mm512_srli_epi16(x, 4);
  add_in_place(f.whole, x);
  add_in_place(f.shifted, high);
}

// 16-bit numbers of kBytes positions: those at even positions, and those at odd ones.
typedef __m512i Words;
struct Pairs {
  Words even, odd;
};
static inline Pairs widen_bytes(Bytes x) {
  return {_mm512_and_si512(x, _mm512_set1_epi16(255)), _mm512_srli_epi16(x, 8)};
}
// Modulo 256, in 16-bit lanes: whole = low + 16 * high of either byte; shifted = high of the odd one, and of the even one
// high + 16 * (low of the odd one).
static inline Words minus_16_times(Words x, Words y) {
  return _mm512_and_si512(_mm512_sub_epi16(x, _mm512_slli_epi16(y, 4)), _mm512_set1_epi16(255));
}
static inline void widen(const FieldSums& f, Pairs& low, Pairs& high) {
  high.odd = _mm512_srli_epi16(f.shifted, 8);
  low.odd = minus_16_times(_mm512_srli_epi16(f.whole, 8), high.odd);
  high.even = minus_16_times(f.shifted, low.odd);
  low.even = minus_16_times(f.whole, high.even);
}
static inline Words load_words(const int16_t* p) { return _mm512_loadu_si512(p); }
static inline void store_words(int16_t* p, Words x) { _mm512_storeu_si512(p, x); }
static inline Words add_words(Words x, Words y) { return _mm512_add_epi16(x, y); }
static inline Words zero_words() { return _mm512_setzero_si512(); }
static inline Words all_words(int16_t x) { return _mm512_set1_epi16(x); }
// Both in order of their positions.
static inline void store_in_order(int16_t* p, Pairs x) {
  const __m512i low = _mm512_unpacklo_epi16(x.even, x.odd), high = _mm512_unpackhi_epi16(x.even, x.odd);
  const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  store_words(p, _mm512_permutex2var_epi64(low, first, high));
  store_words(p + 32, _mm512_permutex2var_epi64(low, second, high));
}
// 0xFF in the byte of each position whose number is greater, else 0.
static inline Bytes greater(Pairs x, Words than) {
  const __m512i even = _mm512_movm_epi16(_mm512_cmpgt_epi16_mask(x.even, than));
  const __m512i odd = _mm512_movm_epi16(_mm512_cmpgt_epi16_mask(x.odd, than));
  return _mm512_ternarylogic_epi32(_mm512_set1_epi16(int16_t(0xFF00)), odd, even, 0xCA);
}
// 0xFF where low < x <= high, as signed numbers.
static inline Bytes between(Bytes x, int8_t low, int8_t high) {
  const __mmask64 above = _mm512_cmpgt_epi8_mask(x, _mm512_set1_epi8(low));
  return _mm512_movm_epi8(above & ~_mm512_cmpgt_epi8_mask(x, _mm512_set1_epi8(high)));
}
static inline Bytes all_bytes(uint8_t x) { return _mm512_set1_epi8(char(x)); }
static inline Bytes or_bytes(Bytes x, Bytes y) { return _mm512_or_si512(x, y); }
static inline Bytes xor_bytes(Bytes x, Bytes y) { return _mm512_xor_si512(x, y); }
static inline Bytes select_bytes(Bytes mask, Bytes x, Bytes y) { return _mm512_ternarylogic_epi32(mask, x, y, 0xCA); }
static inline void store_bytes(uint8_t* p, Bytes x) { _mm512_storeu_si512(p, x); }

// 8-bit dot products: kDots positions of four bytes each.
constexpr int kDots = 16;
constexpr int kQuadBytes = 4;
typedef __m512i Dots;
typedef __m512i Quads;
static inline Dots zero_dots() { return _mm512_setzero_si512(); }
static inline Quads load_quads(const uint8_t* p) { return _mm512_loadu_si512(p); }
static inline Dots add_dots(Dots sum, Quads x, const uint8_t* packed) {
  int32_t w;
  memcpy(&w, packed, 4);
  return _mm512_dpbusd_epi32(sum, x, _mm512_set1_epi32(w));
}
static inline void store_dots(int32_t* dst, Dots x) { _mm512_storeu_si512(dst, x); }
static inline void pack_quad(const int8_t* w, uint8_t* packed) { memcpy(packed, w, 4); }

// The same with output channels as lanes: kDots of them, each with four weights, times one quad of a pixel.
typedef __m512i Splat;
static inline Splat splat_quad(const uint8_t* p) {
  int32_t quad;
  memcpy(&quad, p, 4);
  return _mm512_set1_epi32(quad);
}
static inline Dots add_outputs(Dots sum, const uint8_t* packed, Splat x) {
  return _mm512_dpbusd_epi32(sum, x, _mm512_loadu_si512(packed));
}
static inline void pack_outputs(const int8_t* w, uint8_t* packed) { memcpy(packed, w, 4 * kDots); }

}  // namespace SIGNBIT_NS
}  // namespace signbit

#include "lanes.h"

namespace signbit {
namespace SIGNBIT_NS {

// Each number to a byte, saturating: masks stay masks.
static inline Bytes pack_ints(const IntBlock& b) {
  const __m512i low = _mm512_packs_epi32(__m512i(b.v[0]), __m512i(b.v[1]));
  const __m512i high = _mm512_packs_epi32(__m512i(b.v[2]), __m512i(b.v[3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
}
static inline IntBlock load_int8(const int8_t* p) {
  IntBlock b;
  for (int i = 0; i < 4; i++)
    b.v[i] = Ints(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * kInts))));
  return b;
}
static inline IntBlock in_order(Pairs x) {
  int16_t words[kBytes];
  store_in_order(words, x);
  return load_shorts_as_ints(words);
}
// 16-bit integers: sums that saturate, sums of look-ups in the order of their positions, masks as bytes, and 32-bit numbers
// brought to 16 bits.
static inline Shorts add_saturated(Shorts x, Shorts y) { return Shorts(_mm512_adds_epi16(__m512i(x), __m512i(y))); }
static inline ShortBlock interleave(Shorts even, Shorts odd) {
  const __m512i low = _mm512_unpacklo_epi16(__m512i(even), __m512i(odd)), high = _mm512_unpackhi_epi16(__m512i(even), __m512i(odd));
  const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  return {{Shorts(_mm512_permutex2var_epi64(low, first, high)), Shorts(_mm512_permutex2var_epi64(low, second, high))}};
}
static inline ShortBlock shorts_in_order(Pairs x) { return interleave(Shorts(x.even), Shorts(x.odd)); }
static inline IntBlock to_ints(const ShortBlock& x) {
  int16_t numbers[kBytes];
  store_shorts(numbers, x);
  return load_shorts_as_ints(numbers);
}
// Of two vectors that were packed within each 128 bits.
static inline __m512i packed_in_order(__m512i x) {
  return _mm512_permutexvar_epi64(_mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0), x);
}
static inline Bytes pack_shorts(const ShortBlock& b) {
  return packed_in_order(_mm512_packs_epi16(__m512i(b.v[0]), __m512i(b.v[1])));
}
static inline ShortBlock saturate(const IntBlock& b) {
  ShortBlock s;
  for (int i = 0; i < 2; i++)
    s.v[i] = Shorts(packed_in_order(_mm512_packs_epi32(__m512i(b.v[2 * i]), __m512i(b.v[2 * i + 1]))));
  return s;
}

// In order, clipped to -8..7.
static inline Bytes quantise4(Pairs x, const Quant4& q) {
  const __m512i unit = _mm512_set1_epi16(q.unit), factors = _mm512_set1_epi32(uint16_t(q.multiplier) | q.offset * 65536);
  const int shift = q.shift;
  auto scale = [&](__m512i pairs) { return __m512i(Ints(_mm512_madd_epi16(pairs, factors)) >> shift); };
  auto scale_words = [&](__m512i words) {
    return _mm512_packs_epi32(scale(_mm512_unpacklo_epi16(words, unit)), scale(_mm512_unpackhi_epi16(words, unit)));
  };
  const __m512i bytes = _mm512_packs_epi16(scale_words(_mm512_unpacklo_epi16(x.even, x.odd)),
                                           scale_words(_mm512_unpackhi_epi16(x.even, x.odd)));
  return _mm512_max_epi8(_mm512_min_epi8(bytes, _mm512_set1_epi8(7)), _mm512_set1_epi8(-8));
}
// Of the numbers of both, those at even places, and at odd ones.
static inline Floats evens(Floats x, Floats y) { return __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30); }
static inline Floats odds(Floats x, Floats y) { return __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31); }

// Of each lane of `index` its lowest kIndexBits bits choose a lane of the table.
constexpr int kIndexBits = 4;
static inline Ints lanes_of(Ints table, Ints index) { return Ints(_mm512_permutexvar_epi32(__m512i(index), __m512i(table))); }

}  // namespace SIGNBIT_NS
}  // namespace signbit
