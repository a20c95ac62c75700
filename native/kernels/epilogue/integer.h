// Epilogues of integer steps that need no multiplication: sums in 32 bits, and from some step on (Epilogue::narrow) 16-bit
// numbers, of which a vector holds twice as many. What saturates in 32-bit steps saturates here by instructions that do so,
// or between limits that the planner finds (ShiftWords).
#pragma once

#include "epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

// The most blocks of a tile.
constexpr int kTileBlocks = kMaxTile / kBytes;

// A sum of signed shifts of numbers that are brought between limits where kClamps. Bits that leave the 16 on the way do no
// harm: the sum fits.
template <int kDigits, bool kClamps>
static inline Shorts shift_shorts(const ShiftWords& w, Shorts v) {
  Shorts x = v;
  if (kClamps) {
    x = x < w.low ? all_shorts(w.low) : x;
    x = x > w.high ? all_shorts(w.high) : x;
  }
  Shorts sum = all_shorts(w.start);
  for (int d = 0; d < kDigits; d++) sum += (x << w.left[d] >> w.right[d]) ^ w.invert[d];
  if (kClamps) {
    sum = add_saturated(sum, (v > w.high) & w.above);
    sum = add_saturated(sum, (v < w.low) & w.below);
  }
  return sum;
}

// How many digits a channel has, and whether numbers are brought between limits. `work(Digits<count, clamps>{})` for those of
// a channel; a lambda, for the members of a structure could be merged with those of other instruction sets.
template <int kCount, bool kClamps>
struct Digits {
  static constexpr int count = kCount;
  static constexpr bool clamps = kClamps;
};
template <bool kClamps, typename Work>
static inline void with_count(const ShiftWords& w, Work work) {
  switch (w.count) {
    case 0: return work(Digits<0, kClamps>{});
    case 1: return work(Digits<1, kClamps>{});
    case 2: return work(Digits<2, kClamps>{});
    case 3: return work(Digits<3, kClamps>{});
    default: return work(Digits<4, kClamps>{});
  }
}
template <typename Work>
static inline void with_digits(const ShiftWords& w, Work work) {
  if (w.clamps)
    with_count<true>(w, work);
  else
    with_count<false>(w, work);
}

// The limits of a threshold among 16-bit numbers: none is in 1..0.
struct ShortLimits {
  int16_t low, high;
};
static inline ShortLimits short_limits(int32_t low, int32_t high) {
  if (low > 32767 || high < -32768) return {1, 0};
  return {int16_t(low < -32768 ? -32768 : low), int16_t(high > 32767 ? 32767 : high)};
}

// What a step does to a block of 16-bit numbers: 0xFF in each byte whose bit is 1.
static inline Bytes between_shorts(const ShortBlock& v, ShortLimits limits, Bytes flip) {
  ShortBlock beyond;
  for (int j = 0; j < 2; j++) beyond.v[j] = (v.v[j] < limits.low) | (v.v[j] > limits.high);
  return xor_bytes(pack_shorts(beyond), flip);
}

static __attribute__((noinline)) void shift_sum_shorts(const EpilogueStep& s, int channel, int blocks, ShortBlock* tile) {
  const ShiftWords w = s.words[channel];  // not read again behind each block that is written
  with_digits(w, [=](auto digits) {
    typedef decltype(digits) D;
    for (int i = 0; i < blocks; i++)
      for (int j = 0; j < 2; j++) tile[i].v[j] = shift_shorts<D::count, D::clamps>(w, tile[i].v[j]);
  });
}
static __attribute__((noinline)) void shift_prelu_shorts(const EpilogueStep& s, int channel, int blocks, ShortBlock* tile) {
  const ShiftWords w = s.words[channel];
  const Shorts shift_in = all_shorts(int16_t(s.i2[channel])), shift_out = all_shorts(int16_t(s.i3[channel]));
  with_digits(w, [=](auto digits) {
    typedef decltype(digits) D;
    for (int i = 0; i < blocks; i++)
      for (int j = 0; j < 2; j++) {
        const Shorts u = add_saturated(tile[i].v[j], shift_in), y = shift_shorts<D::count, D::clamps>(w, u);
        tile[i].v[j] = add_saturated(u < 0 ? y : u, shift_out);
      }
  });
}

// Step by step on 16-bit numbers, from step `i` on.
static __attribute__((noinline)) void integer_steps_16(const Epilogue& e, int i, int channel, size_t p, int blocks,
                                                       ShortBlock* tile) {
  for (; i < e.count; i++) {
    const EpilogueStep& s = e.steps[i];
    switch (s.code) {
      case StepCode::kShiftSum: shift_sum_shorts(s, channel, blocks, tile); break;
      case StepCode::kShiftPReLU: shift_prelu_shorts(s, channel, blocks, tile); break;
      case StepCode::kAddI16: {
        const int16_t* from = reinterpret_cast<const int16_t*>(plane_of(s, channel)) + p;
        for (int b = 0; b < blocks; b++)
          for (int j = 0; j < 2; j++)
            tile[b].v[j] = add_saturated(tile[b].v[j], shorts_at(from + b * kBytes + j * kShorts));
        break;
      }
      case StepCode::kThreshold: {
        const ShortLimits limits = short_limits(s.i0[channel], s.i1[channel]);
        const Bytes flip = all_bytes(s.flip[channel] ? 0 : 0xFF);
        for (int b = 0; b < blocks; b++)
          write_bits(e, s, channel, p + size_t(b) * kBytes, between_shorts(tile[b], limits, flip));
        break;
      }
      case StepCode::kStoreI16: {
        int16_t* to = reinterpret_cast<int16_t*>(plane_of(s, channel)) + p;
        for (int b = 0; b < blocks; b++) store_shorts(to + b * kBytes, tile[b]);
        break;
      }
      case StepCode::kStoreI32: {
        int32_t* to = reinterpret_cast<int32_t*>(plane_of(s, channel)) + p;
        for (int b = 0; b < blocks; b++) store_ints(to + b * kBytes, to_ints(tile[b]));
        break;
      }
      default: return;  // the planner lets no other step come here
    }
  }
}

