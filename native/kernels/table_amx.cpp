// The kernel table of CPUs with matrix tiles: that of AVX-512 with counts of bits, and what tiles do.
#include "../simd/simd.h"
#include "declare.h"

namespace signbit {

const KernelTable* amx_kernels() {
  static const KernelTable table = [] {
    KernelTable t = *avx512_popcnt_kernels();
    t.isa = "amx";
    t.tile_spread = SIGNBIT_NS::tile_spread;
    t.tile_conv = SIGNBIT_NS::tile_conv;
    t.tile_q8_conv = SIGNBIT_NS::tile_q8_conv;
    t.peak_tiles = SIGNBIT_NS::peak_tiles;
    t.peak_tile_macs = SIGNBIT_NS::peak_tile_macs();
    return t;
  }();
  return &table;
}

}  // namespace signbit
