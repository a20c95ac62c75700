// The few lines of a test framework that these tests need.
#pragma once

#include <cstdio>
#include <string>

namespace check {

inline int failures = 0;
inline int checks = 0;

inline void that(bool condition, const std::string& what) {
  checks++;
  if (condition) return;
  failures++;
  if (failures <= 20) std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

template <typename Error, typename Work>
void throws(Work work, const std::string& part) {
  try {
    work();
  } catch (const Error& e) {
    that(std::string(e.what()).find(part) != std::string::npos,
         "message \"" + std::string(e.what()) + "\" should contain \"" + part + "\"");
    return;
  }
  that(false, "an error with \"" + part + "\" was expected");
}

inline int report() {
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures ? 1 : 0;
}

}  // namespace check
