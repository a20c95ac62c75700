#include "planner.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "error.h"

namespace signbit {
namespace {

constexpr size_t kMaxBuffer = size_t(1) << 30;  // offsets between taps are 32-bit

size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }
int ceil_div(int a, int b) { return (a + b - 1) / b; }
int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

int output_size(int size, int kernel, int stride, int pad, int dilation) {
  const int64_t span = int64_t(dilation) * (kernel - 1) + 1;
  const int64_t room = int64_t(size) + 2 * pad - span;
  return room < 0 ? 0 : int(room / stride + 1);
}

bool is_conv(const NodeInfo& n) { return n.op == Op::kConvB1 || n.op == Op::kConvQ8; }

size_t element_size(Type type) { return type == Type::kF32 || type == Type::kU8 ? 4 : 1; }

bool in_quads(Type type) { return type == Type::kB1 || type == Type::kU8; }

// The byte that a convolution wants to find outside the image.
uint8_t wanted_halo(const NodeInfo& n) {
  if (n.op == Op::kConvQ8) return uint8_t(n.window.zero_point);
  return n.window.pad_value == 0 ? kOutside : n.window.pad_value > 0 ? uint8_t(15) : uint8_t(0);
}

bool reads_halo(const NodeInfo& n) { return n.window.pad_h > 0 || n.window.pad_w > 0; }

std::string dimensions(int channels, int height, int width) {
  return std::to_string(channels) + "x" + std::to_string(height) + "x" + std::to_string(width);
}

}  // namespace

template <typename T>
T* Planner::keep(size_t count) {
  s_.storage_.emplace_back(count * sizeof(T) + 64);
  uint8_t* p = s_.storage_.back().data();
  p += (64 - reinterpret_cast<uintptr_t>(p) % 64) % 64;
  return reinterpret_cast<T*>(p);
}

void Planner::plan() {
  infer_sizes();
  find_halos();
  build_geometries();
  choose_layouts();
  place_buffers();
  add_steps();
}

void Planner::infer_sizes() {
  sizes_.resize(program_.values.size());
  sizes_[size_t(program_.input)] = {s_.options_.height, s_.options_.width};
  for (const NodeInfo& n : program_.nodes) {
    const Size in = size(n.inputs[0]);
    const Window& w = n.window;
    Size out = in;
    if (n.op == Op::kGlobalAvgPool) {
      out = {1, 1};
    } else if (n.op != Op::kPointwise) {
      out = {output_size(in.height, w.kernel_h, w.stride_h, w.pad_h, w.dilation_h),
             output_size(in.width, w.kernel_w, w.stride_w, w.pad_w, w.dilation_w)};
      if (out.height < 1 || out.width < 1)
        throw ArgumentError("layer \"" + n.path + "\": its input of " + std::to_string(in.height) + "x" +
                            std::to_string(in.width) + " pixels is smaller than its window; use a larger image");
    }
    for (int v : n.outputs) sizes_[size_t(v)] = out;
    for (size_t i = 1; i < n.inputs.size(); i++) {
      const Size other = size(n.inputs[i]);
      if (other.height != out.height || other.width != out.width)
        throw ArgumentError("layer \"" + n.path + "\": adds maps of " + std::to_string(out.height) + "x" +
                            std::to_string(out.width) + " and " + std::to_string(other.height) + "x" +
                            std::to_string(other.width) + " pixels; use an image size that the strides divide");
    }
  }
  for (const OutputInfo& o : program_.outputs)
    if (o.flat && (size(o.value).height != 1 || size(o.value).width != 1))
      throw ArgumentError("the network ends in a vector, but an image of " + std::to_string(s_.options_.height) + "x" +
                          std::to_string(s_.options_.width) + " pixels leaves a map of " +
                          std::to_string(size(o.value).height) + "x" + std::to_string(size(o.value).width) +
                          "; use the image size that it was compiled for");
}

bool Planner::is_direct(const NodeInfo& n) const {
  const Size in = size(n.inputs[0]), out = size(n.outputs[0]);
  return n.window.stride_h == 1 && n.window.stride_w == 1 && in.height == out.height && in.width == out.width;
}

