#include "mutator.h"

#include <algorithm>
#include <cstring>

namespace fuzz {
namespace {

constexpr size_t kHeadWords = 17;
constexpr size_t kMaxFile = 1 << 16;

uint64_t header_size(const Bytes& file) {
  uint64_t size = 0;
  if (file.size() >= 8) std::memcpy(&size, file.data(), 8);
  return size <= file.size() - std::min<size_t>(8, file.size()) ? size : 0;
}

uint32_t load(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

// Numbers at which something begins or ends to hold.
uint32_t interesting(Random& r) {
  static const uint32_t kWords[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1023,
                                    1024, 4095, 4096, 4097, 16384, 16385, 32766, 32767, 65535, 65536, 1 << 20,
                                    (1 << 20) + 1, 1 << 24, 1 << 30, 0x3F800000, 0x7F800000, 0x7FC00000, 0x7FFFFFFF,
                                    0x80000000, 0xBF800000, 0xFF800000, 0xFFFFFFFC, 0xFFFFFFFE, 0xFFFFFFFF};
  return r.one_in(8) ? uint32_t(r.next()) : kWords[r.below(std::size(kWords))];
}

uint32_t changed(uint32_t word, Random& r) {
  switch (r.below(6)) {
    case 0: return word + 1;
    case 1: return word - 1;
    case 2: return word * 2;
    case 3: return word ^ uint32_t(1) << r.below(32);
    default: return interesting(r);
  }
}

// --- changes of a file's parts ---

// Ids in a graph of a few values point somewhere more often than not.
uint32_t some_id(size_t count, Random& r) { return r.one_in(6) ? interesting(r) : uint32_t(r.below(count + 1)); }

template <typename T>
void rearrange(std::vector<T>* list, Random& r) {
  if (list->empty()) return;
  const size_t i = r.below(list->size()), j = r.below(list->size());
  switch (r.below(4)) {
    case 0: list->erase(list->begin() + long(i)); break;
    case 1: {
      const T copy = (*list)[i];
      const size_t times = r.one_in(20) ? 1 + r.below(40) : 1;
      list->insert(list->begin() + long(j), times, copy);
      break;
    }
    case 2: std::swap((*list)[i], (*list)[j]); break;
    default: (*list)[i] = (*list)[j];
  }
}

void change_step(builder::File& f, builder::StepDef& s, Random& r) {
  switch (r.below(6)) {
    case 0: s.code = r.one_in(4) ? interesting(r) : uint32_t(1 + r.below(14)); break;
    case 1: s.value = some_id(f.values.size(), r); break;
    case 2:
      if (!s.attrs.empty()) {
        int32_t& a = s.attrs[r.below(s.attrs.size())];
        a = int32_t(changed(uint32_t(a), r));
      }
      break;
    case 3:
      if (!s.params.empty()) s.params[r.below(s.params.size())] = some_id(f.tensors.size(), r);
      break;
    case 4: rearrange(&s.attrs, r); break;
    default: rearrange(&s.params, r);
  }
}

void change_node(builder::File& f, builder::NodeDef& n, Random& r) {
  switch (r.below(12)) {
    case 0: n.code = r.one_in(4) ? interesting(r) : uint32_t(1 + r.below(11)); break;
    case 1:
      if (!n.inputs.empty()) n.inputs[r.below(n.inputs.size())] = some_id(f.values.size(), r);
      break;
    case 2:
      if (!n.outputs.empty()) n.outputs[r.below(n.outputs.size())] = some_id(f.values.size(), r);
      break;
    case 3: case 4: case 5:
      if (!n.attrs.empty()) {
        int32_t& a = n.attrs[r.below(n.attrs.size())];
        a = int32_t(changed(uint32_t(a), r));
      }
      break;
    case 6:
      if (!n.params.empty()) n.params[r.below(n.params.size())] = some_id(f.tensors.size(), r);
      break;
    case 7:
      switch (r.below(5)) {
        case 0: rearrange(&n.inputs, r); break;
        case 1: rearrange(&n.outputs, r); break;
        case 2: rearrange(&n.attrs, r); break;
        case 3: rearrange(&n.params, r); break;
        default:
          n.path.resize(r.below(64), char('a' + r.below(26)));
          if (!n.path.empty()) n.path[r.below(n.path.size())] = char(r.next());
      }
      break;
    case 8: rearrange(&n.steps, r); break;
    default:
      if (!n.steps.empty()) change_step(f, n.steps[r.below(n.steps.size())], r);
  }
}

void change_tensor(builder::TensorDef& t, Random& r) {
  switch (r.below(5)) {
    case 0: t.dtype = r.one_in(3) ? interesting(r) : uint32_t(r.below(6)); break;
    case 1: t.count = changed(t.count, r); break;
    case 2:  // longer or shorter, and saying so
      t.bytes.resize(std::min<size_t>(r.one_in(2) ? t.bytes.size() + r.below(80) : r.below(t.bytes.size() + 1), kMaxFile),
                     uint8_t(r.next()));
      t.count = uint32_t(t.dtype == 5 ? 2 * t.bytes.size() : t.bytes.size() / (t.dtype <= 1 ? 4 : 1));
      break;
    case 3:
      for (uint8_t& b : t.bytes) b = r.one_in(2) ? uint8_t(r.next()) : b;
      break;
    default:
      if (t.bytes.size() >= 4) {
        const uint32_t word = interesting(r);
        std::memcpy(t.bytes.data() + r.below(t.bytes.size() / 4) * 4, &word, 4);
      }
  }
}

// A node's copy behind it, with results of its own, so that the graph stays one that could be right.
void repeat_node(builder::File& f, Random& r) {
  const size_t i = r.below(f.nodes.size());
  builder::NodeDef copy = f.nodes[i];
  for (uint32_t& out : copy.outputs) {
    if (out >= f.values.size()) continue;
    const uint32_t fresh = f.value(f.values[out].first, f.values[out].second);
    for (builder::StepDef& s : copy.steps)
      if (s.value == out) s.value = fresh;
    if (f.values[out].first == 0 && r.one_in(2)) f.outputs.emplace_back(fresh, 0);
    out = fresh;
  }
  f.nodes.insert(f.nodes.begin() + long(i) + 1, copy);
}

void change_parts(builder::File& f, Random& r) {
  switch (r.below(16)) {
    case 0:
      if (!f.values.empty()) {
        auto& v = f.values[r.below(f.values.size())];
        if (r.one_in(2)) v.first = r.one_in(4) ? interesting(r) : uint32_t(r.below(7));
        else v.second = changed(v.second, r);
      }
      break;
    case 1: rearrange(&f.values, r); break;
    case 2:
      if (!f.outputs.empty()) {
        auto& o = f.outputs[r.below(f.outputs.size())];
        if (r.one_in(2)) o.first = some_id(f.values.size(), r);
        else o.second = changed(o.second, r);
      }
      break;
    case 3: rearrange(&f.outputs, r); break;
    case 4: rearrange(&f.nodes, r); break;
    case 5: rearrange(&f.tensors, r); break;
    case 6:
      switch (r.below(5)) {
        case 0: (r.one_in(2) ? f.version : f.header_version) = changed(f.version, r); break;
        case 1: f.normalised = changed(f.normalised, r); break;
        case 2: f.mean = some_id(f.tensors.size(), r); break;
        case 3: f.std = some_id(f.tensors.size(), r); break;
        default: f.input = some_id(f.values.size(), r);
      }
      break;
    case 7:
      if (!f.nodes.empty() && f.nodes.size() < 64) repeat_node(f, r);
      break;
    case 8: case 9:
      if (!f.tensors.empty()) change_tensor(f.tensors[r.below(f.tensors.size())], r);
      break;
    default:
      if (!f.nodes.empty()) change_node(f, f.nodes[r.below(f.nodes.size())], r);
  }
}

// --- changes of the bytes as they lie ---

void change_words(Bytes* file, size_t begin, size_t end, Random& r) {
  if (end > file->size() || end < begin + 4) return;
  const size_t words = (end - begin) / 4;
  uint8_t* at = file->data() + begin + 4 * r.below(words);
  uint32_t word = r.one_in(4) ? load(file->data() + begin + 4 * r.below(words)) : changed(load(at), r);
  std::memcpy(at, &word, 4);
}

void change_block(Bytes* file, Random& r) {
  static const size_t kUnits[] = {1, 4, 16, 64};
  const size_t unit = kUnits[r.below(4)], units = file->size() / unit;
  if (!units) return;
  const size_t from = r.below(units) * unit;
  const size_t size = std::min(unit * (1 + r.below(8)), file->size() - from);
  const Bytes block(file->begin() + long(from), file->begin() + long(from + size));
  const size_t to = r.below(units) * unit;
  switch (r.below(4)) {
    case 0: file->erase(file->begin() + long(from), file->begin() + long(from + size)); break;
    case 1: file->insert(file->begin() + long(to), block.begin(), block.end()); break;
    case 2: std::copy_n(block.begin(), std::min(size, file->size() - to), file->begin() + long(to)); break;
    default: std::fill_n(file->begin() + long(from), size, r.one_in(2) ? uint8_t(0) : uint8_t(0xFF));
  }
}

// Text put into the header in place of as many characters, so that what stands behind it keeps its place.
void overwrite_text(Bytes* file, size_t begin, size_t end, const std::string& text, Random& r) {
  if (end <= begin + text.size()) return;
  std::copy(text.begin(), text.end(), file->begin() + long(begin + r.below(end - begin - text.size())));
}

void change_header(Bytes* file, Random& r) {
  const size_t begin = std::min<size_t>(8, file->size()), end = begin + size_t(header_size(*file));
  if (end <= begin) return;
  std::vector<size_t> digits, marks;
  for (size_t i = begin; i < end; i++) {
    const char c = char((*file)[i]);
    if (c >= '0' && c <= '9') digits.push_back(i);
    if (std::strchr("{}[]\",:", c)) marks.push_back(i);
  }
  static const char* const kTexts[] = {"[[[[[[[[[[[[", "{\"a\":{\"a\":", "1e99", "-1", "18446744073709551615", "null", "\\u0000",
                                       "\\ud800", "\"dtype\":\"F64\"", "\"graph\":", "\"sha256\":", "\"__metadata__\"",
                                       "\xFF\xFE", "[]", "{}", "\"\"", ",,", "99999999999999999999"};
  switch (r.below(7)) {
    case 0: case 1:
      if (!digits.empty()) (*file)[digits[r.below(digits.size())]] = uint8_t('0' + r.below(10));
      break;
    case 2:
      if (!marks.empty()) (*file)[marks[r.below(marks.size())]] = uint8_t("{}[]\",: 0\\"[r.below(10)]);
      break;
    case 3: overwrite_text(file, begin, end, kTexts[r.below(std::size(kTexts))], r); break;
    case 4: {  // a piece of the header once more, over another piece: keys twice, entries that alias
      const size_t size = std::min<size_t>(1 + r.below(80), end - begin);
      const size_t from = begin + r.below(end - begin - size + 1);
      overwrite_text(file, begin, end, std::string(file->begin() + long(from), file->begin() + long(from + size)), r);
      break;
    }
    case 5: {
      const uint64_t size = r.one_in(2) ? end - begin + 64 * (r.below(5)) - 128 : uint64_t(interesting(r)) << r.below(33);
      std::memcpy(file->data(), &size, 8);
      break;
    }
    default: (*file)[begin + r.below(end - begin)] = uint8_t(r.next());
  }
}

void change_bytes(Bytes* file, Random& r) {
  if (file->empty()) return;
  const size_t data = 8 + size_t(header_size(*file));
  switch (r.below(10)) {
    case 0: case 1: (*file)[r.below(file->size())] ^= uint8_t(1 << r.below(8)); break;
    case 2: change_words(file, data, std::min(file->size(), data + 4 * kHeadWords), r); break;
    case 3: case 4: change_words(file, data, std::min<size_t>(file->size(), data + 1024), r); break;
    case 5: change_block(file, r); break;
    case 6: case 7: change_header(file, r); break;
    case 8: file->resize(r.one_in(2) ? r.below(file->size()) : file->size() / 64 * 64 - 64 * r.below(file->size() / 64 + 1)); break;
    default: file->resize(file->size() + (r.one_in(2) ? 64 * (1 + r.below(4)) : 1 + r.below(200)), uint8_t(r.next()));
  }
}

}  // namespace

uint64_t Random::next() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

void repair_hash(Bytes* file) {
  static const std::string kKey = "\"sha256\":\"";
  const auto end = file->begin() + long(std::min(file->size(), size_t(8 + header_size(*file))));
  const auto key = std::search(file->begin(), end, kKey.begin(), kKey.end());
  if (end - key < long(kKey.size()) + 64) return;
  const auto digits = key + long(kKey.size());
  std::fill(digits, digits + 64, '0');
  signbit::Sha256 hash;
  hash.update(file->data(), file->size());
  const std::string digest = hash.hex_digest();
  std::copy(digest.begin(), digest.end(), digits);
}

std::optional<builder::File> parse(const uint8_t* data, size_t size) {
  uint64_t header = 0;
  if (size < 8) return {};
  std::memcpy(&header, data, 8);
  if (header > size - 8) return {};
  const uint8_t* start = data + 8 + header;
  const size_t bytes = size - 8 - size_t(header);
  size_t at = 0;
  bool good = true;
  auto word = [&]() -> uint32_t {
    if (at + 4 > bytes) {
      good = false;
      return 0;
    }
    at += 4;
    return load(start + at - 4);
  };
  // Counts are small in what is worth changing part by part; others are changed as bytes.
  auto count = [&](uint32_t limit) {
    const uint32_t n = word();
    good = good && n <= limit;
    return good ? n : 0;
  };
  builder::File f;
  good = word() == 0x31474253;
  f.version = f.header_version = word();
  const uint32_t tensors = count(256), values = count(256), nodes = count(256), outputs = count(256);
  const uint32_t words = count(1 << 16), string_bytes = count(1 << 16);
  f.normalised = word();
  f.mean = word();
  f.std = word();
  f.input = word();
  for (int i = 0; i < 5; i++) word();
  for (uint32_t i = 0; i < tensors && good; i++) {
    builder::TensorDef t;
    t.dtype = word();
    t.count = word();
    const uint64_t offset = word() | uint64_t(word()) << 32, 
                   length = t.dtype == 5 ? t.count / 2 : uint64_t(t.count) * (t.dtype <= 1 ? 4 : 1);
    good = good && offset <= bytes && length <= bytes - offset;
    if (good) t.bytes.assign(start + offset, start + offset + length);
    f.tensors.push_back(std::move(t));
  }
  for (auto* list : {&f.values, &f.outputs})
    for (uint32_t i = 0; i < (list == &f.values ? values : outputs) && good; i++) {
      const uint32_t first = word();
      list->emplace_back(first, word());
    }
  const size_t strings = at + 4 * size_t(words);
  if (!good || strings > bytes || string_bytes > bytes - strings) return {};
  for (uint32_t i = 0; i < nodes && good; i++) {
    builder::NodeDef n;
    n.code = word();
    const uint32_t offset = word(), length = word();
    if (offset > string_bytes || length > string_bytes - offset) return {};
    n.path.assign(reinterpret_cast<const char*>(start) + strings + offset, length);
    const uint32_t inputs = count(256), results = count(256), attrs = count(256), params = count(256), steps = count(256);
    for (uint32_t k = 0; k < inputs; k++) n.inputs.push_back(word());
    for (uint32_t k = 0; k < results; k++) n.outputs.push_back(word());
    for (uint32_t k = 0; k < attrs; k++) n.attrs.push_back(int32_t(word()));
    for (uint32_t k = 0; k < params; k++) n.params.push_back(word());
    for (uint32_t k = 0; k < steps && good; k++) {
      builder::StepDef s;
      s.code = word();
      s.value = word();
      const uint32_t step_attrs = count(256), step_params = count(256);
      for (uint32_t j = 0; j < step_attrs; j++) s.attrs.push_back(int32_t(word()));
      for (uint32_t j = 0; j < step_params; j++) s.params.push_back(word());
      n.steps.push_back(std::move(s));
    }
    f.nodes.push_back(std::move(n));
  }
  if (!good) return {};
  return f;
}

Bytes mutate(const Bytes& file, uint64_t seed) {
  Random r(seed);
  Bytes out = file;
  size_t changes = 1 + r.below(4);
  std::optional<builder::File> parts;
  if (r.below(5) < 3 && (parts = parse(file.data(), file.size()))) {
    for (; changes > 0; changes--) change_parts(*parts, r);
    out = parts->bytes();
    if (!r.one_in(5)) return out;  // most with nothing else wrong
    changes = 1;
  }
  for (; changes > 0; changes--) change_bytes(&out, r);
  if (out.size() > kMaxFile) out.resize(kMaxFile);
  if (!r.one_in(4)) repair_hash(&out);
  return out;
}

}  // namespace fuzz
