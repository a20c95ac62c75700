// AVX2: 32 byte lanes.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

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
static inline Bytes high_fields(Bytes x) {
  return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15));
}
// dst[i] += bytes[i], widened.
static inline void add_widened(uint16_t* dst, Bytes x) {
  __m256i* d = reinterpret_cast<__m256i*>(dst);
  __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(x));
  __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(x, 1));
  _mm256_storeu_si256(d, _mm256_add_epi16(_mm256_loadu_si256(d), low));
  _mm256_storeu_si256(d + 1, _mm256_add_epi16(_mm256_loadu_si256(d + 1), high));
}

// 8-bit dot products: kDots positions of four bytes each. Products are summed in 16-bit pairs by
// vpmaddwd: vpmaddubsw would saturate.
constexpr int kDots = 8;
constexpr int kQuadBytes = 8;
typedef __m256i Dots;
struct Quads {
  __m256i even, odd;
};
static inline Dots zero_dots() { return _mm256_setzero_si256(); }
static inline Quads load_quads(const uint8_t* p) {
  __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  Quads r;
  r.even = _mm256_and_si256(x, _mm256_set1_epi16(255));
  r.odd = _mm256_srli_epi16(x, 8);
  return r;
}
static inline Dots add_dots(Dots sum, const Quads& x, const uint8_t* packed) {
  int32_t w[2];
  memcpy(w, packed, 8);
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x.even, _mm256_set1_epi32(w[0])));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(x.odd, _mm256_set1_epi32(w[1])));
}
static inline void store_dots(int32_t* dst, Dots x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), x);
}
static inline void pack_quad(const int8_t* w, uint8_t* packed) {
  const int16_t even_odd[4] = {w[0], w[2], w[1], w[3]};
  memcpy(packed, even_odd, 8);
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
