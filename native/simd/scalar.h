// Plain C++: correct everywhere, and what the other instruction sets are tested against.
#pragma once

#include <stdint.h>
#include <string.h>

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
// dst[i] += bytes[i], widened.
static inline void add_widened(uint16_t* dst, const Bytes& x) {
  for (int i = 0; i < kBytes; i++) dst[i] = uint16_t(dst[i] + x.b[i]);
}

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

}  // namespace SIGNBIT_NS
}  // namespace signbit
