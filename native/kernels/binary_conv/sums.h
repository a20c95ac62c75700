// Half sums of a binary convolution, and what becomes of them: kernels that count matches differ in how they come to these.
#pragma once

#include "../epilogue/integer.h"
#include "quantised.h"

namespace signbit {
namespace SIGNBIT_NS {

// The 16-bit sums of a channel over a tile: of each vector the even positions, then the odd ones.
typedef int16_t Sums[kMaxTile];

static inline Pairs load_pairs(const int16_t* p) { return {load_words(p), load_words(p + kBytes / 2)}; }
static inline Pairs add_pairs(Pairs x, Pairs y) { return {add_words(x.even, y.even), add_words(x.odd, y.odd)}; }
static inline void store_pairs(int16_t* p, Pairs x) {
  store_words(p, x.even);
  store_words(p + kBytes / 2, x.odd);
}

// The lines that `write_nibbles` writes, before their sums are made.
static inline void claim_nibbles(const Epilogue& e, int first, int count, size_t position, int vectors) {
  constexpr size_t kLine = 64;
  const EpilogueStep& step = e.steps[0];
  for (int plane = first / 4; plane <= (first + count - 1) / 4; plane++)
    for (size_t i = 0; i < size_t(vectors) * kBytes; i += kLine) claim_line(step.data + size_t(plane) * step.plane + position + i);
}

// The whole epilogue is a threshold of one cut: sums to bits, a nibble plane at a time.
static inline void write_nibbles(const BinaryCuts& c, const Epilogue& e, int first, int count, size_t position,
                                 const Sums* sums, int vectors) {
  const EpilogueStep& step = e.steps[0];
  for (int j = 0; j < count; j += 4) {
    const int channel = first + j, plane = channel / 4, channels = count - j < 4 ? count - j : 4;
    uint8_t* dst = step.data + size_t(plane) * step.plane + position;
    const Bytes flip = all_bytes(c.flip[plane]);
    const Bytes halo = all_bytes(plane == (e.channels - 1) / 4 ? step.last_halo : step.halo);
    for (int i = 0; i < vectors; i++) {
      Bytes bits = flip;
      for (int k = 0; k < channels; k++) {
        const Bytes above = greater(load_pairs(sums[j + k] + i * kBytes), all_words(c.above[channel + k]));
        bits = xor_bytes(bits, and_bytes(above, all_bytes(uint8_t(1 << k))));
      }
      store_bytes(dst + i * kBytes, select_bytes(load_bytes(e.outside + position + size_t(i) * kBytes), halo, bits));
    }
  }
}

// Dot products of a vector of positions.
static inline IntBlock dots(const BinarySums& c, size_t p, const int16_t* sums) {
  const Pairs half = load_pairs(sums);
  IntBlock v = in_order(half);
  if (c.valid32) {  // matches of up to 16 bits, counted from 0
    const IntBlock valid = load_ints(c.valid32 + p);
    for (int j = 0; j < 4; j++) v.v[j] = 2 * (v.v[j] & 0xFFFF) - valid.v[j];
  } else {
    for (int j = 0; j < 4; j++) v.v[j] *= 2;
    if (c.odd) {
      const IntBlock odd = load_int8(c.odd + p);
      for (int j = 0; j < 4; j++) v.v[j] -= odd.v[j];
    }
  }
  return v;
}

// Dot products of a vector of positions, where they fit 16 bits.
static inline ShortBlock short_dots(const BinarySums& c, size_t p, const int16_t* sums) {
  ShortBlock v = shorts_in_order(load_pairs(sums));
  for (int j = 0; j < 2; j++) v.v[j] += v.v[j];
  if (c.odd) {
    const ShortBlock odd = load_bytes_as_shorts(c.odd + p);
    for (int j = 0; j < 2; j++) v.v[j] -= odd.v[j];
  }
  return v;
}

// The epilogue of `count` channels from `first` on.
static inline void finish_sums(const BinarySums& c, const Epilogue& e, int first, int count, size_t position, const Sums* sums,
                               int vectors) {
  if (c.above) return write_nibbles(c, e, first, count, position, sums, vectors);
  if (c.quant4)
    return write_quantised(c, e, first, count, position, vectors, [&](int j, int i, const Quant4& q)
                           __attribute__((always_inline)) { return quantise4(load_pairs(sums[j] + i * kBytes), q); });
  for (int j = 0; j < count; j++)
    run_epilogue(e, first + j, position, vectors, [&](int i) __attribute__((always_inline)) {
      return dots(c, position + size_t(i) * kBytes, sums[j] + i * kBytes);
    });
}

static inline void finish_sums_integer(const BinarySums& c, const Epilogue& e, int first, int count, size_t position,
                                       const Sums* sums, int vectors) {
  if (c.above) return write_nibbles(c, e, first, count, position, sums, vectors);
  for (int j = 0; j < count; j++) {
    if (e.narrow == 0 && !c.valid32) {
      const auto load = [&](int i) __attribute__((always_inline)) {
        return short_dots(c, position + size_t(i) * kBytes, sums[j] + i * kBytes);
      };
      if (run_residual(e, first + j, position, vectors, load)) continue;
      ShortBlock tile[kTileBlocks];
      for (int i = 0; i < vectors; i++) tile[i] = load(i);
      integer_steps_16(e, 0, first + j, position, vectors, tile);
    } else {
      IntBlock tile[kTileBlocks];
      for (int i = 0; i < vectors; i++) tile[i] = dots(c, position + size_t(i) * kBytes, sums[j] + i * kBytes);
      integer_steps(e, first + j, position, vectors, tile);
    }
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
