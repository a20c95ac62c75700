// The end of binary convolutions whose results become numbers of 4 bits: stored, or added to other ones and compared.
#pragma once

#include "../epilogue/epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

static inline int8_t clipped_to_byte(int64_t x) { return int8_t(x < -128 ? -128 : x > 127 ? 127 : x); }

// Of `channels` output channels from `first` on, a multiple of 4; `quantised(j, i, q)` gives vector i of the j-th, in the order of
// positions.
template <typename Quantised>
static inline void write_quantised(const BinaryCuts& cuts, const Epilogue& e, int first, int channels, size_t position,
                                   int vectors, Quantised quantised) {
  const EpilogueStep& step = e.steps[1];
  if (step.code == StepCode::kStoreI4) {
    for (int j = 0; j < channels; j++) {
      const Quant4 q = cuts.quant4[first + j];
      uint8_t* dst = plane_of(step, first + j) + position;
      for (int i = 0; i < vectors; i++) store_bytes(dst + i * kBytes, quantised(j, i, q));
    }
    return;
  }
  // Added to others and compared: a nibble plane at a time.
  const EpilogueStep& threshold = e.steps[2];
  for (int j = 0; j < channels; j += 4) {
    const int plane = (first + j) / 4, of_plane = channels - j < 4 ? channels - j : 4;
    uint8_t* dst = threshold.data + size_t(plane) * threshold.plane + position;
    const Bytes halo = all_bytes(plane == (e.channels - 1) / 4 ? threshold.last_halo : threshold.halo);
    for (int i = 0; i < vectors; i++) {
      Bytes bits = zero_bytes();
      for (int k = 0; k < of_plane; k++) {
        const int channel = first + j + k;
        const int8_t low = clipped_to_byte(int64_t(threshold.i0[channel]) - 1), high = clipped_to_byte(threshold.i1[channel]);
        const Bytes other = load_bytes(plane_of(step, channel) + position + i * kBytes);
        const Bytes inside = between(add_bytes(quantised(j + k, i, cuts.quant4[channel]), other), low, high);
        bits = or_bytes(bits, and_bytes(xor_bytes(inside, all_bytes(threshold.flip[channel] ? 0xFF : 0)), all_bytes(uint8_t(1 << k))));
      }
      store_bytes(dst + i * kBytes, select_bytes(load_bytes(e.outside + position + size_t(i) * kBytes), halo, bits));
    }
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
