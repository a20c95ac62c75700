// The plan's steps: epilogues, element-wise nodes, and the tables for pixels.
#include <algorithm>
#include <cstring>

#include "planner.h"

namespace signbit {

namespace {

void clear_margins(const Map& m) {
  const Geometry& g = *m.geometry;
  const size_t margin = g.margin * m.element, end = g.end * m.element;
  const size_t behind = (g.body + g.margin) * m.element - end;
  for (int plane = 0; plane < m.planes; plane++) {
    uint8_t* start = m.body + size_t(plane) * m.plane_bytes;
    const uint8_t halo = plane + 1 == m.planes ? m.last_halo : m.halo;
    std::memset(start - margin, halo, margin);
    std::memset(start + end, halo, behind);
  }
}

}  // namespace

std::string layout(const Map& m, Type type) {
  static const char* const names[] = {"f32", "i32", "i16", "i8", "u8", "i4", "b1"};
  std::string text = names[int(type)] + (" " + std::to_string(m.planes)) + " planes, halo " + std::to_string(m.geometry->halo);
  if (!m.geometry->halo) return text;
  if (type == Type::kU8) text += " (" + std::to_string(m.halo) + ")";
  if (type == Type::kB1) text += m.halo == kOutside ? " (outside)" : m.halo ? " (+1)" : " (-1)";
  return text;
}

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

const Epilogue* Planner::make_epilogue(const NodeInfo& n) {
  Epilogue* made = keep<Epilogue>(1);
  Epilogue& e = *made;
  e.count = int32_t(n.steps.size());
  e.channels = n.window.out_channels;
  const Geometry& g = *geometry(size(n.outputs[0]));
  e.batch = g.batch;
  e.image = size_t(g.image_rows) * size_t(g.row_stride);
  e.end = g.end;
  e.outside = g.outside;
  for (size_t i = 0; i < n.steps.size(); i++) {
    const StepInfo& info = n.steps[i];
    EpilogueStep& s = e.steps[i];
    const StepKind kind = StepKind(info.code);
    auto tensor = [&](size_t k) -> const Tensor& { return program_.tensors[size_t(info.params[k])]; };
    switch (kind) {
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
        break;
      case StepKind::kThreshold:
        s.i0 = tensor(0).i32();
        s.i1 = tensor(1).i32();
        s.flip = tensor(2).data;
        break;
      case StepKind::kQuant8:
        std::memcpy(&s.inv_scale, &info.attrs[0], 4);
        s.zero_point = info.attrs[1];
        break;
      case StepKind::kClip:
        std::memcpy(&s.minimum, &info.attrs[0], 4);
        std::memcpy(&s.maximum, &info.attrs[1], 4);
        break;
      case StepKind::kAdd:
      case StepKind::kMul:
      case StepKind::kStore:
      case StepKind::kSigmoid:
        break;
    }
    const bool is_i4 = info.value != kNone && program_.values[size_t(info.value)].type == Type::kI4;
    static_assert(int(StepKind::kSigmoid) == int(StepCode::kSigmoid) && int(StepKind::kSigmoid) < int(StepCode::kAddI4),
                  "kinds and codes have equal numbers; a chain has four bits a code, which are all used");
    s.code = StepCode(kind);
    if (is_i4) s.code = kind == StepKind::kAdd ? StepCode::kAddI4 : StepCode::kStoreI4;
    e.chain |= uint64_t(s.code) << 4 * i;
    if (info.value == kNone) continue;
    const Map& m = map(info.value);
    s.data = m.body;
    s.plane = m.plane_bytes;
    if (kind == StepKind::kAdd || kind == StepKind::kMul) {
      if (m.planes == 1) s.plane = 0;
      if (m.geometry != &g) s.image_step = size_t(m.geometry->image_rows) * size_t(m.geometry->row_stride);
    }
    s.halo = m.halo;
    s.last_halo = m.last_halo;
  }
  return made;
}

PlanStep& Planner::new_step(const NodeInfo& n, const char* op, const char* kernel) {
  charge(kStepBytes + n.path.size() + n.outputs.size() * sizeof(Map));
  s_.steps_.emplace_back();
  PlanStep& step = s_.steps_.back();
  step.name = n.path;
  step.op = op;
  step.kernel = kernel;
  const int v = n.outputs[0];
  step.shape = dimensions(info(v).channels, size(v).height, size(v).width);
  step.layout = layout(map(v), info(v).type);
  for (int id : n.outputs)
    if (info(id).type == Type::kF32) step.real.push_back(id);
  for (const std::vector<int>* list : {&n.inputs, &n.outputs})
    for (int id : *list) {
      const Map& m = map(id);
      step.bytes += m.geometry->body * m.element * size_t(m.planes);
    }
  return step;
}

void Planner::add_steps() {
  s_.steps_.reserve(size_t(node_count()) + repacks_.size());
  size_t next_repack = 0;  // they stand in the order of their first readers
  for (int i = 0; i < node_count(); i++) {
    for (; next_repack < repacks_.size() && repacks_[next_repack].first == i + 1; next_repack++)
      add_repack_step(repacks_[next_repack]);
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
      case Op::kAdaptivePool:
        add_pool(i);
        break;
      case Op::kPointwise:
        add_pointwise(i);
        break;
      case Op::kChannels:
        add_channels(i);
        break;
      case Op::kResize:
        add_resize(i);
        break;
      case Op::kPixelShuffle:
        add_pixel_shuffle(i);
        break;
    }
  }
  add_pixel_tables();
}

void Planner::add_pointwise(int index) {
  const NodeInfo& n = node(index);
  const Map& in = map(n.inputs[0]);
  const Epilogue* e = make_epilogue(n);
  const uint8_t* src = in.body;
  const size_t plane = in.plane_bytes, body = in.geometry->body;
  const bool bits = info(n.inputs[0]).type == Type::kB1;
  const auto kernel = bits ? s_.kernels_->pointwise_b1 : s_.kernels_->pointwise;
  PlanStep& step = new_step(n, "pointwise", bits ? "pointwise_b1" : "pointwise");
  step.run = parallel(n, int64_t((e->channels + 3) / 4) * int64_t(body / kTile),
                      [=](int64_t begin, int64_t end, int) { kernel(src, plane, body, *e, begin, end); });
  const bool only_quantises = n.steps.size() == 1 && StepKind(n.steps[0].code) == StepKind::kQuant8;
  if (program_.normalised && only_quantises && n.inputs[0] == program_.input && input_readers_ == 1) {
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
