// A libFuzzer target: bytes through the reader, and where it accepts them, through a session.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "attempt.h"
#include "mutator.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// The hash would stop all but a few of libFuzzer's own changes: one in four is made and repaired, the others know the format.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  fuzz::Random random(seed);
  fuzz::Bytes file;
  if (random.one_in(4)) {
    size = LLVMFuzzerMutate(data, size, max_size);
    file.assign(data, data + size);
    if (!random.one_in(4)) fuzz::repair_hash(&file);
  } else {
    file = fuzz::mutate(fuzz::Bytes(data, data + size), random.next());
  }
  if (file.size() > max_size) file.resize(max_size);
  std::copy(file.begin(), file.end(), data);
  return file.size();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::Attempt a = fuzz::attempt(data, size, size / 64 + (size ? data[size / 2] : 0));
  if (a.broken) {
    std::fprintf(stderr, "%s: %s\n", fuzz::name_of(a.stage), a.message.c_str());
    std::abort();
  }
  return 0;
}
