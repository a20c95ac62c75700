// Convolutions: repacked inputs, valid taps, weights in the order of the kernels.
#include <algorithm>
#include <cstring>

#include "planner.h"

namespace signbit {

namespace {

// Rows of one plane, spread over the phases of a stride.
template <typename T>
void copy_phase(const Map& from, const Map& to, size_t plane, size_t to_plane, int phase_y, int phase_x,
                int stride_h, int stride_w, int rows, int columns) {
  const Geometry &in = *from.geometry, &out = *to.geometry;
  const T* src = reinterpret_cast<const T*>(from.body + plane * from.plane_bytes);
  T* dst = reinterpret_cast<T*>(to.body + to_plane * to.plane_bytes);
  rows = std::min(rows, (in.height - phase_y + stride_h - 1) / stride_h);
  columns = std::min(columns, (in.width - phase_x + stride_w - 1) / stride_w);
  for (int n = 0; n < in.batch; n++)
    for (int y = 0; y < rows; y++) {
      const T* s = src + (size_t(n) * size_t(in.image_rows) + size_t(y * stride_h + phase_y)) * size_t(in.row_stride) +
                   phase_x;
      T* d = dst + (size_t(n) * size_t(out.image_rows) + size_t(y)) * size_t(out.row_stride);
      if (stride_w == 1) {
        std::memcpy(d, s, size_t(std::max(columns, 0)) * sizeof(T));
      } else if (stride_w == 2) {
        for (int x = 0; x < columns; x++) d[x] = s[2 * x];
      } else {
        for (int x = 0; x < columns; x++) d[x] = s[size_t(x) * size_t(stride_w)];
      }
    }
}

}  // namespace

void Planner::add_repack_step(const Repack& r) {
  Session* session = &s_;
  const Map from = map(r.value), to = r.map;
  s_.steps_.emplace_back();
  PlanStep& step = s_.steps_.back();
  step.name = node(r.first - 1).path;
  step.op = "repack";
  step.kernel = "repack_s" + std::to_string(r.stride_h) + std::to_string(r.stride_w);
  step.shape = dimensions(info(r.value).channels, r.geometry->height, r.geometry->width);
  const int slots = int(std::count(r.used.begin(), r.used.end(), true));
  const int planes = from.planes;
  step.bytes = from.geometry->body * from.element * size_t(planes) + to.plane_bytes * size_t(planes * slots);
  const std::vector<int> slot = r.slot;
  const int stride_h = r.stride_h, stride_w = r.stride_w;
  // Rows and columns behind the output's last that taps still reach.
  const int rows = r.geometry->height + std::max(0, r.reach.high_y);
  const int columns = r.geometry->width + std::max(0, r.reach.high_x);
  step.run = [=] {
    session->pool_.run(int64_t(slot.size()) * planes, [&](int64_t begin, int64_t end, int) {
      for (int64_t item = begin; item < end; item++) {
        const size_t phase = size_t(item / planes), plane = size_t(item % planes);
        if (slot[phase] < 0) continue;
        const size_t to_plane = size_t(slot[phase]) * size_t(planes) + plane;
        const uint8_t halo = int(plane) + 1 == planes ? to.last_halo : to.halo;
        std::memset(to.body + to_plane * to.plane_bytes - to.geometry->margin * to.element, halo,
                    to.geometry->plane * to.element);
        const int py = int(phase) / stride_w, px = int(phase) % stride_w;
        if (to.element == 1)
          copy_phase<uint8_t>(from, to, plane, to_plane, py, px, stride_h, stride_w, rows, columns);
        else
          copy_phase<uint32_t>(from, to, plane, to_plane, py, px, stride_h, stride_w, rows, columns);
      }
    });
  };
}

// How many taps are inside the image at each position, times the channels of a sum: what `2 * matches` loses to become a
// dot product.
void Planner::make_valid(const NodeInfo& n, bool narrow, BinaryConv* conv) {
  const Window& w = n.window;
  const Size in = size(n.inputs[0]);
  const Geometry& g = *geometry(size(n.outputs[0]));
  const std::vector<int64_t> key = {in.height, in.width, g.height, g.width, w.kernel_h, w.kernel_w, w.stride_h,
                                    w.stride_w, w.pad_h, w.pad_w, w.dilation_h, w.dilation_w,
                                    w.in_channels / w.groups, w.pad_value != 0, narrow};
  const void*& made = valid_[key];
  if (!made) {
    auto inside = [](int at, int kernel, int stride, int pad, int dilation, int limit) {
      int count = 0;
      for (int k = 0; k < kernel; k++) {
        const int i = at * stride - pad + k * dilation;
        count += i >= 0 && i < limit;
      }
      return count;
    };
    std::vector<int> rows, columns;
    for (int y = 0; y < g.height; y++)
      rows.push_back(w.pad_value ? w.kernel_h
                                 : inside(y, w.kernel_h, w.stride_h, w.pad_h, w.dilation_h, in.height));
    for (int x = 0; x < g.width; x++)
      columns.push_back(w.pad_value ? w.kernel_w
                                    : inside(x, w.kernel_w, w.stride_w, w.pad_w, w.dilation_w, in.width));
    int16_t* valid16 = narrow ? keep<int16_t>(g.body) : nullptr;
    int32_t* valid32 = narrow ? nullptr : keep<int32_t>(g.body);
    for (int image = 0; image < g.batch; image++)
      for (int y = 0; y < g.height; y++)
        for (int x = 0; x < g.width; x++) {
          const size_t p = (size_t(image) * size_t(g.image_rows) + size_t(y)) * size_t(g.row_stride) + size_t(x);
          const int valid = rows[size_t(y)] * columns[size_t(x)] * (w.in_channels / w.groups);
          if (narrow)
            valid16[p] = int16_t(valid);
          else
            valid32[p] = valid;
        }
    made = narrow ? static_cast<const void*>(valid16) : static_cast<const void*>(valid32);
  }
  conv->valid16 = narrow ? static_cast<const int16_t*>(made) : nullptr;
  conv->valid32 = narrow ? nullptr : static_cast<const int32_t*>(made);
}

// What binary and 8-bit convolutions share; `weights` is left to them.
Conv Planner::make_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const Repack* repack = repack_of_[size_t(index)];
  const Map& in = repack ? repack->map : map(n.inputs[0]);
  const Geometry& g = *geometry(size(n.outputs[0]));
  const int quads = (w.in_channels / w.groups + 3) / 4, steps = w.kernel_h * w.kernel_w * quads;
  int32_t* offset = keep<int32_t>(size_t(steps));
  for (int ky = 0; ky < w.kernel_h; ky++)
    for (int kx = 0; kx < w.kernel_w; kx++) {
      const int dy = ky * w.dilation_h - w.pad_h, dx = kx * w.dilation_w - w.pad_w;
      const int oy = floor_div(dy, w.stride_h), ox = floor_div(dx, w.stride_w);
      int64_t at = (int64_t(oy) * g.row_stride + ox) * int64_t(in.element);
      if (repack) {
        const int phase = (dy - oy * w.stride_h) * w.stride_w + dx - ox * w.stride_w;
        at += int64_t(repack->slot[size_t(phase)]) * in.planes * int64_t(in.plane_bytes);
      }
      for (int q = 0; q < quads; q++)
        offset[(ky * w.kernel_w + kx) * quads + q] = int32_t(at + q * int64_t(in.plane_bytes));
    }
  Conv c = {};
  c.input = in.body;
  c.group_stride = size_t(quads) * in.plane_bytes;
  c.offset = offset;
  c.steps = steps;
  c.groups = w.groups;
  c.group_channels = w.out_channels / w.groups;
  c.body = g.body;
  return c;
}

