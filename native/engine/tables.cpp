#include "../kernels/kernels.h"

namespace signbit {
namespace {

constexpr uint8_t matches(int weight, int activation) {
  int count = 0;
  for (int bit = 0; bit < 4; bit++) count += ((weight ^ activation) >> bit & 1) == 0;
  return uint8_t(count);
}

constexpr PairTable make_table() {
  PairTable table = {};
  for (int w = 0; w < 256; w++)
    for (int x = 0; x < 16; x++)
      table.entry[w][x] = uint8_t(matches(w & 15, x) | matches(w >> 4, x) << 4);
  return table;
}

constexpr MatchTable make_matches() {
  MatchTable table = {};
  for (int x = 0; x < 16; x++)
    for (int w = 0; w < 16; w++) table.entry[x][w] = matches(w, x);
  return table;
}

constexpr MaskTable make_masks() {
  MaskTable table = {};
  for (int mask = 0; mask < 16; mask++)
    for (int i = 0; i < 16; i++) table.entry[mask][i] = uint8_t(kOutside | mask);
  return table;
}

// computed by the compiler, not at start-up
constexpr PairTable kTable = make_table();
constexpr MatchTable kMatches = make_matches();
constexpr MaskTable kMasks = make_masks();

}  // namespace

const PairTable kPairTable = kTable;
const MatchTable kMatchTable = kMatches;
const MaskTable kMaskTable = kMasks;

}  // namespace signbit
