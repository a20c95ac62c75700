#include "facts.h"

#include "error.h"
#include "json.h"

namespace signbit {
namespace {

constexpr int kMaxSide = 1 << 20;

// Numbers 1 to kMaxSide, `count` of them, separated by commas.
bool read_numbers(const std::string& text, int count, int* numbers) {
  size_t at = 0;
  for (int i = 0; i < count; i++) {
    int value = 0;
    const size_t start = at;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9' && value <= kMaxSide; at++)
      value = value * 10 + (text[at] - '0');
    if (at == start || value < 1 || value > kMaxSide) return false;
    numbers[i] = value;
    const bool last = i + 1 == count;
    if (last ? at != text.size() : at == text.size() || text[at++] != ',') return false;
  }
  return true;
}

std::vector<std::string> read_names(const std::string& text) {
  std::vector<std::string> names;
  try {
    const Json list = parse_json(text);
    if (list.kind != Json::kArray) return {};
    for (const Json& item : list.items) {
      if (item.kind != Json::kString) return {};
      names.push_back(item.string);
    }
  } catch (const FormatError&) {
    return {};
  }
  return names;
}

}  // namespace

Facts read_facts(const Program& program) {
  Facts facts;
  const Json metadata = parse_json(program.container.metadata);
  if (const Json* shape = metadata.find("input_shape"))
    facts.has_input_shape = read_numbers(shape->string, 3, facts.input_shape) &&
                            facts.input_shape[0] == program.values[size_t(program.input)].channels;
  if (const Json* names = metadata.find("class_names")) facts.class_names = read_names(names->string);
  return facts;
}

}  // namespace signbit
