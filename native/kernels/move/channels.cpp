// Concatenation, split and any other order of channels: whole planes of numbers, single bits of nibble planes.
#include "../../simd/simd.h"
#include "../declare.h"

namespace signbit {
namespace SIGNBIT_NS {

// Call `work(plane, first position, positions)` for the items [begin, end).
template <typename Work>
static inline void for_tiles(const ChannelMove& m, int64_t begin, int64_t end, Work work) {
  const size_t body = m.geometry->body;
  const int64_t tiles = int64_t((body + kMoveTile - 1) / kMoveTile);
  for (int64_t item = begin; item < end; item++) {
    const size_t p = size_t(item % tiles) * kMoveTile;
    work(size_t(item / tiles), p, body - p < kMoveTile ? body - p : size_t(kMoveTile));
  }
}

void channels_f32(const ChannelMove& m, int64_t begin, int64_t end) {
  for_tiles(m, begin, end, [&](size_t plane, size_t p, size_t count) {
    memcpy(m.dst + plane * m.dst_plane + 4 * p, m.sources[plane] + 4 * p, 4 * count);
  });
}

void channels_i16(const ChannelMove& m, int64_t begin, int64_t end) {
  for_tiles(m, begin, end, [&](size_t plane, size_t p, size_t count) {
    memcpy(m.dst + plane * m.dst_plane + 2 * p, m.sources[plane] + 2 * p, 2 * count);
  });
}

// Bits that stay where they are in a byte: from one plane.
static inline void keep_bits(const uint8_t* __restrict src, uint8_t mask, const uint8_t* __restrict outside, uint8_t halo,
                             uint8_t* __restrict dst, size_t count) {
  for (size_t i = 0; i < count; i++) dst[i] = uint8_t((src[i] & mask & ~outside[i]) | (halo & outside[i]));
}

void channels_b1(const ChannelMove& m, int64_t begin, int64_t end) {
  for_tiles(m, begin, end, [&](size_t plane, size_t p, size_t count) {
    const BitSources& from = m.bit_sources[plane];
    const uint8_t* __restrict outside = m.geometry->outside + p;
    uint8_t* __restrict dst = m.dst + plane * m.dst_plane + p;
    const uint8_t halo = int(plane) + 1 == m.planes ? m.last_halo : m.halo;
    if (from.mask) return keep_bits(from.source[0] + p, from.mask, outside, halo, dst, count);
    for (size_t i = 0; i < count; i++) dst[i] = halo & outside[i];
    for (int k = 0; k < 4 && from.source[k]; k++) {
      const uint8_t* __restrict src = from.source[k] + p;
      const int shift = from.shift[k];
      for (size_t i = 0; i < count; i++)
        dst[i] = uint8_t(dst[i] | ((((src[i] >> shift) & 1) << k) & ~outside[i]));
    }
  });
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