int64_t Planner::macs(const NodeInfo& n) const {
  const Window& w = n.window;
  const Geometry& g = *geometry(size(n.outputs[0]));
  return int64_t(g.batch) * g.height * g.width * w.out_channels * w.kernel_h * w.kernel_w *
         (w.in_channels / w.groups);
}

namespace {

// Weights in the order in which a kernel reads them: for each block of channels all steps, for each step the
// block's `lanes`, each of `lane_bytes`.
class WeightBlocks {
 public:
  WeightBlocks(const Conv& c, int block_channels, int lanes, size_t lane_bytes)
      : c_(c), block_channels_(block_channels), lanes_(lanes), lane_bytes_(lane_bytes),
        blocks_(ceil_div(c.group_channels, block_channels)) {}

  int64_t blocks() const { return int64_t(blocks_) * c_.groups; }
  size_t bytes() const { return size_t(blocks()) * size_t(c_.steps) * size_t(lanes_) * lane_bytes_; }
  // Where the weights of an output channel for a step lie.
  size_t at(int channel, int step) const {
    const int group = channel / c_.group_channels, first = channel % c_.group_channels;
    const size_t block = size_t(group * blocks_ + first / block_channels_);
    const size_t lane = size_t(first % block_channels_) * size_t(lanes_) / size_t(block_channels_);
    return ((block * size_t(c_.steps) + size_t(step)) * size_t(lanes_) + lane) * lane_bytes_;
  }

