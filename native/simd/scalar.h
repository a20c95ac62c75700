// Plain C++: correct everywhere, and what the other instruction sets are tested against.
#pragma once

#include <stdint.h>
#include <string.h>

#include "../kernels/kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kBytes = 16;

struct Bytes {
  uint8_t b[kBytes];
};

static inline Bytes zero_bytes() {
  Bytes r;
  memset(r.b, 0, kBytes);
  return r;
}
static inline Bytes load_bytes(const uint8_t* p) {
  Bytes r;
  memcpy(r.b, p, kBytes);
  return r;
}
// A 16-entry table; an index with its top bit set looks up 0.
static inline Bytes load_table(const uint8_t* table) { return load_bytes(table); }
static inline Bytes look_up(const Bytes& table, const Bytes& index) {
  Bytes r;
  for (int i = 0; i < kBytes; i++)
    r.b[i] = index.b[i] & 0x80 ? uint8_t(0) : table.b[index.b[i] & 15];
  return r;
}
static inline Bytes add_bytes(const Bytes& x, const Bytes& y) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) r.b[i] = uint8_t(x.b[i] + y.b[i]);
  return r;
}
static inline Bytes and_bytes(const Bytes& x, const Bytes& y) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) r.b[i] = x.b[i] & y.b[i];
  return r;
}
static inline Bytes low_fields(const Bytes& x) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) r.b[i] = x.b[i] & 15;
  return r;
}
static inline Bytes high_fields(const Bytes& x) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) r.b[i] = uint8_t(x.b[i] >> 4);
  return r;
}
static inline void pin(const Bytes&) {}

// Sums of both 4-bit fields of bytes.
struct FieldSums {
  Bytes whole, high;  // the bytes as they are, modulo 256: no field's sum exceeds a byte
};
static inline void add_fields(FieldSums& f, const Bytes& x) {
  f.whole = add_bytes(f.whole, x);
  f.high = add_bytes(f.high, high_fields(x));
}

// 16-bit numbers of kBytes positions: those at even positions, and those at odd ones.
struct Words {
  int16_t w[kBytes / 2];
};
struct Pairs {
  Words even, odd;
};
static inline Pairs widen_bytes(const Bytes& x) {
  Pairs r;
  for (int i = 0; i < kBytes / 2; i++) {
    r.even.w[i] = x.b[2 * i];
    r.odd.w[i] = x.b[2 * i + 1];
  }
  return r;
}
static inline void widen(const FieldSums& f, Pairs& low, Pairs& high) {
  Bytes alone;
  for (int i = 0; i < kBytes; i++) alone.b[i] = uint8_t(f.whole.b[i] - 16 * f.high.b[i]);
  low = widen_bytes(alone);
  high = widen_bytes(f.high);
}
static inline Words load_words(const int16_t* p) {
  Words r;
  memcpy(r.w, p, sizeof r.w);
  return r;
}
static inline void store_words(int16_t* p, const Words& x) { memcpy(p, x.w, sizeof x.w); }
static inline Words add_words(const Words& x, const Words& y) {
  Words r;
  for (int i = 0; i < kBytes / 2; i++) r.w[i] = int16_t(x.w[i] + y.w[i]);
  return r;
}
static inline Words all_words(int16_t x) {
  Words r;
  for (int i = 0; i < kBytes / 2; i++) r.w[i] = x;
  return r;
}
static inline Words zero_words() { return all_words(0); }
// Both in order of their positions.
static inline void store_in_order(int16_t* p, const Pairs& x) {
  for (int i = 0; i < kBytes / 2; i++) {
    p[2 * i] = x.even.w[i];
    p[2 * i + 1] = x.odd.w[i];
  }
}
// 0xFF in the byte of each position whose number is greater, else 0.
static inline Bytes greater(const Pairs& x, const Words& than) {
  Bytes r;
  for (int i = 0; i < kBytes / 2; i++) {
    r.b[2 * i] = x.even.w[i] > than.w[i] ? 0xFF : 0;
    r.b[2 * i + 1] = x.odd.w[i] > than.w[i] ? 0xFF : 0;
  }
  return r;
}
// In order, clipped to -8..7.
static inline Bytes quantise4(const Pairs& x, const Quant4& q) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) {
    const int32_t scaled = ((i % 2 ? x.odd : x.even).w[i / 2] * q.multiplier + q.unit * q.offset) >> q.shift;
    r.b[i] = uint8_t(int8_t(scaled < -8 ? -8 : scaled > 7 ? 7 : scaled));
  }
  return r;
}
// 0xFF where low < x <= high, as signed numbers.
static inline Bytes between(const Bytes& x, int8_t low, int8_t high) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) r.b[i] = int8_t(x.b[i]) > low && int8_t(x.b[i]) <= high ? 0xFF : 0;
  return r;
}
static inline Bytes all_bytes(uint8_t x) {
  Bytes r;
  memset(r.b, x, kBytes);
  return r;
}
static inline Bytes or_bytes(const Bytes& x, const Bytes& y) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) r.b[i] = x.b[i] | y.b[i];
  return r;
}
static inline Bytes xor_bytes(const Bytes& x, const Bytes& y) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) r.b[i] = x.b[i] ^ y.b[i];
  return r;
}
static inline Bytes select_bytes(const Bytes& mask, const Bytes& x, const Bytes& y) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) r.b[i] = uint8_t((x.b[i] & mask.b[i]) | (y.b[i] & ~mask.b[i]));
  return r;
}
static inline void store_bytes(uint8_t* p, const Bytes& x) { memcpy(p, x.b, kBytes); }

