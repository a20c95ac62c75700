#include "container.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.h"
#include "json.h"
#include "sha256.h"

namespace signbit {
namespace {

constexpr uint64_t kMaxHeader = 1 << 24;

size_t element_size(const std::string& dtype) {
  if (dtype == "U8" || dtype == "I8") return 1;
  if (dtype == "I32" || dtype == "F32") return 4;
  return 0;
}

struct Span {
  uint64_t begin, end;
};

// One entry of the header: dtype, shape and offsets that agree with one another.
Span read_entry(const std::string& name, const Json& entry, uint64_t data_size) {
  const std::string where = "header: tensor \"" + name + "\": ";
  const Json* dtype = entry.find("dtype");
  const Json* shape = entry.find("shape");
  const Json* offsets = entry.find("data_offsets");
  if (!dtype || dtype->kind != Json::kString || !shape || shape->kind != Json::kArray || !offsets ||
      offsets->kind != Json::kArray || offsets->items.size() != 2)
    throw FormatError(where + "needs dtype, shape and data_offsets");
  const size_t size = element_size(dtype->string);
  if (!size) throw FormatError(where + "dtype \"" + dtype->string + "\" is not known");
  uint64_t bytes = size;
  for (const Json& dim : shape->items) {
    if (!dim.is_integer) throw FormatError(where + "shape is not a list of integers");
    if (dim.number && bytes > data_size / dim.number)
      throw FormatError(where + "shape is larger than the file");
    bytes *= dim.number;
  }
  const Json &begin = offsets->items[0], &end = offsets->items[1];
  if (!begin.is_integer || !end.is_integer || begin.number > end.number || end.number > data_size)
    throw FormatError(where + "data_offsets lie outside the file (truncated?)");
  if (end.number - begin.number != bytes)
    throw FormatError(where + "data_offsets do not fit dtype and shape");
  return {begin.number, end.number};
}

// The hash covers the file as it reads with its own 64 digits replaced by zeros.
void check_hash(const uint8_t* bytes, size_t size, const std::string& header, const Json* digest) {
  if (!digest || digest->kind != Json::kString || digest->string.size() != 64 ||
      digest->text.size() != 66)
    throw FormatError("header: __metadata__.sha256 is missing or not 64 digits");
  const size_t at = 8 + size_t(digest->text.data() + 1 - header.data());
  const std::string zeros(64, '0');
  Sha256 hash;
  hash.update(bytes, at);
  hash.update(reinterpret_cast<const uint8_t*>(zeros.data()), 64);
  hash.update(bytes + at + 64, size - at - 64);
  if (hash.hex_digest() != digest->string)
    throw FormatError("__metadata__.sha256 does not match: the file is damaged");
}

uint32_t read_version(const std::string& text) {
  const bool digits = !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || text[0] == '0') throw FormatError("header: __metadata__.version \"" + text + "\" is not a version");
  check_version(uint32_t(std::stoul(text)), "header: __metadata__.version");
  return uint32_t(std::stoul(text));
}

}  // namespace

void check_version(uint32_t version, const char* field) {
  if (version > kNewestVersion)
    throw FormatError(std::string(field) + " is " + std::to_string(version) + ", this engine reads 1 to " +
                      std::to_string(kNewestVersion) + ": a newer signbit wrote the file; update signbit");
  if (version < 1) throw FormatError(std::string(field) + " is 0");
}

Container open_container(std::shared_ptr<const uint8_t> storage, size_t size) {
  const uint8_t* bytes = storage.get();
  if (size < 8) throw FormatError("header length: the file has only " + std::to_string(size) + " bytes");
  uint64_t header_size = 0;
  for (int i = 7; i >= 0; i--) header_size = header_size << 8 | bytes[i];
  if (header_size > kMaxHeader || header_size > size - 8)
    throw FormatError("header length: " + std::to_string(header_size) +
                      " bytes do not fit the file (truncated, or not a signbit file)");
  if ((8 + header_size) % 64) throw FormatError("header length: not padded to 64 bytes");
  const std::string header(reinterpret_cast<const char*>(bytes + 8), size_t(header_size));
  const Json root = parse_json(header);
  if (root.kind != Json::kObject) throw FormatError("header: not a JSON object");
  const Json* metadata = root.find("__metadata__");
  if (!metadata || metadata->kind != Json::kObject)
    throw FormatError("header: no __metadata__: not a signbit file");
  for (const auto& member : metadata->members)
    if (member.second.kind != Json::kString)
      throw FormatError("header: __metadata__." + member.first + " is not a string");
  const Json* format = metadata->find("format");
  if (!format || format->string != "signbit")
    throw FormatError("header: __metadata__.format is not \"signbit\"");
  const Json* version = metadata->find("version");
  if (!version) throw FormatError("header: __metadata__.version is missing");

  Container c;
  c.version = read_version(version->string);
  c.data = bytes + 8 + header_size;
  c.data_size = size - 8 - size_t(header_size);
  std::vector<Span> spans;
  bool has_graph = false;
  for (const auto& member : root.members) {
    if (member.first == "__metadata__") continue;
    const Span span = read_entry(member.first, member.second, c.data_size);
    if (span.begin % 64) throw FormatError("header: tensor \"" + member.first + "\": not aligned");
    if (member.first == "graph") {
      has_graph = true;
      c.graph = c.data + span.begin;
      c.graph_size = size_t(span.end - span.begin);
    }
    spans.push_back(span);
  }
  if (!has_graph) throw FormatError("header: no tensor \"graph\"");
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t at = 0;
  for (const Span& span : spans) {
    if (span.begin != at) throw FormatError("header: tensors overlap or leave holes");
    at = span.end;
  }
  if (at != c.data_size) throw FormatError("data: the file does not end where its last tensor ends");
  check_hash(bytes, size, header, metadata->find("sha256"));
  c.metadata = std::string(metadata->text);
  c.storage = std::move(storage);
  return c;
}

Container map_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw IoError(path + ": " + std::strerror(errno));
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    throw IoError(path + ": not a regular file");
  }
  const size_t size = size_t(info.st_size);
  if (size < 8) {
    close(fd);
    throw FormatError("header length: the file has only " + std::to_string(size) + " bytes");
  }
  void* mapping = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  close(fd);
  if (mapping == MAP_FAILED) throw IoError(path + ": " + std::strerror(error));
  std::shared_ptr<const uint8_t> storage(static_cast<const uint8_t*>(mapping),
                                         [mapping, size](const uint8_t*) { munmap(mapping, size); });
  return open_container(std::move(storage), size);
}

}  // namespace signbit
