// AVX-512 (F, BW, VL, DQ, VNNI): 64 byte lanes.
#pragma once

#if defined(SIGNBIT_EMULATE_AVX512)
#include "avx512_emulated.h"
#else
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

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
static inline Bytes high_fields(Bytes x) {
  return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15));
}
// dst[i] += bytes[i], widened.
static inline void add_widened(uint16_t* dst, Bytes x) {
  __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(x));
  __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(x, 1));
  _mm512_storeu_si512(dst, _mm512_add_epi16(_mm512_loadu_si512(dst), low));
  _mm512_storeu_si512(dst + 32, _mm512_add_epi16(_mm512_loadu_si512(dst + 32), high));
}

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

}  // namespace SIGNBIT_NS
}  // namespace signbit
