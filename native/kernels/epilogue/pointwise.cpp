// An epilogue over a map that no convolution produced: real values, bits as -1 and +1, or 16-bit integers.
#include "../../simd/simd.h"
#include "../declare.h"
#include "integer.h"

namespace signbit {
namespace SIGNBIT_NS {

// Items: (block of 4 channels) * tiles + tile; `run(channel, position, blocks)` for each.
template <typename Run>
static inline void for_items(size_t body, const Epilogue& e, int64_t begin, int64_t end, Run run) {
  const int64_t tiles = int64_t(body / kTile);
  for (int64_t item = begin; item < end; item++) {
    const int first = int(item / tiles) * 4;
    const size_t p = size_t(item % tiles) * kTile, left = e.end - p < kTile ? e.end - p : kTile;
    const int last = first + 4 < e.channels ? first + 4 : e.channels;
    for (int channel = first; channel < last; channel++) run(channel, p, int((left + kBytes - 1) / kBytes));
  }
}

// `load(channel, position)` fetches a block of a channel.
template <typename Load>
static inline void run_items(size_t body, const Epilogue& e, int64_t begin, int64_t end, Load load) {
  for_items(body, e, begin, end, [&](int channel, size_t p, int blocks) __attribute__((always_inline)) {
    run_epilogue(e, channel, p, blocks,
                 [&](int i) __attribute__((always_inline)) { return load(channel, p + size_t(i) * kBytes); });
  });
}

// Nothing but numbers of 8 bits: the four channels of a dword at once.
static void quantise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin, int64_t end) {
  const EpilogueStep& s = e.steps[0];
  const int64_t tiles = int64_t(body / kTile);
  for (int64_t item = begin; item < end; item++) {
    const int first = int(item / tiles) * 4, channels = e.channels - first < 4 ? e.channels - first : 4;
    const size_t start = size_t(item % tiles) * kTile, stop = e.end - start < kTile ? e.end : start + kTile;
    for (size_t p = start; p < stop; p += kBytes) {
      const IntBlock outside = load_int8(reinterpret_cast<const int8_t*>(e.outside + p));
      IntBlock quads;
      for (int i = 0; i < 4; i++) {
        Ints inside = all_ints(0), halo = all_ints(0);
        for (int k = 0; k < channels; k++) {
          const float* from = reinterpret_cast<const float*>(src + size_t(first + k) * src_plane) + p;
          // What stands outside the image may be a denormal number, and slow.
          const Floats x = Floats(Ints(floats_at(from + i * kInts)) & ~outside.v[i]);
          inside |= quantised8(s, x) << (8 * k);
          halo |= int32_t(s.halo) << (8 * k);
        }
        quads.v[i] = (inside & ~outside.v[i]) | (halo & outside.v[i]);
      }
      store_ints(reinterpret_cast<int32_t*>(s.data + size_t(first / 4) * s.plane) + p, quads);
    }
  }
}

void pointwise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
               int64_t end) {
  if (e.count == 1 && e.steps[0].code == StepCode::kQuant8) return quantise(src, src_plane, body, e, begin, end);
  run_items(body, e, begin, end, [=](int channel, size_t p) __attribute__((always_inline)) {
    return load_floats(reinterpret_cast<const float*>(src + size_t(channel) * src_plane) + p);
  });
}

void pointwise_b1(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
                  int64_t end) {
  run_items(body, e, begin, end, [=](int channel, size_t p) __attribute__((always_inline)) {
    IntBlock b = load_int8(reinterpret_cast<const int8_t*>(src + size_t(channel / 4) * src_plane + p));
    for (int j = 0; j < 4; j++) b.v[j] = 2 * ((b.v[j] >> (channel % 4)) & 1) - 1;
    return to_floats(b);
  });
}

void pointwise_i16(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
                   int64_t end) {
  for_items(body, e, begin, end, [=, &e](int channel, size_t p, int blocks) __attribute__((always_inline)) {
    const int16_t* from = reinterpret_cast<const int16_t*>(src + size_t(channel) * src_plane) + p;
    if (e.narrow == 0) {
      ShortBlock tile[kTile / kBytes];
      for (int i = 0; i < blocks; i++) tile[i] = load_shorts(from + i * kBytes);
      return integer_steps_16(e, 0, channel, p, blocks, tile);
    }
    IntBlock tile[kTile / kBytes];
    for (int i = 0; i < blocks; i++) tile[i] = load_shorts_as_ints(from + i * kBytes);
    integer_steps(e, channel, p, blocks, tile);
  });
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
