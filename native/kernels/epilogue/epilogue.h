// An epilogue: the steps that a tile of one channel's sums walks through before it is stored.
//
// A tile is N consecutive positions of one channel. The running value is int16 (sums of binary
// convolutions that fit), int32 (all other sums) or float32; each step is a plain loop over the tile, which the
// compiler turns into the instruction set's vectors. Positions outside the image carry junk and are
// overwritten where it matters: bits and 8-bit maps are read by filter taps, so they get their halo byte.
#pragma once

#include "../kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

// Round to nearest even for |x| < 2^22, without a call into libm.
static inline float round_half_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

static inline uint8_t* plane_of(const EpilogueStep& s, int channel) {
  return s.data + size_t(channel) * s.plane;
}

// Bits of four channels share a byte. The first channel of a nibble writes it, the others add their bit, and
// the last one puts the halo byte where there is no pixel.
template <int N>
static inline void write_bits(const Epilogue& e, const EpilogueStep& s, int channel, size_t p,
                              const uint8_t* bits) {
  uint8_t* __restrict dst = s.data + size_t(channel / 4) * s.plane + p;
  const int k = channel % 4;
  const bool last = channel + 1 == e.channels;
  if (k == 0) {
    for (int i = 0; i < N; i++) dst[i] = bits[i];
  } else {
    for (int i = 0; i < N; i++) dst[i] = uint8_t(dst[i] | (bits[i] << k));
  }
  if (k == 3 || last) {
    const uint8_t* outside = e.outside + p;
    const uint8_t halo = channel / 4 == (e.channels - 1) / 4 ? s.last_halo : s.halo;
    for (int i = 0; i < N; i++) dst[i] = uint8_t((dst[i] & ~outside[i]) | (halo & outside[i]));
  }
}

template <int N, typename Int>
static inline void threshold_bits(const Int* v, Int low, Int high, uint8_t flip, uint8_t* bits) {
  for (int i = 0; i < N; i++) bits[i] = uint8_t(((v[i] >= low) & (v[i] <= high)) ^ flip);
}

template <int N, typename Int>
static inline void quant4_shift(Int* v, int32_t multiplier, int32_t offset, int32_t shift) {
  for (int i = 0; i < N; i++) {
    int32_t q = (int32_t(v[i]) * multiplier + offset) >> shift;
    q = q < -8 ? -8 : q;
    q = q > 7 ? 7 : q;
    v[i] = Int(q);
  }
}

template <int N, typename Int>
static inline void quant4_ladder(Int* v, const Int* cuts, uint8_t flip) {
  Int q[N];
  const Int sign = flip ? Int(-1) : Int(1);
  for (int i = 0; i < N; i++) v[i] = Int(v[i] * sign);
  for (int i = 0; i < N; i++) q[i] = -8;
  for (int k = 0; k < 15; k++) {
    const Int cut = cuts[k];
    for (int i = 0; i < N; i++) q[i] = Int(q[i] + (v[i] >= cut));
  }
  for (int i = 0; i < N; i++) v[i] = q[i];
}

template <int N, typename T>
static inline void to_float(const T* v, float* f) {
  for (int i = 0; i < N; i++) f[i] = float(v[i]);
}

template <int N>
static inline void quant8(const Epilogue& e, const EpilogueStep& s, int channel, size_t p,
                          const float* f) {
  uint8_t* dst = s.data + size_t(channel / 4) * s.plane + 4 * p + channel % 4;
  const uint8_t* outside = e.outside + p;
  const float zero = float(s.zero_point);
  uint8_t q[N];
  for (int i = 0; i < N; i++) {
    float x = f[i] * s.inv_scale;
    x = x < -1000.0f ? -1000.0f : x;  // false for NaN, which the next line but one turns into 0
    x = x > 1000.0f ? 1000.0f : x;
    x = x == x ? x : 0.0f;
    x = round_half_even(x) + zero;
    x = x < 0.0f ? 0.0f : x;
    x = x > 255.0f ? 255.0f : x;
    q[i] = uint8_t(int32_t(x));
  }
  for (int i = 0; i < N; i++) q[i] = uint8_t((q[i] & ~outside[i]) | (s.halo & outside[i]));
  for (int i = 0; i < N; i++) dst[4 * i] = q[i];
}

// A tile of a value that has one pixel an image, which stands for the whole image. A tile may span several images, and end
// behind the last one. Not inline, as `sigmoid`: the steps that every network has stay small and keep their registers.
template <int N>
static __attribute__((noinline)) void repeat_pixels(const Epilogue& e, const EpilogueStep& s, const float* plane, size_t p,
                                                    float* tile) {
  const size_t last = size_t(e.batch) - 1;
  size_t image = p / e.image, end = (image + 1) * e.image - p;
  for (size_t i = 0; i < N; image++, end += e.image) {
    const float x = plane[(image < last ? image : last) * s.image_step];
    for (const size_t stop = end < N ? end : N; i < stop; i++) tile[i] = x;
  }
}

// What a step reads; `tile` is room for it.
template <int N>
static inline const float* operand(const Epilogue& e, const EpilogueStep& s, int channel, size_t p, float* tile) {
  const float* plane = reinterpret_cast<const float*>(plane_of(s, channel));
  if (!s.image_step) return plane + p;
  repeat_pixels<N>(e, s, plane, p, tile);
  return tile;
}

