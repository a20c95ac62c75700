#include "program.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "../kernels/kernels.h"
#include "error.h"
#include "utf8.h"

namespace signbit {
namespace {

constexpr uint32_t kMagic = 0x31474253;  // "SBG1"
constexpr uint32_t kNoId = 0xFFFFFFFF;
constexpr int kMaxChannels = 1 << 20;
constexpr int kMaxKernel = 1 << 12;
constexpr int64_t kMaxTaps = 65535;  // matches are counted in 16 bits
// Of nodes, values and outputs: many times what networks have, and few enough for a session's planner, which compares the
// lives of any two maps (docs/trust.md says how long that takes at worst).
constexpr uint32_t kMaxGraph = 1 << 14;
constexpr uint32_t kMaxPath = 4096;  // bytes
constexpr int kMaxSize = 1 << 16;  // rows or columns of a map that the file asks for
constexpr int kMaxDigits = 4;      // signed powers of two that stand for a factor
constexpr int kMaxArea = 1 << 16;  // 16-bit numbers whose sum surely fits 32 bits
// Operations and steps of older versions, by their greatest codes.
constexpr uint32_t newest_op(uint32_t version) { return version == 1 ? 6 : version == 2 ? 10 : 12; }
constexpr uint32_t newest_step(uint32_t version) { return version == 1 ? 10 : version == 2 ? 13 : 17; }
constexpr uint32_t kInt4 = 5;  // dtype of a tensor in a file: two elements a byte

// Words, each checked before it is read.
class Words {
 public:
  Words(const uint8_t* data, size_t size) : data_(data), count_(size / 4) {}

  uint32_t next(const char* field) {
    if (at_ >= count_) throw FormatError(std::string("graph: ends within ") + field);
    uint32_t word;
    std::memcpy(&word, data_ + 4 * at_++, 4);
    return word;
  }
  size_t left() const { return count_ - at_; }
  size_t position() const { return at_; }
  // A number of things of which each takes at least `words` words.
  uint32_t count(const char* field, size_t words) {
    const uint32_t n = next(field);
    if (n > left() / words)
      throw FormatError(std::string("graph: ") + field + " = " + std::to_string(n) +
                        " does not fit the tensor");
    return n;
  }