// The steps of a shortcut (Epilogue::residual) as one: a block stays in registers. `load(i)` gives block i.
template <int kDigits, bool kClamps, bool kActivates, typename Load>
static inline void residual_chain(const Epilogue& e, int channel, size_t p, int blocks, Load load) {
  const ShiftWords w = e.steps[0].words[channel];
  const int16_t* other = reinterpret_cast<const int16_t*>(plane_of(e.steps[1], channel)) + p;
  ShiftWords slope = {};
  Shorts shift_in = all_shorts(0), shift_out = all_shorts(0);
  if (kActivates) {
    const EpilogueStep& s = e.steps[e.activates];
    slope = s.words[channel];
    shift_in = all_shorts(int16_t(s.i2[channel]));
    shift_out = all_shorts(int16_t(s.i3[channel]));
  }
  const EpilogueStep &bits = e.steps[e.compares], &store = e.steps[e.stores];
  ShortLimits limits = {};
  Bytes flip = all_bytes(0xFF);
  if (e.compares) {
    limits = short_limits(bits.i0[channel], bits.i1[channel]);
    if (bits.flip[channel]) flip = all_bytes(0);
  }
  int16_t* to = e.stores ? reinterpret_cast<int16_t*>(plane_of(store, channel)) + p : nullptr;
  for (int i = 0; i < blocks; i++) {
    ShortBlock v = load(i);
    for (int j = 0; j < 2; j++) {
      Shorts x = add_saturated(shift_shorts<kDigits, kClamps>(w, v.v[j]), shorts_at(other + i * kBytes + j * kShorts));
      if (kActivates) {
        x = add_saturated(x, shift_in);
        x = add_saturated(x < 0 ? shift_shorts<1, false>(slope, x) : x, shift_out);
      }
      v.v[j] = x;
    }
    if (to) store_shorts(to + i * kBytes, v);
    if (e.compares) write_bits(e, bits, channel, p + size_t(i) * kBytes, between_shorts(v, limits, flip));
  }
}

template <int kDigits, bool kClamps, typename Load>
static inline bool residual_steps(const Epilogue& e, int channel, size_t p, int blocks, Load load) {
  if (!e.activates) {
    residual_chain<kDigits, kClamps, false>(e, channel, p, blocks, load);
    return true;
  }
  const ShiftWords& slope = e.steps[e.activates].words[channel];
  if (slope.count != 1 || slope.clamps) return false;
  residual_chain<kDigits, kClamps, true>(e, channel, p, blocks, load);
  return true;
}

// False where the channel's digits are not among those compiled.
template <typename Load>
static inline bool run_residual(const Epilogue& e, int channel, size_t p, int blocks, Load load) {
  if (!e.residual) return false;
  const ShiftWords& w = e.steps[0].words[channel];
  switch (2 * w.count + (w.clamps != 0)) {
    case 2: return residual_steps<1, false>(e, channel, p, blocks, load);
    case 3: return residual_steps<1, true>(e, channel, p, blocks, load);
    case 4: return residual_steps<2, false>(e, channel, p, blocks, load);
    case 5: return residual_steps<2, true>(e, channel, p, blocks, load);
    case 6: return residual_steps<3, false>(e, channel, p, blocks, load);
    case 7: return residual_steps<3, true>(e, channel, p, blocks, load);
    default: return false;
  }
}

template <StepCode kCode>
static __attribute__((noinline)) void integer_step(const Epilogue& e, const EpilogueStep& s, int channel, size_t p, int blocks,
                                                   IntBlock* tile) {
  for (int i = 0; i < blocks; i++) apply<kCode>(e, s, channel, p + size_t(i) * kBytes, tile[i]);
}

// The whole epilogue of kTileBlocks blocks at most, from position p on.
static __attribute__((noinline)) void integer_steps(const Epilogue& e, int channel, size_t p, int blocks, IntBlock* tile) {
  for (int i = 0; i < e.narrow; i++) {
    const EpilogueStep& s = e.steps[i];
    switch (s.code) {
      case StepCode::kShiftSum: integer_step<StepCode::kShiftSum>(e, s, channel, p, blocks, tile); break;
      case StepCode::kShiftPReLU: integer_step<StepCode::kShiftPReLU>(e, s, channel, p, blocks, tile); break;
      case StepCode::kBias: integer_step<StepCode::kBias>(e, s, channel, p, blocks, tile); break;
      case StepCode::kAddI16: integer_step<StepCode::kAddI16>(e, s, channel, p, blocks, tile); break;
      case StepCode::kThreshold: integer_step<StepCode::kThreshold>(e, s, channel, p, blocks, tile); break;
      case StepCode::kStoreI16: integer_step<StepCode::kStoreI16>(e, s, channel, p, blocks, tile); break;
      case StepCode::kStoreI32: integer_step<StepCode::kStoreI32>(e, s, channel, p, blocks, tile); break;
      default: return;  // no integer step, or one that multiplies: the planner sends it elsewhere
    }
  }
  if (e.narrow == e.count) return;
  ShortBlock narrow[kTileBlocks];
  for (int i = 0; i < blocks; i++) narrow[i] = saturate(tile[i]);
  integer_steps_16(e, e.narrow, channel, p, blocks, narrow);
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
