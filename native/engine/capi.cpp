// The C API: exceptions end here and become status codes with messages.
#include "signbit/signbit.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "error.h"
#include "facts.h"
#include "peak.h"
#include "program.h"
#include "select.h"
#include "session.h"

struct signbit_model {
  explicit signbit_model(signbit::Program p)
      : program(std::make_shared<const signbit::Program>(std::move(p))), facts(signbit::read_facts(*program)) {}
  std::shared_ptr<const signbit::Program> program;
  signbit::Facts facts;
};

struct signbit_session {
  std::unique_ptr<signbit::Session> session;
  std::atomic<bool> running{false};
};

namespace {

using namespace signbit;

// A session taken by one call, until that ends; `taken` is false where another thread has it.
struct Turn {
  explicit Turn(signbit_session& s) : session(s), taken(!s.running.exchange(true)) {}
  ~Turn() {
    if (taken) session.running.store(false);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  signbit_session& session;
  const bool taken;
};

signbit_status report(signbit_status status, const char* message, char* error, size_t error_size) {
  if (error && error_size) {
    size_t size = std::strlen(message);
    if (size >= error_size) {
      size = error_size - 1;
      while (size && (static_cast<unsigned char>(message[size]) & 0xC0) == 0x80) size--;  // no half a character
    }
    std::memcpy(error, message, size);
    error[size] = 0;
  }
  return status;
}

template <typename Work>
signbit_status guarded(char* error, size_t error_size, Work work) {
  if (error && error_size) error[0] = 0;
  try {
    work();
    return SIGNBIT_OK;
  } catch (const FormatError& e) {
    return report(SIGNBIT_ERROR_FORMAT, e.what(), error, error_size);
  } catch (const ArgumentError& e) {
    return report(SIGNBIT_ERROR_ARGUMENT, e.what(), error, error_size);
  } catch (const UnsupportedError& e) {
    return report(SIGNBIT_ERROR_UNSUPPORTED, e.what(), error, error_size);
  } catch (const IoError& e) {
    return report(SIGNBIT_ERROR_IO, e.what(), error, error_size);
  } catch (const std::bad_alloc&) {
    return report(SIGNBIT_ERROR_MEMORY, "out of memory", error, error_size);
  } catch (const std::exception& e) {
    return report(SIGNBIT_ERROR_INTERNAL, e.what(), error, error_size);
  }
}

constexpr int32_t kMaxSide = 1 << 20;

void require(bool condition, const char* message) {
  if (!condition) throw ArgumentError(message);
}

}  // namespace

const char* signbit_version(void) { return SIGNBIT_VERSION; }

const char* signbit_instruction_sets(void) {
  static const std::string names = [] {
    std::string joined;
    for (const KernelTable* table : available_kernels()) joined += (joined.empty() ? "" : ",") + std::string(table->isa);
    return joined;
  }();
  return names.c_str();
}

signbit_status signbit_measure_peak(const char* isa, const char* what, double* value, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    require(what && value, "what and value must not be null");
    *value = 0;
    *value = measure_peak(*select_kernels(isa ? isa : ""), what);
  });
}

signbit_status signbit_model_open(const char* path, signbit_model** model, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    require(path && model, "path and model must not be null");
    *model = nullptr;
    *model = new signbit_model(read_program(read_file(path)));
  });
}

signbit_status signbit_model_open_memory(const void* data, size_t size, signbit_model** model, char* error,
                                         size_t error_size) {
  return guarded(error, error_size, [&] {
    require(model && (data || size == 0), "data and model must not be null");
    *model = nullptr;
    std::shared_ptr<uint8_t> copy = allocate_file(size);
    if (size) std::memcpy(copy.get(), data, size);
    *model = new signbit_model(read_program(open_container(std::move(copy), size)));
  });
}

void signbit_model_close(signbit_model* model) { delete model; }

const char* signbit_model_metadata(const signbit_model* model) {
  return model ? model->program->container.metadata.c_str() : nullptr;
}

int32_t signbit_model_input_channels(const signbit_model* model) {
  return model ? model->program->values[size_t(model->program->input)].channels : 0;
}

int32_t signbit_model_accepts_pixels(const signbit_model* model) { return model && model->program->normalised; }