Planner::Reach Planner::reach_of(const NodeInfo& n) const {
  const Window& w = n.window;
  return {floor_div(-w.pad_h, w.stride_h),
          floor_div((w.kernel_h - 1) * w.dilation_h - w.pad_h, w.stride_h),
          floor_div(-w.pad_w, w.stride_w),
          floor_div((w.kernel_w - 1) * w.dilation_w - w.pad_w, w.stride_w)};
}

// All maps of one resolution share one geometry, so that any two of them line up position by position. Its halo is as
// wide as the widest need of the convolutions that compute at that resolution.
void Planner::find_halos() {
  for (const NodeInfo& n : program_.nodes) {
    if (!is_conv(n)) continue;
    const Size in = size(n.inputs[0]), out = size(n.outputs[0]);
    const Reach r = reach_of(n);
    // Behind the last row or column of a strided or unpadded convolution's output there may be real pixels; then the halo
    // in front of the next row cannot share their place.
    auto need = [](int low, int high, int in_size, int out_size, int stride) {
      const int before = std::max(0, -low), behind = std::max(0, high);
      return ceil_div(in_size, stride) > out_size ? before + behind : std::max(before, behind);
    };
    int& halo = halo_[{out.height, out.width}];
    halo = std::max({halo, need(r.low_y, r.high_y, in.height, out.height, n.window.stride_h),
                     need(r.low_x, r.high_x, in.width, out.width, n.window.stride_w)});
  }
}

void Planner::build_geometries() {
  for (const Size& size : sizes_) {
    std::unique_ptr<Geometry>& slot = s_.geometries_[{size.height, size.width}];
    if (slot) continue;
    slot = std::make_unique<Geometry>();
    Geometry& g = *slot;
    g.batch = s_.options_.batch;
    g.height = size.height;
    g.width = size.width;
    g.halo = halo_[{size.height, size.width}];
    g.row_stride = g.width + g.halo;
    g.image_rows = g.height + g.halo;
    const size_t rows = size_t(g.batch) * size_t(g.image_rows);
    const size_t positions = rows > kMaxBuffer ? rows : rows * size_t(g.row_stride);
    if (positions > kMaxBuffer)
      throw ArgumentError("an input of " + std::to_string(s_.options_.batch) + " images of " +
                          std::to_string(s_.options_.height) + "x" + std::to_string(s_.options_.width) +
                          " pixels is too large");
    g.margin = round_up(size_t(g.halo) * size_t(g.row_stride) + size_t(g.halo), kTile);
    g.body = round_up(positions, kTile);
    g.plane = 2 * g.margin + g.body;
    g.outside = keep<uint8_t>(g.body);
    std::memset(g.outside, 0xFF, g.body);
    for (int n = 0; n < g.batch; n++)
      for (int y = 0; y < g.height; y++)
        std::memset(g.outside + (size_t(n) * size_t(g.image_rows) + size_t(y)) * size_t(g.row_stride), 0,
                    size_t(g.width));
  }
}

const Geometry* Planner::geometry(const Size& size) const {
  return s_.geometries_.at({size.height, size.width}).get();
}

Map Planner::make_map(Type type, int channels, const Geometry* g, int phases, int first, int last) {
  Map m;
  m.geometry = g;
  m.planes = in_quads(type) ? (channels + 3) / 4 : channels;
  m.element = element_size(type);
  m.plane_bytes = g->plane * m.element;
  // An odd number of cache lines: planes that lie a power of two apart would evict one another.
  if (m.plane_bytes % 128 == 0) m.plane_bytes += 64;
  m.buffer_offset = g->margin * m.element;
  m.buffer = int(s_.buffers_.size());
  Buffer buffer;
  buffer.bytes = m.plane_bytes * size_t(m.planes) * size_t(phases);
  if (size_t(m.planes) * size_t(phases) > kMaxBuffer / m.plane_bytes)
    throw ArgumentError("a map of " + dimensions(channels, g->height, g->width) + " for " +
                        std::to_string(g->batch) + " images is too large");
  buffer.first = first;
  buffer.last = last;
  s_.buffers_.push_back(buffer);
  set_halo(&m, type, channels, type == Type::kB1 ? kOutside : uint8_t(0));
  return m;
}

