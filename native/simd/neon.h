// NEON of 64-bit ARM (every aarch64 CPU has it): 16 byte lanes, 32 registers. Compiled once more with the 8-bit dot
// product that newer cores have.
#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

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
// dst[i] += bytes[i], widened.
static inline void add_widened(uint16_t* dst, Bytes x) {
  vst1q_u16(dst, vaddw_u8(vld1q_u16(dst), vget_low_u8(x)));
  vst1q_u16(dst + 8, vaddw_high_u8(vld1q_u16(dst + 8), x));
}

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

}  // namespace SIGNBIT_NS
}  // namespace signbit
