// Pooling steps, and what all steps share that work row by row.
#include <algorithm>
#include <cstring>

#include "planner.h"

namespace signbit {

namespace {

constexpr size_t kItemPositions = 8192;  // of a map that a work item reads or writes: some microseconds

}  // namespace

void Planner::set_rows(const NodeInfo& n, RowWork* work) const {
  const Map &in = s_.maps_[size_t(n.inputs[0])], &out = s_.maps_[size_t(n.outputs[0])];
  work->in = in.geometry;
  work->out = out.geometry;
  work->src = in.body;
  work->dst = out.body;
  work->src_plane = in.plane_bytes;
  work->dst_plane = out.plane_bytes;
  work->planes = out.planes;
  work->halo = out.halo;
  work->last_halo = out.last_halo;
  // Rows of the result until what they read or write is an item's share.
  const Geometry &from = *in.geometry, &to = *out.geometry;
  const size_t row = std::max(size_t(to.width), size_t(from.height) * size_t(from.width) / size_t(to.height));
  work->band_rows = int(std::clamp<size_t>(kItemPositions / row, 1, size_t(to.batch) * size_t(to.height)));
}

int64_t Planner::row_items(const RowWork& work) const {
  return int64_t(work.planes) * ceil_div(work.out->batch * work.out->height, work.band_rows);
}

// A maximum is taken down the columns first, into one row with all that windows reach on both sides.
int Planner::scratch_width(const NodeInfo& n) const {
  const Window& w = n.window;
  const int reach = (size(n.outputs[0]).width - 1) * w.stride_w + (w.kernel_w - 1) * w.dilation_w + 1;
  return std::max(reach, size(n.inputs[0]).width + w.pad_w);
}

size_t Planner::scratch_bytes(const NodeInfo& n) const {
  return round_up(size_t(scratch_width(n)) * (info(n.inputs[0]).type == Type::kB1 ? 1 : sizeof(float)), 64);
}

void Planner::add_max_pool(const NodeInfo& n, Pool pool) {
  const Type type = info(n.inputs[0]).type;
  const bool bits = type == Type::kB1, integer = type == Type::kI16;
  const size_t bytes = scratch_bytes(n);
  pool.scratch_width = scratch_width(n);
  uint8_t* scratch = keep<uint8_t>(bytes * size_t(s_.options_.threads));
  if (n.params[0] != kNone) {
    const uint8_t* flip = program_.tensors[size_t(n.params[0])].data;
    uint8_t* nibbles = keep<uint8_t>(size_t(pool.planes));
    std::memset(nibbles, 0, size_t(pool.planes));
    for (int c = 0; c < pool.channels; c++) nibbles[c / 4] |= uint8_t((flip[c] & 1) << c % 4);
    pool.flip = nibbles;
  }
  const auto kernel = bits ? s_.kernels_->max_pool_b1 : integer ? s_.kernels_->max_pool_i16 : s_.kernels_->max_pool_f32;
  new_step(n, "max_pool", bits ? "max_pool_b1" : integer ? "max_pool_i16" : "max_pool_f32").run =
      parallel(n, row_items(pool), [=](int64_t begin, int64_t end, int thread) {
        Pool mine = pool;
        mine.scratch = scratch + size_t(thread) * bytes;
        kernel(mine, begin, end);
      });
}

void Planner::add_avg_pool(const NodeInfo& n, Pool pool) {
  const Window& w = n.window;
  if (info(n.inputs[0]).type == Type::kI16) {
    while (1 << pool.shift < w.kernel_h * w.kernel_w) pool.shift++;
    const auto kernel = s_.kernels_->avg_pool_i16;
    new_step(n, "avg_pool", "avg_pool_i16").run =
        parallel(n, row_items(pool), [=](int64_t begin, int64_t end, int) { kernel(pool, begin, end); });
    return;
  }
  const Geometry &in = *pool.in, &out = *pool.out;
  const auto cut = [](int count, int size, int kernel, int stride) { return (count - 1) * stride + kernel > size; };
  if (w.pad_h || w.pad_w || cut(out.height, in.height, w.kernel_h, w.stride_h) ||
      cut(out.width, in.width, w.kernel_w, w.stride_w)) {
    int32_t* taps = keep<int32_t>(size_t(out.width));
    const int pad = w.count_include_pad ? w.pad_w : 0;
    for (int x = 0; x < out.width; x++) {
      const int start = x * w.stride_w - w.pad_w;
      taps[x] = std::min(start + w.kernel_w, in.width + pad) - std::max(start, -pad);
    }
    pool.column_taps = taps;
    pool.include_pad = w.count_include_pad;
  }
  int32_t* columns = keep<int32_t>(2 * size_t(w.kernel_w));
  for (int kx = 0; kx < w.kernel_w; kx++) {
    const int before = w.pad_w - kx;  // how far column 0's tap lies before the image
    columns[2 * kx] = before > 0 ? ceil_div(before, w.stride_w) : 0;
    columns[2 * kx + 1] = std::min(out.width, floor_div(in.width - 1 + before, w.stride_w) + 1);
  }
  pool.tap_columns = columns;
  const auto kernel = s_.kernels_->avg_pool_f32;
  new_step(n, "avg_pool", "avg_pool").run =
      parallel(n, row_items(pool), [=](int64_t begin, int64_t end, int) { kernel(pool, begin, end); });
}

void Planner::add_pool(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  Pool pool = {};
  set_rows(n, &pool);
  pool.kernel_h = w.kernel_h;
  pool.kernel_w = w.kernel_w;
  pool.stride_h = w.stride_h;
  pool.stride_w = w.stride_w;
  pool.pad_h = w.pad_h;
  pool.pad_w = w.pad_w;
  pool.dilation_h = w.dilation_h;
  pool.dilation_w = w.dilation_w;
  pool.channels = info(n.inputs[0]).channels;
  pool.take_max = n.take_max;
  if (n.op == Op::kMaxPool) return add_max_pool(n, pool);
  if (n.op == Op::kAvgPool) return add_avg_pool(n, pool);
  if (n.op == Op::kAdaptivePool) {
    const auto kernel = s_.kernels_->adaptive_pool_f32;
    new_step(n, "adaptive_pool", n.take_max ? "adaptive_max_pool" : "adaptive_avg_pool").run =
        parallel(n, row_items(pool), [=](int64_t begin, int64_t end, int) { kernel(pool, begin, end); });
    return;
  }
  if (n.op == Op::kGlobalSum) {
    const auto kernel = s_.kernels_->global_sum_i16;
    new_step(n, "global_sum", "global_sum_i16").run =
        parallel(n, map(n.inputs[0]).planes, [=](int64_t begin, int64_t end, int) { kernel(pool, begin, end); });
    return;
  }
  const bool bits = info(n.inputs[0]).type == Type::kB1;
  const auto kernel = bits ? s_.kernels_->global_pool_b1 : s_.kernels_->global_pool_f32;
  new_step(n, "global_avg_pool", bits ? "global_pool_b1" : "global_pool_f32").run =
      parallel(n, map(n.inputs[0]).planes, [=](int64_t begin, int64_t end, int) { kernel(pool, begin, end); });
}

}  // namespace signbit