void Planner::set_halo(Map* m, Type type, int channels, uint8_t halo) {
  m->halo = m->last_halo = halo;
  // Channels that pad the last nibble must match nothing: their bit is 0, also outside the image.
  if (type == Type::kB1 && halo == 15 && channels % 4) m->last_halo = uint8_t((1 << channels % 4) - 1);
}

void Planner::choose_layouts() {
  const int end = node_count();
  std::vector<int> first(program_.values.size(), 0), last(program_.values.size(), 0);
  for (int i = 0; i < end; i++) {
    for (int v : node(i).outputs) first[size_t(v)] = last[size_t(v)] = i + 1;
    for (int v : node(i).inputs) last[size_t(v)] = i + 1;
    // Pixels may be looked up straight into this node's output, before the first step.
    if (node(i).op == Op::kPointwise && node(i).inputs[0] == program_.input)
      for (int v : node(i).outputs) first[size_t(v)] = 0;
  }
  for (const OutputInfo& o : program_.outputs) last[size_t(o.value)] = end + 1;
  for (size_t v = 0; v < program_.values.size(); v++)
    s_.maps_.push_back(make_map(program_.values[v].type, program_.values[v].channels,
                                geometry(sizes_[v]), 1, first[v], last[v]));
  // A map's halo byte is what its first direct reader wants; a reader that wants another one reads a copy.
  std::vector<bool> settled(program_.values.size(), false);
  repack_of_.assign(size_t(end), nullptr);
  for (int i = 0; i < end; i++) {
    const NodeInfo& n = node(i);
    if (!is_conv(n)) continue;
    const int v = n.inputs[0];
    const uint8_t halo = wanted_halo(n);
    if (is_direct(n)) {
      if (!reads_halo(n)) continue;
      if (!settled[size_t(v)]) {
        set_halo(&map(v), info(v).type, info(v).channels, halo);
        settled[size_t(v)] = true;
        continue;
      }
      if (map(v).halo == halo) continue;
    }
    const Geometry* g = geometry(size(n.outputs[0]));
    Repack* repack = nullptr;
    for (Repack& r : repacks_)
      if (r.value == v && r.geometry == g && r.stride_h == n.window.stride_h &&
          r.stride_w == n.window.stride_w && (r.halo == halo || !reads_halo(n) || !r.halo_matters))
        repack = &r;
    if (!repack) {
      repacks_.emplace_back();
      repack = &repacks_.back();
      repack->value = v;
      repack->geometry = g;
      repack->stride_h = n.window.stride_h;
      repack->stride_w = n.window.stride_w;
      repack->halo = halo;
      repack->halo_matters = false;
      repack->used.assign(size_t(n.window.stride_h) * size_t(n.window.stride_w), false);
      repack->first = i + 1;
    }
    repack_of_[size_t(i)] = repack;
    if (reads_halo(n)) {
      repack->halo = halo;
      repack->halo_matters = true;
    }
    repack->last = i + 1;
    const Reach r = reach_of(n);
    repack->reach = {std::min(repack->reach.low_y, r.low_y), std::max(repack->reach.high_y, r.high_y),
                     std::min(repack->reach.low_x, r.low_x), std::max(repack->reach.high_x, r.high_x)};
    const Window& w = n.window;
    for (int ky = 0; ky < w.kernel_h; ky++)
      for (int kx = 0; kx < w.kernel_w; kx++) {
        const int dy = ky * w.dilation_h - w.pad_h, dx = kx * w.dilation_w - w.pad_w;
        const int py = dy - floor_div(dy, w.stride_h) * w.stride_h;
        const int px = dx - floor_div(dx, w.stride_w) * w.stride_w;
        repack->used[size_t(py * w.stride_w + px)] = true;
      }
  }
  for (Repack& r : repacks_) {
    int slots = 0;
    for (bool used : r.used) r.slot.push_back(used ? slots++ : -1);
    r.map = make_map(info(r.value).type, info(r.value).channels, r.geometry, slots, r.first, r.last);
    set_halo(&r.map, info(r.value).type, info(r.value).channels, r.halo);
  }
}