// 1 / (1 + exp(-v)) as docs/numerics.md spells it.
template <int N>
static __attribute__((noinline)) void sigmoid(float* f) {
  for (int i = 0; i < N; i++) {
    const float v = f[i];
    float a = v < 0.0f ? -v : v;
    a = a > 87.0f ? 87.0f : a;
    const float k = round_half_even(a * -1.44269504f);
    float r = -a - k * 0.693359375f;
    r = r - k * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    // 2^k; NaN, for which p is NaN already, must not become an integer
    const int32_t exponent = (int32_t(k == k ? k : 0.0f) + 127) << 23;
    float power;
    __builtin_memcpy(&power, &exponent, 4);
    const float x = p * power;
    f[i] = (v >= 0.0f ? 1.0f : x) / (1.0f + x);
  }
}

// The part of an epilogue whose running value is float32, from step `i` on.
template <int N>
static inline void run_float_steps(const Epilogue& e, int i, int channel, size_t p, float* f) {
  for (; i < e.count; i++) {
    const EpilogueStep& s = e.steps[i];
    switch (s.kind) {
      case StepKind::kAffine: {
        const float a = s.f0[channel], b = s.f1[channel];
        for (int j = 0; j < N; j++) f[j] = f[j] * a + b;
        break;
      }
      case StepKind::kAdd: {
        float tile[N];
        const float* __restrict x = operand<N>(e, s, channel, p, tile);
        for (int j = 0; j < N; j++) f[j] += x[j];
        break;
      }
      case StepKind::kMul: {
        float tile[N];
        const float* __restrict x = operand<N>(e, s, channel, p, tile);
        for (int j = 0; j < N; j++) f[j] *= x[j];
        break;
      }
      case StepKind::kClip:
        for (int j = 0; j < N; j++) {
          const float v = f[j] < s.minimum ? s.minimum : f[j];
          f[j] = v > s.maximum ? s.maximum : v;
        }
        break;
      case StepKind::kSigmoid:
        sigmoid<N>(f);
        break;
      case StepKind::kRPReLU: {
        const float in = s.f0[channel], slope = s.f1[channel], out = s.f2[channel];
        for (int j = 0; j < N; j++) {
          const float u = f[j] + in;
          const float n = u * slope;
          f[j] = (u >= 0.0f ? u : n) + out;
        }
        break;
      }
      case StepKind::kPReLU: {
        const float slope = s.f0[channel];
        for (int j = 0; j < N; j++) {
          const float n = f[j] * slope;
          f[j] = f[j] >= 0.0f ? f[j] : n;
        }
        break;
      }
      case StepKind::kStore: {
        float* __restrict dst = reinterpret_cast<float*>(plane_of(s, channel)) + p;
        for (int j = 0; j < N; j++) dst[j] = f[j];
        break;
      }
      case StepKind::kSign: {
        uint8_t bits[N];
        const float cut = s.f0[channel];
        for (int j = 0; j < N; j++) bits[j] = uint8_t(f[j] >= cut);
        write_bits<N>(e, s, channel, p, bits);
        break;
      }
      case StepKind::kQuant8:
        quant8<N>(e, s, channel, p, f);
        break;
      default:
        return;  // integer steps cannot follow a float one: the reader refuses such a file
    }
  }
}


static inline bool stays_integer(const EpilogueStep& s) {
  switch (s.kind) {
    case StepKind::kQuant4Shift:
    case StepKind::kQuant4Ladder:
    case StepKind::kThreshold:
      return true;
    case StepKind::kAdd:
    case StepKind::kStore:
      return s.is_i4;
    default:
      return false;
  }
}

// Run the whole epilogue on a tile of integer sums, int16_t or int32_t.
template <int N, typename Int>
static inline void run_epilogue(const Epilogue& e, int channel, size_t p, Int* v) {
  constexpr bool kNarrow = sizeof(Int) == 2;
  for (int i = 0; i < e.count; i++) {
    const EpilogueStep& s = e.steps[i];
    if (!stays_integer(s)) {
      float f[N];
      to_float<N>(v, f);
      run_float_steps<N>(e, i, channel, p, f);
      return;
    }
    const Int* low = kNarrow ? reinterpret_cast<const Int*>(s.s0) : reinterpret_cast<const Int*>(s.i0);
    const Int* high = kNarrow ? reinterpret_cast<const Int*>(s.s1) : reinterpret_cast<const Int*>(s.i1);
    if (s.kind == StepKind::kQuant4Shift) {
      quant4_shift<N>(v, s.i0[channel], s.i1[channel], s.shift);
    } else if (s.kind == StepKind::kQuant4Ladder) {
      quant4_ladder<N>(v, low + size_t(channel) * 15, s.flip[channel]);
    } else if (s.kind == StepKind::kThreshold) {
      uint8_t bits[N];
      threshold_bits<N>(v, low[channel], high[channel], s.flip[channel], bits);
      write_bits<N>(e, s, channel, p, bits);
    } else {
      int8_t* x = reinterpret_cast<int8_t*>(plane_of(s, channel)) + p;
      if (s.kind == StepKind::kAdd)
        for (int j = 0; j < N; j++) v[j] = Int(v[j] + x[j]);
      else
        for (int j = 0; j < N; j++) x[j] = int8_t(v[j]);
    }
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
