#include "seeds.h"

#include "net.h"

namespace fuzz {
namespace {

// One call with a side effect a line: compilers differ in the order in which they evaluate arguments, and the committed
// files must come out the same everywhere.

Net binary_convolutions() {
  Net n(5);
  const uint32_t b = n.bits(0), y = n.value(kF32, 6);
  builder::StepDef rprelu = {3, kNone, {}, {n.reals(6, -1, 1), n.reals(6, 0, 1), n.reals(6, -1, 1)}};
  n.conv(b, 6, {3, 1, 1, 1, 1, -1}, {n.affine(6), rprelu, n.store(y)});
  n.give(y);
  n.give(n.conv_f32(b, 3, {3, 2, 2, 2, 1, 1}));
  return n;
}

Net thresholds() {
  Net n(8);
  const uint32_t b = n.value(kB1, 6);
  const uint32_t flip = n.bytes_of(6, 4, 1);
  const builder::StepDef threshold = {8, b, {}, {n.integers(6, -9, 0), n.integers(6, 3, 36), flip}};
  n.conv(n.bits(0), 6, {3, 1, 1, 1, 2, 0}, {threshold});
  const uint32_t y = n.value(kF32, 4);
  n.conv(b, 4, {1, 2, 0, 1, 1, 0}, {n.affine(4), {4, kNone, {}, {n.reals(4, 0, 1)}}, n.store(y)});
  n.give(y);
  return n;
}

Net depthwise() {
  Net n(6);
  n.give(n.conv_f32(n.bits(0), 6, {3, 1, 1, 1, 6, 0}));
  return n;
}

Net eight_bits() {
  Net n(3);
  n.normalised = 1;
  n.mean = n.reals(3, 0.4f, 0.6f);
  n.std = n.reals(3, 0.2f, 0.3f);
  const uint32_t q = n.value(kU8, 3);
  n.pointwise(0, {{10, q, {word_of(40.0f), 117, 255}, {}}});
  n.give(n.conv_f32(q, 5, {3, 2, 1, 1, 1, 117}));
  return n;
}

// Weights and inputs of 4 bits, and weights that are small by chance.
Net small_weights() {
  Net n(3);
  const uint32_t q = n.value(kU8, 3), y = n.value(kF32, 5), p = n.value(kU8, 5), z = n.value(kI32, 2);
  n.pointwise(0, {{10, q, {word_of(3.0f), 5, 15}, {}}});
  const builder::StepDef affine = n.affine(5), bias = {17, kNone, {}, {n.integers(2, -9, 9)}};
  n.conv(q, 5, {3, 1, 1, 1, 1, 5}, {affine, n.store(y), {10, p, {word_of(2.0f), 0, 15}, {}}}, {}, false, true);
  n.give(y);
  n.give(n.conv(p, 2, {1, 1, 0, 1, 1, 0}, {bias, n.store(z)}, {}, true, true));
  return n;
}

Net four_bits() {
  Net n(4);
  const uint32_t b = n.bits(0), a = n.value(kI4, 4), s = n.value(kI4, 4), c = n.value(kB1, 4), flip = n.bytes_of(4, 4, 1);
  n.conv(b, 4, {}, {{5, kNone, {3}, {n.integers(4, 1, 3), n.integers(4, -8, 8)}}, n.store(a)});
  std::vector<int32_t> cuts;
  for (int32_t i = 0; i < 60; i++) cuts.push_back(2 * (i % 15) - 14);
  const uint32_t ladder = n.add(builder::tensor(1, cuts));
  n.conv(b, 4, {},
         {{6, kNone, {}, {ladder, flip}}, n.store(s), {2, a, {}, {}}, {8, c, {}, {n.integers(4, -3, 0), n.integers(4, 1, 8), flip}}},
         {a});
  n.give(n.conv_f32(c, 2, {}));
  return n;
}

Net pools() {
  Net n(5);
  const uint32_t m = n.plain(3, {0}, kF32, 5, {3, 3, 2, 2, 1, 1, 1, 1, 1}, {kNone});
  const uint32_t flip = n.bytes_of(5, 4, 1);
  const uint32_t b = n.plain(3, {n.bits(m)}, kB1, 5, {2, 2, 1, 1, 1, 1, 2, 1, 0}, {flip});
  n.give(n.plain(5, {b}, kF32, 5, {}), 1);
  n.give(n.plain(4, {m}, kF32, 5, {2, 2, 2, 2, 1, 1, 1, 1}));
  n.give(n.plain(5, {m}, kF32, 5, {}), 1);
  return n;
}

Net adaptive_pools() {
  Net n(3);
  n.give(n.plain(10, {0}, kF32, 3, {2, 3, 0}));
  n.give(n.plain(10, {0}, kF32, 3, {7, 1, 1}));
  return n;
}

Net channels() {
  Net n(4);
  const uint32_t b = n.bits(0), c = n.value(kB1, 4);
  n.conv(b, 4, {}, {n.affine(4), n.sign(c)});
  const uint32_t joined = n.plain(7, {b, c}, kB1, 7, {}, {n.add(builder::tensor(1, std::vector<int32_t>{7, 0, 1, 6, 3, 2, 0}))});
  const uint32_t y = n.conv_f32(joined, 3, {});
  n.give(n.plain(7, {y, 0}, kF32, 2, {}, {n.add(builder::tensor(1, std::vector<int32_t>{6, 1}))}));
  return n;
}

Net resizes() {
  Net n(4);
  const uint32_t b = n.plain(8, {n.bits(0)}, kB1, 4, {0, 0, 2, 2, 0, 0});
  const uint32_t y = n.conv_f32(b, 2, {3, 2, 1, 1, 1, 0});
  n.give(n.plain(8, {y}, kF32, 2, {1, 0, 0, 0, 5, 9}));
  n.give(n.plain(8, {y, b}, kF32, 2, {1, 1, 0, 0, 0, 0}));
  return n;
}

Net pixel_shuffles() {
  Net n(4);
  const uint32_t y = n.conv_f32(n.bits(0), 12, {});
  n.give(n.plain(9, {y}, kF32, 3, {2}));
  n.give(n.conv_f32(n.plain(9, {n.bits(y)}, kB1, 3, {2}), 2, {1, 1, 0, 1, 1, 0}));
  return n;
}

Net gates() {
  Net n(6);
  const uint32_t b = n.bits(0), pooled = n.plain(5, {b}, kF32, 6, {}), gate = n.value(kF32, 6), one = n.value(kF32, 1);
  const builder::StepDef sigmoid = {13, kNone, {}, {}};
  n.pointwise(pooled, {n.affine(6), sigmoid, n.store(gate)});
  n.conv(b, 1, {}, {n.affine(1), n.store(one)});
  const uint32_t y = n.value(kF32, 6), z = n.value(kF32, 6);
  n.conv(b, 6, {}, {n.affine(6), {11, gate, {}, {}}, {2, one, {}, {}}, {12, kNone, {word_of(0.0f), word_of(6.0f)}, {}}, n.store(y)},
         {gate, one});
  n.pointwise(b, {{11, y, {}, {}}, n.store(z)}, {y});
  n.give(z);
  return n;
}

// 16-bit maps: a stem, a layer with a shortcut, pools, a head.
Net integers() {
  Net n(3);
  const uint32_t q = n.value(kU8, 3), a = n.value(kI16, 6), b = n.value(kB1, 6), c = n.value(kI16, 6), d = n.value(kB1, 6);
  n.pointwise(0, {{10, q, {word_of(40.0f), 117, 255}, {}}});
  const builder::StepDef sum = n.shift_sum(6, 1), zero = {8, b, {}, {n.integers(6, -9, 9), n.integers(6, 99, 200), n.bytes_of(6, 4, 1)}};
  n.conv(q, 6, {3, 1, 1, 1, 1, 117}, {sum, n.store(a), zero}, {}, true);
  const builder::StepDef digits = n.shift_sum(6, 2), prelu = n.shift_prelu(6);
  const builder::StepDef sign = {8, d, {}, {n.integers(6, -9, 9), n.integers(6, 99, 200), n.bytes_of(6, 4, 1)}};
  n.conv(b, 6, {}, {digits, {2, a, {}, {}}, prelu, sign, n.store(c)}, {a});
  const uint32_t m = n.plain(3, {c}, kI16, 6, {3, 3, 2, 2, 1, 1, 1, 1, 0}, {kNone});
  const uint32_t h = n.plain(4, {m}, kI16, 6, {1, 1, 2, 1, 0, 0, 0, 0});
  const uint32_t joined = n.plain(7, {h, h}, kI16, 4, {}, {n.add(builder::tensor(1, std::vector<int32_t>{7, 0, 3, 11}))});
  const uint32_t y = n.value(kI32, 4), z = n.value(kI32, 3);
  const builder::StepDef bias = {17, kNone, {}, {n.integers(4, -9, 9)}};
  n.pointwise(joined, {bias, n.store(y)});
  n.give(y);
  n.give(n.conv(joined, 3, {1, 1, 0, 1, 1, 0}, {n.store(z)}, {}, true));
  return n;
}

// The sum of a map has one size alone: of a crop that leaves one pixel.
Net integer_sums() {
  Net n(2);
  const uint32_t q = n.value(kI16, 2);
  n.pointwise(0, {{16, q, {word_of(100.0f)}, {}}});
  const uint32_t one = n.value(kF32, 2), small = n.value(kI16, 2);
  const uint32_t pooled = n.plain(10, {0}, kF32, 2, {1, 1, 0});
  n.pointwise(pooled, {n.affine(2), n.store(one)});
  n.pointwise(one, {{16, small, {word_of(100.0f)}, {}}});
  const uint32_t sum = n.plain(12, {small}, kI32, 2, {1}), y = n.value(kI32, 5);
  const builder::StepDef bias = {17, kNone, {}, {n.integers(5, -9, 9)}};
  n.give(n.conv(sum, 5, {1, 1, 0, 1, 1, 0}, {bias, n.store(y)}, {}, true), 1);
  return n;
}

// Version 1: pooling with six attributes.
Net first_version() {
  Net n(3);
  n.version = n.header_version = 1;
  const uint32_t m = n.plain(3, {0}, kF32, 3, {2, 2, 2, 2, 1, 1}, {kNone});
  const uint32_t y = n.value(kF32, 3);
  const builder::StepDef affine = n.affine(3);
  n.conv(n.bits(m), 3, {}, {affine, {2, m, {}, {}}, n.store(y)}, {m});
  n.give(n.plain(4, {y}, kF32, 3, {1, 1, 1, 1, 0, 0}));
  return n;
}

// Version 3: numbers of 8 bits always have 255 levels.
Net third_version() {
  Net n(3);
  n.version = n.header_version = 3;
  const uint32_t q = n.value(kU8, 3);
  n.pointwise(0, {{10, q, {word_of(40.0f), 117}, {}}});
  n.give(n.conv_f32(q, 2, {1, 1, 0, 1, 1, 117}));
  return n;
}

}  // namespace

std::vector<std::pair<std::string, builder::File>> seeds() {
  std::vector<std::pair<std::string, builder::File>> list = {
      {"binary_convolutions", binary_convolutions()},
      {"thresholds", thresholds()},
      {"depthwise", depthwise()},
      {"eight_bits", eight_bits()},
      {"four_bits", four_bits()},
      {"small_weights", small_weights()},
      {"pools", pools()},
      {"adaptive_pools", adaptive_pools()},
      {"channels", channels()},
      {"resizes", resizes()},
      {"pixel_shuffles", pixel_shuffles()},
      {"gates", gates()},
      {"integers", integers()},
      {"integer_sums", integer_sums()},
      {"first_version", first_version()},
      {"third_version", third_version()},
  };
  return list;
}

}  // namespace fuzz
