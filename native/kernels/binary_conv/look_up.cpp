// Binary convolution by nibble-table look-up: lanes are pixels.
//
// Four input channels of a pixel are one byte 0..15 of a nibble plane. Two output channels share one look-up:
// entry x of table w0 | w1 << 4 is matches(w0, x) | matches(w1, x) << 4, so weights stay at one bit each and
// index the table directly. Bounds: a field counts at most 4 matches a look-up, so three look-ups (12 <= 15) are
// added before the fields are split, and 21 such groups (252 <= 255) before bytes widen to 16 bits. A
// byte outside the image has its top bit set and looks up 0. Groups of three run over taps and channels
// alike, through a list of offsets, so that no group is left short but the very last.
//
// Where a group of the convolution begins or ends within a nibble, the other groups' bits are cleared as they are
// loaded. Their weight bits are 1, so that they match nothing.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kGroupsBeforeWidening = 21;
constexpr int kPairs = kBinaryChannels / 2;

// Matches of V vectors of positions with NP of the S pairs of channels that a step has weights for, into
// out[2 * NP][kMaxTile].
template <int V, int NP, int S, bool kMasked>
static inline __attribute__((always_inline)) void count_matches(const ConvSegment& s, const uint8_t* in,
                                                                const uint8_t* w, uint16_t (*out)[kMaxTile]) {
  const int32_t* offset = s.offset;
  const int steps = s.steps;
  for (int j = 0; j < 2 * NP; j++)
    for (int i = 0; i < V * kBytes; i++) out[j][i] = 0;
  Bytes low[V][NP], high[V][NP];
  auto clear = [&] {
    for (int i = 0; i < V; i++)
      for (int j = 0; j < NP; j++) low[i][j] = high[i][j] = zero_bytes();
  };
  auto widen = [&] {
    for (int i = 0; i < V; i++)
      for (int j = 0; j < NP; j++) {
        add_widened(&out[2 * j][i * kBytes], low[i][j]);
        add_widened(&out[2 * j + 1][i * kBytes], high[i][j]);
      }
  };
  Bytes sum[V][NP];
  auto look_up_step = [&](int k, bool first) __attribute__((always_inline)) {
    Bytes x[V];
    for (int i = 0; i < V; i++) {
      x[i] = load_bytes(in + offset[k] + i * kBytes);
      if (kMasked) x[i] = and_bytes(x[i], load_table(kMaskTable.entry[s.mask[k]]));
    }
    for (int j = 0; j < NP; j++) {
      const Bytes table = load_table(kPairTable.entry[w[size_t(k) * S + j]]);
      for (int i = 0; i < V; i++) {
        const Bytes m = look_up(table, x[i]);
        sum[i][j] = first ? m : add_bytes(sum[i][j], m);
      }
    }
  };
  auto split = [&]() __attribute__((always_inline)) {
    for (int i = 0; i < V; i++)
      for (int j = 0; j < NP; j++) {
        low[i][j] = add_bytes(low[i][j], low_fields(sum[i][j]));
        high[i][j] = add_bytes(high[i][j], high_fields(sum[i][j]));
      }
  };
  for (int k = 0; k < steps;) {
    clear();
    const int whole = (steps - k) / 3;
    for (int left = whole < kGroupsBeforeWidening ? whole : kGroupsBeforeWidening; left > 0; left--, k += 3) {
      look_up_step(k, true);
      look_up_step(k + 1, false);
      look_up_step(k + 2, false);
      split();
    }
    if (whole < kGroupsBeforeWidening && k < steps) {
      look_up_step(k, true);
      if (k + 1 < steps) look_up_step(k + 1, false);
      k = steps;
      split();
    }
    widen();
  }
}

template <int N>
static inline void finish(const BinaryConv& c, const Epilogue& e, int channel, size_t p,
                          const uint16_t* matches) {
  if (c.valid16) {
    const int16_t* valid = c.valid16 + p;
    int16_t v[N];
    for (int i = 0; i < N; i++) v[i] = int16_t(2 * matches[i] - valid[i]);
    run_epilogue<N, int16_t>(e, channel, p, v);
  } else {
    const int32_t* valid = c.valid32 + p;
    int32_t v[N];
    for (int i = 0; i < N; i++) v[i] = 2 * int32_t(matches[i]) - valid[i];
    run_epilogue<N, int32_t>(e, channel, p, v);
  }
}

#if defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_NEON) || defined(SIGNBIT_BUILD_NEON_DOT)
constexpr int kVectors = 2, kPairsAtOnce = 4;  // 32 registers: 24 sums, 2 activations, a table
#else
constexpr int kVectors = 2, kPairsAtOnce = 2;  // 16 registers
#endif
constexpr int kPositions = kVectors * kBytes;  // 128, 64 or 32: less than a tile is computed in parts

template <int V, bool kMasked>
static inline void segment_matches(const ConvSegment& s, const uint8_t* in, uint16_t (*out)[kMaxTile]) {
  if (s.pairs == 1) {
    count_matches<V, 1, 1, kMasked>(s, in, s.weights, out);
  } else if (s.pairs == 2) {
    count_matches<V, 2, 2, kMasked>(s, in, s.weights, out);
  } else {
    for (int j = 0; j < kPairs; j += kPairsAtOnce)
      count_matches<V, kPairsAtOnce, kPairs, kMasked>(s, in, s.weights + j, out + 2 * j);
  }
}

template <int N>
static void run_tile(const BinaryConv& c, const Epilogue& e, const ConvSegment& s, size_t position) {
  alignas(64) uint16_t out[kBinaryChannels][kMaxTile];
  constexpr int kStep = N < kPositions ? N : kPositions;
  for (int i = 0; i < N; i += kStep) {
    uint16_t(*part)[kMaxTile] = reinterpret_cast<uint16_t(*)[kMaxTile]>(&out[0][i]);
    const uint8_t* in = s.input + position + i;
    if (s.mask)
      segment_matches<kStep / kBytes, true>(s, in, part);
    else
      segment_matches<kStep / kBytes, false>(s, in, part);
  }
  for (int j = 0; j < s.channels; j++) finish<N>(c, e, s.channel + j, position, out[j]);
}

constexpr int kBinaryTile = kPositions > kTile ? kPositions : kTile;

void binary_conv(const BinaryConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  ConvWalk at = walk_from(c, begin, kBinaryTile);
  for (int64_t i = begin; i < end; i++, advance(c, &at)) {
    const size_t position = size_t(at.start + at.tile) * kBinaryTile;
    for (int32_t k = c.first[at.block]; k < c.first[at.block + 1]; k++) {
      if (c.body - position >= kBinaryTile)
        run_tile<kBinaryTile>(c, e, c.segments[k], position);
      else
        run_tile<kTile>(c, e, c.segments[k], position);
    }
  }
}

int binary_conv_tile() { return kBinaryTile; }

}  // namespace SIGNBIT_NS
}  // namespace signbit
