// Runs a file once: run_file MODEL u8|f32 BATCH HEIGHT WIDTH THREADS ISA < input > outputs
// Input as signbit_session_run takes it; the outputs follow one another as raw float32. What one machine, or an
// emulated one, writes can be compared with what another does.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "signbit/signbit.h"

namespace {

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "run_file: %s\n", message.c_str());
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) fail("usage: run_file MODEL u8|f32 BATCH HEIGHT WIDTH THREADS ISA < input > outputs");
  const bool pixels = std::strcmp(argv[2], "u8") == 0;
  signbit_session_options options = {};
  options.batch = std::atoi(argv[3]);
  options.height = std::atoi(argv[4]);
  options.width = std::atoi(argv[5]);
  options.threads = std::atoi(argv[6]);
  options.isa = argv[7];

  char error[512];
  signbit_model* model = nullptr;
  signbit_session* session = nullptr;
  if (signbit_model_open(argv[1], &model, error, sizeof error) != SIGNBIT_OK) fail(error);
  if (signbit_session_open(model, &options, &session, error, sizeof error) != SIGNBIT_OK) fail(error);
  if (std::strcmp(signbit_session_isa(session), argv[7]) != 0) fail("another instruction set was chosen");

  std::vector<char> input(size_t(options.batch) * size_t(options.height) * size_t(options.width) *
                          size_t(signbit_model_input_channels(model)) * (pixels ? 1 : sizeof(float)));
  if (std::fread(input.data(), 1, input.size(), stdin) != input.size() || std::fgetc(stdin) != EOF)
    fail("expected " + std::to_string(input.size()) + " bytes of input");

  std::vector<std::vector<float>> outputs;
  std::vector<float*> pointers;
  for (int32_t i = 0; i < signbit_session_output_count(session); i++) {
    int64_t shape[4];
    int32_t rank;
    signbit_session_output_shape(session, i, shape, &rank);
    size_t size = 1;
    for (int32_t k = 0; k < rank; k++) size *= size_t(shape[k]);
    outputs.emplace_back(size);
  }
  for (std::vector<float>& output : outputs) pointers.push_back(output.data());
  if (signbit_session_run(session, input.data(), pixels ? SIGNBIT_INPUT_U8_NHWC : SIGNBIT_INPUT_F32_NCHW,
                          pointers.data(), error, sizeof error) != SIGNBIT_OK)
    fail(error);
  for (const std::vector<float>& output : outputs)
    if (std::fwrite(output.data(), sizeof(float), output.size(), stdout) != output.size()) fail("cannot write");
  signbit_session_close(session);
  signbit_model_close(model);
  return 0;
}
