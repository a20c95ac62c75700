// Binary convolution by the CPU's matrix tiles (AMX): rows are output channels, columns are positions.
//
// First the whole input is spread: each of a nibble plane's bytes becomes four bytes, 1, -1, or 0 outside the image, so that the
// planes of 4 input channels are the rows of a tile, and a filter's tap is a constant offset, as it is in nibble planes. Weights
// stay bits until a block of output channels is computed: their bytes, spread for all positions of the block, stay in cache.
// The products are exact dot products: nothing is left to subtract.
#include "../../simd/simd.h"
#include "../declare.h"
#include "quantised.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kTileSums = 16;                        // columns of a tile of sums
constexpr size_t kTileWeights = kTileRows * kTileBytes;  // bytes
static_assert(kTileChannels == 2 * kTileRows, "a block is two tiles of weights");

void tile_spread(const TileConv& c, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; item++) {
    const int64_t slot = item / c.planes, plane = item % c.planes;
    const uint8_t* from = c.nibbles + size_t(item) * c.nibble_plane - c.margin;
    uint8_t* to = c.quads + size_t(slot * c.slot_planes + plane) * c.quad_plane - 4 * c.margin;
    for (size_t i = 0; i < c.positions; i += kTileSums) store_bytes(to + 4 * i, spread_nibbles(from + i));
  }
}

// The weights of a block for some taps: a step's two tiles, one step behind the other.
static void spread_weights(const TileConv& c, int64_t block, int tap, int taps, uint8_t* strip) {
  const uint64_t* bits = c.weights + size_t((block * c.taps + tap) * c.chunks) * kTileChannels;
  const Bytes whole = byte_where(c.whole, 1), last = byte_where(c.last, 1);
  for (; taps > 0; taps--)
    for (int k = 0; k < c.chunks; k++) {
      const Bytes one = k == c.chunks - 1 ? last : whole;
      for (int i = 0; i < kTileChannels; i++, strip += kTileBytes) store_bytes(strip, spread_bits(*bits++, one));
    }
}

// Sums of the block's channels over some taps, for 16 positions or twice as many; added to what there is where they are not the first.
template <bool kTwice>
static inline __attribute__((always_inline)) void add_products(const TileConv& c, const uint8_t* strip, int first, int taps,
                                                               size_t position, int32_t (*sums)[kMaxTile]) {
  const uint8_t* in = c.quads + 4 * position;
  const size_t chunk = size_t(c.rows) * c.quad_plane, stride = sizeof sums[0];
  if (first == 0) {
    SIGNBIT_TILE_ZERO(0);
    SIGNBIT_TILE_ZERO(1);
    if (kTwice) {
      SIGNBIT_TILE_ZERO(2);
      SIGNBIT_TILE_ZERO(3);
    }
  } else {
    SIGNBIT_TILE_LOAD(0, sums[0], stride);
    SIGNBIT_TILE_LOAD(1, sums[kTileRows], stride);
    if (kTwice) {
      SIGNBIT_TILE_LOAD(2, sums[0] + kTileSums, stride);
      SIGNBIT_TILE_LOAD(3, sums[kTileRows] + kTileSums, stride);
    }
  }
  for (int tap = first; tap < first + taps; tap++) {
    const uint8_t* seen = in + c.offset[tap];
    for (int k = 0; k < c.chunks; k++, seen += chunk, strip += 2 * kTileWeights) {
      SIGNBIT_TILE_LOAD(4, strip, kTileBytes);
      SIGNBIT_TILE_LOAD(6, seen, c.quad_plane);
      SIGNBIT_TILE_ADD_PRODUCT(0, 4, 6);
      SIGNBIT_TILE_LOAD(5, strip + kTileWeights, kTileBytes);
      SIGNBIT_TILE_ADD_PRODUCT(1, 5, 6);
      if (kTwice) {
        SIGNBIT_TILE_LOAD(7, seen + kTileBytes, c.quad_plane);
        SIGNBIT_TILE_ADD_PRODUCT(2, 4, 7);
        SIGNBIT_TILE_ADD_PRODUCT(3, 5, 7);
      }
    }
  }
  SIGNBIT_TILE_STORE(0, sums[0], stride);
  SIGNBIT_TILE_STORE(1, sums[kTileRows], stride);
  if (kTwice) {
    SIGNBIT_TILE_STORE(2, sums[0] + kTileSums, stride);
    SIGNBIT_TILE_STORE(3, sums[kTileRows] + kTileSums, stride);
  }
}

