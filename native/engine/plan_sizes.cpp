// What a session's maps measure, and what all of it takes in memory: known, and refused, before it is allocated.
#include <algorithm>
#include <set>

#include "error.h"
#include "planner.h"

namespace signbit {

namespace {

constexpr int64_t kMaxSide = 1 << 24;  // rows or columns of a map

int64_t window_count(int64_t size, int kernel, int stride, int pad, int dilation, bool ceil_mode) {
  const int64_t room = size + 2 * int64_t(pad) - int64_t(dilation) * (kernel - 1) - 1;
  const int64_t last = room + (ceil_mode ? stride - 1 : 0);
  if (last < 0) return 0;
  const int64_t count = last / stride + 1;
  return ceil_mode && (count - 1) * stride >= size + pad ? count - 1 : count;
}

std::string by(int64_t height, int64_t width) { return std::to_string(height) + "x" + std::to_string(width); }

}  // namespace

Planner::Size Planner::result_size(const NodeInfo& n) const {
  const Size in = size(n.inputs[0]);
  const Window& w = n.window;
  int64_t height = in.height, width = in.width;
  switch (n.op) {
    case Op::kConvB1:
    case Op::kConvQ8:
    case Op::kConvShift:
    case Op::kMaxPool:
    case Op::kAvgPool:
      height = window_count(in.height, w.kernel_h, w.stride_h, w.pad_h, w.dilation_h, w.ceil_mode);
      width = window_count(in.width, w.kernel_w, w.stride_w, w.pad_w, w.dilation_w, w.ceil_mode);
      if (height < 1 || width < 1)
        throw ArgumentError("layer \"" + n.path + "\": its input of " + by(in.height, in.width) +
                            " pixels is smaller than its window; use a larger image");
      break;
    case Op::kGlobalSum:
      if (height * width != n.area)
        throw ArgumentError("layer \"" + n.path + "\": this program averages maps of " + std::to_string(n.area) +
                            " pixels, not of " + by(height, width) + "; open it at the size that it was compiled for");
      height = width = 1;
      break;
    case Op::kGlobalAvgPool:
      height = width = 1;
      break;
    case Op::kAdaptivePool:
      height = n.out_h;
      width = n.out_w;
      break;
    case Op::kResize:
      if (n.inputs.size() == 2) return size(n.inputs[1]);
      height = n.resize.scale_h ? height * n.resize.scale_h : n.resize.out_h;
      width = n.resize.scale_w ? width * n.resize.scale_w : n.resize.out_w;
      break;
    case Op::kPixelShuffle:
      height *= n.factor;
      width *= n.factor;
      break;
    case Op::kPointwise:
    case Op::kChannels:
      break;
  }
  if (height > kMaxSide || width > kMaxSide)
    throw ArgumentError("layer \"" + n.path + "\": its result of " + by(height, width) +
                        " pixels is too large; use a smaller image");
  return {int(height), int(width)};
}

// Values that are read beside the first input have the size of the result, or, where a step may repeat them, one pixel.
void Planner::check_operands(const NodeInfo& n, const Size& out) const {
  auto check = [&](int value, const char* what, bool one_pixel) {
    const Size other = size(value);
    if (other.height == out.height && other.width == out.width) return;
    if (one_pixel && other.height == 1 && other.width == 1) return;
    throw ArgumentError("layer \"" + n.path + "\": " + what + " maps of " + by(out.height, out.width) + " and " +
                        by(other.height, other.width) + " pixels; use an image size that the strides divide");
  };
  if (n.op == Op::kChannels)
    for (int v : n.inputs) check(v, "joins", false);
  for (const StepInfo& step : n.steps) {
    const StepKind kind = StepKind(step.code);
    if (kind == StepKind::kAdd) check(step.value, "adds", info(step.value).type == Type::kF32);
    if (kind == StepKind::kMul) check(step.value, "multiplies", true);
  }
}

void Planner::infer_sizes() {
  sizes_.resize(program_.values.size());
  sizes_[size_t(program_.input)] = {s_.options_.height, s_.options_.width};
  for (const NodeInfo& n : program_.nodes) {
    const Size out = result_size(n);
    check_operands(n, out);
    for (int v : n.outputs) sizes_[size_t(v)] = out;
  }
  for (const OutputInfo& o : program_.outputs)
    if (o.flat && (size(o.value).height != 1 || size(o.value).width != 1))
      throw ArgumentError("the network ends in a vector, but an image of " + by(s_.options_.height, s_.options_.width) +
                          " pixels leaves a map of " + by(size(o.value).height, size(o.value).width) +
                          "; use the image size that it was compiled for");
}

// Bytes of what a step keeps beside its maps. Of a convolution only its weights count here, which are packed anew: what
// a kernel adds to them is small, its own affair, and charged when it is kept.
size_t Planner::table_bytes(const NodeInfo& n) const {
  const Size out = size(n.outputs[0]);
  const size_t channels = size_t(info(n.outputs[0]).channels);
  switch (n.op) {
    case Op::kConvB1:
    case Op::kConvQ8:
    case Op::kConvShift:
      return program_.tensors[size_t(n.params[0])].count;
    case Op::kMaxPool:
      return scratch_bytes(n) * size_t(s_.options_.threads);
    case Op::kAvgPool:
      return (size_t(out.width) + 2 * size_t(n.window.kernel_w)) * sizeof(int32_t);
    case Op::kResize:
      return (size_t(out.height) + size_t(out.width)) * (n.resize.bilinear ? 4 : 1) * 4;
    case Op::kChannels:
      return channels * (info(n.outputs[0]).type == Type::kB1 ? sizeof(BitSources) / 4 : sizeof(uint8_t*));
    default:
      return 0;
  }
}

void Planner::check_memory() {
  const size_t pixel_tables = program_.normalised ? size_t(info(program_.input).channels) * 256 * 2 * sizeof(float) : 0;
  charge(s_.arena_bytes_ + pixel_tables);
  size_t total = charged_;
  total += (program_.nodes.size() + repacks_.size()) * kStepBytes;
  for (const auto& entry : s_.geometries_) total += entry.second->body;
  std::set<std::vector<int64_t>> valid;
  for (int i = 0; i < node_count(); i++) {
    const NodeInfo& n = node(i);
    const auto room = room_.find(i);
    total += room == room_.end() ? table_bytes(n) : room->second.weight_bytes;
    if (n.op == Op::kConvB1 && room == room_.end() && valid.insert(valid_key(n)).second) total += valid_bytes(n);
  }
  require_memory(total);
}

void Planner::require_memory(size_t bytes) const {
  const uint64_t limit = s_.options_.memory_limit;
  if (bytes <= kMaxMemory && (!limit || bytes <= limit)) return;
  const bool own = limit && limit < kMaxMemory;
  throw ArgumentError("the session needs at least " + std::to_string(bytes) + " bytes for maps, tables and weights, more than " +
                      (own ? "the memory limit of " + std::to_string(limit) : "any session may take, " + std::to_string(kMaxMemory)) +
                      "; use a smaller image" + (s_.options_.batch > 1 ? ", a smaller batch" : "") +
                      (own ? " or a higher limit" : ""));
}

void Planner::charge(size_t bytes) {
  charged_ += bytes;
  require_memory(charged_);
}

uint8_t* Planner::keep_bytes(size_t bytes) {
  constexpr size_t kAround = 64 + sizeof(std::vector<uint8_t>) + 16;  // for alignment, and of the lists that hold it
  charge(bytes + kAround);
  s_.storage_.emplace_back(bytes + 64);
  uint8_t* p = s_.storage_.back().data();
  return p + (64 - reinterpret_cast<uintptr_t>(p) % 64) % 64;
}

}  // namespace signbit