 private:
  const uint8_t* data_;
  size_t count_, at_ = 0;
};

float float_of(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

struct StepSpec {
  int attrs;
  int params;
  int value;  // 0 none, 1 read, 2 written
};

StepSpec step_spec(uint32_t code, uint32_t version) {
  switch (StepKind(code)) {
    case StepKind::kAffine: return {0, 2, 0};
    case StepKind::kAdd: return {0, 0, 1};
    case StepKind::kRPReLU: return {0, 3, 0};
    case StepKind::kPReLU: return {0, 1, 0};
    case StepKind::kQuant4Shift: return {1, 2, 0};
    case StepKind::kQuant4Ladder: return {0, 2, 0};
    case StepKind::kStore: return {0, 0, 2};
    case StepKind::kThreshold: return {0, 3, 2};
    case StepKind::kSign: return {0, 1, 2};
    case StepKind::kQuant8: return {version < 4 ? 2 : 3, 0, 2};
    case StepKind::kMul: return {0, 0, 1};
    case StepKind::kClip: return {2, 0, 0};
    case StepKind::kSigmoid: return {0, 0, 0};
    case StepKind::kShiftSum: return {1, 2, 0};
    case StepKind::kShiftPReLU: return {1, 4, 0};
    case StepKind::kQuant16: return {1, 0, 2};
    case StepKind::kBias: return {0, 1, 0};
  }
  return {-1, 0, 0};
}

// A place in the graph. Put into words only for a message: a path may be long, and a node's inputs many.
class Where {
 public:
  Where(uint32_t node, const std::string& path) : node_(node), path_(&path) {}

  Where operator+(const char* part) const {
    Where longer = *this;
    for (const char*& place : longer.parts_)
      if (!place) {
        place = part;
        break;
      }
    return longer;
  }
  Where step(size_t index) const {
    Where within = *this;
    within.step_ = int(index);
    return within;
  }
  operator std::string() const {
    std::string text = "graph: node " + std::to_string(node_);
    if (!path_->empty()) text += " (" + *path_ + ")";
    if (step_ >= 0) text += ": step " + std::to_string(step_);
    for (const char* part : parts_)
      if (part) text += part;
    return text;
  }

 private:
  uint32_t node_;
  const std::string* path_;
  int step_ = -1;
  const char* parts_[3] = {};
};

std::string operator+(const Where& where, const std::string& text) { return std::string(where) + text; }

class Reader {
 public:
  explicit Reader(Container container) { p_.container = std::move(container); }

  Program read() {
    const Container& c = p_.container;
    Words w(c.graph, c.graph_size);
    if (w.next("magic") != kMagic) throw FormatError("graph: wrong magic number");
    version_ = w.next("version");
    check_version(version_, "graph: version");
    if (version_ != c.version)
      fail("graph: version " + std::to_string(version_) + " is not that of the header, " + std::to_string(c.version));
    const uint32_t tensors = w.count("n_tensors", 4), values = w.count("n_values", 2),
                   nodes = w.count("n_nodes", 8), outputs = w.count("n_outputs", 2),
                   words = w.count("n_words", 1), string_bytes = w.next("n_string_bytes");
    for (const auto& [count, field] : {std::pair(nodes, "n_nodes"), std::pair(values, "n_values"), std::pair(outputs, "n_outputs")})
      if (count > kMaxGraph)
        fail(std::string("graph: ") + field + " = " + std::to_string(count) + " is more than 16384");
    const uint32_t normalised = w.next("normalised");
    if (normalised > 1) throw FormatError("graph: normalised is neither 0 nor 1");
    p_.normalised = normalised;
    const uint32_t mean = w.next("mean"), std = w.next("std"), input = w.next("input");
    for (int i = 0; i < 5; i++)
      if (w.next("reserved")) throw FormatError("graph: a reserved word is not 0");
    read_tensors(w, tensors);
    read_values(w, values);
    p_.input = id(input, p_.values.size(), "graph: input value");
    if (value(p_.input).type != Type::kF32) fail("graph: input value is not f32");
    written_.assign(p_.values.size(), false);
    written_[size_t(p_.input)] = true;
    if (p_.normalised) {
      p_.mean = id(mean, p_.tensors.size(), "graph: mean tensor");
      p_.std = id(std, p_.tensors.size(), "graph: std tensor");
      for (int t : {p_.mean, p_.std}) expect(t, 0, value(p_.input).channels, "graph: mean or std");
    }
    std::vector<std::pair<uint32_t, uint32_t>> output_words;
    for (uint32_t i = 0; i < outputs; i++) {
      const uint32_t v = w.next("outputs"), flat = w.next("outputs");
      output_words.emplace_back(v, flat);
    }
    const size_t start = w.position();
    const size_t string_words = (string_bytes + size_t(3)) / 4;
    if (words > w.left()) fail("graph: n_words exceeds the tensor");
    if (string_words > w.left() - words)
      fail("graph: n_string_bytes = " + std::to_string(string_bytes) + " does not fit the tensor");
    strings_ = c.graph + 4 * (start + words);
    string_bytes_ = string_bytes;
    Words body(c.graph + 4 * start, size_t(words) * 4);
    for (uint32_t i = 0; i < nodes; i++) read_node(body, i);
    if (body.left()) fail("graph: words left behind the last node");
    for (size_t v = 0; v < written_.size(); v++)
      if (!written_[v]) fail("graph: value " + std::to_string(v) + " is never written");
    if (outputs == 0) fail("graph: no outputs");
    for (const auto& o : output_words) {
      const int v = id(o.first, p_.values.size(), "graph: output value");
      if (value(v).type != Type::kF32 && value(v).type != Type::kI32) fail("graph: an output value is neither f32 nor i32");
      if (o.second > 1) fail("graph: flat is neither 0 nor 1");
      p_.outputs.push_back({v, o.second == 1});
    }
    return std::move(p_);
  }

 private:
  [[noreturn]] static void fail(const std::string& what) { throw FormatError(what); }

  template <typename What>  // text, or a place that becomes text for a message
  static int id(uint32_t word, size_t size, const What& what) {
    if (word >= size) fail(std::string(what) + ": id " + std::to_string(word) + " of " + std::to_string(size));
    return int(word);
  }
  const ValueInfo& value(int v) const { return p_.values[size_t(v)]; }

  template <typename What>
  void expect(int tensor, uint32_t dtype, int64_t count, const What& what) const {
    const Tensor& t = p_.tensors[size_t(tensor)];
    if (t.dtype != dtype) fail(std::string(what) + ": wrong dtype");
    if (int64_t(t.count) != count)
      fail(std::string(what) + ": holds " + std::to_string(t.count) + " elements, needs " + std::to_string(count));
  }

  // Bytes that invert a channel's bits. Another value would set bits of other channels, and those that mark a
  // position outside the image.
  void expect_flip(int tensor, int channels, const Where& what) {
    expect(tensor, 4, channels, what);
    if (!checked_flips_.insert(tensor).second) return;  // found once, however many nodes share it
    const uint8_t* flip = p_.tensors[size_t(tensor)].data;
    for (int c = 0; c < channels; c++)
      if (flip[c] > 1) fail(what + ": holds " + std::to_string(flip[c]) + ", not 0 or 1");
  }

  void read_tensors(Words& w, uint32_t n) {
    const Container& c = p_.container;
    size_t count = 0;
    uint64_t end = c.graph_size;  // of the tensor before: were two to share bytes, checking them could take the file's size squared
    for (uint32_t i = 0; i < n; i++) {
      Tensor t;
      t.dtype = w.next("tensors");
      t.count = w.next("tensors");
      uint64_t offset = w.next("tensors");
      offset |= uint64_t(w.next("tensors")) << 32;
      const std::string name = "graph: tensor " + std::to_string(i);
      const bool packed = t.dtype == kInt4 && version_ > 3;
      if (t.dtype != 0 && t.dtype != 1 && t.dtype != 3 && t.dtype != 4 && !packed) fail(name + ": unknown dtype");
      if (packed && t.count % 2) fail(name + ": an odd number of 4-bit integers");
      const uint64_t bytes = packed ? t.count / 2 : uint64_t(t.count) * (t.dtype <= 1 ? 4 : 1);
      if (offset % 64) fail(name + ": offset is not aligned");
      if (offset > c.data_size || bytes > c.data_size - offset) fail(name + ": lies outside the file");
      if (offset < c.graph_size) fail(name + ": lies in the graph");
      if (offset < end) fail(name + ": does not lie behind the tensor before it");
      end = offset + bytes;
      t.data = c.data + offset;
      if (packed) count += t.count;
      p_.tensors.push_back(t);
    }
    unpack(count);
  }

  // 4-bit integers, so many in all, become bytes: of two in a byte the first is the low half.
  void unpack(size_t count) {
    p_.unpacked.reset(new int8_t[count]);
    int8_t* to = p_.unpacked.get();
    for (Tensor& t : p_.tensors) {
      if (t.dtype != kInt4) continue;
      const uint8_t* from = t.data;
      t.dtype = 3;
      t.data = reinterpret_cast<const uint8_t*>(to);
      for (size_t i = 0; i < t.count; i += 2, from++) {
        *to++ = int8_t(((*from & 15) ^ 8) - 8);
        *to++ = int8_t(((*from >> 4) ^ 8) - 8);
      }
    }
  }

  void read_values(Words& w, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
      const uint32_t type = w.next("values"), channels = w.next("values");
      const std::string name = "graph: value " + std::to_string(i);
      if (type > uint32_t(Type::kB1)) fail(name + ": unknown type");
      if (version_ < 3 && (Type(type) == Type::kI32 || Type(type) == Type::kI16)) fail(name + ": its type needs version 3");
      if (channels == 0 || channels > uint32_t(kMaxChannels)) fail(name + ": channels out of range");
      p_.values.push_back({Type(type), int(channels)});
    }
  }

  std::string read_path(uint32_t offset, uint32_t length, const Where& name) {
    if (length > kMaxPath) fail(name + ": path of " + std::to_string(length) + " bytes is longer than 4096");
    if (offset > string_bytes_ || length > string_bytes_ - offset) fail(name + ": path lies outside the strings");
    // Many nodes that share one long path would be many times as large in memory as in the file.
    if (length > string_bytes_ - path_bytes_) fail(name + ": paths overlap");
    path_bytes_ += length;
    if (!is_utf8(strings_ + offset, length)) fail(name + ": path is not UTF-8");
    return std::string(reinterpret_cast<const char*>(strings_) + offset, length);
  }

  void read_node(Words& w, uint32_t index) {
    NodeInfo node;
    const Where name(index, node.path);
    const uint32_t code = w.next("node");
    const uint32_t offset = w.next("node"), length = w.next("node");
    uint32_t counts[5];
    for (uint32_t& count : counts) count = w.count("node", 1);
    if (code < 1 || code > newest_op(version_)) fail(name + ": unknown operation " + std::to_string(code));
    node.op = Op(code);
    node.path = read_path(offset, length, name);
    for (uint32_t i = 0; i < counts[0]; i++) {
      const int v = id(w.next("node inputs"), p_.values.size(), name + ": input");
      if (!written_[size_t(v)]) fail(name + ": reads a value that nothing wrote before");
      node.inputs.push_back(v);
    }
    for (uint32_t i = 0; i < counts[1]; i++) {
      const int v = id(w.next("node outputs"), p_.values.size(), name + ": output");
      if (written_[size_t(v)]) fail(name + ": writes a value that was written before");
      written_[size_t(v)] = true;
      node.outputs.push_back(v);
    }
    std::vector<int32_t> attrs;
    for (uint32_t i = 0; i < counts[2]; i++) attrs.push_back(int32_t(w.next("node attributes")));
    for (uint32_t i = 0; i < counts[3]; i++) {
      const uint32_t t = w.next("node parameters");
      node.params.push_back(t == kNoId ? kNone : id(t, p_.tensors.size(), name + ": tensor"));
    }
    for (uint32_t i = 0; i < counts[4]; i++) node.steps.push_back(read_step(w, name));
    if (node.inputs.empty() || node.outputs.empty()) fail(name + ": needs an input and an output");
    check_node(node, attrs, name);
    p_.nodes.push_back(std::move(node));
  }

  StepInfo read_step(Words& w, const Where& name) {
    StepInfo step;
    step.code = w.next("step");
    const uint32_t v = w.next("step");
    const uint32_t n_attrs = w.count("step", 1), n_params = w.count("step", 1);
    const StepSpec spec = step_spec(step.code, version_);
    if (spec.attrs < 0 || step.code > newest_step(version_)) fail(name + ": unknown step " + std::to_string(step.code));
    if (int(n_attrs) != spec.attrs || int(n_params) != spec.params)
      fail(name + ": step " + std::to_string(step.code) + " has a wrong number of arguments");
    if ((spec.value == 0) != (v == kNoId))
      fail(name + ": step " + std::to_string(step.code) + " has a value too many or too few");
    step.value = v == kNoId ? kNone : id(v, p_.values.size(), name + ": step value");
    for (uint32_t i = 0; i < n_attrs; i++) step.attrs.push_back(int32_t(w.next("step")));
    if (StepKind(step.code) == StepKind::kQuant8 && version_ < 4) step.attrs.push_back(255);
    for (uint32_t i = 0; i < n_params; i++)
      step.params.push_back(id(w.next("step"), p_.tensors.size(), name + ": step tensor"));
    return step;
  }

  static int in_range(int32_t x, int low, int high, const Where& what) {
    if (x < low || x > high)
      fail(what + " = " + std::to_string(x) + " is not in " + std::to_string(low) + ".." +
           std::to_string(high));
    return x;
  }

  void read_window(const std::vector<int32_t>& attrs, size_t first, Window* window,
                   const Where& name) const {
    window->kernel_h = in_range(attrs[first], 1, kMaxKernel, name + ": kernel_h");
    window->kernel_w = in_range(attrs[first + 1], 1, kMaxKernel, name + ": kernel_w");
    window->stride_h = in_range(attrs[first + 2], 1, kMaxKernel, name + ": stride_h");
    window->stride_w = in_range(attrs[first + 3], 1, kMaxKernel, name + ": stride_w");
    window->pad_h = in_range(attrs[first + 4], 0, kMaxKernel, name + ": pad_h");
    window->pad_w = in_range(attrs[first + 5], 0, kMaxKernel, name + ": pad_w");
  }

  size_t attribute_count(Op op) const {
    switch (op) {
      case Op::kConvB1:
      case Op::kConvQ8:
      case Op::kConvShift:
        return 12;
      case Op::kMaxPool:
        return version_ == 1 ? 6 : 9;
      case Op::kAvgPool:
        return version_ == 1 ? 6 : 8;
      case Op::kResize:
        return 6;
      case Op::kPixelShuffle:
      case Op::kGlobalSum:
        return 1;
      case Op::kAdaptivePool:
        return 3;
      case Op::kGlobalAvgPool:
      case Op::kPointwise:
      case Op::kChannels:
        return 0;
    }
    return 0;
  }

  static size_t tensor_count(Op op) {
    return op == Op::kConvB1 || op == Op::kConvQ8 || op == Op::kConvShift || op == Op::kMaxPool || op == Op::kChannels ? 1 : 0;
  }

  void check_node(NodeInfo& node, const std::vector<int32_t>& attrs, const Where& name) {
    if (attrs.size() != attribute_count(node.op) || node.params.size() != tensor_count(node.op))
      fail(name + ": a wrong number of attributes or tensors");
    const ValueInfo in = value(node.inputs[0]);
    node.window.in_channels = node.window.out_channels = in.channels;
    switch (node.op) {
      case Op::kConvB1:
      case Op::kConvQ8:
      case Op::kConvShift:
        check_conv(node, attrs, in, name);
        return check_epilogue(node, name);
      case Op::kPointwise:
        if (in.type != Type::kI16) check_type(in, true, name);
        return check_epilogue(node, name);
      case Op::kMaxPool:
      case Op::kAvgPool:
        check_pool(node, attrs, in, name);
        return check_map(node, 1, in, name);
      case Op::kGlobalAvgPool:
        check_type(in, true, name);
        return check_map(node, 1, {Type::kF32, in.channels}, name);
      case Op::kGlobalSum:
        if (in.type != Type::kI16) fail(name + ": input has a wrong type");
        node.area = in_range(attrs[0], 1, kMaxArea, name + ": area");
        return check_map(node, 1, {Type::kI32, in.channels}, name);
      case Op::kAdaptivePool:
        check_type(in, false, name);
        node.out_h = in_range(attrs[0], 1, kMaxSize, name + ": out_h");
        node.out_w = in_range(attrs[1], 1, kMaxSize, name + ": out_w");
        node.take_max = in_range(attrs[2], 0, 1, name + ": take_max");
        return check_map(node, 1, in, name);
      case Op::kChannels:
        return check_channels(node, in, name);
      case Op::kResize:
        check_resize(node, attrs, in, name);
        return check_map(node, node.inputs.size(), in, name);
      case Op::kPixelShuffle: {
        check_type(in, true, name);
        node.factor = in_range(attrs[0], 1, kMaxKernel / 4, name + ": factor");
        const int square = node.factor * node.factor;
        if (in.channels % square) fail(name + ": factor does not divide the channels");
        return check_map(node, 1, {in.type, in.channels / square}, name);
      }
    }
  }

  static void check_type(const ValueInfo& in, bool bits, const Where& name) {
    if (in.type != Type::kF32 && !(bits && in.type == Type::kB1)) fail(name + ": input has a wrong type");
  }

  // A node without an epilogue: its inputs, and the one value that it writes.
  void check_map(const NodeInfo& node, size_t inputs, const ValueInfo& result, const Where& name) const {
    if (node.inputs.size() != inputs || node.outputs.size() != 1 || !node.steps.empty())
      fail(name + ": takes " + std::to_string(inputs) + " input(s), one output and no steps");
    const ValueInfo out = value(node.outputs[0]);
    if (out.type != result.type || out.channels != result.channels) fail(name + ": output has a wrong type or channels");
  }

  void check_pool(NodeInfo& node, const std::vector<int32_t>& attrs, const ValueInfo& in, const Where& name) {
    Window& window = node.window;
    const bool take_max = node.op == Op::kMaxPool;
    read_window(attrs, 0, &window, name);
    if (version_ == 1 && !take_max && (window.pad_h || window.pad_w)) fail(name + ": pad needs version 2");
    if (window.pad_h >= window.kernel_h || window.pad_w >= window.kernel_w)
      fail(name + ": pad is not smaller than the kernel");
    if (version_ > 1 && take_max) {
      window.dilation_h = in_range(attrs[6], 1, kMaxKernel, name + ": dilation_h");
      window.dilation_w = in_range(attrs[7], 1, kMaxKernel, name + ": dilation_w");
      window.ceil_mode = in_range(attrs[8], 0, 1, name + ": ceil_mode");
    } else if (version_ > 1) {
      window.ceil_mode = in_range(attrs[6], 0, 1, name + ": ceil_mode");
      window.count_include_pad = in_range(attrs[7], 0, 1, name + ": count_include_pad");
    }
    if (in.type != Type::kI16) check_type(in, take_max, name);
    if (in.type == Type::kI16 && !take_max) {
      const int taps = window.kernel_h * window.kernel_w;
      if (taps > kMaxArea || (taps & (taps - 1))) fail(name + ": the window of an i16 average is no power of two up to 65536");
      if (window.pad_h || window.pad_w) fail(name + ": pad is not 0, which an i16 average needs");
      if (window.ceil_mode) fail(name + ": ceil_mode is not 0, which an i16 average needs");
    }
    if (!take_max || node.params[0] == kNone) return;
    if (in.type != Type::kB1) fail(name + ": flip is for bits only");
    expect_flip(node.params[0], in.channels, name + ": flip");
  }

  // The smallest and the largest element, found once however many nodes share the tensor.
  std::pair<int32_t, int32_t> index_range(int tensor) {
    const auto found = index_ranges_.find(tensor);
    if (found != index_ranges_.end()) return found->second;
    const Tensor& t = p_.tensors[size_t(tensor)];
    const auto range = std::minmax_element(t.i32(), t.i32() + t.count);
    return index_ranges_[tensor] = {*range.first, *range.second};
  }

  void expect_range(int tensor, int64_t count, int32_t low, int32_t high, const Where& what) {
    expect(tensor, 1, count, what);
    const auto [least, most] = index_range(tensor);
    in_range(least, low, high, what);
    in_range(most, low, high, what);
  }

  void check_channels(const NodeInfo& node, const ValueInfo& in, const Where& name) {
    if (in.type != Type::kI16) check_type(in, true, name);
    int64_t channels = 0;
    for (int v : node.inputs) {
      if (value(v).type != in.type) fail(name + ": inputs have several types");
      channels += value(v).channels;
    }
    if (channels > INT32_MAX) fail(name + ": inputs have too many channels");
    if (node.params[0] == kNone) fail(name + ": has no index");
    const int count = value(node.outputs[0]).channels;
    expect(node.params[0], 1, count, name + ": index");
    const auto [low, high] = index_range(node.params[0]);
    if (low < 0 || high >= channels)
      fail(name + ": index " + std::to_string(low < 0 ? low : high) + " of " + std::to_string(channels) + " channels");
    check_map(node, node.inputs.size(), {in.type, count}, name);
  }

  static void check_resize(NodeInfo& node, const std::vector<int32_t>& attrs, const ValueInfo& in, const Where& name) {
    ResizeInfo& r = node.resize;
    r.bilinear = in_range(attrs[0], 0, 1, name + ": mode");
    r.align_corners = in_range(attrs[1], 0, 1, name + ": align_corners");
    r.scale_h = in_range(attrs[2], 0, kMaxKernel, name + ": scale_h");
    r.scale_w = in_range(attrs[3], 0, kMaxKernel, name + ": scale_w");
    r.out_h = in_range(attrs[4], 0, kMaxSize, name + ": out_h");
    r.out_w = in_range(attrs[5], 0, kMaxSize, name + ": out_w");
    check_type(in, !r.bilinear, name);
    if (r.align_corners && !r.bilinear) fail(name + ": align_corners is for bilinear only");
    if (node.inputs.size() > 2) fail(name + ": takes one or two inputs");
    if (!r.scale_h != !r.scale_w || !r.out_h != !r.out_w) fail(name + ": gives a size for rows or columns alone");
    if ((node.inputs.size() == 2) + (r.scale_h > 0) + (r.out_h > 0) != 1)
      fail(name + ": its size must be given in one way: a second input, a scale, or out_h and out_w");
  }

  void check_conv(NodeInfo& node, const std::vector<int32_t>& attrs, const ValueInfo& in,
                  const Where& name) {
    Window& window = node.window;
    window.in_channels = in_range(attrs[0], 1, kMaxChannels, name + ": in_channels");
    window.out_channels = in_range(attrs[1], 1, kMaxChannels, name + ": out_channels");
    read_window(attrs, 2, &window, name);
    window.dilation_h = in_range(attrs[8], 1, kMaxKernel, name + ": dilation_h");
    window.dilation_w = in_range(attrs[9], 1, kMaxKernel, name + ": dilation_w");
    window.groups = in_range(attrs[10], 1, window.in_channels, name + ": groups");
    const bool binary = node.op == Op::kConvB1;
    if (binary)
      window.pad_value = in_range(attrs[11], -1, 1, name + ": pad_value");
    else
      window.zero_point = in_range(attrs[11], 0, 255, name + ": zero_point");
    const bool wide = node.op == Op::kConvShift && (in.type == Type::kI16 || in.type == Type::kI32);
    if ((in.type != (binary ? Type::kB1 : Type::kU8) && !wide) || in.channels != window.in_channels)
      fail(name + ": input has a wrong type or channels");
    if (wide && window.zero_point) fail(name + ": zero_point is for u8 only");
    const int g = window.groups;
    if (window.in_channels % g || window.out_channels % g) fail(name + ": groups do not divide the channels");
    const int in_group = window.in_channels / g;
    const int64_t taps = int64_t(window.kernel_h) * window.kernel_w;
    const int64_t quads = (in_group + 3) / 4;
    if (taps * in_group > kMaxTaps) fail(name + ": more than 65535 taps a sum");
    const int tensor = node.params[0];
    if (tensor == kNone) fail(name + ": has no weight");
    if (binary)
      expect(tensor, 4, (int64_t(window.out_channels) + 1) / 2 * taps * quads, name + ": weight");
    else
      expect(tensor, 3, int64_t(window.out_channels) * taps * quads * 4, name + ": weight");
    check_padding(tensor, binary, size_t(in_group), window.out_channels % 2 ? size_t(taps * quads) : 0, name);
  }

  // What pads a weight to whole nibbles and quads takes part in sums: bits must match the 0 of a map's padding channels,
  // 8-bit weights multiply it. `odd_row`: bytes of the last row where it holds one output channel alone. Nodes may share a
  // tensor; each of its bytes is looked at a few times however many do.
  void check_padding(int tensor, bool binary, size_t in_group, size_t odd_row, const Where& name) {
    const Tensor& t = p_.tensors[size_t(tensor)];
    const size_t quads = (in_group + 3) / 4, held = in_group % 4;
    if (binary) {
      const size_t both = t.count - odd_row;
      if (held) {
        const uint8_t low = uint8_t(0xF << held & 0xF), pad = uint8_t(low * 0x11);
        size_t& checked = checked_padding_[{tensor, quads, held}];
        for (; checked < both; checked += quads)
          if ((t.data[checked + quads - 1] & pad) != pad) fail(name + ": weight: a channel that only pads has bit 0");
        if (odd_row && checked_rows_.insert({tensor, odd_row, in_group}).second)
          for (size_t i = both + quads - 1; i < t.count; i += quads)
            if ((t.data[i] & low) != low) fail(name + ": weight: a channel that only pads has bit 0");
      }
      if (odd_row && checked_rows_.insert({tensor, odd_row, 0}).second)
        for (size_t i = both; i < t.count; i++)
          if (t.data[i] >> 4) fail(name + ": weight: an output channel that only pads has bit 1");
    } else if (held) {
      size_t& checked = checked_padding_[{tensor, quads, held}];
      for (; checked < t.count; checked += 4 * quads)
        for (size_t b = held; b < 4; b++)
          if (t.data[checked + 4 * (quads - 1) + b]) fail(name + ": weight: a channel that only pads is not 0");
    }
  }

  // Types along the epilogue: which steps may follow, and what each reads and writes.
  void check_epilogue(const NodeInfo& node, const Where& name) {
    if (node.steps.empty()) fail(name + ": has no steps");
    if (node.steps.size() > size_t(kMaxSteps)) fail(name + ": has too many steps");
    const int channels = node.window.out_channels;
    const bool shifting = node.op == Op::kConvShift || (node.op == Op::kPointwise && value(node.inputs[0]).type == Type::kI16);
    bool integer = node.op != Op::kPointwise || shifting;
    bool quantised = false, four_bits = false;
    size_t reads = 1, writes = 0;
    for (size_t i = 0; i < node.steps.size(); i++) {
      const StepInfo& step = node.steps[i];
      const Where where = name.step(i);
      const StepSpec spec = step_spec(step.code, version_);
      const StepKind kind = StepKind(step.code);
      Type type = Type::kF32;
      if (spec.value) {
        const ValueInfo v = value(step.value);
        type = v.type;
        const bool one = spec.value == 1 && v.type == Type::kF32 && v.channels == 1;
        if (v.channels != channels && !one) fail(where + ": value has other channels");
      }
      if (spec.value == 1) {
        if (reads >= node.inputs.size() || node.inputs[reads++] != step.value)
          fail(where + ": value is not the next input");
      }
      if (spec.value == 2) {
        if (writes >= node.outputs.size() || node.outputs[writes++] != step.value)
          fail(where + ": value is not the next output");
      }
      if (shifting && (kind == StepKind::kAffine || kind == StepKind::kQuant4Shift || kind == StepKind::kQuant4Ladder))
        fail(where + ": does not go with integers that are added and shifted alone");
      switch (kind) {
        case StepKind::kAffine:
          for (int t : step.params) expect(t, 0, channels, where);
          integer = false;
          break;
        case StepKind::kRPReLU:
        case StepKind::kPReLU:
        case StepKind::kSign:
          for (int t : step.params) expect(t, 0, channels, where);
          if (integer) fail(where + ": needs a real value");
          if (kind == StepKind::kSign && type != Type::kB1) fail(where + ": value is not b1");
          break;
        case StepKind::kAdd:
          if (type != (integer ? Type::kI4 : Type::kF32) && !(integer && type == Type::kI16))
            fail(where + ": value has a wrong type");
          if (type == Type::kI4 && !quantised) fail(where + ": adds i4 to an unquantised sum");
          if (type == Type::kI16) quantised = false;
          four_bits = false;
          break;
        case StepKind::kMul:
          if (integer) fail(where + ": needs a real value");
          if (type != Type::kF32) fail(where + ": value has a wrong type");
          break;
        case StepKind::kClip: {
          if (integer) fail(where + ": needs a real value");
          const float minimum = float_of(step.attrs[0]), maximum = float_of(step.attrs[1]);
          if (!(minimum <= maximum)) fail(where + ": minimum is above maximum, or one is NaN");
          break;
        }
        case StepKind::kSigmoid:
          if (integer) fail(where + ": needs a real value");
          break;
        case StepKind::kStore:
          if (type != (integer ? Type::kI4 : Type::kF32) && !(integer && (type == Type::kI16 || type == Type::kI32)))
            fail(where + ": value has a wrong type");
          if (type == Type::kI4 && !four_bits) fail(where + ": stores as i4 what is no 4-bit number: only quant4 gives one");
          break;
        case StepKind::kQuant4Shift:
          for (int t : step.params) expect(t, 1, channels, where);
          in_range(step.attrs[0], 0, 31, where + ": shift");
          if (!integer) fail(where + ": needs an integer value");
          quantised = four_bits = true;
          break;
        case StepKind::kQuant4Ladder:
          expect(step.params[0], 1, int64_t(channels) * 15, where + ": cuts");
          expect_flip(step.params[1], channels, where + ": flip");
          if (!integer) fail(where + ": needs an integer value");
          quantised = four_bits = true;
          break;
        case StepKind::kThreshold:
          expect(step.params[0], 1, channels, where + ": low");
          expect(step.params[1], 1, channels, where + ": high");
          expect_flip(step.params[2], channels, where + ": flip");
          if (!integer) fail(where + ": needs an integer value");
          if (type != Type::kB1) fail(where + ": value is not b1");
          break;
        case StepKind::kQuant8:
          in_range(step.attrs[2], 1, 255, where + ": levels");
          in_range(step.attrs[1], 0, step.attrs[2], where + ": zero_point");
          if (integer) fail(where + ": needs a real value");
          if (type != Type::kU8) fail(where + ": value is not u8");
          break;
        case StepKind::kQuant16:
          if (integer) fail(where + ": needs a real value");
          if (type != Type::kI16) fail(where + ": value is not i16");
          break;
        case StepKind::kShiftPReLU:
          expect_range(step.params[0], channels, -65535, 65535, where + ": shift_in");
          expect_range(step.params[3], channels, -65535, 65535, where + ": shift_out");
          [[fallthrough]];
        case StepKind::kShiftSum: {
          const size_t first = kind == StepKind::kShiftSum ? 0 : 1;
          const int64_t digits = in_range(step.attrs[0], 1, kMaxDigits, where + ": digits");
          expect_range(step.params[first], channels * digits, -31, 15, where + ": shifts");
          expect_range(step.params[first + 1], channels * digits, -1, 1, where + ": signs");
          if (!integer) fail(where + ": needs an integer value");
          quantised = four_bits = false;
          break;
        }
        case StepKind::kBias:
          expect(step.params[0], 1, channels, where + ": bias");
          if (!integer) fail(where + ": needs an integer value");
          quantised = four_bits = false;
          break;
      }
    }
    if (reads != node.inputs.size() || writes != node.outputs.size())
      fail(name + ": inputs or outputs that no step uses");
  }

  Program p_;
  uint32_t version_ = 0;
  std::map<int, std::pair<int32_t, int32_t>> index_ranges_;
  std::vector<bool> written_;
  const uint8_t* strings_ = nullptr;
  size_t string_bytes_ = 0, path_bytes_ = 0;
  std::set<int> checked_flips_;
  std::map<std::tuple<int, size_t, size_t>, size_t> checked_padding_;  // tensor, quads, channels in the last: bytes looked at
  std::set<std::tuple<int, size_t, size_t>> checked_rows_;             // tensor, length of its last row, channels or 0
};

}  // namespace

Program read_program(Container container) { return Reader(std::move(container)).read(); }

}  // namespace signbit
