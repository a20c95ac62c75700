// An epilogue: the steps that one channel's sums walk through before they are stored.
//
// Steps work on blocks of kBytes consecutive positions of a channel. The running value is int32 (sums), from some step on
// float32. The chains of steps that networks have most are compiled as one, and keep a block in registers; any other
// epilogue runs step by step over a tile. Positions outside the image carry junk and are overwritten where it matters:
// bits and 8-bit maps are read by filter taps, so they get their halo byte.
#pragma once

#include "../kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

template <typename, typename>
constexpr bool is_same = false;
template <typename T>
constexpr bool is_same<T, T> = true;

static inline uint8_t* plane_of(const EpilogueStep& s, int channel) {
  return s.data + size_t(channel) * s.plane;
}

// Bits of four channels share a byte. The first channel of a nibble writes it, the others add their bit, and
// the last one puts the halo byte where there is no pixel. `mask`: 0xFF where the bit is 1.
static inline void write_bits(const Epilogue& e, const EpilogueStep& s, int channel, size_t p, Bytes mask) {
  uint8_t* dst = s.data + size_t(channel / 4) * s.plane + p;
  const int k = channel % 4;
  Bytes bits = and_bytes(mask, all_bytes(uint8_t(1 << k)));
  if (k) bits = or_bytes(bits, load_bytes(dst));
  if (k == 3 || channel + 1 == e.channels) {
    const uint8_t halo = channel / 4 == (e.channels - 1) / 4 ? s.last_halo : s.halo;
    bits = select_bytes(load_bytes(e.outside + p), all_bytes(halo), bits);
  }
  store_bytes(dst, bits);
}

static inline Ints quantised8(const EpilogueStep& s, Floats x) {
  // Bounds are whole numbers: clipped before or after rounding is the same.
  x = below_becomes(x * s.inv_scale, all_floats(float(-s.zero_point)));
  x = above_becomes(x, all_floats(float(s.levels - s.zero_point)));
  x = x == x ? x : all_floats(0.0f);
  return rounded(x) + s.zero_point;
}

// Four channels share a dword, and are written in turn like bits.
static inline void write_quads(const Epilogue& e, const EpilogueStep& s, int channel, size_t p, const FloatBlock& f) {
  int32_t* dst = reinterpret_cast<int32_t*>(s.data + size_t(channel / 4) * s.plane) + p;
  const int k = channel % 4;
  const IntBlock outside = load_int8(reinterpret_cast<const int8_t*>(e.outside + p));
  IntBlock quads;
  if (k) quads = load_ints(dst);
  for (int i = 0; i < 4; i++) {
    const Ints q = ((quantised8(s, f.v[i]) & ~outside.v[i]) | (int32_t(s.halo) & outside.v[i])) << (8 * k);
    quads.v[i] = k ? quads.v[i] | q : q;
  }
  store_ints(dst, quads);
}

// The same rounding, for 16 bits.
static inline void write_shorts(const EpilogueStep& s, int channel, size_t p, const FloatBlock& f) {
  IntBlock q;
  for (int i = 0; i < 4; i++) {
    Floats x = f.v[i] * s.inv_scale;
    x = below_becomes(x, all_floats(-40000.0f));
    x = above_becomes(x, all_floats(40000.0f));
    x = x == x ? x : all_floats(0.0f);
    q.v[i] = rounded(x);
  }
  store_shorts(reinterpret_cast<int16_t*>(plane_of(s, channel)) + p, saturate(q));
}

// Pixels of a value that has one an image, which stands for the whole image. A block may span several images, and end
// behind the last one. Not inline, as `sigmoid`: the steps that every network has stay small and keep their registers.
static __attribute__((noinline)) void repeat_pixels(const Epilogue& e, const EpilogueStep& s, const float* plane, size_t p,
                                                    float* tile) {
  const size_t last = size_t(e.batch) - 1;
  size_t image = p / e.image, end = (image + 1) * e.image - p;
  for (size_t i = 0; i < kBytes; image++, end += e.image) {
    const float x = plane[(image < last ? image : last) * s.image_step];
    for (const size_t stop = end < kBytes ? end : kBytes; i < stop; i++) tile[i] = x;
  }
}

