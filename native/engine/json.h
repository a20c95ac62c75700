// Just enough JSON to read a safetensors header: a strict reader that walks the text and keeps nothing of it, so
// that what a hostile header costs is its own bytes, not a tree many times as large.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace signbit {

// Reads one value after the other. Every function throws FormatError with the position of the fault.
class JsonReader {
 public:
  // `name` stands in front of every message.
  explicit JsonReader(std::string_view text, std::string name = "header") : text_(text), name_(std::move(name)) {}

  // What comes next: '{', '[', '"', '0' for a number, 't', 'f' or 'n'.
  char next();
  bool at_object() { return next() == '{'; }
  bool at_array() { return next() == '['; }
  bool at_string() { return next() == '"'; }
  bool at_number() { return next() == '0'; }

  // Call `each(key)`, which must read the value, for every member. A key may stand there once.
  template <typename Each>
  void object(Each each);
  // Call `each()`, which must read the value, for every item.
  template <typename Each>
  void array(Each each);
  // With escapes resolved, in UTF-8.
  std::string string();
  // A non-negative integer; anything else is a fault.
  uint64_t integer();
  // Any value, checked and dropped.
  void skip();
  // Nothing but space may follow.
  void end();

  // The byte that is read next; behind `next()` the first byte of a value.
  size_t position() const { return at_; }
  std::string_view text() const { return text_; }

 private:
  [[noreturn]] void fail(const std::string& what) const;
  char peek();
  void expect(char c);
  bool accept(char c);
  void enter(char c);
  unsigned hex4();
  void escape(std::string* out);
  void word(std::string_view word);
  void number();
  size_t digits();

  std::string_view text_;
  std::string name_;
  size_t at_ = 0;
  int depth_ = 0;
};

template <typename Each>
void JsonReader::object(Each each) {
  enter('{');
  std::set<std::string> keys;  // a tree: names chosen to collide in a hash table cost nothing extra
  if (!accept('}')) {
    do {
      const auto [key, fresh] = keys.insert(string());
      if (!fresh) fail("key \"" + *key + "\" twice");
      expect(':');
      each(*key);
    } while (accept(','));
    expect('}');
  }
  depth_--;
}

template <typename Each>
void JsonReader::array(Each each) {
  enter('[');
  if (!accept(']')) {
    do each();
    while (accept(','));
    expect(']');
  }
  depth_--;
}

}  // namespace signbit
