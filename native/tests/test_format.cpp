// Damaged and hostile files give an error that names the field, never a crash.
#include <random>

#include "builder.h"
#include "check.h"
#include "signbit/signbit.h"

namespace {

builder::File small_file() {
  builder::File f;
  const uint32_t x = f.value(0, 4), q = f.value(6, 4), y = f.value(0, 2);
  const uint32_t cut = f.add(builder::tensor(0, std::vector<float>(4, 0.0f)));
  const uint32_t w = f.add(builder::tensor(4, std::vector<uint8_t>(9, 0x5A)));
  const uint32_t scale = f.add(builder::tensor(0, std::vector<float>(2, 1.0f)));
  f.nodes.push_back({6, "bits", {x}, {q}, {}, {}, {{9, q, {}, {cut}}}});
  f.nodes.push_back({1, "conv", {q}, {y}, {4, 2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 0}, {w},
                     {{1, 0xFFFFFFFF, {}, {scale, scale}}, {7, y, {}, {}}}});
  f.outputs = {{y, 0}};
  return f;
}

// One node of the operations that version 2 brought.
builder::File one_node(uint32_t code, uint32_t type, uint32_t channels, uint32_t out_channels, std::vector<int32_t> attrs,
                       std::vector<uint32_t> params = {}) {
  builder::File f;
  const uint32_t x = f.value(0, channels), b = f.value(type, channels), y = f.value(type, out_channels), z = f.value(0, out_channels);
  f.nodes.push_back({6, "first", {x}, {b}, {}, {}, {{7, b, {}, {}}}});
  if (type == 6) f.nodes[0].steps[0] = {9, b, {}, {f.add(builder::tensor(0, std::vector<float>(channels, 0.0f)))}};
  f.nodes.push_back({code, "node", {b}, {y}, std::move(attrs), std::move(params), {}});
  f.nodes.push_back({6, "last", {y}, {z}, {}, {}, {{7, z, {}, {}}}});
  f.outputs = {{z, 0}};
  return f;
}

// A real-valued epilogue that reads, clips and gates.
builder::File gates() {
  builder::File f;
  const uint32_t x = f.value(0, 4), m = f.value(0, 1), y = f.value(0, 4);
  f.nodes.push_back({7, "pick", {x}, {m}, {}, {f.add(builder::tensor(1, std::vector<int32_t>{3}))}, {}});
  const int32_t zero = 0, six = 0x40C00000;
  f.nodes.push_back({6, "gate", {x, m, m}, {y}, {}, {},
                     {{11, m, {}, {}}, {2, m, {}, {}}, {12, 0xFFFFFFFF, {zero, six}, {}}, {13, 0xFFFFFFFF, {}, {}}, {7, y, {}, {}}}});
  f.outputs = {{y, 0}};
  return f;
}

// What version 3 brought: numbers of 16 bits, two layers that add and shift, an average, and a sum as output.
builder::File integers() {
  builder::File f;
  const uint32_t x = f.value(0, 4), a = f.value(2, 4), b = f.value(2, 2), c = f.value(2, 2), d = f.value(1, 2);
  const auto numbers = [&](std::vector<int32_t> v) { return f.add(builder::tensor(1, v)); };
  const uint32_t weight = f.add(builder::tensor(3, std::vector<int8_t>{1, -2, 3, -128, 5, 6, 7, 127}));
  f.nodes.push_back({6, "scale", {x}, {a}, {}, {}, {{16, a, {0x3F800000}, {}}}});
  builder::StepDef sum = {14, 0xFFFFFFFF, {2}, {numbers({1, -31, 15, 0}), numbers({-1, 0, 1, 1})}};
  f.nodes.push_back({11, "conv", {a}, {b}, {4, 2, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0}, {weight}, {sum, {7, b, {}, {}}}});
  const uint32_t in = numbers({-65535, 65535}), shifts = numbers({-3, 4}), signs = numbers({1, 1}), out = numbers({0, 9}), bias = numbers({1, 2});
  f.nodes.push_back({6, "activate", {b, b}, {c}, {}, {},
                     {{2, b, {}, {}}, {15, 0xFFFFFFFF, {1}, {in, shifts, signs, out}}, {17, 0xFFFFFFFF, {}, {bias}}, {7, c, {}, {}}}});
  f.nodes.push_back({12, "sum", {c}, {d}, {36}, {}, {}});
  f.outputs = {{d, 1}};
  return f;
}

signbit_status open_bytes(const std::vector<uint8_t>& bytes, std::string* message) {
  char error[512];
  signbit_model* model = nullptr;
  const signbit_status status = signbit_model_open_memory(bytes.data(), bytes.size(), &model, error, sizeof error);
  signbit_model_close(model);
  *message = error;
  return status;
}

void refuses(const builder::File& file, const std::string& part) {
  std::string message;
  const signbit_status status = open_bytes(file.bytes(), &message);
  check::that(status == SIGNBIT_ERROR_FORMAT, part + ": status " + std::to_string(status));
  check::that(message.find(part) != std::string::npos, "\"" + message + "\" should contain \"" + part + "\"");
}

void opens(const builder::File& file, const std::string& name) {
  std::string message;
  check::that(open_bytes(file.bytes(), &message) == SIGNBIT_OK, name + ": " + message);
}

void test_new_operations() {
  auto broken = [](builder::File f, auto change, const char* part) {
    opens(f, std::string("before ") + part);
    change(f);
    refuses(f, part);
  };
  auto attr = [](size_t i, int32_t to) { return [=](builder::File& f) { f.nodes[1].attrs[i] = to; }; };

  builder::File channels = one_node(7, 0, 4, 3, {}, {0});
  channels.tensors.push_back(builder::tensor(1, std::vector<int32_t>{3, 0, 3}));
  auto index = [](int32_t last) {
    return [=](builder::File& f) { f.tensors[0] = builder::tensor(1, std::vector<int32_t>{3, 0, last}); };
  };
  broken(channels, index(4), "index 4 of 4 channels");
  broken(channels, index(-1), "index -1");
  broken(channels, [](auto& f) { f.nodes[1].params[0] = 0xFFFFFFFF; }, "has no index");
  broken(channels, [](auto& f) { f.tensors[0].dtype = 0; }, "wrong dtype");
  broken(channels, [](auto& f) { f.tensors[0] = builder::tensor(1, std::vector<int32_t>{1}); }, "holds 1 elements");
  broken(channels, [](auto& f) { f.values[2].first = 6; }, "output has a wrong type");
  broken(channels, [](auto& f) {
    f.nodes[0].outputs.push_back(f.value(4, 4));
    f.nodes[0].steps.push_back({10, 4, {0x3F800000, 0, 255}, {}});
    f.nodes[1].inputs.push_back(4);
  }, "several types");

  const builder::File nearest = one_node(8, 6, 4, 4, {0, 0, 2, 2, 0, 0}), bilinear = one_node(8, 0, 4, 4, {1, 1, 0, 0, 7, 9});
  opens(bilinear, "bilinear");
  broken(nearest, attr(0, 2), "mode = 2");
  broken(nearest, attr(0, 1), "input has a wrong type");
  broken(nearest, attr(1, 1), "align_corners is for bilinear only");
  broken(nearest, attr(2, 0), "rows or columns alone");
  broken(nearest, attr(2, 5000), "scale_h = 5000");
  broken(nearest, attr(3, -1), "scale_w = -1");
  broken(bilinear, attr(4, 1 << 17), "out_h");
  broken(bilinear, attr(5, 0), "rows or columns alone");
  broken(bilinear, [](auto& f) { f.nodes[1].attrs = {1, 1, 0, 0, 0, 0}; }, "given in one way");
  broken(bilinear, [](auto& f) { f.nodes[1].attrs = {1, 1, 2, 2, 7, 9}; }, "given in one way");
  broken(bilinear, [](auto& f) { f.nodes[1].inputs.push_back(0); }, "given in one way");
  broken(bilinear, [](auto& f) { f.nodes[1].inputs = {1, 0, 0}; }, "one or two inputs");
  broken(bilinear, [](auto& f) { f.values[2].second = f.values[3].second = 3; }, "output has a wrong type or channels");

  const builder::File shuffle = one_node(9, 6, 8, 2, {2});
  broken(shuffle, attr(0, 3), "factor does not divide");
  broken(shuffle, attr(0, 0), "factor = 0");
  broken(shuffle, attr(0, 1 << 16), "factor");
  broken(shuffle, attr(0, 1), "output has a wrong type or channels");

  const builder::File adaptive = one_node(10, 0, 4, 4, {3, 2, 1});
  broken(adaptive, attr(0, 0), "out_h = 0");
  broken(adaptive, attr(1, 1 << 17), "out_w");
  broken(adaptive, attr(2, 2), "take_max = 2");
  refuses(one_node(10, 6, 4, 4, {3, 2, 1}), "input has a wrong type");

  const builder::File max_pool = one_node(3, 0, 4, 4, {3, 3, 2, 2, 1, 1, 1, 1, 1}, {0xFFFFFFFF});
  broken(max_pool, attr(6, 0), "dilation_h = 0");
  broken(max_pool, attr(7, 5000), "dilation_w");
  broken(max_pool, attr(8, 2), "ceil_mode = 2");
  broken(max_pool, attr(4, 3), "pad is not smaller");
  broken(max_pool, [](auto& f) { f.nodes[1].attrs.resize(6); }, "wrong number of attributes");
  const builder::File avg_pool = one_node(4, 0, 4, 4, {3, 3, 2, 2, 1, 1, 1, 1});
  broken(avg_pool, attr(5, 3), "pad is not smaller");
  broken(avg_pool, attr(6, -1), "ceil_mode = -1");
  broken(avg_pool, attr(7, 2), "count_include_pad = 2");

  const auto numbers = [](size_t tensor, size_t at, int32_t to) {
    return [=](builder::File& f) { std::memcpy(f.tensors[tensor].bytes.data() + 4 * at, &to, 4); };
  };
  const auto step_attr = [](size_t node, size_t step, int32_t to) { return [=](builder::File& f) { f.nodes[node].steps[step].attrs[0] = to; }; };
  // tensors of `integers`: weight, shifts, signs; shift_in, shifts, signs, shift_out, bias
  broken(integers(), numbers(1, 1, -32), "node 1 (conv): step 0: shifts = -32 is not in -31..15");
  broken(integers(), numbers(1, 3, 16), "step 0: shifts = 16");
  broken(integers(), numbers(2, 0, 2), "step 0: signs = 2 is not in -1..1");
  broken(integers(), numbers(2, 0, -2), "step 0: signs = -2");
  broken(integers(), step_attr(1, 0, 0), "step 0: digits = 0 is not in 1..4");
  broken(integers(), step_attr(1, 0, 5), "step 0: digits = 5");
  broken(integers(), step_attr(1, 0, 4), "step 0: shifts: holds 4 elements, needs 8");
  broken(integers(), [](auto& f) { f.tensors[1].dtype = 0; }, "step 0: shifts: wrong dtype");
  broken(integers(), numbers(3, 0, -65536), "node 2 (activate): step 1: shift_in = -65536 is not in -65535..65535");
  broken(integers(), numbers(6, 1, 65536), "step 1: shift_out = 65536");
  broken(integers(), [](auto& f) { f.nodes[2].steps[2].params[0] = 1; }, "step 2: bias: holds 4 elements, needs 2");
  broken(integers(), attr(11, 1), "zero_point is for u8 only");
  broken(integers(), [](auto& f) { f.values[1].first = 1; }, "value is not i16");
  broken(integers(), [](auto& f) { f.values[3].first = 1; f.nodes[2].outputs[0] = 3; }, "input has a wrong type");
  broken(integers(), [](auto& f) { f.values[2].first = 0; }, "node 1 (conv): step 1: value has a wrong type");
  broken(integers(), [](auto& f) { f.nodes[1].steps[0] = {1, 0xFFFFFFFF, {}, {7, 7}}; }, "integers that are added and shifted alone");
  broken(integers(), [](auto& f) { f.nodes[3].attrs[0] = 0; }, "area = 0 is not in 1..65536");
  broken(integers(), [](auto& f) { f.nodes[3].attrs[0] = 65537; }, "area = 65537");
  broken(integers(), [](auto& f) { f.values[4].first = 2; }, "output has a wrong type");
  broken(integers(), [](auto& f) { f.nodes[0].steps.insert(f.nodes[0].steps.begin(), {17, 0xFFFFFFFF, {}, {7}}); f.tensors[7] = builder::tensor(1, std::vector<int32_t>(4)); }, "needs an integer value");
  builder::File average = integers();
  average.nodes[3] = {4, "average", {3}, {4}, {2, 2, 2, 2, 0, 0, 0, 0}, {}, {}};
  average.values[4].first = 2;
  average.nodes.push_back({6, "out", {4}, {average.value(1, 2)}, {}, {}, {{7, 5, {}, {}}}});
  average.outputs[0].first = 5;
  const auto window = [](size_t i, int32_t to) { return [=](builder::File& f) { f.nodes[3].attrs[i] = to; }; };
  broken(average, window(0, 3), "the window of an i16 average is no power of two");
  broken(average, [](auto& f) { f.nodes[3].attrs = {512, 256, 1, 1, 0, 0, 0, 0}; }, "no power of two up to 65536");
  broken(average, window(4, 1), "pad is not 0");
  broken(average, window(6, 1), "ceil_mode is not 0");
  builder::File most = average;
  most.nodes[3] = {3, "most", {3}, {4}, {2, 2, 2, 2, 0, 0, 1, 1, 0}, {0xFFFFFFFF}, {}};
  broken(most, [](auto& f) { f.nodes[3].params[0] = 0; }, "flip is for bits only");

  const int32_t nan = 0x7FC00000, seven = 0x40E00000;
  auto step = [](size_t i, builder::StepDef to) { return [=](builder::File& f) { f.nodes[1].steps[i] = to; }; };
  broken(gates(), step(2, {12, 0xFFFFFFFF, {seven, 0}, {}}), "minimum is above maximum");
  broken(gates(), step(2, {12, 0xFFFFFFFF, {nan, 0}, {}}), "minimum is above maximum, or one is NaN");
  broken(gates(), step(2, {12, 0xFFFFFFFF, {0, nan}, {}}), "one is NaN");
  broken(gates(), step(2, {12, 0xFFFFFFFF, {0}, {}}), "wrong number of arguments");
  broken(gates(), step(3, {13, 1, {}, {}}), "value too many");
  broken(gates(), step(0, {11, 0xFFFFFFFF, {}, {}}), "too few");
  broken(gates(), step(0, {11, 0, {}, {}}), "value is not the next input");
  broken(gates(), [](auto& f) {
    f.values[1].second = 2;
    f.tensors[0] = builder::tensor(1, std::vector<int32_t>{3, 2});
  }, "value has other channels");
  for (uint32_t code : {11u, 12u, 13u}) {  // of sums that are still integers
    builder::File f = small_file();
    const uint32_t m = f.value(0, 1);
    f.nodes.insert(f.nodes.begin(), {7, "pick", {0}, {m}, {}, {f.add(builder::tensor(1, std::vector<int32_t>{0}))}, {}});
    builder::StepDef s = {code, code == 11 ? m : 0xFFFFFFFF, {}, {}};
    if (code == 12) s.attrs = {0, seven};
    if (code == 11) f.nodes[2].inputs.push_back(m);
    f.nodes[2].steps.insert(f.nodes[2].steps.begin() + 1, s);
    opens(f, "a real step");
    std::swap(f.nodes[2].steps[0], f.nodes[2].steps[1]);
    refuses(f, "needs a real value");
  }
}

// A 1x1 convolution of `in` to `out` channels, groups of `in / groups`, with packed weights `w`.
builder::File padded(bool binary, uint32_t in, uint32_t out, int32_t groups, std::vector<uint8_t> w) {
  builder::File f;
  const uint32_t x = f.value(0, in), q = f.value(binary ? 6 : 4, in), y = f.value(0, out);
  const uint32_t cut = f.add(builder::tensor(0, std::vector<float>(in, 0.0f)));
  const uint32_t one = f.add(builder::tensor(0, std::vector<float>(out, 1.0f)));
  const uint32_t weight = f.add(builder::tensor(binary ? 4 : 3, w));
  const builder::StepDef quant = {10, q, {0x3F800000, 0, 255}, {}}, sign = {9, q, {}, {cut}};
  f.nodes.push_back({6, "quant", {x}, {q}, {}, {}, {binary ? sign : quant}});
  f.nodes.push_back({binary ? 1u : 2u, "conv", {q}, {y}, {int32_t(in), int32_t(out), 1, 1, 1, 1, 0, 0, 1, 1, groups, 0}, {weight},
                     {{1, 0xFFFFFFFF, {}, {one, one}}, {7, y, {}, {}}}});
  f.outputs = {{y, 0}};
  return f;
}

void test_versions() {
  auto of = [](builder::File f, uint32_t version) {
    f.version = f.header_version = version;
    return f;
  };
  opens(of(small_file(), 1), "version 1");
  opens(of(small_file(), 2), "version 2");
  opens(of(integers(), 3), "version 3");
  refuses(of(integers(), 2), "value 1: its type needs version 3");
  builder::File old = integers();
  for (auto& value : old.values) value.first = 0;
  refuses(of(old, 2), "unknown step 16");
  old.nodes.erase(old.nodes.begin());
  old.nodes[0].inputs = {0};
  refuses(of(old, 2), "unknown operation 11");
  opens(of(one_node(3, 6, 4, 4, {3, 3, 2, 2, 1, 1}, {0xFFFFFFFF}), 1), "a pool of version 1");
  refuses(of(one_node(3, 6, 4, 4, {3, 3, 2, 2, 1, 1, 1, 1, 0}, {0xFFFFFFFF}), 1), "wrong number of attributes");
  refuses(of(one_node(4, 0, 4, 4, {3, 3, 2, 2, 1, 1}), 1), "pad needs version 2");
  refuses(of(one_node(9, 6, 8, 2, {2}), 1), "unknown operation 9");
  builder::File f = gates();
  f.nodes.erase(f.nodes.begin());
  f.values.erase(f.values.begin() + 1);
  f.nodes[0] = {6, "gate", {0}, {1}, {}, {}, {{13, 0xFFFFFFFF, {}, {}}, {7, 1, {}, {}}}};
  f.outputs = {{1, 0}};
  opens(f, "a gate");
  refuses(of(f, 1), "unknown step 13");
  const builder::File bytes = padded(false, 3, 1, 1, {1, 2, 3, 0});
  opens(bytes, "version 4");
  refuses(of(bytes, 3), "step 10 has a wrong number of arguments");
  for (const uint32_t version : {1u, 2u, 3u}) {
    f = of(bytes, version);
    f.nodes[0].steps[0].attrs.pop_back();
    opens(f, "8 bits of version " + std::to_string(version));
    f.tensors[2] = builder::weights({1, 2, 3, 0});
    refuses(f, "tensor 2: unknown dtype");
  }
  refuses(of(small_file(), 5), "__metadata__.version is 5, this engine reads 1 to 4: a newer signbit wrote the file; update signbit");
  refuses(of(small_file(), 0), "is not a version");
  f = small_file();
  f.version = 1;
  refuses(f, "version 1 is not that of the header, 4");
}

// Layers deep within modules have long paths: longer, together, than the words of the nodes.
void test_paths() {
  builder::File f;
  const uint32_t x = f.value(0, 4), y = f.value(0, 4);
  f.nodes.push_back({5, std::string(200, 'p'), {x}, {y}, {}, {}, {}});
  f.outputs = {{y, 1}};
  opens(f, "a path of 200 bytes");
  f.nodes[0].path.resize(4096, 'p');
  opens(f, "a path of 4096 bytes");
  f.nodes[0].path += 'p';
  refuses(f, "graph: node 0: path of 4097 bytes is longer than 4096");
}

void test_padding_of_weights() {
  const char *bit = "weight: a channel that only pads has bit 0", *output = "weight: an output channel that only pads has bit 1";
  opens(padded(true, 6, 3, 1, {0x00, 0xCC, 0x00, 0x0C}), "binary weights");
  refuses(padded(true, 6, 3, 1, {0x00, 0xC4, 0x00, 0x0C}), bit);
  refuses(padded(true, 6, 3, 1, {0x00, 0x4C, 0x00, 0x0C}), bit);
  refuses(padded(true, 6, 3, 1, {0x00, 0xCC, 0x00, 0x04}), bit);
  refuses(padded(true, 6, 3, 1, {0x00, 0xCC, 0x00, 0x1C}), output);
  refuses(padded(true, 6, 3, 1, {0x00, 0xCC, 0x10, 0x0C}), output);
  refuses(padded(true, 6, 2, 2, {0x80, 0x08}), "holds 2 elements");
  opens(padded(true, 6, 2, 2, {0x8F}), "binary weights in groups of 3");
  refuses(padded(true, 6, 2, 2, {0x0F}), bit);
  refuses(padded(true, 8, 1, 1, {0x0F, 0x1F}), output);
  opens(padded(false, 3, 2, 1, {0x80, 2, 3, 0, 4, 5, 6, 0}), "8-bit weights, of -128 too");
  refuses(padded(false, 3, 2, 1, {1, 2, 3, 0, 4, 5, 6, 7}), "weight: a channel that only pads is not 0");
  refuses(padded(false, 5, 1, 1, {1, 2, 3, 4, 5, 0, 1, 0}), "weight: a channel that only pads is not 0");
  // Nodes that share a tensor in different ways: each way is looked at.
  builder::File f = padded(true, 8, 2, 1, {0x00, 0x0F});
  opens(f, "two outputs");
  f.values.push_back({0, 1});
  const uint32_t one = f.add(builder::tensor(0, std::vector<float>(1, 1.0f)));
  f.nodes.push_back({1, "again", {1}, {3}, {8, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0}, {2}, {{1, 0xFFFFFFFF, {}, {one, one}}, {7, 3, {}, {}}}});
  opens(f, "one output of the same bytes");
  f.tensors[2].bytes[0] = 0x10;
  refuses(f, "node 2 (again): weight: an output channel that only pads has bit 1");
}

// Numbers of 4 bits: of a weight two a byte, of an input up to 15.
void test_four_bits() {
  builder::File f = padded(false, 3, 2, 1, {8, 0xF8, 3, 0, 4, 5, 6, 0});
  f.tensors[2] = builder::weights({7, -8, 3, 0, 4, 5, 6, 0});
  f.nodes[0].steps[0].attrs = {0x3F800000, 15, 15};
  opens(f, "4-bit weights");
  const auto broken = [&](auto change, const char* part) {
    builder::File g = f;
    change(g);
    refuses(g, part);
  };
  auto levels = [](int32_t zero_point, int32_t most) { return [=](auto& g) { g.nodes[0].steps[0].attrs = {0x3F800000, zero_point, most}; }; };
  broken(levels(16, 15), "zero_point = 16 is not in 0..15");
  broken(levels(-1, 15), "zero_point = -1 is not in 0..15");
  broken(levels(0, 0), "levels = 0 is not in 1..255");
  broken(levels(0, 256), "levels = 256 is not in 1..255");
  broken([](auto& g) { g.tensors[2] = builder::weights({7, -8, 3, 1, 4, 5, 6, 0}); }, "weight: a channel that only pads is not 0");
  broken([](auto& g) { g.tensors[2] = builder::weights({7, -8, 3, 0, 4, 5}); }, "weight: holds 6 elements, needs 8");
  broken([](auto& g) { g.tensors[2].count = 7; }, "tensor 2: an odd number of 4-bit integers");
  broken([](auto& g) { g.tensors[2].count = 0xFFFFFFFE; }, "tensor 2: lies outside the file");
  broken([](auto& g) { g.tensors[1].dtype = 5; g.tensors[1].count = 2; }, "wrong dtype");
}

// What a small file may claim is bounded before anything is allocated for it.
void test_limits() {
  builder::File f = small_file();
  f.value(0, 1 << 20);
  refuses(f, "value 3 is never written");
  f = small_file();
  for (int i = 0; i < 20000; i++) f.value(0, 1);
  refuses(f, "n_values = 20003 is more than 16384");
  f = small_file();
  for (int i = 0; i < 17000; i++) f.nodes.push_back(f.nodes[0]);
  refuses(f, "n_nodes = 17002 is more than 16384");
}

}  // namespace

