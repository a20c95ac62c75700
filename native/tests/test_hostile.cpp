// The committed hostile files (tests/hostile): each is refused with the message that names its fault, as a file and as bytes.
//
//   test_hostile FOLDER
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include "../fuzz/net.h"
#include "check.h"
#include "signbit/signbit.h"

namespace {

void refuses(const std::string& folder, const std::string& name, const std::string& part) {
  const std::string path = folder + "/" + name + ".signbit";
  std::ifstream in(path, std::ios::binary);
  check::that(bool(in), path + " is there");
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  for (const bool as_file : {true, false}) {
    char error[512] = "";
    signbit_model* model = nullptr;
    const signbit_status status = as_file ? signbit_model_open(path.c_str(), &model, error, sizeof error)
                                          : signbit_model_open_memory(bytes.data(), bytes.size(), &model, error, sizeof error);
    check::that(status == SIGNBIT_ERROR_FORMAT && !model, name + ": status " + std::to_string(status));
    check::that(std::string(error).find(part) != std::string::npos,
                name + ": \"" + error + "\" should contain \"" + part + "\"");
    signbit_model_close(model);
  }
}

void opens_no(const std::string& path, const char* part) {
  char error[512] = "";
  signbit_model* model = nullptr;
  const signbit_status status = signbit_model_open(path.c_str(), &model, error, sizeof error);
  check::that(status == SIGNBIT_ERROR_IO && std::string(error).find(part) != std::string::npos, path + ": " + error);
}

// What is no regular file is refused and not waited for.
void check_other_files() {
  opens_no("/no/such/file.signbit", "No such file");
  opens_no("/", "not a regular file");
  opens_no("/dev/zero", "not a regular file");
  char folder[] = "signbit_hostile_XXXXXX";  // in the folder where the test runs
  if (!mkdtemp(folder)) return check::that(false, "a temporary folder");
  const std::string pipe = std::string(folder) + "/pipe";
  check::that(mkfifo(pipe.c_str(), 0600) == 0, "a pipe");
  opens_no(pipe, "not a regular file");
  unlink(pipe.c_str());
  rmdir(folder);
}

// A file that is overwritten and shortened while a session is open: the session has its own copy.
void check_shortened_file() {
  fuzz::Net n(4);
  n.give(n.conv_f32(n.bits(0), 64, {}));
  const std::vector<uint8_t> bytes = n.bytes();
  char path[] = "signbit_shortened_XXXXXX";
  const int fd = mkstemp(path);
  check::that(fd >= 0 && write(fd, bytes.data(), bytes.size()) == long(bytes.size()), "a temporary file");
  char error[512] = "";
  signbit_model* model = nullptr;
  check::that(signbit_model_open(path, &model, error, sizeof error) == SIGNBIT_OK, error);
  check::that(ftruncate(fd, 0) == 0, "shortened");
  signbit_session* session = nullptr;
  const signbit_session_options options = {1, 5, 5, 1, nullptr, 0};
  check::that(signbit_session_open(model, &options, &session, error, sizeof error) == SIGNBIT_OK, error);
  std::vector<float> x(4 * 25, 1.0f), y(64 * 25);
  float* outputs[] = {y.data()};
  check::that(signbit_session_run(session, x.data(), SIGNBIT_INPUT_F32_NCHW, outputs, error, sizeof error) == SIGNBIT_OK, error);
  signbit_session_close(session);
  signbit_model_close(model);
  close(fd);
  unlink(path);
}

// More nodes, values or outputs than any network has: the planner's work grows with their square.
void check_large_graphs() {
  auto refused = [](const builder::File& f, const char* part) {
    const std::vector<uint8_t> bytes = f.bytes();
    char error[512] = "";
    signbit_model* model = nullptr;
    const signbit_status status = signbit_model_open_memory(bytes.data(), bytes.size(), &model, error, sizeof error);
    check::that(status == SIGNBIT_ERROR_FORMAT && std::string(error).find(part) != std::string::npos, error);
    signbit_model_close(model);
  };
  auto chain = [](int nodes) {
    fuzz::Net n(1);
    uint32_t v = 0;
    for (int i = 0; i < nodes; i++) v = n.plain(5, {v}, 0, 1, {});
    n.give(v);
    return n;
  };
  refused(chain(16385), "n_nodes = 16385 is more than 16384");
  refused(chain(16384), "n_values = 16385 is more than 16384");
  fuzz::Net n = chain(1);
  for (int i = 0; i < 16384; i++) n.give(1);
  refused(n, "n_outputs = 16385 is more than 16384");
}

// Of a file that is not one of ours, no more is read than says so: this one has no room in memory.
void check_sparse_file() {
  char path[] = "signbit_sparse_XXXXXX";
  const int fd = mkstemp(path);
  check::that(fd >= 0 && ftruncate(fd, off_t(1) << 42) == 0, "a sparse file of 4 TiB");
  char error[512] = "";
  signbit_model* model = nullptr;
  check::that(signbit_model_open(path, &model, error, sizeof error) == SIGNBIT_ERROR_FORMAT &&
                  std::string(error).find("header length: not padded") != std::string::npos,
              error);
  const std::vector<uint8_t> good = fuzz::Net(1).bytes();
  check::that(pwrite(fd, good.data(), good.size(), 0) == long(good.size()), "a good file's start");
  check::that(signbit_model_open(path, &model, error, sizeof error) == SIGNBIT_ERROR_FORMAT &&
                  std::string(error).find("does not end where its last tensor ends") != std::string::npos,
              error);
  close(fd);
  unlink(path);
}

void check_small_image() {
  fuzz::Net n(4);
  n.give(n.conv_f32(n.bits(0), 8, {5, 1, 0, 1, 1, 0}));
  const std::vector<uint8_t> bytes = n.bytes();
  char error[512] = "";
  signbit_model* model = nullptr;
  signbit_session* session = nullptr;
  check::that(signbit_model_open_memory(bytes.data(), bytes.size(), &model, error, sizeof error) == SIGNBIT_OK, error);
  const signbit_session_options small = {1, 4, 9, 1, nullptr, 0}, large = {1, 5, 5, 1, nullptr, 0};
  check::that(signbit_session_open(model, &small, &session, error, sizeof error) == SIGNBIT_ERROR_ARGUMENT && !session &&
                  std::string(error).find("layer \"conv1\": its input of 4x9 pixels is smaller than its window") != std::string::npos,
              error);
  check::that(signbit_session_open(model, &large, &session, error, sizeof error) == SIGNBIT_OK, error);
  signbit_session_close(session);
  signbit_model_close(model);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: test_hostile FOLDER\n");
    return 2;
  }
  std::ifstream list(std::string(argv[1]) + "/expected.tsv");
  int files = 0;
  for (std::string line; std::getline(list, line); files++) {
    std::istringstream fields(line);
    std::string name, part;
    std::getline(fields, name, '\t');
    std::getline(fields, part, '\t');
    check::that(!part.empty(), name + ": a message is expected");
    refuses(argv[1], name, part);
  }
  check::that(files > 100, "expected.tsv lists the files");
  check_other_files();
  check_shortened_file();
  check_sparse_file();
  check_large_graphs();
  check_small_image();
  return check::report();
}