// Buffers whose lives overlap must not; the largest are placed first, each at the lowest offset that is free.
void Planner::place_buffers() {
  std::vector<size_t> order(s_.buffers_.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return s_.buffers_[a].bytes > s_.buffers_[b].bytes; });
  std::vector<size_t> placed;
  size_t total = 0;
  for (size_t i : order) {
    Buffer& b = s_.buffers_[i];
    std::vector<std::pair<size_t, size_t>> taken;
    for (size_t j : placed) {
      const Buffer& o = s_.buffers_[j];
      if (o.first <= b.last && b.first <= o.last) taken.emplace_back(o.offset, o.offset + o.bytes);
    }
    std::sort(taken.begin(), taken.end());
    size_t at = 0;
    for (const auto& t : taken) {
      if (at + b.bytes <= t.first) break;
      at = std::max(at, round_up(t.second, 64));
    }
    b.offset = at;
    total = std::max(total, at + b.bytes);
    placed.push_back(i);
  }
  // A kernel reads whole vectors: up to one vector past the last plane's end.
  total = round_up(total + kMaxTile, 64);
  // Zeroed by the system, page by page as they are first touched.
  void* memory = std::calloc(total + 64, 1);
  if (!memory) throw std::bad_alloc();
  s_.arena_.reset(static_cast<uint8_t*>(memory), std::free);
  uint8_t* arena = s_.arena_.get() + (64 - reinterpret_cast<uintptr_t>(memory) % 64) % 64;
  s_.arena_bytes_ = total;
  auto settle = [&](Map* m) {
    const Buffer& b = s_.buffers_[size_t(m->buffer)];
    m->body = arena + b.offset + m->buffer_offset;
  };
  for (Map& m : s_.maps_) settle(&m);
  for (Repack& r : repacks_) settle(&r.map);
}

namespace {

void clear_margins(const Map& m) {
  const size_t margin = m.geometry->margin * m.element, body = m.geometry->body * m.element;
  for (int plane = 0; plane < m.planes; plane++) {
    uint8_t* start = m.body + size_t(plane) * m.plane_bytes;
    const uint8_t halo = plane + 1 == m.planes ? m.last_halo : m.halo;
    std::memset(start - margin, halo, margin);
    std::memset(start + body, halo, margin);
  }
}

}  // namespace

// The margins of maps that filter taps may read are written anew each time: other maps live in the same memory
// between two runs.
std::function<void()> Planner::parallel(const NodeInfo& n, int64_t items,
                                        std::function<void(int64_t, int64_t, int)> work) {
  std::vector<Map> tapped;
  for (int v : n.outputs)
    if (in_quads(info(v).type) && geometry(size(v))->margin) tapped.push_back(map(v));
  Session* session = &s_;
  return [=] {
    for (const Map& m : tapped) clear_margins(m);
    session->pool_.run(items, work);
  };
}

const int16_t* Planner::clipped(const int32_t* from, size_t count) {
  int16_t* to = keep<int16_t>(count);
  for (size_t i = 0; i < count; i++) to[i] = int16_t(std::clamp(from[i], -32768, 32767));
  return to;
}

