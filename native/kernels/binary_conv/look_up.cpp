// Binary convolution by nibble-table look-up: lanes are pixels.
//
// Four input channels of a pixel are one byte 0..15 of a nibble plane. Two output channels share one look-up:
// entry x of table w0 | w1 << 4 is matches(w0, x) | matches(w1, x) << 4, so weights stay at one bit each and
// index the table directly. Bounds: a field counts at most 4 matches a look-up, so three look-ups (12 <= 15) are
// added before the fields are split, and 21 such groups (252 <= 255) before bytes widen to 16 bits. A byte outside the image has its top bit set and looks up 0. Groups of three run over taps and
// channels alike, through a list of offsets, so that no group is left short but the very last.
//
// Where a group of the convolution begins or ends within a nibble, the other groups' bits are cleared as they are
// loaded. Their weight bits are 1, so that they match nothing.
//
// Sums start at -valid / 2 (BinaryConv::base) and count matches, so that they end as half the dot product. They stay
// as widening leaves them, a vector's even positions before its odd ones: comparing them puts the bits back in order.
#include "../../simd/simd.h"
#include "../declare.h"
#include "sums.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kPairs = kBinaryChannels / 2;
constexpr int kBinaryTile = kMaxTile;

// `base` plus the matches of V vectors of positions with NP of the S pairs of channels that a step has weights for, into
// out[2 * NP]. Needs V * NP * 3 vectors for sums, and a few more.
template <int V, int NP, int S, bool kMasked>
static inline __attribute__((always_inline)) void count_matches(const ConvSegment& s, const uint8_t* in, const uint8_t* w,
                                                                const int16_t* base, Sums* out) {
  const int32_t* offset = s.offset;
  const uint8_t* mask = s.mask;
  FieldSums fields[V][NP];
  Bytes sum[V][NP];
  auto look_up_step = [&](int k, bool first) __attribute__((always_inline)) {
    Bytes x[V];
    const uint8_t* seen = in + offset[k];
    for (int i = 0; i < V; i++) {
      x[i] = load_bytes(seen + i * kBytes);
      if (kMasked) x[i] = and_bytes(x[i], load_table(kMaskTable.entry[mask[k]]));
      if (NP > 1) pin(x[i]);  // loaded once; for one look-up it may stay that instruction's operand
    }
    for (int j = 0; j < NP; j++) {
      const Bytes table = load_table(kPairTable.entry[w[k * S + j]]);
      for (int i = 0; i < V; i++) {
        const Bytes m = look_up(table, x[i]);
        sum[i][j] = first ? m : add_bytes(sum[i][j], m);
        pin(sum[i][j]);
      }
    }
  };
  auto split = [&]() __attribute__((always_inline)) {
    for (int i = 0; i < V; i++)
      for (int j = 0; j < NP; j++) add_fields(fields[i][j], sum[i][j]);
  };
  auto pass = [&](int steps) __attribute__((always_inline)) {
    offset += steps;
    w += steps * S;
    if (kMasked) mask += steps;
  };
  const int16_t* from = base;  // where the sums so far stand, and from one channel to the next
  size_t step = 0;
  for (int left = s.steps; left > 0;) {
    for (int i = 0; i < V; i++)
      for (int j = 0; j < NP; j++) fields[i][j] = {zero_bytes(), zero_bytes()};
    const int whole = left / 3 < kGroupsBeforeWidening ? left / 3 : kGroupsBeforeWidening;
    left -= 3 * whole;
    for (int group = whole; group > 0; group--) {
      look_up_step(0, true);
      look_up_step(1, false);
      look_up_step(2, false);
      pass(3);
      split();
    }
    if (whole < kGroupsBeforeWidening && left > 0) {
      look_up_step(0, true);
      if (left == 2) look_up_step(1, false);
      split();
      left = 0;
    }
    for (int j = 0; j < NP; j++)
      for (int i = 0; i < V; i++) {
        const size_t at = size_t(i) * kBytes;
        Pairs low, high;
        widen(fields[i][j], low, high);
        store_pairs(out[2 * j] + at, add_pairs(load_pairs(from + 2 * size_t(j) * step + at), low));
        store_pairs(out[2 * j + 1] + at, add_pairs(load_pairs(from + (2 * size_t(j) + 1) * step + at), high));
      }
    from = out[0];
    step = kMaxTile;
  }
}

