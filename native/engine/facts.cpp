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

std::deque<std::string> read_names(const std::string& text) {
  std::deque<std::string> names;
  try {
    JsonReader json(text, "class_names");
    json.array([&] { names.push_back(json.string()); });
    json.end();
  } catch (const FormatError&) {
    return {};
  }
  return names;
}

}  // namespace

Facts read_facts(const Program& program) {
  Facts facts;
  JsonReader json(program.container.metadata, "__metadata__");
  json.object([&](const std::string& key) {
    const std::string value = json.string();
    if (key == "input_shape")
      facts.has_input_shape = read_numbers(value, 3, facts.input_shape) &&
                              facts.input_shape[0] == program.values[size_t(program.input)].channels;
    if (key == "class_names") facts.class_names = read_names(value);
  });
  return facts;
}

}  // namespace signbit
