// 8-bit convolution by the CPU's matrix tiles (AMX): rows are output channels, columns are positions.
//
// What 16 steps read at 16 positions is a tile whose rows lie anywhere: they are gathered first, for a tile of positions at a time.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kTileSums = 16;  // columns of a tile of sums
constexpr size_t kTileWeights = kTileRows * kTileBytes;
constexpr size_t kGatheredRow = 4 * kMaxTile;

// Sums of a block's channels for 32 positions.
static inline void add_products(const TileQ8Conv& c, const int8_t* weights, const uint8_t* gathered, int32_t (*sums)[kMaxTile]) {
  const size_t stride = sizeof sums[0];
  SIGNBIT_TILE_ZERO(0);
  SIGNBIT_TILE_ZERO(1);
  SIGNBIT_TILE_ZERO(2);
  SIGNBIT_TILE_ZERO(3);
  for (int k = 0; k < c.chunks; k++, weights += 2 * kTileWeights, gathered += kTileRows * kGatheredRow) {
    SIGNBIT_TILE_LOAD(4, weights, kTileBytes);
    SIGNBIT_TILE_LOAD(6, gathered, kGatheredRow);
    SIGNBIT_TILE_ADD_UNSIGNED(0, 4, 6);
    SIGNBIT_TILE_LOAD(5, weights + kTileWeights, kTileBytes);
    SIGNBIT_TILE_ADD_UNSIGNED(1, 5, 6);
    SIGNBIT_TILE_LOAD(7, gathered + kTileBytes, kGatheredRow);
    SIGNBIT_TILE_ADD_UNSIGNED(2, 4, 7);
    SIGNBIT_TILE_ADD_UNSIGNED(3, 5, 7);
  }
  SIGNBIT_TILE_STORE(0, sums[0], stride);
  SIGNBIT_TILE_STORE(1, sums[kTileRows], stride);
  SIGNBIT_TILE_STORE(2, sums[0] + kTileSums, stride);
  SIGNBIT_TILE_STORE(3, sums[kTileRows] + kTileSums, stride);
}

void tile_q8_conv(const TileQ8Conv& c, const Epilogue& e, uint8_t* gathered, int64_t begin, int64_t end) {
  TileShapes shapes;
  for (int n = 0; n < 8; n++) {
    shapes.rows[n] = uint8_t(kTileRows);
    shapes.bytes[n] = uint16_t(kTileBytes);
  }
  SIGNBIT_TILE_SHAPES(shapes);
  alignas(64) int32_t sums[kTileChannels][kMaxTile] = {};  // vectors of epilogues read a little past the last position
  for (int64_t item = begin; item < end; item++) {
    const size_t position = size_t(item) * kMaxTile;
    const size_t count = c.end - position < kMaxTile ? c.end - position : kMaxTile;
    const int vectors = int((count + kBytes - 1) / kBytes);  // of positions, four vectors of their quads each
    for (int step = 0; step < c.steps; step++) {
      const uint8_t* from = c.input + 4 * position + c.offset[step];
      uint8_t* to = gathered + size_t(step) * kGatheredRow;
      for (int i = 0; i < 4 * vectors; i++) store_bytes(to + i * kBytes, load_bytes(from + i * kBytes));
    }
    const int8_t* weights = c.weights;
    for (int first = 0; first < c.channels; first += kTileChannels, weights += size_t(c.chunks) * 2 * kTileWeights) {
      for (size_t p = 0; p < count; p += 2 * kTileSums)
        add_products(c, weights, gathered + 4 * p, reinterpret_cast<int32_t(*)[kMaxTile]>(&sums[0][p]));
      const int channels = c.channels - first < kTileChannels ? c.channels - first : kTileChannels;
      for (int j = 0; j < channels; j++) {
        const int32_t correction = c.correction[first + j];
        run_epilogue(e, first + j, position, vectors, [&](int i) __attribute__((always_inline)) {
          IntBlock v = load_ints(sums[j] + i * kBytes);
          for (int k = 0; k < 4; k++) v.v[k] -= correction;
          return v;
        });
      }
    }
  }
  SIGNBIT_TILE_RELEASE();
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