// `narrow`: sums fit int16 with room to spare, so that limits clipped to int16 mean the same.
Epilogue Planner::make_epilogue(const NodeInfo& n, bool narrow) {
  Epilogue e = {};
  e.count = int32_t(n.steps.size());
  e.channels = n.window.out_channels;
  e.outside = geometry(size(n.outputs[0]))->outside;
  for (size_t i = 0; i < n.steps.size(); i++) {
    const StepInfo& info = n.steps[i];
    EpilogueStep& s = e.steps[i];
    s.kind = StepKind(info.code);
    auto tensor = [&](size_t k) -> const Tensor& { return program_.tensors[size_t(info.params[k])]; };
    switch (s.kind) {
      case StepKind::kRPReLU:
        s.f2 = tensor(2).f32();
        [[fallthrough]];
      case StepKind::kAffine:
        s.f1 = tensor(1).f32();
        [[fallthrough]];
      case StepKind::kPReLU:
      case StepKind::kSign:
        s.f0 = tensor(0).f32();
        break;
      case StepKind::kQuant4Shift:
        s.i0 = tensor(0).i32();
        s.i1 = tensor(1).i32();
        s.shift = info.attrs[0];
        break;
      case StepKind::kQuant4Ladder:
        s.i0 = tensor(0).i32();
        s.flip = tensor(1).data;
        if (narrow) s.s0 = clipped(s.i0, tensor(0).count);
        break;
      case StepKind::kThreshold:
        s.i0 = tensor(0).i32();
        s.i1 = tensor(1).i32();
        s.flip = tensor(2).data;
        if (narrow) {
          s.s0 = clipped(s.i0, tensor(0).count);
          s.s1 = clipped(s.i1, tensor(1).count);
        }
        break;
      case StepKind::kQuant8:
        std::memcpy(&s.inv_scale, &info.attrs[0], 4);
        s.zero_point = info.attrs[1];
        break;
      case StepKind::kAdd:
      case StepKind::kStore:
        break;
    }
    if (info.value == kNone) continue;
    const Map& m = map(info.value);
    s.data = m.body;
    s.plane = m.plane_bytes;
    s.is_i4 = program_.values[size_t(info.value)].type == Type::kI4;
    s.halo = m.halo;
    s.last_halo = m.last_halo;
  }
  return e;
}

PlanStep& Planner::new_step(const NodeInfo& n, const char* op, const char* kernel) {
  s_.steps_.emplace_back();
  PlanStep& step = s_.steps_.back();
  step.name = n.path;
  step.op = op;
  step.kernel = kernel;
  const int v = n.outputs[0];
  step.shape = dimensions(info(v).channels, size(v).height, size(v).width);
  for (const std::vector<int>* list : {&n.inputs, &n.outputs})
    for (int id : *list) {
      const Map& m = map(id);
      step.bytes += m.geometry->body * m.element * size_t(m.planes);
    }
  return step;
}

void Planner::add_steps() {
  for (int i = 0; i < node_count(); i++) {
    for (const Repack& r : repacks_)
      if (r.first == i + 1) add_repack_step(r);
    switch (node(i).op) {
      case Op::kConvB1:
        add_binary_conv(i);
        break;
      case Op::kConvQ8:
        add_q8_conv(i);
        break;
      case Op::kMaxPool:
      case Op::kAvgPool:
      case Op::kGlobalAvgPool:
        add_pool(i);
        break;
      case Op::kPointwise:
        add_pointwise(i);
        break;
    }
  }
  add_pixel_tables();
}

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

void Planner::add_pool(int index) {
  const NodeInfo& n = node(index);
  const int in = n.inputs[0], out = n.outputs[0];
  const bool bits = info(in).type == Type::kB1;
  Pool pool = {};
  pool.in = map(in).geometry;
  pool.out = map(out).geometry;
  pool.src = map(in).body;
  pool.dst = map(out).body;
  pool.src_plane = map(in).plane_bytes;
  pool.dst_plane = map(out).plane_bytes;
  pool.kernel_h = n.window.kernel_h;
  pool.kernel_w = n.window.kernel_w;
  pool.stride_h = n.window.stride_h;
  pool.stride_w = n.window.stride_w;
  pool.pad_h = n.window.pad_h;
  pool.pad_w = n.window.pad_w;
  pool.channels = info(in).channels;
  pool.halo = map(out).halo;
  pool.last_halo = map(out).last_halo;
  const KernelTable* kernels = s_.kernels_;
  auto kernel = kernels->max_pool_f32;
  const char *op = "max_pool", *name = "max_pool_f32";
  size_t row = 0;
  if (n.op == Op::kMaxPool) {
    row = round_up(size_t(pool.in->width + 2 * pool.pad_w) * (bits ? 1 : 4), 64);
    if (bits) {
      kernel = kernels->max_pool_b1;
      name = "max_pool_b1";
      if (n.params[0] != kNone) {
        const uint8_t* flip = program_.tensors[size_t(n.params[0])].data;
        uint8_t* nibbles = keep<uint8_t>(size_t(pool.channels + 3) / 4);
        std::memset(nibbles, 0, size_t(pool.channels + 3) / 4);
        for (int c = 0; c < pool.channels; c++) nibbles[c / 4] |= uint8_t((flip[c] & 1) << c % 4);
        pool.flip = nibbles;
      }
    }
  } else if (n.op == Op::kAvgPool) {
    kernel = kernels->avg_pool_f32;
    op = name = "avg_pool";
  } else {
    kernel = bits ? kernels->global_pool_b1 : kernels->global_pool_f32;
    op = "global_avg_pool";
    name = bits ? "global_pool_b1" : "global_pool_f32";
  }
  uint8_t* scratch = row ? keep<uint8_t>(row * size_t(s_.options_.threads)) : nullptr;
  new_step(n, op, name).run =
      parallel(n, bits ? (pool.channels + 3) / 4 : pool.channels, [=](int64_t begin, int64_t end, int thread) {
        Pool mine = pool;
        mine.scratch = scratch + size_t(thread) * row;
        kernel(mine, begin, end);
      });
}

