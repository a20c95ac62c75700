// Writes the seed corpus, or tells whether a folder holds it: write_corpus [--check] FOLDER.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "seeds.h"

namespace {

bool holds(const std::string& path, const std::vector<uint8_t>& bytes) {
  std::ifstream in(path, std::ios::binary);
  return std::vector<uint8_t>((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>()) == bytes;
}

bool write(const std::string& path, const std::vector<uint8_t>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), long(bytes.size()));
  return bool(out.flush());
}

}  // namespace

int main(int argc, char** argv) {
  const bool check = argc == 3 && !std::strcmp(argv[1], "--check");
  if (argc != 2 && !check) {
    std::fprintf(stderr, "usage: write_corpus [--check] FOLDER\n");
    return 2;
  }
  int wrong = 0;
  for (const auto& [name, file] : fuzz::seeds()) {
    const std::string path = std::string(argv[argc - 1]) + "/" + name + ".signbit";
    if (check ? holds(path, file.bytes()) : write(path, file.bytes())) continue;
    std::fprintf(stderr, "%s: %s\n", path.c_str(), check ? "is another file; run write_corpus" : "cannot be written");
    wrong++;
  }
  return wrong ? 1 : 0;
}