// What a step reads.
static inline FloatBlock operand(const Epilogue& e, const EpilogueStep& s, int channel, size_t p) {
  const float* plane = reinterpret_cast<const float*>(plane_of(s, channel));
  if (!s.image_step) return load_floats(plane + p);
  if (e.batch == 1) {
    FloatBlock f;
    for (int j = 0; j < 4; j++) f.v[j] = all_floats(plane[0]);
    return f;
  }
  float tile[kBytes];
  repeat_pixels(e, s, plane, p, tile);
  return load_floats(tile);
}

// 1 / (1 + exp(-v)) as docs/numerics.md spells it.
static __attribute__((noinline)) void sigmoid(FloatBlock* f) {
  for (int i = 0; i < 4; i++) {
    const Floats v = f->v[i];
    const Floats a = above_becomes(v < 0.0f ? -v : v, all_floats(87.0f));
    const Floats k = round_half_even(a * -1.44269504f);
    Floats r = -a - k * 0.693359375f;
    r = r - k * -2.12194440e-4f;
    Floats p = all_floats(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    // 2^k; NaN, for which p is NaN already, must not become an integer
    const Ints exponent = (truncated(k == k ? k : all_floats(0.0f)) + 127) << 23;
    const Floats x = p * Floats(exponent);
    f->v[i] = (v >= 0.0f ? all_floats(1.0f) : x) / (1.0f + x);
  }
}

static inline Ints at_least(Ints x, int32_t low) { return x < low ? all_ints(low) : x; }
static inline Ints at_most(Ints x, int32_t high) { return x > high ? all_ints(high) : x; }
static inline Ints short_range(Ints x) { return at_most(at_least(x, -32768), 32767); }

// A channel's sum of signed shifts, brought to 16 bits. `shifts` and `signs`: the channel's.
static inline Ints add_shifted(const int32_t* shifts, const int32_t* signs, int digits, Ints v) {
  Ints sum = all_ints(0);
  for (int d = 0; d < digits; d++) {
    if (!signs[d]) continue;
    const Ints term = shifts[d] >= 0 ? v << shifts[d] : v >> -shifts[d];
    sum = signs[d] > 0 ? sum + term : sum - term;
  }
  return short_range(sum);
}

// The same where sums need more than 32 bits.
static __attribute__((noinline)) void add_shifted_wide(const int32_t* shifts, const int32_t* signs, int digits, IntBlock* v) {
  int32_t number[kBytes];
  store_ints(number, *v);
  for (int i = 0; i < kBytes; i++) {
    int64_t sum = 0;
    for (int d = 0; d < digits; d++) {
      if (!signs[d]) continue;
      const int64_t term = shifts[d] >= 0 ? int64_t(number[i]) << shifts[d] : int64_t(number[i]) >> -shifts[d];
      sum = signs[d] > 0 ? sum + term : sum - term;
    }
    number[i] = int32_t(sum < -32768 ? -32768 : sum > 32767 ? 32767 : sum);
  }
  *v = load_ints(number);
}

static inline IntBlock shifted(const EpilogueStep& s, int channel, IntBlock v) {
  const int32_t *shifts = s.i0 + size_t(channel) * size_t(s.digits), *signs = s.i1 + size_t(channel) * size_t(s.digits);
  if (s.wide)
    add_shifted_wide(shifts, signs, s.digits, &v);
  else
    for (int j = 0; j < 4; j++) v.v[j] = add_shifted(shifts, signs, s.digits, v.v[j]);
  return v;
}

// What a step does to a block of real values.
template <StepCode kCode>
static inline void apply(const Epilogue& e, const EpilogueStep& s, int channel, size_t p, FloatBlock& f) {
  if (kCode == StepCode::kAffine) {
    const float a = s.f0[channel], b = s.f1[channel];
    for (int j = 0; j < 4; j++) f.v[j] = f.v[j] * a + b;
  } else if (kCode == StepCode::kAdd) {
    const FloatBlock x = operand(e, s, channel, p);
    for (int j = 0; j < 4; j++) f.v[j] += x.v[j];
  } else if (kCode == StepCode::kMul) {
    const FloatBlock x = operand(e, s, channel, p);
    for (int j = 0; j < 4; j++) f.v[j] *= x.v[j];
  } else if (kCode == StepCode::kClip) {
    for (int j = 0; j < 4; j++)
      f.v[j] = above_becomes(below_becomes(f.v[j], all_floats(s.minimum)), all_floats(s.maximum));
  } else if (kCode == StepCode::kSigmoid) {
    sigmoid(&f);
  } else if (kCode == StepCode::kRPReLU) {
    const float in = s.f0[channel], slope = s.f1[channel], out = s.f2[channel];
    for (int j = 0; j < 4; j++) {
      const Floats u = f.v[j] + in;
      f.v[j] = (u >= 0.0f ? u : u * slope) + out;
    }
  } else if (kCode == StepCode::kPReLU) {
    const float slope = s.f0[channel];
    for (int j = 0; j < 4; j++) f.v[j] = f.v[j] >= 0.0f ? f.v[j] : f.v[j] * slope;
  } else if (kCode == StepCode::kStore) {
    store_floats(reinterpret_cast<float*>(plane_of(s, channel)) + p, f);
  } else if (kCode == StepCode::kSign) {
    const float cut = s.f0[channel];
    IntBlock bits;
    for (int j = 0; j < 4; j++) bits.v[j] = f.v[j] >= cut;
    write_bits(e, s, channel, p, pack_ints(bits));
  } else if (kCode == StepCode::kQuant8) {
    write_quads(e, s, channel, p, f);
  } else if (kCode == StepCode::kQuant16) {
    write_shorts(s, channel, p, f);
  }
}

// What a step does to a block of integers.
template <StepCode kCode>
static inline void apply(const Epilogue& e, const EpilogueStep& s, int channel, size_t p, IntBlock& v) {
  if (kCode == StepCode::kQuant4Shift) {
    const int32_t multiplier = s.i0[channel], offset = s.i1[channel];
    for (int j = 0; j < 4; j++) {
      Ints q = (v.v[j] * multiplier + offset) >> s.shift;
      q = q < -8 ? all_ints(-8) : q;
      v.v[j] = q > 7 ? all_ints(7) : q;
    }
  } else if (kCode == StepCode::kQuant4Ladder) {
    const int32_t* cuts = s.i0 + size_t(channel) * 15;
    for (int j = 0; j < 4; j++) {
      const Ints u = s.flip[channel] ? -v.v[j] : v.v[j];
      Ints q = all_ints(-8);
      for (int k = 0; k < 15; k++) q -= u >= cuts[k];  // a comparison that holds is -1
      v.v[j] = q;
    }
  } else if (kCode == StepCode::kThreshold) {
    const int32_t low = s.i0[channel], high = s.i1[channel], flip = -int32_t(s.flip[channel]);
    IntBlock bits;
    for (int j = 0; j < 4; j++) bits.v[j] = ((v.v[j] >= low) & (v.v[j] <= high)) ^ flip;
    write_bits(e, s, channel, p, pack_ints(bits));
  } else if (kCode == StepCode::kAddI4) {
    const IntBlock y = load_int8(reinterpret_cast<const int8_t*>(plane_of(s, channel) + p));
    for (int j = 0; j < 4; j++) v.v[j] += y.v[j];
  } else if (kCode == StepCode::kStoreI4) {
    store_bytes(plane_of(s, channel) + p, pack_ints(v));
  } else if (kCode == StepCode::kShiftSum) {
    v = shifted(s, channel, v);
  } else if (kCode == StepCode::kShiftPReLU) {
    // Sums with these constants stay the same, once they are brought to 16 bits, where v is brought nearer to 0 first.
    const int32_t in = s.i2[channel], out = s.i3[channel];
    for (int j = 0; j < 4; j++) v.v[j] = short_range(at_most(at_least(v.v[j], -131072), 131072) + in);
    const IntBlock y = shifted(s, channel, v);
    for (int j = 0; j < 4; j++) v.v[j] = short_range((v.v[j] < 0 ? y.v[j] : v.v[j]) + out);
  } else if (kCode == StepCode::kBias) {
    for (int j = 0; j < 4; j++) v.v[j] += s.i0[channel];
  } else if (kCode == StepCode::kAddI16) {
    const IntBlock y = load_shorts_as_ints(reinterpret_cast<const int16_t*>(plane_of(s, channel)) + p);
    for (int j = 0; j < 4; j++) v.v[j] = short_range(at_most(at_least(v.v[j], -65536), 65536) + y.v[j]);
  } else if (kCode == StepCode::kStoreI16) {
    store_shorts(reinterpret_cast<int16_t*>(plane_of(s, channel)) + p, saturate(v));
  } else if (kCode == StepCode::kStoreI32) {
    store_ints(reinterpret_cast<int32_t*>(plane_of(s, channel)) + p, v);
  }
}

// The steps from `I` on, one behind the other.
template <int I>
static inline void chain(const Epilogue&, int, size_t, const FloatBlock&) {}
template <int I, StepCode kCode, StepCode... kRest>
static inline void chain(const Epilogue& e, int channel, size_t p, FloatBlock f) {
  apply<kCode>(e, e.steps[I], channel, p, f);
  chain<I + 1, kRest...>(e, channel, p, f);
}
template <int I>
static inline void chain(const Epilogue&, int, size_t, const IntBlock&) {}
template <int I, StepCode kCode, StepCode... kRest>
static inline void chain(const Epilogue& e, int channel, size_t p, IntBlock v) {
  if constexpr (is_integer(kCode)) {
    apply<kCode>(e, e.steps[I], channel, p, v);
    chain<I + 1, kRest...>(e, channel, p, v);
  } else {
    chain<I, kCode, kRest...>(e, channel, p, to_floats(v));
  }
}

// Where an epilogue's steps are these, runs them on `blocks` blocks from position p on and returns true.
template <StepCode... kCodes, typename Load>
static inline bool run_chain(const Epilogue& e, int channel, size_t p, int blocks, Load load) {
  if (e.chain != chain_of<kCodes...>()) return false;
  for (int i = 0; i < blocks; i++) chain<0, kCodes...>(e, channel, p + size_t(i) * kBytes, load(i));
  return true;
}

template <StepCode kCode, typename Block>
static __attribute__((noinline)) void apply_all(const Epilogue& e, const EpilogueStep& s, int channel, size_t p, int blocks,
                                                Block* tile) {
  for (int i = 0; i < blocks; i++) apply<kCode>(e, s, channel, p + size_t(i) * kBytes, tile[i]);
}

// Step by step, from step `i` on.
static inline void run_steps(const Epilogue& e, int i, int channel, size_t p, int blocks, FloatBlock* tile) {
  for (; i < e.count; i++) {
    const EpilogueStep& s = e.steps[i];
    switch (s.code) {
      case StepCode::kAffine: apply_all<StepCode::kAffine>(e, s, channel, p, blocks, tile); break;
      case StepCode::kAdd: apply_all<StepCode::kAdd>(e, s, channel, p, blocks, tile); break;
      case StepCode::kMul: apply_all<StepCode::kMul>(e, s, channel, p, blocks, tile); break;
      case StepCode::kClip: apply_all<StepCode::kClip>(e, s, channel, p, blocks, tile); break;
      case StepCode::kSigmoid: apply_all<StepCode::kSigmoid>(e, s, channel, p, blocks, tile); break;
      case StepCode::kRPReLU: apply_all<StepCode::kRPReLU>(e, s, channel, p, blocks, tile); break;
      case StepCode::kPReLU: apply_all<StepCode::kPReLU>(e, s, channel, p, blocks, tile); break;
      case StepCode::kStore: apply_all<StepCode::kStore>(e, s, channel, p, blocks, tile); break;
      case StepCode::kSign: apply_all<StepCode::kSign>(e, s, channel, p, blocks, tile); break;
      case StepCode::kQuant8: apply_all<StepCode::kQuant8>(e, s, channel, p, blocks, tile); break;
      case StepCode::kQuant16: apply_all<StepCode::kQuant16>(e, s, channel, p, blocks, tile); break;
      default: return;  // integer steps cannot follow a float one: the reader refuses such a file
    }
  }
}
static inline void run_steps(const Epilogue& e, int i, int channel, size_t p, int blocks, IntBlock* tile) {
  for (; i < e.count; i++) {
    const EpilogueStep& s = e.steps[i];
    switch (s.code) {
      case StepCode::kQuant4Shift: apply_all<StepCode::kQuant4Shift>(e, s, channel, p, blocks, tile); break;
      case StepCode::kQuant4Ladder: apply_all<StepCode::kQuant4Ladder>(e, s, channel, p, blocks, tile); break;
      case StepCode::kThreshold: apply_all<StepCode::kThreshold>(e, s, channel, p, blocks, tile); break;
      case StepCode::kAddI4: apply_all<StepCode::kAddI4>(e, s, channel, p, blocks, tile); break;
      case StepCode::kStoreI4: apply_all<StepCode::kStoreI4>(e, s, channel, p, blocks, tile); break;
      case StepCode::kShiftSum: apply_all<StepCode::kShiftSum>(e, s, channel, p, blocks, tile); break;
      case StepCode::kShiftPReLU: apply_all<StepCode::kShiftPReLU>(e, s, channel, p, blocks, tile); break;
      case StepCode::kBias: apply_all<StepCode::kBias>(e, s, channel, p, blocks, tile); break;
      case StepCode::kAddI16: apply_all<StepCode::kAddI16>(e, s, channel, p, blocks, tile); break;
      case StepCode::kStoreI16: apply_all<StepCode::kStoreI16>(e, s, channel, p, blocks, tile); break;
      case StepCode::kStoreI32: apply_all<StepCode::kStoreI32>(e, s, channel, p, blocks, tile); break;
      default: {
        FloatBlock real[kMaxTile / kBytes];
        for (int j = 0; j < blocks; j++) real[j] = to_floats(tile[j]);
        return run_steps(e, i, channel, p, blocks, real);
      }
    }
  }
}

// Run the whole epilogue on `blocks` blocks, kMaxTile positions at most, of a channel from position p on. `load(i)` gives
// block i: integer sums or real values.
template <typename Load>
static inline void run_epilogue(const Epilogue& e, int channel, size_t p, int blocks, Load load) {
  typedef decltype(load(0)) Block;
  using C = StepCode;
  if constexpr (is_same<Block, IntBlock>) {
    if (run_chain<C::kAffine, C::kAdd, C::kRPReLU, C::kSign, C::kStore>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kAffine, C::kAdd, C::kRPReLU, C::kStore>(e, channel, p, blocks, load)) return;
    // 8-bit features to which bits add (EDSR), or that go another way than the bits (R2D2).
    if (run_chain<C::kAffine, C::kAdd, C::kPReLU, C::kQuant8>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kThreshold, C::kAffine, C::kPReLU, C::kQuant8>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kQuant4Shift, C::kStoreI4>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kQuant4Shift, C::kAddI4, C::kThreshold>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kThreshold>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kThreshold, C::kAffine, C::kStore>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kAffine, C::kStore>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kAffine, C::kPReLU, C::kStore, C::kAffine, C::kAdd, C::kStore>(e, channel, p, blocks, load)) return;
  } else {
    // Gates and products with a bypass (BNext).
    if (run_chain<C::kMul, C::kAffine, C::kAdd, C::kStore, C::kSign>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kMul, C::kAffine, C::kAdd, C::kSign, C::kStore>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kMul, C::kAffine, C::kAdd, C::kSign, C::kStore, C::kAffine, C::kStore>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kMul, C::kAffine, C::kAdd, C::kSign, C::kStore, C::kPReLU, C::kStore>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kMul, C::kMul, C::kAffine, C::kAdd, C::kSign, C::kSign, C::kStore, C::kAffine, C::kStore>(
            e, channel, p, blocks, load))
      return;
    if (run_chain<C::kPReLU, C::kStore, C::kMul, C::kAffine, C::kStore>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kAffine, C::kStore>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kQuant8>(e, channel, p, blocks, load)) return;
    if (run_chain<C::kQuant16>(e, channel, p, blocks, load)) return;
  }
  Block tile[kMaxTile / kBytes];
  for (int i = 0; i < blocks; i++) tile[i] = load(i);
  run_steps(e, 0, channel, p, blocks, tile);
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
