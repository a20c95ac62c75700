// The plan's steps: epilogues, pooling, element-wise nodes, and the tables for pixels.
#include <algorithm>
#include <cstring>

#include "planner.h"

namespace signbit {

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