signbit_status signbit_model_input_shape(const signbit_model* model, int32_t shape[3]) {
  if (!model || !shape) return SIGNBIT_ERROR_ARGUMENT;
  if (!model->facts.has_input_shape) return SIGNBIT_ERROR_FORMAT;
  for (int i = 0; i < 3; i++) shape[i] = model->facts.input_shape[i];
  return SIGNBIT_OK;
}

int32_t signbit_model_class_count(const signbit_model* model) {
  return model ? int32_t(model->facts.class_names.size()) : 0;
}

const char* signbit_model_class_name(const signbit_model* model, int32_t index) {
  if (index < 0 || index >= signbit_model_class_count(model)) return nullptr;
  return model->facts.class_names[size_t(index)].c_str();
}

signbit_status signbit_session_open(const signbit_model* model, const signbit_session_options* options,
                                    signbit_session** session, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    require(model && options && session, "model, options and session must not be null");
    *session = nullptr;
    require(options->batch >= 1, "batch must be at least 1");
    require(options->height >= 1 && options->width >= 1, "height and width must be at least 1");
    require(options->batch <= kMaxSide && options->height <= kMaxSide && options->width <= kMaxSide,
            "batch, height and width must be at most 1048576");
    require(options->threads >= 1 && options->threads <= 1024, "threads must be 1 to 1024");
    auto opened = std::make_unique<signbit_session>();
    opened->session = Session::open(
        model->program, SessionOptions{options->batch, options->height, options->width, options->threads,
                                       options->isa ? options->isa : "", options->memory_limit});
    *session = opened.release();
  });
}

void signbit_session_close(signbit_session* session) { delete session; }

const char* signbit_session_isa(const signbit_session* session) { return session ? session->session->isa() : nullptr; }
size_t signbit_session_arena_bytes(const signbit_session* session) {
  return session ? session->session->arena_bytes() : 0;
}
size_t signbit_session_weight_bytes(const signbit_session* session) {
  return session ? session->session->weight_bytes() : 0;
}
int32_t signbit_session_output_count(const signbit_session* session) {
  return session ? session->session->output_count() : 0;
}

signbit_status signbit_session_output_shape(const signbit_session* session, int32_t index, int64_t shape[4],
                                            int32_t* rank) {
  return guarded(nullptr, 0, [&] {
    require(session && shape && rank && index >= 0 && index < session->session->output_count(), "no such output");
    const std::vector<int64_t> dims = session->session->output_shape(index);
    *rank = int32_t(dims.size());
    for (size_t i = 0; i < dims.size(); i++) shape[i] = dims[i];
  });
}

signbit_status signbit_session_output_type(const signbit_session* session, int32_t index, signbit_output_type* type) {
  return guarded(nullptr, 0, [&] {
    require(session && type && index >= 0 && index < session->session->output_count(), "no such output");
    *type = session->session->output_type(index) == Type::kI32 ? SIGNBIT_OUTPUT_I32 : SIGNBIT_OUTPUT_F32;
  });
}

signbit_status signbit_session_run(signbit_session* session, const void* input, signbit_input_kind kind,
                                   float* const* outputs, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    require(session && input && outputs, "session, input and outputs must not be null");
    for (int i = 0; i < session->session->output_count(); i++) require(outputs[i], "an output must not be null");
    require(kind == SIGNBIT_INPUT_U8_NHWC || kind == SIGNBIT_INPUT_F32_NCHW, "unknown kind of input");
    require(kind != SIGNBIT_INPUT_U8_NHWC || session->session->accepts_pixels(),
            "the file does not say how to normalise pixels: pass normalised float32, or compile with preprocessing");
    const Turn turn(*session);
    require(turn.taken, "the session is running in another thread; open one session a thread");
    session->session->run(input, kind == SIGNBIT_INPUT_U8_NHWC ? InputKind::kU8Nhwc : InputKind::kF32Nchw, outputs);
  });
}

void signbit_session_set_checking(signbit_session* session, int32_t on) {
  if (session) session->session->set_checking(on != 0);
}

void signbit_session_set_profiling(signbit_session* session, int32_t on) {
  if (session) session->session->set_profiling(on != 0);
}

const char* signbit_session_profile(signbit_session* session) {
  const char* text = nullptr;
  if (!session) return text;
  guarded(nullptr, 0, [&] {
    const Turn turn(*session);
    if (turn.taken) text = session->session->profile().c_str();
  });
  return text;
}