void Planner::add_pointwise(int index) {
  const NodeInfo& n = node(index);
  const Map& in = map(n.inputs[0]);
  const Epilogue e = make_epilogue(n, false);
  const uint8_t* src = in.body;
  const size_t plane = in.plane_bytes, body = in.geometry->body;
  const KernelTable* kernels = s_.kernels_;
  PlanStep& step = new_step(n, "pointwise", "pointwise");
  step.run = parallel(n, int64_t((e.channels + 3) / 4) * int64_t(body / kTile), [=](int64_t begin, int64_t end, int) {
    kernels->pointwise(src, plane, body, e, begin, end);
  });
  const bool only_quantises = n.steps.size() == 1 && StepKind(n.steps[0].code) == StepKind::kQuant8;
  int readers = 0;
  for (const NodeInfo& other : program_.nodes)
    readers += int(std::count(other.inputs.begin(), other.inputs.end(), program_.input));
  for (const OutputInfo& o : program_.outputs) readers += o.value == program_.input;
  if (program_.normalised && only_quantises && n.inputs[0] == program_.input && readers == 1) {
    step.skip_for_pixels = true;
    s_.quantised_input_ = n.outputs[0];
  }
}

// What each pixel value becomes: normalised, and where the first layer is an 8-bit one, quantised too.
void Planner::add_pixel_tables() {
  if (!program_.normalised) return;
  const int channels = info(program_.input).channels;
  const float* mean = program_.tensors[size_t(program_.mean)].f32();
  const float* std = program_.tensors[size_t(program_.std)].f32();
  s_.real_table_.resize(size_t(channels) * 256);
  for (int c = 0; c < channels; c++)
    for (int v = 0; v < 256; v++)
      s_.real_table_[size_t(c * 256 + v)] = (float(v) / 255.0f - mean[c]) / std[c];
  if (s_.quantised_input_ == kNone) return;
  const StepInfo* quant = nullptr;
  for (const NodeInfo& n : program_.nodes)
    if (n.outputs[0] == s_.quantised_input_) quant = &n.steps[0];
  float inv_scale;
  std::memcpy(&inv_scale, &quant->attrs[0], 4);
  const float zero = float(quant->attrs[1]);
  s_.pixel_table_.resize(s_.real_table_.size());
  for (int c = 0; c < channels; c++)
    for (int v = 0; v < 256; v++) {
      // quant8 of docs/numerics.md, as the kernels compute it
      float x = s_.real_table_[size_t(c * 256 + v)] * inv_scale;
      x = x == x ? std::clamp(x, -1000.0f, 1000.0f) : 0.0f;
      x = std::clamp((x + 12582912.0f) - 12582912.0f + zero, 0.0f, 255.0f);
      s_.pixel_table_[size_t(c * 256 + v)] = uint32_t(x) << (8 * (c % 4));
    }
}

}  // namespace signbit
