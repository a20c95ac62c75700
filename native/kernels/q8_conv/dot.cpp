// 8-bit convolution: lanes are pixels, four channels of a pixel are one dword, and a dot-product
// instruction (or what an instruction set has in its place) adds four products to each pixel's 32-bit sum.
//
// Halo positions hold the zero point, so that the sum over all taps of q * w needs only the constant
// `zero_point * sum of weights` subtracted to be the exact sum of (q - zero_point) * w.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

#if !defined(SIGNBIT_BUILD_NEON_DOT)
// Bytes are multiplied as they are: nothing to add to the four channels' sums.
static inline void sum_offsets(const uint8_t*, int, int32_t* offset) { memset(offset, 0, 16); }
#endif

#if defined(SIGNBIT_DOT_RUNS)

constexpr int kPack = 2;  // channels: fewer of them fit more steps in a run
constexpr size_t kStepBytes = size_t(kPack) * kQuadBytes;

// Sixteen-bit sums hold products of a byte with weights whose positive ones, and whose negative ones, come to no more.
constexpr int kRunWeight = 128;  // 255 * 128 = 32640

// What a step adds to each 16-bit sum: the weights of both signs, of each channel's two pairs.
struct Load {
  uint8_t of[2 * 2 * kPack];
};

static inline Load load_of(const int8_t* quads) {
  Load load;
  for (int pair = 0; pair < 2 * kPack; pair++) {
    int positive = 0, negative = 0;
    for (int k = 0; k < 2; k++) {
      const int w = quads[2 * pair + k];
      if (w > 0) positive += w;
      if (w < 0) negative -= w;
    }
    load.of[2 * pair] = uint8_t(positive);
    load.of[2 * pair + 1] = uint8_t(negative);  // 256 fits no byte, but is split before
  }
  return load;
}

static inline bool add_load(Load* to, const Load& load) {
  Load sum;
  int most = 0;
  for (size_t i = 0; i < sizeof sum.of; i++) {
    const int s = to->of[i] + load.of[i];
    most = s > most ? s : most;
    sum.of[i] = uint8_t(s);
  }
  if (most > kRunWeight) return false;
  *to = sum;
  return true;
}

// Takes one weight of each pair that is too heavy on its own out of `quads`, into `rest`. Returns whether there was one.
static bool split_heavy(int8_t* quads, int8_t* rest) {
  bool heavy = false;
  memset(rest, 0, 4 * kPack);
  for (int pair = 0; pair < 2 * kPack; pair++) {
    int8_t* w = quads + 2 * pair;
    const int sum = w[0] + w[1];
    if ((w[0] < 0) != (w[1] < 0) || (sum <= kRunWeight && sum >= -kRunWeight)) continue;
    rest[2 * pair + 1] = w[1];
    w[1] = 0;
    heavy = true;
  }
  return heavy;
}

// Steps go first-fit into the runs that were opened last, of which a full one makes room for another.
struct OpenRun {
  Load load;
  int32_t length;
  int32_t step[kMaxRun];
  int8_t quads[kMaxRun][4 * kPack];
};

int32_t pack_q8(const int8_t* weights, int32_t steps, uint8_t* packed, int32_t* order, Q8Runs* runs) {
  constexpr int kOpen = 12;
  // Runs of a length lie together: a first pass counts, a second one writes.
  int32_t at[kMaxRun + 1] = {}, total = 0;
  for (int pass = 0; pass < 2; pass++) {
    OpenRun open[kOpen];
    int opened = 0;
    int32_t count[kMaxRun + 1] = {};
    auto close = [&](const OpenRun& run) {
      if (pass)
        for (int32_t k = 0; k < run.length; k++) {
          const int32_t place = at[run.length]++;
          order[place] = run.step[k];
          memcpy(packed + size_t(place) * kStepBytes, run.quads[k], kStepBytes);
        }
      count[run.length]++;
    };
    auto add = [&](int32_t step, const int8_t* quads) {
      const Load load = load_of(quads);
      int i = 0;
      while (i < opened && !add_load(&open[i].load, load)) i++;
      if (i == opened) {
        if (opened == kOpen) {  // the longest makes room
          i = 0;
          for (int j = 1; j < kOpen; j++)
            if (open[j].length > open[i].length) i = j;
          close(open[i]);
        } else {
          opened++;
        }
        open[i].load = load;
        open[i].length = 0;
      }
      OpenRun& run = open[i];
      run.step[run.length] = step;
      memcpy(run.quads[run.length++], quads, sizeof run.quads[0]);
      if (run.length < kMaxRun) return;
      close(run);
      if (i < --opened) open[i] = open[opened];
    };
    for (int32_t step = 0; step < steps; step++) {
      int8_t quads[4 * kPack], rest[4 * kPack];
      memcpy(quads, weights + size_t(step) * sizeof quads, sizeof quads);
      const bool heavy = split_heavy(quads, rest);
      add(step, quads);
      if (heavy) add(step, rest);
    }
    for (int i = 0; i < opened; i++) close(open[i]);
    if (pass) break;
    runs->count[0] = 0;
    for (int length = kMaxRun; length >= 1; length--) {
      runs->count[length] = count[length];
      at[length] = total;
      total += length * count[length];
    }
  }
  return total;
}

constexpr int kDotVectors = 2;  // times kPack channels: 4 sums of a run and 4 of all of them in 16 registers

