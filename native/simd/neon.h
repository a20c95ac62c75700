// NEON of 64-bit ARM (every aarch64 CPU has it): 16 byte lanes, 32 registers. Compiled once more with the 8-bit dot
// product that newer cores have.
#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "../kernels/kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kBytes = 16;

typedef uint8x16_t Bytes;

static inline Bytes zero_bytes() { return vdupq_n_u8(0); }
static inline Bytes load_bytes(const uint8_t* p) { return vld1q_u8(p); }
// A 16-entry table; an index with its top bit set looks up 0 (here, so does every index above 15).
static inline Bytes load_table(const uint8_t* table) { return vld1q_u8(table); }
static inline Bytes look_up(Bytes table, Bytes index) { return vqtbl1q_u8(table, index); }
static inline Bytes add_bytes(Bytes x, Bytes y) { return vaddq_u8(x, y); }
static inline Bytes and_bytes(Bytes x, Bytes y) { return vandq_u8(x, y); }
static inline Bytes low_fields(Bytes x) { return vandq_u8(x, vdupq_n_u8(15)); }
static inline Bytes high_fields(Bytes x) { return vshrq_n_u8(x, 4); }
// Keeps the compiler from reassociating sums around it: it would run out of registers.
static inline void pin(Bytes& x) { asm("" : "+w"(x)); }

// Sums of both 4-bit fields of bytes: `whole` adds the bytes as they are, modulo 256, and no field's sum exceeds a byte.
struct FieldSums {
  Bytes whole, high;
};
static inline void add_fields(FieldSums& f, Bytes x) {
  f.whole = vaddq_u8(f.whole, x);
  pin(f.whole);
  f.high = vsraq_n_u8(f.high, x, 4);
  pin(f.high);
}

// 16-bit numbers of kBytes positions: those at even positions, and those at odd ones.
typedef int16x8_t Words;
struct Pairs {
  Words even, odd;
};
static inline Pairs widen_bytes(Bytes x) {
  const uint16x8_t words = vreinterpretq_u16_u8(x);
  return {vreinterpretq_s16_u16(vandq_u16(words, vdupq_n_u16(255))), vreinterpretq_s16_u16(vshrq_n_u16(words, 8))};
}
static inline void widen(const FieldSums& f, Pairs& low, Pairs& high) {
  low = widen_bytes(vsubq_u8(f.whole, vshlq_n_u8(f.high, 4)));
  high = widen_bytes(f.high);
}
static inline Words load_words(const int16_t* p) { return vld1q_s16(p); }
static inline void store_words(int16_t* p, Words x) { vst1q_s16(p, x); }
static inline Words add_words(Words x, Words y) { return vaddq_s16(x, y); }
static inline Words zero_words() { return vdupq_n_s16(0); }
static inline Words all_words(int16_t x) { return vdupq_n_s16(x); }
// Both in order of their positions.
static inline void store_in_order(int16_t* p, Pairs x) {
  store_words(p, vzip1q_s16(x.even, x.odd));
  store_words(p + 8, vzip2q_s16(x.even, x.odd));
}
// 0xFF in the byte of each position whose number is greater, else 0.
static inline Bytes greater(Pairs x, Words than) {
  return vtrn1q_u8(vreinterpretq_u8_u16(vcgtq_s16(x.even, than)), vreinterpretq_u8_u16(vcgtq_s16(x.odd, than)));
}
// In order, clipped to -8..7.
static inline Bytes quantise4(Pairs x, const Quant4& q) {
  const int32x4_t offset = vdupq_n_s32(q.unit * q.offset), shift = vdupq_n_s32(-q.shift);
  auto scale = [&](int16x8_t words) {
    const int32x4_t low = vmlal_n_s16(offset, vget_low_s16(words), q.multiplier);
    const int32x4_t high = vmlal_high_n_s16(offset, words, q.multiplier);
    return vqmovn_s16(vcombine_s16(vqmovn_s32(vshlq_s32(low, shift)), vqmovn_s32(vshlq_s32(high, shift))));
  };
  const int8x16_t bytes = vcombine_s8(scale(vzip1q_s16(x.even, x.odd)), scale(vzip2q_s16(x.even, x.odd)));
  return vreinterpretq_u8_s8(vmaxq_s8(vminq_s8(bytes, vdupq_n_s8(7)), vdupq_n_s8(-8)));
}
// 0xFF where low < x <= high, as signed numbers.
static inline Bytes between(Bytes x, int8_t low, int8_t high) {
  const int8x16_t y = vreinterpretq_s8_u8(x);
  return vandq_u8(vcgtq_s8(y, vdupq_n_s8(low)), vcleq_s8(y, vdupq_n_s8(high)));
}
static inline Bytes all_bytes(uint8_t x) { return vdupq_n_u8(x); }
static inline Bytes or_bytes(Bytes x, Bytes y) { return vorrq_u8(x, y); }
static inline Bytes xor_bytes(Bytes x, Bytes y) { return veorq_u8(x, y); }
static inline Bytes select_bytes(Bytes mask, Bytes x, Bytes y) { return vbslq_u8(mask, x, y); }
static inline void store_bytes(uint8_t* p, Bytes x) { vst1q_u8(p, x); }

