// AMX: matrix tiles of 16 rows of 64 bytes, with AVX-512 around them. A product adds to 16x16 sums of 32 bits, of 64 signed bytes
// each: sum[i][j] += rows i of the one tile times columns j of the other, whose rows hold four bytes of each column; these may be
// unsigned.
#pragma once

#include "avx512.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;  // of a row

// What the CPU must be told of its tiles: docs of LDTILECFG.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

#if defined(SIGNBIT_EMULATE_AVX512)
struct Tile {
  uint8_t row[kTileRows][kTileBytes];
};
static thread_local Tile tiles[8];
static thread_local TileShapes tile_shapes;
static inline void tile_load(int n, const void* from, size_t stride) {
  memset(&tiles[n], 0, sizeof tiles[n]);
  for (int i = 0; i < tile_shapes.rows[n]; i++)
    memcpy(tiles[n].row[i], static_cast<const uint8_t*>(from) + size_t(i) * stride, tile_shapes.bytes[n]);
}
static inline void tile_store(int n, void* to, size_t stride) {
  for (int i = 0; i < tile_shapes.rows[n]; i++)
    memcpy(static_cast<uint8_t*>(to) + size_t(i) * stride, tiles[n].row[i], tile_shapes.bytes[n]);
}
static inline void tile_zero(int n) { memset(&tiles[n], 0, sizeof tiles[n]); }
template <typename Column>
static inline void tile_add_product(int sum, int rows, int columns) {
  for (int i = 0; i < tile_shapes.rows[rows]; i++)
    for (int j = 0; j < kTileRows; j++) {
      int32_t* to = reinterpret_cast<int32_t*>(tiles[sum].row[i]) + j;
      for (int k = 0; k < tile_shapes.bytes[rows]; k++)
        *to += int8_t(tiles[rows].row[i][k]) * Column(tiles[columns].row[k / 4][4 * j + k % 4]);
    }
}
#define SIGNBIT_TILE_SHAPES(shapes) (tile_shapes = (shapes))
#define SIGNBIT_TILE_RELEASE() (tile_shapes = TileShapes())
#define SIGNBIT_TILE_LOAD(n, from, stride) tile_load(n, from, stride)
#define SIGNBIT_TILE_STORE(n, to, stride) tile_store(n, to, stride)
#define SIGNBIT_TILE_ZERO(n) tile_zero(n)
#define SIGNBIT_TILE_ADD_PRODUCT(sum, rows, columns) tile_add_product<int8_t>(sum, rows, columns)
#define SIGNBIT_TILE_ADD_UNSIGNED(sum, rows, columns) tile_add_product<uint8_t>(sum, rows, columns)
#else
// Macros, since an intrinsic's tile is a number in its text.
#define SIGNBIT_TILE_SHAPES(shapes) _tile_loadconfig(&(shapes))
#define SIGNBIT_TILE_RELEASE() _tile_release()
#define SIGNBIT_TILE_LOAD(n, from, stride) _tile_loadd(n, from, stride)
#define SIGNBIT_TILE_STORE(n, to, stride) _tile_stored(n, to, stride)
#define SIGNBIT_TILE_ZERO(n) _tile_zero(n)
#define SIGNBIT_TILE_ADD_PRODUCT(sum, rows, columns) _tile_dpbssd(sum, rows, columns)
#define SIGNBIT_TILE_ADD_UNSIGNED(sum, rows, columns) _tile_dpbsud(sum, rows, columns)
#endif

// Sixteen positions of a nibble plane to a tile's row: each to its four channels, 1 or -1, or 0 outside the image.
static inline Bytes spread_nibbles(const uint8_t* nibbles) {
#if defined(SIGNBIT_EMULATE_AVX512)
  int8_t bytes[kTileBytes];
  for (int i = 0; i < kTileBytes; i++) bytes[i] = int8_t(nibbles[i / 4] & kOutside ? 0 : nibbles[i / 4] >> i % 4 & 1 ? 1 : -1);
  return load_bytes(reinterpret_cast<const uint8_t*>(bytes));
#else
  const __m512i signs = _mm512_set_epi32(0x01010101, 0x010101FF, 0x0101FF01, 0x0101FFFF, 0x01FF0101, 0x01FF01FF, 0x01FFFF01,
                                         0x01FFFFFF, int(0xFF010101), int(0xFF0101FF), int(0xFF01FF01), int(0xFF01FFFF),
                                         int(0xFFFF0101), int(0xFFFF01FF), int(0xFFFFFF01), -1);
  const __m512i at = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(nibbles)));
  const __mmask16 inside = _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());  // kOutside is the sign
  return _mm512_maskz_permutexvar_epi32(inside, at, signs);
#endif
}
static inline Bytes byte_where(uint64_t mask, uint8_t x) { return _mm512_maskz_set1_epi8(mask, char(x)); }
// A row of weights: 1 or -1 of each bit, 0 where `one` is.
static inline Bytes spread_bits(uint64_t bits, Bytes one) { return _mm512_mask_sub_epi8(one, ~bits, _mm512_setzero_si512(), one); }

// In the order of `pack_ints` before it is put right: whether each number is greater.
static inline uint64_t greater_mask(const IntBlock& b, int32_t than) {
  const __m512i t = _mm512_set1_epi32(than);
  const __m512i low = _mm512_packs_epi32(_mm512_sub_epi32(t, __m512i(b.v[0])), _mm512_sub_epi32(t, __m512i(b.v[1])));
  const __m512i high = _mm512_packs_epi32(_mm512_sub_epi32(t, __m512i(b.v[2])), _mm512_sub_epi32(t, __m512i(b.v[3])));
  return _mm512_movepi8_mask(_mm512_packs_epi16(low, high));
}
// Bytes in the order of `greater_mask` put in the order of positions.
static inline Bytes packed_ints_in_order(Bytes x) {
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
}
// quantise4 of even dot products, in order.
static inline Bytes quantise4(const IntBlock& dots, const Quant4& q) {
  const __m512i unit = _mm512_set1_epi32(q.unit * 65536), factors = _mm512_set1_epi32(uint16_t(q.multiplier) | q.offset * 65536);
  IntBlock scaled;
  for (int i = 0; i < 4; i++) {
    const __m512i half = __m512i(dots.v[i] >> 1);
    const __m512i pair = _mm512_ternarylogic_epi32(half, unit, _mm512_set1_epi32(0xFFFF), 0xE4);  // the low word of half, unit
    scaled.v[i] = Ints(_mm512_madd_epi16(pair, factors)) >> q.shift;
  }
  return _mm512_max_epi8(_mm512_min_epi8(pack_ints(scaled), _mm512_set1_epi8(7)), _mm512_set1_epi8(-8));
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
