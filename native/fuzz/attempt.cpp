#include "attempt.h"

#include <algorithm>
#include <vector>

#include "signbit/signbit.h"

namespace fuzz {
namespace {

bool starts(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

Stage stage_of(const std::string& message) {
  if (message.find("__metadata__.sha256") != std::string::npos) return Stage::kHash;
  if (starts(message, "header length")) return Stage::kLength;
  if (starts(message, "header: tensor") || starts(message, "header: no tensor") || starts(message, "data:"))
    return Stage::kTensors;
  if (starts(message, "header")) return Stage::kHeader;
  return starts(message, "graph: node ") ? Stage::kNode : Stage::kGraph;
}

}  // namespace

const char* name_of(Stage stage) {
  static const char* const kNames[kStages] = {"header length", "header", "tensor entries", "hash", "graph",
                                              "nodes", "session", "run", "ran"};
  return kNames[int(stage)];
}

Attempt attempt(const uint8_t* data, size_t size, uint64_t variant, Observer* observer) {
  Attempt result;
  char error[512];
  signbit_model* model = nullptr;
  if (observer) observer->begin();
  signbit_status status = signbit_model_open_memory(data, size, &model, error, sizeof error);
  if (observer) observer->end_reading();
  if (status != SIGNBIT_OK) {
    result.message = error;
    result.stage = stage_of(result.message);
    result.broken = status != SIGNBIT_ERROR_FORMAT || result.message.empty() || model;
    return result;
  }
  static const int32_t kSizes[][3] = {{1, 6, 5}, {2, 8, 8}, {1, 1, 1}, {1, 17, 3}};  // batch, height, width
  const int32_t* shape = kSizes[variant % 4];
  const int32_t threads = variant / 12 % 32 ? 1 : 2 + int32_t(variant / 384 % 2);  // to start them takes longer than the rest
  const signbit_session_options options = {shape[0], shape[1], shape[2], threads, variant % 3 ? "scalar" : nullptr,
                                           kMemoryLimit};
  signbit_session* session = nullptr;
  status = signbit_session_open(model, &options, &session, error, sizeof error);
  if (observer) observer->end_session();
  if (status != SIGNBIT_OK) {
    result.message = error;
    result.stage = Stage::kSession;
    result.broken = (status != SIGNBIT_ERROR_ARGUMENT && status != SIGNBIT_ERROR_MEMORY) || result.message.empty();
    signbit_model_close(model);
    return result;
  }
  size_t largest = 0;
  for (int32_t i = 0; i < signbit_session_output_count(session); i++) {
    int64_t dims[4];
    int32_t rank = 0;
    signbit_session_output_shape(session, i, dims, &rank);
    size_t count = 1;
    for (int32_t k = 0; k < rank; k++) count *= size_t(dims[k]);
    largest = std::max(largest, count);
  }
  std::vector<float> y(largest);  // all outputs go here: nobody looks at them
  std::vector<float*> pointers(size_t(signbit_session_output_count(session)), y.data());
  const bool pixels = variant % 2 && signbit_model_accepts_pixels(model);
  const size_t elements = size_t(shape[0]) * size_t(shape[1]) * size_t(shape[2]) *
                          size_t(signbit_model_input_channels(model));
  std::vector<float> x(pixels ? 0 : elements);
  std::vector<uint8_t> p(pixels ? elements : 0);
  for (size_t i = 0; i < x.size(); i++) x[i] = float(int(i * 37 % 23) - 11) / 4;
  for (size_t i = 0; i < p.size(); i++) p[i] = uint8_t(i * 37);
  const void* input = pixels ? static_cast<const void*>(p.data()) : x.data();
  status = signbit_session_run(session, input, pixels ? SIGNBIT_INPUT_U8_NHWC : SIGNBIT_INPUT_F32_NCHW,
                               pointers.data(), error, sizeof error);
  if (status != SIGNBIT_OK) {
    result.message = error;
    result.stage = Stage::kRun;
    result.broken = true;  // nothing is left that a run could refuse
  }
  signbit_session_close(session);
  signbit_model_close(model);
  return result;
}

}  // namespace fuzz