#if defined(SIGNBIT_BUILD_NEON_DOT)
// 8-bit dot products: kDots positions of four bytes each. The instruction wants both factors signed, so that a load
// takes 128 from every byte, and what that takes from the sums is added at their end.
constexpr int kDots = 4;
constexpr int kQuadBytes = 4;
typedef int32x4_t Dots;
typedef int8x16_t Quads;
static inline Dots zero_dots() { return vdupq_n_s32(0); }
static inline Quads load_quads(const uint8_t* p) {
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(128)));
}
static inline Dots add_dots(Dots sum, Quads x, const uint8_t* packed) {
  int32_t w;
  memcpy(&w, packed, 4);
  return vdotq_s32(sum, x, vreinterpretq_s8_s32(vdupq_n_s32(w)));
}
static inline void store_dots(int32_t* dst, Dots x) { vst1q_s32(dst, x); }
static inline void pack_quad(const int8_t* w, uint8_t* packed) { memcpy(packed, w, 4); }
// 128 times the sum of a channel's weights, of four channels that lie side by side in each step.
static inline void sum_offsets(const uint8_t* weights, int steps, int32_t* offset) {
  int32x4_t sum = vdupq_n_s32(0);
  for (int k = 0; k < steps; k++)
    sum = vdotq_s32(sum, vreinterpretq_s8_u8(vld1q_u8(weights + 16 * size_t(k))), vdupq_n_s8(1));
  vst1q_s32(offset, vshlq_n_s32(sum, 7));
}
#else
// 8-bit dot products: kDots positions of four bytes each. A load takes the four channels apart, so that each
// multiplies one lane of the weights; 16-bit factors, because bytes are unsigned and weights are not.
constexpr int kDots = 8;
constexpr int kQuadBytes = 8;
struct Dots {
  int32x4_t low, high;
};
struct Quads {
  int16x8_t channel[4];
};
static inline Dots zero_dots() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
static inline Quads load_quads(const uint8_t* p) {
  const uint8x8x4_t x = vld4_u8(p);
  Quads r;
  for (int k = 0; k < 4; k++) r.channel[k] = vreinterpretq_s16_u16(vmovl_u8(x.val[k]));
  return r;
}
template <int K>
static inline Dots add_channel(Dots sum, int16x8_t x, int16x4_t w) {
  sum.low = vmlal_lane_s16(sum.low, vget_low_s16(x), w, K);
  sum.high = vmlal_high_lane_s16(sum.high, x, w, K);
  return sum;
}
static inline Dots add_dots(Dots sum, const Quads& x, const uint8_t* packed) {
  const int16x4_t w = vreinterpret_s16_u8(vld1_u8(packed));
  sum = add_channel<0>(sum, x.channel[0], w);
  sum = add_channel<1>(sum, x.channel[1], w);
  sum = add_channel<2>(sum, x.channel[2], w);
  return add_channel<3>(sum, x.channel[3], w);
}
static inline void store_dots(int32_t* dst, const Dots& x) {
  vst1q_s32(dst, x.low);
  vst1q_s32(dst + 4, x.high);
}
static inline void pack_quad(const int8_t* w, uint8_t* packed) {
  const int16_t wide[4] = {w[0], w[1], w[2], w[3]};
  memcpy(packed, wide, 8);
}
#endif

