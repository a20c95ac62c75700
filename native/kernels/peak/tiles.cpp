// Products of matrix tiles as fast as the CPU does them: four sums, and operands that are there.
#include "../../simd/simd.h"
#include "../declare.h"

namespace signbit {
namespace SIGNBIT_NS {

int64_t peak_tile_macs() { return 4 * kTileRows * 16 * kTileBytes; }

int64_t peak_tiles(int64_t rounds) {
  TileShapes shapes;
  for (int n = 0; n < 8; n++) {
    shapes.rows[n] = uint8_t(kTileRows);
    shapes.bytes[n] = uint16_t(kTileBytes);
  }
  SIGNBIT_TILE_SHAPES(shapes);
  alignas(64) uint8_t ones[kTileRows][kTileBytes];
  memset(ones, 1, sizeof ones);
  SIGNBIT_TILE_ZERO(0);
  SIGNBIT_TILE_ZERO(1);
  SIGNBIT_TILE_ZERO(2);
  SIGNBIT_TILE_ZERO(3);
  SIGNBIT_TILE_LOAD(4, ones, kTileBytes);
  SIGNBIT_TILE_LOAD(5, ones, kTileBytes);
  for (int64_t i = 0; i < rounds; i++) {
    SIGNBIT_TILE_ADD_PRODUCT(0, 4, 5);
    SIGNBIT_TILE_ADD_PRODUCT(1, 4, 5);
    SIGNBIT_TILE_ADD_PRODUCT(2, 4, 5);
    SIGNBIT_TILE_ADD_PRODUCT(3, 4, 5);
  }
  alignas(64) int32_t sums[4][kTileRows][16];
  SIGNBIT_TILE_STORE(0, sums[0], kTileBytes);
  SIGNBIT_TILE_STORE(1, sums[1], kTileBytes);
  SIGNBIT_TILE_STORE(2, sums[2], kTileBytes);
  SIGNBIT_TILE_STORE(3, sums[3], kTileBytes);
  SIGNBIT_TILE_RELEASE();
  int64_t macs = 0;
  for (const auto& tile : sums)
    for (const auto& row : tile)
      for (const int32_t sum : row) macs += sum;
  return macs;
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