 private:
  const Conv& c_;
  int block_channels_, lanes_;
  size_t lane_bytes_;
  int blocks_;
};

}  // namespace

void Planner::add_binary_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  BinaryConv c = {};
  static_cast<Conv&>(c) = make_conv(index);
  const WeightBlocks blocks(c, kBinaryChannels, kBinaryChannels / 2, 1);
  const uint8_t* from = program_.tensors[size_t(n.params[0])].data;
  uint8_t* packed = keep<uint8_t>(blocks.bytes());
  for (int channel = 0; channel < w.out_channels; channel += 2)
    for (int k = 0; k < c.steps; k++)
      packed[blocks.at(channel, k)] = from[size_t(channel / 2) * size_t(c.steps) + size_t(k)];
  c.weights = packed;
  const bool narrow = w.kernel_h * w.kernel_w * (w.in_channels / w.groups) <= 32766;
  make_valid(n, narrow, &c);
  const Epilogue e = make_epilogue(n, narrow);
  const KernelTable* kernels = s_.kernels_;
  const int64_t tile = kernels->binary_tile;
  PlanStep& step = new_step(n, "conv_b1", "look_up");
  step.macs_b1 = macs(n);
  step.bytes += blocks.bytes();
  s_.weight_bytes_ += blocks.bytes();
  step.run = parallel(n, blocks.blocks() * ((int64_t(c.body) + tile - 1) / tile),
                      [=](int64_t begin, int64_t end, int) { kernels->binary_conv(c, e, begin, end); });
}

void Planner::add_q8_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const KernelTable* kernels = s_.kernels_;
  Q8Conv c = {};
  static_cast<Conv&>(c) = make_conv(index);
  const WeightBlocks blocks(c, kQ8Channels, kQ8Channels, size_t(kernels->q8_quad_bytes));
  const int8_t* from = reinterpret_cast<const int8_t*>(program_.tensors[size_t(n.params[0])].data);
  uint8_t* packed = keep<uint8_t>(blocks.bytes());
  int32_t* correction = keep<int32_t>(size_t(w.out_channels));
  for (int channel = 0; channel < w.out_channels; channel++) {
    int32_t sum = 0;
    for (int k = 0; k < c.steps; k++, from += 4) {
      kernels->pack_q8_quad(from, packed + blocks.at(channel, k));
      sum += from[0] + from[1] + from[2] + from[3];
    }
    correction[channel] = sum * w.zero_point;
  }
  c.weights = packed;
  c.correction = correction;
  const Epilogue e = make_epilogue(n, false);
  PlanStep& step = new_step(n, "conv_q8", "dot");
  step.macs_q8 = macs(n);
  step.bytes += blocks.bytes();
  s_.weight_bytes_ += blocks.bytes();
  step.run = parallel(n, blocks.blocks() * int64_t(c.body / kTile),
                      [=](int64_t begin, int64_t end, int) { kernels->q8_conv(c, e, begin, end); });
}

}  // namespace signbit
