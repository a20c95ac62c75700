#include "container.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <vector>

#include "error.h"
#include "json.h"
#include "sha256.h"
#include "utf8.h"

namespace signbit {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 1 << 24;
constexpr size_t kMaxRead = size_t(1) << 30;  // systems differ in what one read may ask for

size_t element_size(const std::string& dtype) {
  if (dtype == "U8" || dtype == "I8") return 1;
  if (dtype == "I32" || dtype == "F32") return 4;
  return 0;
}

struct Span {
  uint64_t begin = 0, end = 0;
};

// One entry of the header: dtype, shape and offsets that agree with one another.
Span read_entry(const std::string& name, uint64_t data_size, JsonReader& json) {
  const std::string where = "header: tensor \"" + name + "\": ";
  auto fail = [&](const std::string& what) { throw FormatError(where + what); };
  std::string dtype;
  uint64_t elements = 0;
  std::vector<uint64_t> offsets;
  bool has_shape = false;
  if (!json.at_object()) fail("is not an object");
  json.object([&](const std::string& key) {
    if (key == "dtype" && json.at_string()) {
      dtype = json.string();
    } else if (key == "shape" && json.at_array()) {
      json.array([&] {
        if (has_shape || !json.at_number()) fail("shape is not one integer");
        elements = json.integer();
        has_shape = true;
      });
    } else if (key == "data_offsets" && json.at_array()) {
      json.array([&] {
        if (offsets.size() == 2 || !json.at_number()) fail("data_offsets are not two integers");
        offsets.push_back(json.integer());
      });
    } else {
      json.skip();
    }
  });
  if (dtype.empty() || !has_shape || offsets.size() != 2) fail("needs dtype, shape and data_offsets");
  const size_t size = element_size(dtype);
  if (!size) fail("dtype \"" + dtype + "\" is not known");
  const uint64_t begin = offsets[0], end = offsets[1];
  if (begin > end || end > data_size) fail("data_offsets lie outside the file (truncated?)");
  if (elements > data_size / size || end - begin != elements * size) fail("data_offsets do not fit dtype and shape");
  return {begin, end};
}

// What `__metadata__` says to the reader.
struct Metadata {
  std::string_view text;
  std::string format, version, digest;
  size_t digest_at = 0;  // of its first digit in the header, where it stands there without escapes
};

Metadata read_metadata(JsonReader& json) {
  Metadata m;
  if (!json.at_object()) throw FormatError("header: __metadata__ is not an object");
  const size_t start = json.position();
  json.object([&](const std::string& key) {
    if (!json.at_string()) throw FormatError("header: __metadata__." + key + " is not a string");
    const size_t at = json.position();
    const std::string value = json.string();
    if (key == "format") m.format = value;
    if (key == "version") m.version = value;
    if (key == "sha256" && value.size() == 64 && json.position() - at == 66) {
      m.digest = value;
      m.digest_at = at + 1;
    }
  });
  m.text = json.text().substr(start, json.position() - start);
  return m;
}

// The hash covers the file as it reads with its own 64 digits replaced by zeros.
void check_hash(const uint8_t* bytes, size_t size, const Metadata& metadata) {
  if (metadata.digest.empty()) throw FormatError("header: __metadata__.sha256 is missing or not 64 digits");
  const size_t at = kLengthBytes + metadata.digest_at;
  const std::string zeros(64, '0');
  Sha256 hash;
  hash.update(bytes, at);
  hash.update(reinterpret_cast<const uint8_t*>(zeros.data()), 64);
  hash.update(bytes + at + 64, size - at - 64);
  if (hash.hex_digest() != metadata.digest)
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

namespace {

// The length of a file's header and of the field before it, from its first bytes.
size_t header_end(const uint8_t* bytes, uint64_t size) {
  if (size < kLengthBytes) throw FormatError("header length: the file has only " + std::to_string(size) + " bytes");
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | bytes[i];
  if (length > kMaxHeader || length > size - kLengthBytes)
    throw FormatError("header length: " + std::to_string(length) +
                      " bytes do not fit the file (truncated, or not a signbit file)");
  if ((kLengthBytes + length) % 64) throw FormatError("header length: not padded to 64 bytes");
  return size_t(kLengthBytes + length);
}

// What the header says, of which everything is checked that needs no byte behind it.
struct Header {
  Metadata metadata;  // its text lies in the bytes that were read
  uint32_t version = 0;
  size_t end = 0, graph_size = 0;
};

// `bytes`: those of the file up to `end`; `size`: of the whole file.
Header read_header(const uint8_t* bytes, size_t end, uint64_t size) {
  const size_t length = end - kLengthBytes;
  if (!is_utf8(bytes + kLengthBytes, length)) throw FormatError("header: not UTF-8");
  const std::string_view text(reinterpret_cast<const char*>(bytes + kLengthBytes), length);

  // First what the file says of itself: another program's tensors need not make sense to this one.
  Header h;
  h.end = end;
  bool has_metadata = false;
  JsonReader first(text);
  if (!first.at_object()) throw FormatError("header: not a JSON object");
  first.object([&](const std::string& key) {
    if (key != "__metadata__") return first.skip();
    has_metadata = true;
    h.metadata = read_metadata(first);
  });
  first.end();
  if (!has_metadata) throw FormatError("header: no __metadata__: not a signbit file");
  if (h.metadata.format != "signbit") throw FormatError("header: __metadata__.format is not \"signbit\"");
  if (h.metadata.version.empty()) throw FormatError("header: __metadata__.version is missing");
  h.version = read_version(h.metadata.version);

  const uint64_t data_size = size - end;
  std::vector<Span> spans;
  bool has_graph = false;
  JsonReader second(text);
  second.object([&](const std::string& key) {
    if (key == "__metadata__") return second.skip();
    const Span span = read_entry(key, data_size, second);
    if (span.begin % 64 || span.end % 64) throw FormatError("header: tensor \"" + key + "\": not aligned to 64 bytes");
    if (key == "graph") {
      if (span.begin != 0) throw FormatError("header: tensor \"graph\": is not the first");
      has_graph = true;
      h.graph_size = size_t(span.end - span.begin);
    }
    spans.push_back(span);
  });
  if (!has_graph) throw FormatError("header: no tensor \"graph\"");
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t at = 0;
  for (const Span& span : spans) {
    if (span.begin != at) throw FormatError("header: tensors overlap or leave holes");
    at = span.end;
  }
  if (at != data_size) throw FormatError("data: the file does not end where its last tensor ends");
  return h;
}

Container whole_container(std::shared_ptr<const uint8_t> storage, size_t size, const Header& h) {
  const uint8_t* bytes = storage.get();
  check_hash(bytes, size, h.metadata);
  Container c;
  c.version = h.version;
  c.graph = c.data = bytes + h.end;
  c.graph_size = h.graph_size;
  c.data_size = size - h.end;
  c.metadata = std::string(h.metadata.text);
  c.storage = std::move(storage);
  return c;
}

void read_bytes(int fd, const std::string& path, uint8_t* to, size_t count) {
  for (size_t at = 0; at < count;) {
    const ssize_t got = read(fd, to + at, std::min(count - at, kMaxRead));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw IoError(path + ": " + std::strerror(errno));
    if (got == 0) throw IoError(path + ": became shorter while it was read");
    at += size_t(got);
  }
}

}  // namespace

Container open_container(std::shared_ptr<const uint8_t> storage, size_t size) {
  const uint8_t* bytes = storage.get();
  const Header header = read_header(bytes, header_end(bytes, size), size);
  return whole_container(std::move(storage), size, header);
}

std::shared_ptr<uint8_t> allocate_file(size_t size) {
  void* bytes = std::aligned_alloc(64, size / 64 * 64 + 64);
  if (!bytes) throw std::bad_alloc();
  return std::shared_ptr<uint8_t>(static_cast<uint8_t*>(bytes), std::free);
}

Container read_file(const std::string& path) {
  // O_NONBLOCK: a pipe without a writer is refused below instead of being waited for.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw IoError(path + ": " + std::strerror(errno));
  struct Close {
    int fd;
    ~Close() { close(fd); }
  } closing{fd};
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) throw IoError(path + ": not a regular file");
  const size_t size = size_t(info.st_size);
  // The rest is not even asked for before the header says that it belongs to a file of this kind and length.
  uint8_t start[kLengthBytes] = {};
  read_bytes(fd, path, start, std::min(size, kLengthBytes));
  const size_t end = header_end(start, size);
  std::vector<uint8_t> first(end);
  std::memcpy(first.data(), start, kLengthBytes);
  read_bytes(fd, path, first.data() + kLengthBytes, end - kLengthBytes);
  const Header header = read_header(first.data(), end, size);
  std::shared_ptr<uint8_t> storage = allocate_file(size);
  std::memcpy(storage.get(), first.data(), end);
  read_bytes(fd, path, storage.get() + end, size - end);
  return whole_container(std::move(storage), size, header);
}

}  // namespace signbit
