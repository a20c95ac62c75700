// Convolution of 16-bit numbers with weights -1 and +1: lanes are pixels. Of each four inputs, the sums with all sixteen
// patterns of their signs are made once; every output channel then adds the one it wants, an addition for four inputs.
// Sums are 32-bit, modulo 2^32.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/integer.h"

namespace signbit {
namespace SIGNBIT_NS {

// Fours of inputs whose patterns are held at a time: half of a first-level cache or less.
constexpr int kFours = 256 / kBytes;

struct Patterns {
  Ints sum[16][4];
};

// Bit k of a pattern is 1 where input k has the sign +. `count` of the four inputs are there.
static inline void all_patterns(const uint8_t* in, const int32_t* offset, int count, Patterns* made) {
  for (int j = 0; j < 4; j++) {
    Ints x[4], none = all_ints(0);
    for (int k = 0; k < 4; k++) {
      x[k] = all_ints(0);
      if (k < count) x[k] = ints_at(reinterpret_cast<const int16_t*>(in + offset[k]) + j * kInts);
      none -= x[k];
    }
    made->sum[0][j] = none;
    for (int k = 0; k < 4; k++)
      for (int m = 0; m < 1 << k; m++) made->sum[m + (1 << k)][j] = made->sum[m][j] + x[k] + x[k];
  }
}

// The sums of a block of positions for some channels, `stride` blocks apart.
static __attribute__((noinline)) void conv_signs_block(const SignsConv& c, const uint8_t* in, int first, int channels, int stride,
                                                       IntBlock* sums) {
  Patterns patterns[kFours];
  for (int start = 0; start < c.fours; start += kFours) {
    const int count = c.fours - start < kFours ? c.fours - start : kFours;
    for (int i = 0; i < count; i++) {
      const int step = (start + i) * 4;
      all_patterns(in, c.offset + step, c.steps - step < 4 ? c.steps - step : 4, patterns + i);
    }
    const uint8_t* pattern = c.patterns + size_t(first) * size_t(c.fours) + start;
    for (int channel = 0; channel < channels; channel++, pattern += c.fours) {
      IntBlock& sum = sums[channel * stride];
      Ints v[4];
      for (int j = 0; j < 4; j++) v[j] = start ? sum.v[j] : all_ints(0);
      for (int i = 0; i < count; i++) {
        const Patterns& p = patterns[i];
        for (int j = 0; j < 4; j++) v[j] += p.sum[pattern[i]][j];
      }
      for (int j = 0; j < 4; j++) sum.v[j] = v[j];
    }
  }
}

void conv_signs(const SignsConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  IntBlock sums[kSignsChannels][kTileBlocks];
  ConvWalk at = walk_from(c, begin);
  for (int64_t i = begin; i < end; i++, advance(c, &at)) {
    const size_t position = size_t(at.start + at.tile) * kMaxTile;
    const size_t left = c.end - position;
    const int blocks = left < kMaxTile ? int((left + kBytes - 1) / kBytes) : kTileBlocks;
    const int first = int(at.block) * kSignsChannels;
    const int channels = c.channels - first < kSignsChannels ? c.channels - first : kSignsChannels;
    for (int b = 0; b < blocks; b++) {
      const uint8_t* in = c.input + (position + size_t(b) * kBytes) * sizeof(int16_t);
      conv_signs_block(c, in, first, channels, kTileBlocks, &sums[0][b]);
    }
    for (int channel = 0; channel < channels; channel++) integer_steps(e, first + channel, position, blocks, sums[channel]);
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