// The same with output channels as lanes: kDots of them, each with four weights, times one quad of a pixel. Weights are
// packed [4][kDots].
struct Splat {
  int16_t x[4];
};
static inline Splat splat_quad(const uint8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
#if defined(SIGNBIT_BUILD_NEON_DOT)
static inline Dots add_outputs(Dots sum, const uint8_t* packed, const Splat& x) {
  const int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(packed));
  const int16x8_t first = vmovl_s8(vget_low_s8(w)), second = vmovl_high_s8(w);
  sum = vmlal_n_s16(sum, vget_low_s16(first), x.x[0]);
  sum = vmlal_high_n_s16(sum, first, x.x[1]);
  sum = vmlal_n_s16(sum, vget_low_s16(second), x.x[2]);
  return vmlal_high_n_s16(sum, second, x.x[3]);
}
#else
static inline Dots add_outputs(Dots sum, const uint8_t* packed, const Splat& x) {
  for (int k = 0; k < 4; k++) {
    const int16x8_t w = vmovl_s8(vreinterpret_s8_u8(vld1_u8(packed + 8 * k)));
    sum.low = vmlal_n_s16(sum.low, vget_low_s16(w), x.x[k]);
    sum.high = vmlal_high_n_s16(sum.high, w, x.x[k]);
  }
  return sum;
}
#endif
static inline void pack_outputs(const int8_t* w, uint8_t* packed) {
  for (int lane = 0; lane < kDots; lane++)
    for (int k = 0; k < 4; k++) packed[k * kDots + lane] = uint8_t(w[4 * lane + k]);
}

}  // namespace SIGNBIT_NS
}  // namespace signbit

#include "lanes.h"

namespace signbit {
namespace SIGNBIT_NS {

// Each number to a byte, saturating: masks stay masks.
static inline Bytes pack_ints(const IntBlock& b) {
  const int16x8_t low = vcombine_s16(vqmovn_s32(int32x4_t(b.v[0])), vqmovn_s32(int32x4_t(b.v[1])));
  const int16x8_t high = vcombine_s16(vqmovn_s32(int32x4_t(b.v[2])), vqmovn_s32(int32x4_t(b.v[3])));
  return vreinterpretq_u8_s8(vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}
static inline IntBlock widen_words(int16x8_t low, int16x8_t high) {
  IntBlock b;
  b.v[0] = Ints(vmovl_s16(vget_low_s16(low)));
  b.v[1] = Ints(vmovl_high_s16(low));
  b.v[2] = Ints(vmovl_s16(vget_low_s16(high)));
  b.v[3] = Ints(vmovl_high_s16(high));
  return b;
}
static inline IntBlock load_int8(const int8_t* p) {
  const int8x16_t x = vld1q_s8(p);
  return widen_words(vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x));
}
static inline IntBlock in_order(Pairs x) {
  return widen_words(vzip1q_s16(x.even, x.odd), vzip2q_s16(x.even, x.odd));
}
// 16-bit integers: sums that saturate, sums of look-ups in the order of their positions, masks as bytes, and 32-bit numbers
// brought to 16 bits.
static inline Shorts add_saturated(Shorts x, Shorts y) { return Shorts(vqaddq_s16(int16x8_t(x), int16x8_t(y))); }
static inline ShortBlock interleave(Shorts even, Shorts odd) {
  return {{Shorts(vzip1q_s16(int16x8_t(even), int16x8_t(odd))), Shorts(vzip2q_s16(int16x8_t(even), int16x8_t(odd)))}};
}
static inline ShortBlock shorts_in_order(Pairs x) { return interleave(Shorts(x.even), Shorts(x.odd)); }
static inline IntBlock to_ints(const ShortBlock& x) { return widen_words(int16x8_t(x.v[0]), int16x8_t(x.v[1])); }
static inline Bytes pack_shorts(const ShortBlock& b) {
  return vreinterpretq_u8_s8(vcombine_s8(vqmovn_s16(int16x8_t(b.v[0])), vqmovn_s16(int16x8_t(b.v[1]))));
}
static inline ShortBlock saturate(const IntBlock& b) {
  ShortBlock s;
  for (int i = 0; i < 2; i++)
    s.v[i] = Shorts(vcombine_s16(vqmovn_s32(int32x4_t(b.v[2 * i])), vqmovn_s32(int32x4_t(b.v[2 * i + 1]))));
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