// The whole epilogue is a threshold of one cut: sums to bits, a nibble plane at a time.
static inline void write_nibbles(const TileConv& c, const Epilogue& e, int first, int channels, size_t position,
                                 const int32_t (*sums)[kMaxTile], int vectors) {
  const EpilogueStep& step = e.steps[0];
  for (int j = 0; j < channels; j += 4) {
    const int plane = (first + j) / 4, of_plane = channels - j < 4 ? channels - j : 4;
    uint8_t* dst = step.data + size_t(plane) * step.plane + position;
    const Bytes flip = all_bytes(c.flip[plane]);
    const Bytes halo = all_bytes(plane == (e.channels - 1) / 4 ? step.last_halo : step.halo);
    for (int i = 0; i < vectors; i++) {
      Bytes bits = zero_bytes();
      for (int k = 0; k < of_plane; k++) {
        // dot / 2 > cut, of even dot products
        const uint64_t above = greater_mask(load_ints(sums[j + k] + i * kBytes), 2 * c.above[first + j + k]);
        bits = or_bytes(bits, byte_where(above, uint8_t(1 << k)));
      }
      bits = xor_bytes(packed_ints_in_order(bits), flip);
      store_bytes(dst + i * kBytes, select_bytes(load_bytes(e.outside + position + size_t(i) * kBytes), halo, bits));
    }
  }
}

void tile_conv(const TileConv& c, const Epilogue& e, const ThreadRoom& room, int64_t begin, int64_t end) {
  uint8_t* const strip = room.data;
  TileShapes shapes;
  for (int n = 0; n < 8; n++) {
    shapes.rows[n] = n == 6 || n == 7 ? uint8_t(c.rows) : uint8_t(kTileRows);
    shapes.bytes[n] = n == 4 || n == 5 ? uint16_t(4 * c.rows) : uint16_t(kTileBytes);
  }
  SIGNBIT_TILE_SHAPES(shapes);
  alignas(64) int32_t sums[kTileChannels][kMaxTile] = {};  // vectors of epilogues read a little past the last position
  const int64_t tiles = int64_t((c.end + kMaxTile - 1) / kMaxTile);
  const auto add = [&](int tap, int taps, size_t position, size_t count) __attribute__((always_inline)) {
    for (size_t p = 0; p < count; p += 2 * kTileSums) {
      int32_t(*to)[kMaxTile] = reinterpret_cast<int32_t(*)[kMaxTile]>(&sums[0][p]);
      if (count - p > kTileSums)
        add_products<true>(c, strip, tap, taps, position + p, to);
      else
        add_products<false>(c, strip, tap, taps, position + p, to);
    }
  };
  for (int64_t item = begin; item < end; item++) {
    const int64_t block = item / tiles;
    const size_t position = size_t(item % tiles) * kMaxTile;
    const size_t count = c.end - position < kMaxTile ? c.end - position : kMaxTile;
    if (c.taps_a_strip == c.taps) {
      if (*room.held != block) spread_weights(c, block, 0, c.taps, strip);
      *room.held = block;
      add(0, c.taps, position, count);
    } else {
      for (int tap = 0, taps; tap < c.taps; tap += taps) {
        taps = c.taps - tap < c.taps_a_strip ? c.taps - tap : c.taps_a_strip;
        spread_weights(c, block, tap, taps, strip);
        add(tap, taps, position, count);
      }
    }
    const int first = int(block) * kTileChannels, left = c.channels - first;
    const int channels = left < kTileChannels ? left : kTileChannels, vectors = int((count + kBytes - 1) / kBytes);
    const auto dots = [&](int j, int i) __attribute__((always_inline)) { return load_ints(sums[j] + i * kBytes); };
    if (c.above) {
      write_nibbles(c, e, first, channels, position, sums, vectors);
    } else if (c.quant4) {
      write_quantised(c, e, first, channels, position, vectors,
                      [&](int j, int i, const Quant4& q) __attribute__((always_inline)) { return quantise4(dots(j, i), q); });
    } else {
      for (int j = 0; j < channels; j++)
        run_epilogue(e, first + j, position, vectors, [&](int i) __attribute__((always_inline)) { return dots(j, i); });
    }
  }
  SIGNBIT_TILE_RELEASE();
}

}  // namespace SIGNBIT_NS

}  // namespace signbit
