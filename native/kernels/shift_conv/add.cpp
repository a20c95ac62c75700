// Convolution without multiplications: lanes are pixels, weights are sums of signed powers of two.
//
// From the highest power on, all taps that have a digit of that power are added or subtracted, and the sum so far is doubled
// before the next power's. Where numbers are small (8-bit maps less their zero point), the taps of a power are summed in
// 16-bit lanes, in runs that cannot leave them, and widen once a run; else in 32-bit lanes, modulo 2^32.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/integer.h"

namespace signbit {
namespace SIGNBIT_NS {

// The runs of a channel, and their taps.
struct ShiftRuns {
  const ShiftRun *first, *end;
  const int32_t* offset;
};

static inline const int16_t* tap16(const uint8_t* in, int32_t offset) { return reinterpret_cast<const int16_t*>(in + offset); }

// Sums of kBlocks blocks of positions in 16-bit lanes.
template <int kBlocks>
static __attribute__((noinline)) void shift_conv_16(ShiftRuns r, const uint8_t* in, IntBlock* total) {
  bool first = true;
  const int32_t* offset = r.offset;
  for (const ShiftRun* run = r.first; run < r.end; run++) {
    Shorts sum[kBlocks][2];
    for (int i = 0; i < kBlocks; i++) sum[i][0] = sum[i][1] = all_shorts(0);
    for (const int32_t* end = offset + run->add; offset < end; offset++)
      for (int i = 0; i < kBlocks; i++)
        for (int j = 0; j < 2; j++) sum[i][j] += shorts_at(tap16(in, *offset) + i * kBytes + j * kShorts);
    for (const int32_t* end = offset + run->subtract; offset < end; offset++)
      for (int i = 0; i < kBlocks; i++)
        for (int j = 0; j < 2; j++) sum[i][j] -= shorts_at(tap16(in, *offset) + i * kBytes + j * kShorts);
    const int shift = run->shift;
    for (int i = 0; i < kBlocks; i++) {
      const IntBlock wide = to_ints({{sum[i][0], sum[i][1]}});
      for (int j = 0; j < 4; j++) total[i].v[j] = first ? wide.v[j] : (total[i].v[j] << shift) + wide.v[j];
    }
    first = false;
  }
}

// The same in 32-bit lanes, of numbers of type T.
template <typename T, int kBlocks>
static __attribute__((noinline)) void shift_conv_32(ShiftRuns r, const uint8_t* in, IntBlock* total) {
  Ints sum[kBlocks][4];
  for (int i = 0; i < kBlocks; i++)
    for (int j = 0; j < 4; j++) sum[i][j] = all_ints(0);
  const int32_t* offset = r.offset;
  for (const ShiftRun* run = r.first; run < r.end; run++) {
    const int shift = run->shift;
    for (int i = 0; i < kBlocks; i++)
      for (int j = 0; j < 4; j++) sum[i][j] <<= shift;
    for (const int32_t* end = offset + run->add; offset < end; offset++)
      for (int i = 0; i < kBlocks; i++)
        for (int j = 0; j < 4; j++) sum[i][j] += ints_at(reinterpret_cast<const T*>(in + *offset) + i * kBytes + j * kInts);
    for (const int32_t* end = offset + run->subtract; offset < end; offset++)
      for (int i = 0; i < kBlocks; i++)
        for (int j = 0; j < 4; j++) sum[i][j] -= ints_at(reinterpret_cast<const T*>(in + *offset) + i * kBytes + j * kInts);
  }
  for (int i = 0; i < kBlocks; i++)
    for (int j = 0; j < 4; j++) total[i].v[j] = sum[i][j];
}

// As many blocks at once as the registers hold sums of, then one by one.
template <int kAtOnce, typename Most, typename One>
static inline void for_blocks(int blocks, Most most, One one) {
  int i = 0;
  for (; i + kAtOnce <= blocks; i += kAtOnce) most(i);
  for (; i < blocks; i++) one(i);
}

static void shift_conv_tile(const ShiftConv& c, const Epilogue& e, int channel, size_t position) {
  IntBlock tile[kTileBlocks];
  const size_t left = c.end - position;
  const int blocks = left < kMaxTile ? int((left + kBytes - 1) / kBytes) : kTileBlocks;
  const ShiftRuns runs = {c.runs + c.first_run[channel], c.runs + c.first_run[channel + 1], c.offset + c.first_offset[channel]};
  if (runs.first == runs.end) {
    for (int i = 0; i < blocks; i++)
      for (int j = 0; j < 4; j++) tile[i].v[j] = all_ints(0);
  } else if (c.narrow) {
    const uint8_t* in = c.input + position * sizeof(int16_t);
    for_blocks<(kTileBlocks < 4 ? kTileBlocks : 4)>(
        blocks, [&](int i) { shift_conv_16<(kTileBlocks < 4 ? kTileBlocks : 4)>(runs, in + i * kBytes * 2, tile + i); },
        [&](int i) { shift_conv_16<1>(runs, in + i * kBytes * 2, tile + i); });
  } else if (c.element == 2) {
    const uint8_t* in = c.input + position * sizeof(int16_t);
    for_blocks<2>(
        blocks, [&](int i) { shift_conv_32<int16_t, 2>(runs, in + i * kBytes * 2, tile + i); },
        [&](int i) { shift_conv_32<int16_t, 1>(runs, in + i * kBytes * 2, tile + i); });
  } else {
    const uint8_t* in = c.input + position * sizeof(int32_t);
    for_blocks<2>(
        blocks, [&](int i) { shift_conv_32<int32_t, 2>(runs, in + i * kBytes * 4, tile + i); },
        [&](int i) { shift_conv_32<int32_t, 1>(runs, in + i * kBytes * 4, tile + i); });
  }
  integer_steps(e, channel, position, blocks, tile);
}

void conv_shift(const ShiftConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  ConvWalk at = walk_from(c, begin, kMaxTile);
  for (int64_t i = begin; i < end; i++, advance(c, &at)) {
    const size_t position = size_t(at.start + at.tile) * kMaxTile;
    const int first = int(at.block) * kBinaryChannels;
    const int last = first + kBinaryChannels < c.channels ? first + kBinaryChannels : c.channels;
    for (int channel = first; channel < last; channel++) shift_conv_tile(c, e, channel, position);
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