template <int kLength>
static inline __attribute__((always_inline)) void add_runs(int32_t count, const uint8_t* input, const int32_t*& offset,
                                                           const uint8_t*& w, Dots (*sum)[kPack]) {
  for (; count > 0; count--) {
    RunSums run[kDotVectors][kPack];
    for (int k = 0; k < kLength; k++, w += kStepBytes) {
      const uint8_t* seen = input + *offset++;
      Quads x[kDotVectors];
      for (int v = 0; v < kDotVectors; v++) {
        x[v] = load_quads(seen + 4 * v * kDots);
        pin(x[v]);
      }
      for (int j = 0; j < kPack; j++)
        for (int v = 0; v < kDotVectors; v++) {
          const Words m = multiply(x[v], w + j * kQuadBytes);
          run[v][j] = k ? add_words(run[v][j], m) : m;
          pin(run[v][j]);
        }
    }
    for (int j = 0; j < kPack; j++)
      for (int v = 0; v < kDotVectors; v++) {
        sum[v][j] = add_run(sum[v][j], run[v][j]);
        pin(sum[v][j]);
      }
  }
}

static void sum_products(const Q8Conv& c, int64_t block, const ConvSegment& s, const uint8_t* input,
                         int32_t (*sums)[kTile]) {
  const Q8Runs* runs = c.runs + block * (kQ8Channels / kPack);
  const uint8_t* weights = s.weights;
  const int32_t* offsets = s.offset;
  for (int j = 0; j < kQ8Channels; j += kPack, runs++) {
    const uint8_t* w = weights;
    const int32_t* offset = offsets;
    for (int i = 0; i < kTile; i += kDotVectors * kDots) {
      Dots sum[kDotVectors][kPack];
      for (int v = 0; v < kDotVectors; v++)
        for (int k = 0; k < kPack; k++) sum[v][k] = zero_dots();
      const uint8_t* from = input + 4 * i;
      w = weights;
      offset = offsets;
      static_assert(kMaxRun == 4, "a loop a length");
      add_runs<4>(runs->count[4], from, offset, w, sum);
      add_runs<3>(runs->count[3], from, offset, w, sum);
      add_runs<2>(runs->count[2], from, offset, w, sum);
      add_runs<1>(runs->count[1], from, offset, w, sum);
      for (int v = 0; v < kDotVectors; v++)
        for (int k = 0; k < kPack; k++) store_dots(&sums[j + k][i + v * kDots], sum[v][k]);
    }
    weights = w;
    offsets = offset;
  }
}

#else

constexpr int kPack = kQ8Channels;
constexpr size_t kStepBytes = size_t(kPack) * kQuadBytes;

int32_t pack_q8(const int8_t* weights, int32_t steps, uint8_t* packed, int32_t* order, Q8Runs* runs) {
  memset(runs, 0, sizeof *runs);
  for (int32_t step = 0; step < steps; step++) {
    order[step] = step;
    for (int j = 0; j < kQ8Channels; j++, weights += 4, packed += kQuadBytes) pack_quad(weights, packed);
  }
  return steps;
}

#if defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_NEON_DOT)
constexpr int kDotVectors = 4;  // times 4 channels: 16 sums in 32 registers
#else
constexpr int kDotVectors = 2;  // 8 sums in 16 registers (NEON: of two registers each, in 32)
#endif

static void sum_products(const Q8Conv&, int64_t, const ConvSegment& s, const uint8_t* input, int32_t (*sums)[kTile]) {
  for (int i = 0; i < kTile; i += kDotVectors * kDots) {
    Dots sum[kDotVectors][kQ8Channels];
    for (int v = 0; v < kDotVectors; v++)
      for (int j = 0; j < kQ8Channels; j++) sum[v][j] = zero_dots();
    const uint8_t* w = s.weights;
    for (int k = 0; k < s.steps; k++, w += kStepBytes) {
      const uint8_t* seen = input + s.offset[k];
      Quads x[kDotVectors];
      for (int v = 0; v < kDotVectors; v++) x[v] = load_quads(seen + 4 * (i + v * kDots));
      for (int j = 0; j < kQ8Channels; j++)
        for (int v = 0; v < kDotVectors; v++) sum[v][j] = add_dots(sum[v][j], x[v], w + j * kQuadBytes);
    }
    for (int v = 0; v < kDotVectors; v++)
      for (int j = 0; j < kQ8Channels; j++) store_dots(&sums[j][i + v * kDots], sum[v][j]);
  }
}

#endif

void q8_conv(const Q8Conv& c, const Epilogue& e, int64_t begin, int64_t end) {
  ConvWalk at = walk_from(c, begin);
  for (int64_t item = begin; item < end; item++, advance(c, &at)) {
    const ConvSegment& s = c.segments[c.first[at.block]];
    const size_t position = size_t(at.start + at.tile) * kTile;
    alignas(64) int32_t sums[kQ8Channels][kTile];
    sum_products(c, at.block, s, s.input + 4 * position, sums);
    int32_t excess[kQ8Channels];
    sum_offsets(s.weights, s.steps, excess);
    for (int j = 0; j < s.channels; j++) {
      const int channel = s.channel + j;
      const int32_t correction = c.correction[channel] - excess[j];
      run_epilogue(e, channel, position, kTile / kBytes, [&](int i) __attribute__((always_inline)) {
        IntBlock v = load_ints(sums[j] + i * kBytes);
        for (int k = 0; k < 4; k++) v.v[k] -= correction;
        return v;
      });
    }
  }
}

int q8_quad_bytes() { return kQuadBytes; }
int q8_pack() { return kPack; }

}  // namespace SIGNBIT_NS
}  // namespace signbit
