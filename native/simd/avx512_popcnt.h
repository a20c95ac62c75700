// What VPOPCNTDQ adds to AVX-512: counts of the bits of 64-bit lanes; and what words of bits need besides.
#pragma once

#include "avx512.h"

namespace signbit {
namespace SIGNBIT_NS {

static inline Bytes load_words64(const uint64_t* p) { return _mm512_load_si512(p); }
#if defined(SIGNBIT_EMULATE_AVX512)
static inline Bytes count_bits(Bytes x) {
  uint64_t lanes[8];
  memcpy(lanes, &x, sizeof lanes);
  for (uint64_t& lane : lanes) lane = uint64_t(__builtin_popcountll(lane));
  memcpy(&x, lanes, sizeof lanes);
  return x;
}
static inline uint8_t below(Bytes counts, const int64_t* cuts) {
  int64_t lanes[8];
  memcpy(lanes, &counts, sizeof lanes);
  int bits = 0;
  for (int i = 0; i < 8; i++) bits |= (lanes[i] < cuts[i]) << i;
  return uint8_t(bits);
}
// One word, with all lanes.
static inline Bytes xor_splat(Bytes x, const uint64_t* word) { return _mm512_xor_si512(x, _mm512_set1_epi64(int64_t(*word))); }
// Of x, y and z whose exclusive or is `sum`: the carry of x + y + z.
static inline Bytes carry_with_sum(Bytes x, Bytes y, Bytes sum) { return _mm512_ternarylogic_epi32(x, y, sum, 0xD4); }
static inline __m128i words_of_longs(Bytes x) {
  int64_t lanes[8];
  int16_t words[8];
  memcpy(lanes, &x, sizeof lanes);
  for (int i = 0; i < 8; i++) words[i] = int16_t(lanes[i]);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
}
#else
static inline Bytes count_bits(Bytes x) { return _mm512_popcnt_epi64(x); }
// A bit a lane: whether it is less.
static inline uint8_t below(Bytes counts, const int64_t* cuts) {
  return uint8_t(_mm512_cmplt_epi64_mask(counts, _mm512_load_si512(cuts)));
}
// The same in assembly: GCC broadcasts a word to a register of its own first, and copies a register that the instruction would
// overwrite where another one would do. A layer is a tenth faster for both.
static inline Bytes xor_splat(Bytes x, const uint64_t* word) {
  Bytes y;
  asm("vpxorq %2%{1to8%}, %1, %0" : "=v"(y) : "v"(x), "m"(*word));
  return y;
}
static inline Bytes carry_with_sum(Bytes x, Bytes y, Bytes sum) {
  asm("vpternlogq $0xD4, %2, %1, %0" : "+v"(x) : "v"(y), "v"(sum));
  return x;
}
static inline __m128i words_of_longs(Bytes x) { return _mm512_cvtepi64_epi16(x); }
#endif
// Of a pixel and eight output channels: the sum of all bits so far, and how many carries there were.
struct BitSums {
  Bytes ones, twos;
};
static inline BitSums no_bits() { return {zero_bytes(), zero_bytes()}; }
// Two words more: the first, and the exclusive or of all words so far.
static inline void add_two(BitSums& b, Bytes word, Bytes sum) {
  b.twos = _mm512_add_epi64(b.twos, count_bits(carry_with_sum(word, b.ones, sum)));
  b.ones = sum;
}
static inline Bytes count_all(const BitSums& b) {
  return _mm512_add_epi64(_mm512_add_epi64(b.twos, b.twos), count_bits(b.ones));
}
// row = start - counts, of eight lanes, in 16 bits.
static inline void subtract_counts(int16_t* row, const int16_t* start, Bytes counts) {
  const __m128i from = _mm_load_si128(reinterpret_cast<const __m128i*>(start));
  _mm_store_si128(reinterpret_cast<__m128i*>(row), _mm_sub_epi16(from, words_of_longs(counts)));
}

// Each 128-bit lane holds a row of eight numbers of 16 bits: eight such lanes, one of each vector, are transposed. Of the results, in
// the same order, each lane holds one column.
static inline void transpose_rows(const int16_t* rows, int16_t* const* columns) {
  Bytes a[8], t[8], u[8];
  for (int i = 0; i < 8; i++) a[i] = _mm512_load_si512(rows + 32 * i);
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
    t[4 + i] = _mm512_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
  }
  for (int half = 0; half < 8; half += 4)  // of the columns
    for (int j = 0; j < 2; j++) {          // of the rows
      u[half + j] = _mm512_unpacklo_epi32(t[half + 2 * j], t[half + 2 * j + 1]);
      u[half + 2 + j] = _mm512_unpackhi_epi32(t[half + 2 * j], t[half + 2 * j + 1]);
    }
  for (int i = 0; i < 8; i += 2) {
    _mm512_storeu_si512(columns[i], _mm512_unpacklo_epi64(u[i], u[i + 1]));
    _mm512_storeu_si512(columns[i + 1], _mm512_unpackhi_epi64(u[i], u[i + 1]));
  }
}

// kBytes positions of 16 nibble planes as words, the first plane's bits lowest; bits outside the image are 0.
static inline void spread_words(const uint8_t* planes, size_t plane, int count, uint64_t* to) {
  Bytes b[8];
  for (int j = 0; j < 8; j++) {
    b[j] = 2 * j < count ? low_fields(load_bytes(planes + size_t(2 * j) * plane)) : zero_bytes();
    if (2 * j + 1 < count)
      b[j] = or_bytes(b[j], _mm512_slli_epi16(low_fields(load_bytes(planes + size_t(2 * j + 1) * plane)), 4));
  }
  Bytes t[8], u[8];
  for (int j = 0; j < 4; j++) {  // of each lane the first eight positions, then the last
    t[j] = _mm512_unpacklo_epi8(b[2 * j], b[2 * j + 1]);
    t[4 + j] = _mm512_unpackhi_epi8(b[2 * j], b[2 * j + 1]);
  }
  for (int half = 0; half < 8; half += 4)
    for (int j = 0; j < 2; j++) {
      u[half + j] = _mm512_unpacklo_epi16(t[half + 2 * j], t[half + 2 * j + 1]);
      u[half + 2 + j] = _mm512_unpackhi_epi16(t[half + 2 * j], t[half + 2 * j + 1]);
    }
  alignas(64) uint64_t lanes[8][4][2];
  for (int j = 0; j < 4; j++) {
    _mm512_store_si512(lanes[2 * j], _mm512_unpacklo_epi32(u[2 * j], u[2 * j + 1]));
    _mm512_store_si512(lanes[2 * j + 1], _mm512_unpackhi_epi32(u[2 * j], u[2 * j + 1]));
  }
  for (int lane = 0; lane < 4; lane++)
    for (int i = 0; i < 8; i++) memcpy(to + 16 * lane + 2 * i, lanes[i][lane], 16);
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
