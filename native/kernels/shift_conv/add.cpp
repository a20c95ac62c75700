// Convolution without multiplications: lanes are pixels, weights are sums of signed powers of two.
//
// From the highest power on, all taps that have a digit of that power are added or subtracted, and the sum so far is doubled
// before the next power's. Bytes (8-bit maps) are summed in pairs, in 16-bit lanes, modulo 2^16: `whole` adds both of a pair as
// one number, `high` the upper one alone, and the lower one's sum is what is left. That goes on as long as the upper sum
// surely fits its lane; then both widen. Other numbers are summed in 32-bit lanes, modulo 2^32.
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

struct PairSums {
  BytePairs whole, high;
};

// Sums of kBlocks blocks of positions.
template <int kBlocks>
static __attribute__((noinline)) void shift_conv_8(ShiftRuns r, const uint8_t* in, IntBlock* total) {
  PairSums sum[kBlocks];
  for (int i = 0; i < kBlocks; i++) sum[i].whole = sum[i].high = BytePairs{};
  bool first = true;
  const int32_t* offset = r.offset;
  for (const ShiftRun* run = r.first; run < r.end; run++) {
    const int shift = run->shift, up = run->total;
    for (int i = 0; i < kBlocks; i++) {
      sum[i].whole <<= shift;
      sum[i].high <<= shift;
    }
    for (const int32_t* end = offset + run->add; offset < end; offset++)
      for (int i = 0; i < kBlocks; i++) {
        const BytePairs x = byte_pairs_at(in + *offset + i * kBytes);
        sum[i].whole += x;
        sum[i].high += x >> 8;
      }
    for (const int32_t* end = offset + run->subtract; offset < end; offset++)
      for (int i = 0; i < kBlocks; i++) {
        const BytePairs x = byte_pairs_at(in + *offset + i * kBytes);
        sum[i].whole -= x;
        sum[i].high -= x >> 8;
      }
    if (up < 0) continue;
    for (int i = 0; i < kBlocks; i++) {
      const IntBlock wide = to_ints(interleave(Shorts(sum[i].whole - (sum[i].high << 8)), Shorts(sum[i].high)));
      for (int j = 0; j < 4; j++) total[i].v[j] = first ? wide.v[j] : (total[i].v[j] << up) + wide.v[j];
      sum[i].whole = sum[i].high = BytePairs{};
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
  } else if (c.element == 1) {
    constexpr int kAtOnce = kTileBlocks < 4 ? kTileBlocks : 4;
    const uint8_t* in = c.input + position;
    for_blocks<kAtOnce>(
        blocks, [&](int i) { shift_conv_8<kAtOnce>(runs, in + i * kBytes, tile + i); },
        [&](int i) { shift_conv_8<1>(runs, in + i * kBytes, tile + i); });
    const int32_t subtract = c.subtract[channel];
    for (int i = 0; i < blocks; i++)
      for (int j = 0; j < 4; j++) tile[i].v[j] -= subtract;
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
  ConvWalk at = walk_from(c, begin);
  for (int64_t i = begin; i < end; i++, advance(c, &at)) {
    const size_t position = size_t(at.start + at.tile) * kMaxTile;
    const int first = int(at.block) * kBinaryChannels;
    const int last = first + kBinaryChannels < c.channels ? first + kBinaryChannels : c.channels;
    for (int channel = first; channel < last; channel++) shift_conv_tile(c, e, channel, position);
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