int main() {
  test_paths();
  test_padding_of_weights();
  test_four_bits();
  std::string message;
  const std::vector<uint8_t> good = small_file().bytes();
  check::that(open_bytes(good, &message) == SIGNBIT_OK, "the file itself: " + message);

  for (size_t size = 0; size < good.size(); size++)
    check::that(open_bytes(std::vector<uint8_t>(good.begin(), good.begin() + long(size)), &message) == SIGNBIT_ERROR_FORMAT,
                "truncated to " + std::to_string(size));
  for (size_t bit = 0; bit < 8 * good.size(); bit++) {
    std::vector<uint8_t> bad = good;
    bad[bit / 8] ^= uint8_t(1 << bit % 8);
    check::that(open_bytes(bad, &message) == SIGNBIT_ERROR_FORMAT && !message.empty(), "bit " + std::to_string(bit));
  }

  // Files with a right hash whose graph is wrong.
  auto broken = [](auto change, const char* part) {
    builder::File f = small_file();
    change(f);
    refuses(f, part);
  };
  broken([](auto& f) { f.version = 5; }, "newer signbit");
  broken([](auto& f) { f.nodes[1].inputs[0] = 2; }, "reads a value that nothing wrote before");
  broken([](auto& f) { f.nodes[1].inputs[0] = 77; }, "id 77");
  broken([](auto& f) { f.nodes[1].outputs[0] = 1; }, "written before");
  broken([](auto& f) { f.nodes[1].code = 99; }, "unknown operation");
  broken([](auto& f) { f.nodes[1].attrs[2] = 0; }, "kernel_h");
  broken([](auto& f) { f.nodes[1].attrs[2] = 5; }, "weight");
  broken([](auto& f) { f.nodes[1].attrs[10] = 3; }, "groups");
  broken([](auto& f) { f.nodes[1].attrs[11] = 2; }, "pad_value");
  broken([](auto& f) { f.nodes[1].steps[0].code = 42; }, "unknown step");
  broken([](auto& f) { f.nodes[1].steps.clear(); }, "no steps");
  broken([](auto& f) { f.nodes[1].steps.erase(f.nodes[1].steps.begin()); }, "step 0");
  broken([](auto& f) { f.nodes[1].steps[0].params[0] = 9; }, "id 9");
  broken([](auto& f) { f.nodes[1].steps[0].params[0] = 1; }, "wrong dtype");
  broken([](auto& f) { f.values[1].second = 5; }, "channels");
  broken([](auto& f) { f.values[0].first = 3; }, "input value is not f32");
  broken([](auto& f) { f.outputs.clear(); }, "no outputs");
  broken([](auto& f) { f.outputs[0].first = 1; }, "output value is neither f32 nor i32");
  broken([](auto& f) { f.tensors[1].bytes.resize(3), f.tensors[1].count = 3; }, "holds 3 elements");
  broken([](auto& f) { f.tensors[1].count = 0x7FFFFFFF; }, "outside the file");

  test_new_operations();
  test_versions();
  test_limits();

  // Words of the graph replaced at random under a right hash: an error or a file that runs, never a crash.
  std::mt19937 rng(7);
  int opened = 0;
  for (int round = 0; round < 3000; round++) {
    builder::File f = small_file();
    const uint32_t choices[] = {0, 1, 2, 3, 4, 9, 64, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, uint32_t(rng())};
    auto word = [&] { return choices[rng() % 12]; };
    for (int change = 0; change < 1 + int(rng() % 2); change++) {
      builder::NodeDef& n = f.nodes[rng() % 2];
      switch (rng() % 7) {
        case 0: n.code = word(); break;
        case 1: n.inputs[0] = word(); break;
        case 2: n.outputs[0] = word(); break;
        case 3: if (!n.attrs.empty()) n.attrs[rng() % n.attrs.size()] = int32_t(word()); break;
        case 4: n.steps[rng() % n.steps.size()].code = word(); break;
        case 5: n.steps[rng() % n.steps.size()].value = word(); break;
        default: f.values[rng() % f.values.size()].second = word(); break;
      }
    }
    const std::vector<uint8_t> bytes = f.bytes();
    char error[512];
    signbit_model* model = nullptr;
    if (signbit_model_open_memory(bytes.data(), bytes.size(), &model, error, sizeof error) != SIGNBIT_OK) continue;
    signbit_session* session = nullptr;
    const signbit_session_options options = {1, 6, 5, 1, nullptr, 0};
    if (signbit_session_open(model, &options, &session, error, sizeof error) == SIGNBIT_OK) {
      opened++;
      int64_t shape[4];
      int32_t rank;
      signbit_session_output_shape(session, 0, shape, &rank);
      std::vector<float> x(size_t(signbit_model_input_channels(model)) * 30, 1.0f);
      std::vector<float> y(size_t(shape[0] * shape[1] * (rank == 4 ? shape[2] * shape[3] : 1)));
      float* outputs[] = {y.data()};
      check::that(signbit_session_run(session, x.data(), SIGNBIT_INPUT_F32_NCHW, outputs, error, sizeof error) == SIGNBIT_OK,
                  error);
      signbit_session_close(session);
    }
    signbit_model_close(model);
  }
  check::that(opened > 0, "some changes leave a file that runs");

  // Sizes that cannot be: too large for memory, for an int, or for a network that ends in a vector.
  auto refuses_size = [](bool flat, int batch, int height, int width, const char* part) {
    builder::File f = small_file();
    f.outputs[0].second = flat;
    const std::vector<uint8_t> bytes = f.bytes();
    char text[512];
    signbit_model* opened_model = nullptr;
    signbit_session* session = nullptr;
    check::that(signbit_model_open_memory(bytes.data(), bytes.size(), &opened_model, text, sizeof text) == SIGNBIT_OK, text);
    const signbit_session_options options = {batch, height, width, 1, nullptr, 0};
    const signbit_status status = signbit_session_open(opened_model, &options, &session, text, sizeof text);
    check::that(status == SIGNBIT_ERROR_ARGUMENT && std::string(text).find(part) != std::string::npos,
                std::string(part) + ": " + text);
    signbit_model_close(opened_model);
  };
  refuses_size(false, 1 << 20, 1 << 20, 1 << 20, "too large");
  refuses_size(false, 1, 40000, 40000, "too large");
  refuses_size(false, 1 << 21, 5, 5, "at most 1048576");
  refuses_size(false, 1, 5, 1 << 30, "at most 1048576");
  refuses_size(true, 1, 5, 6, "ends in a vector");

  signbit_model* model = nullptr;
  char error[256];
  check::that(signbit_model_open("/no/such/file.signbit", &model, error, sizeof error) == SIGNBIT_ERROR_IO, error);
  check::that(signbit_model_open("/", &model, error, sizeof error) == SIGNBIT_ERROR_IO, error);
  return check::report();
}