// 8-bit dot products: kDots positions of four bytes each.
constexpr int kDots = 4;
constexpr int kQuadBytes = 4;
struct Dots {
  int32_t d[kDots];
};
struct Quads {
  uint8_t b[4 * kDots];
};
static inline Dots zero_dots() {
  Dots r;
  memset(r.d, 0, sizeof r.d);
  return r;
}
static inline Quads load_quads(const uint8_t* p) {
  Quads r;
  memcpy(r.b, p, sizeof r.b);
  return r;
}
static inline Dots add_dots(const Dots& sum, const Quads& x, const uint8_t* packed) {
  const int8_t* w = reinterpret_cast<const int8_t*>(packed);
  Dots r;
  for (int i = 0; i < kDots; i++)
    r.d[i] = sum.d[i] + x.b[4 * i] * w[0] + x.b[4 * i + 1] * w[1] + x.b[4 * i + 2] * w[2] +
             x.b[4 * i + 3] * w[3];
  return r;
}
static inline void store_dots(int32_t* dst, const Dots& x) { memcpy(dst, x.d, sizeof x.d); }
static inline void pack_quad(const int8_t* w, uint8_t* packed) { memcpy(packed, w, 4); }

// The same with output channels as lanes: kDots of them, each with four weights, times one quad of a pixel.
struct Splat {
  uint8_t x[4];
};
static inline Splat splat_quad(const uint8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
static inline Dots add_outputs(const Dots& sum, const uint8_t* packed, const Splat& x) {
  const int8_t* w = reinterpret_cast<const int8_t*>(packed);
  Dots r;
  for (int i = 0; i < kDots; i++)
    r.d[i] = sum.d[i] + x.x[0] * w[4 * i] + x.x[1] * w[4 * i + 1] + x.x[2] * w[4 * i + 2] + x.x[3] * w[4 * i + 3];
  return r;
}
static inline void pack_outputs(const int8_t* w, uint8_t* packed) { memcpy(packed, w, 4 * kDots); }

}  // namespace SIGNBIT_NS
}  // namespace signbit

#include "lanes.h"

namespace signbit {
namespace SIGNBIT_NS {

// Each number to a byte, saturating: masks stay masks.
static inline Bytes pack_ints(const IntBlock& b) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) {
    const int32_t x = b.v[i / kInts][i % kInts];
    r.b[i] = uint8_t(int8_t(x < -128 ? -128 : x > 127 ? 127 : x));
  }
  return r;
}
static inline IntBlock load_int8(const int8_t* p) {
  IntBlock b;
  for (int i = 0; i < kBytes; i++) b.v[i / kInts][i % kInts] = p[i];
  return b;
}
static inline IntBlock in_order(const Pairs& x) {
  IntBlock b;
  for (int i = 0; i < kBytes; i++) b.v[i / kInts][i % kInts] = (i % 2 ? x.odd : x.even).w[i / 2];
  return b;
}
// 16-bit integers: sums that saturate, sums of look-ups in the order of their positions, masks as bytes, and 32-bit numbers
// brought to 16 bits.
static inline int16_t saturated(int32_t x) { return int16_t(x < -32768 ? -32768 : x > 32767 ? 32767 : x); }
static inline Shorts add_saturated(Shorts x, Shorts y) {
  Shorts r;
  for (int i = 0; i < kShorts; i++) r[i] = saturated(x[i] + y[i]);
  return r;
}
static inline ShortBlock shorts_in_order(const Pairs& x) {
  int16_t numbers[kBytes];
  store_in_order(numbers, x);
  return load_shorts(numbers);
}
static inline ShortBlock interleave(Shorts even, Shorts odd) {
  ShortBlock s;
  for (int i = 0; i < kBytes; i++) s.v[i / kShorts][i % kShorts] = (i % 2 ? odd : even)[i / 2];
  return s;
}
static inline IntBlock to_ints(const ShortBlock& x) {
  IntBlock b;
  for (int i = 0; i < kBytes; i++) b.v[i / kInts][i % kInts] = x.v[i / kShorts][i % kShorts];
  return b;
}
static inline Bytes pack_shorts(const ShortBlock& b) {
  Bytes r;
  for (int i = 0; i < kBytes; i++) r.b[i] = uint8_t(b.v[i / kShorts][i % kShorts]);
  return r;
}
static inline ShortBlock saturate(const IntBlock& b) {
  ShortBlock s;
  for (int i = 0; i < kBytes; i++) s.v[i / kShorts][i % kShorts] = saturated(b.v[i / kInts][i % kInts]);
  return s;
}

// Of the numbers of both, those at even places, and at odd ones.
static inline Floats evens(Floats x, Floats y) { return __builtin_shufflevector(x, y, 0, 2, 4, 6); }
static inline Floats odds(Floats x, Floats y) { return __builtin_shufflevector(x, y, 1, 3, 5, 7); }

// No instruction chooses among a vector's lanes of 32 bits: a table has its number in all of them.
constexpr int kIndexBits = 1;
static inline Ints lanes_of(Ints table, Ints) { return table; }

}  // namespace SIGNBIT_NS
}  // namespace signbit