// As many vectors of positions as one pass takes, and of pairs of channels: what the registers hold. A single pair lets its
// loads of pixels be operands of the look-ups, which spares instructions; several share them. Fewer vectors leave room for
// more pairs.
#if defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_NEON) || defined(SIGNBIT_BUILD_NEON_DOT)
constexpr int kVectors = 2;  // 32 registers
constexpr int pairs_at_once(int) { return 4; }
#else
constexpr int kVectors = 4;  // 16 registers
constexpr int pairs_at_once(int vectors) { return vectors > 2 ? 1 : vectors == 2 ? 2 : 4; }
#endif

template <int V, int S, bool kMasked>
static inline __attribute__((always_inline)) void count_pairs(const ConvSegment& s, const uint8_t* in, const int16_t* base,
                                                              Sums* out) {
  constexpr int NP = pairs_at_once(V) < S ? pairs_at_once(V) : S;
  for (int j = 0; j < S; j += NP) count_matches<V, NP, S, kMasked>(s, in, s.weights + j, base, out + 2 * j);
}

template <int V, bool kMasked>
static __attribute__((noinline)) void segment_matches(const ConvSegment& s, const uint8_t* in, const int16_t* base, Sums* out) {
  if (s.pairs == 1)
    count_pairs<V, 1, kMasked>(s, in, base, out);
  else if (s.pairs == 2)
    count_pairs<V, 2, kMasked>(s, in, base, out);
  else
    count_pairs<V, kPairs, kMasked>(s, in, base, out);
}

template <bool kMasked>
static inline void count(const ConvSegment& s, const uint8_t* in, const int16_t* base, Sums* out, int vectors) {
  for (int done = 0, left = vectors; left > 0;) {
    // A lone vector behind four is slow: three and two are faster.
    const int now = left <= kVectors ? left : left == kVectors + 1 && kVectors > 2 ? kVectors - 1 : kVectors;
    const uint8_t* from = in + done * kBytes;
    Sums* to = reinterpret_cast<Sums*>(&out[0][done * kBytes]);
    const int16_t* start = base + done * kBytes;
    if (now == 1) segment_matches<1, kMasked>(s, from, start, to);
    if (now == 2) segment_matches<2, kMasked>(s, from, start, to);
#if !(defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_NEON) || defined(SIGNBIT_BUILD_NEON_DOT))
    if (now == 3) segment_matches<3, kMasked>(s, from, start, to);
    if (now == 4) segment_matches<4, kMasked>(s, from, start, to);
#endif
    done += now;
    left -= now;
  }
}

static inline int count_vectors(const BinaryConv& c, size_t position) {
  const size_t left = c.end - position;
  return left < kMaxTile ? int((left + kBytes - 1) / kBytes) : kMaxTile / kBytes;
}

static inline void count_tile(const BinaryConv& c, const ConvSegment& s, size_t position, Sums* out, int vectors) {
  const int16_t* base = c.base + position;
  if (s.mask)
    count<true>(s, s.input + position, base, out, vectors);
  else
    count<false>(s, s.input + position, base, out, vectors);
}

static void run_tile(const BinaryConv& c, const Epilogue& e, const ConvSegment& s, size_t position) {
  alignas(64) int16_t out[kBinaryChannels][kMaxTile];
  const int vectors = count_vectors(c, position);
  if (c.above) claim_nibbles(e, s.channel, s.channels, position, vectors);
  count_tile(c, s, position, out, vectors);
  finish_sums(c, e, s.channel, s.channels, position, out, vectors);
}

static void run_tile_integer(const BinaryConv& c, const Epilogue& e, const ConvSegment& s, size_t position) {
  alignas(64) int16_t out[kBinaryChannels][kMaxTile];
  const int vectors = count_vectors(c, position);
  if (c.above) claim_nibbles(e, s.channel, s.channels, position, vectors);
  count_tile(c, s, position, out, vectors);
  finish_sums_integer(c, e, s.channel, s.channels, position, out, vectors);
}

void binary_conv(const BinaryConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  ConvWalk at = walk_from(c, begin);
  for (int64_t i = begin; i < end; i++, advance(c, &at)) {
    const size_t position = size_t(at.start + at.tile) * kBinaryTile;
    for (int32_t k = c.first[at.block]; k < c.first[at.block + 1]; k++) run_tile(c, e, c.segments[k], position);
  }
}

void binary_conv_integer(const BinaryConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  ConvWalk at = walk_from(c, begin);
  for (int64_t i = begin; i < end; i++, advance(c, &at)) {
    const size_t position = size_t(at.start + at.tile) * kBinaryTile;
    for (int32_t k = c.first[at.block]; k < c.first[at.block + 1]; k++) run_tile_integer(c, e, c.segments[k], position);
  }
}

int binary_conv_vector() { return kBytes; }

}  // namespace SIGNBIT_NS
}  // namespace signbit
