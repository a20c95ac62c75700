#include "json.h"

#include <cstdint>
#include <unordered_set>

#include "error.h"

namespace signbit {
namespace {

constexpr int kMaxDepth = 8;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json parse() {
    Json value = parse_value(0);
    skip_space();
    if (at_ != text_.size()) fail("text after the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw FormatError("header: " + what + " at byte " + std::to_string(at_));
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' ||
                                  text_[at_] == '\r'))
      at_++;
  }
  char peek() {
    skip_space();
    if (at_ >= text_.size()) fail("unexpected end");
    return text_[at_];
  }
  void expect(char c) {
    if (peek() != c) fail(std::string("expected '") + c + "'");
    at_++;
  }
  bool accept(char c) {
    if (peek() != c) return false;
    at_++;
    return true;
  }

  unsigned parse_hex4() {
    if (text_.size() - at_ < 4) fail("short \\u escape");
    unsigned code = 0;
    for (int i = 0; i < 4; i++) {
      const char c = text_[at_++];
      code = code * 16;
      if (c >= '0' && c <= '9') code += unsigned(c - '0');
      else if (c >= 'a' && c <= 'f') code += unsigned(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F') code += unsigned(c - 'A' + 10);
      else fail("bad \\u escape");
    }
    return code;
  }

  static void append_utf8(std::string* out, unsigned code) {
    if (code < 0x80) {
      *out += char(code);
    } else if (code < 0x800) {
      *out += char(0xC0 | code >> 6);
      *out += char(0x80 | (code & 63));
    } else if (code < 0x10000) {
      *out += char(0xE0 | code >> 12);
      *out += char(0x80 | (code >> 6 & 63));
      *out += char(0x80 | (code & 63));
    } else {
      *out += char(0xF0 | code >> 18);
      *out += char(0x80 | (code >> 12 & 63));
      *out += char(0x80 | (code >> 6 & 63));
      *out += char(0x80 | (code & 63));
    }
  }

  std::string parse_string() {
    expect('"');
    std::string out;
    while (true) {
      if (at_ >= text_.size()) fail("unterminated string");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) fail("control character in a string");
      if (c != '\\') {
        out += c;
        continue;
      }
      if (at_ >= text_.size()) fail("unterminated escape");
      const char e = text_[at_++];
      switch (e) {
        case '"': case '\\': case '/': out += e; break;
        case 'b': out += '\b'; break;
        case 'f': out += '\f'; break;
        case 'n': out += '\n'; break;
        case 'r': out += '\r'; break;
        case 't': out += '\t'; break;
        case 'u': {
          unsigned code = parse_hex4();
          if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
            at_ += 2;
            const unsigned low = parse_hex4();
            if (low < 0xDC00 || low > 0xDFFF) fail("bad surrogate pair");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
          }
          append_utf8(&out, code);
          break;
        }
        default: fail("bad escape");
      }
    }
  }

  void parse_number(Json* value) {
    const size_t start = at_;
    value->is_integer = true;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c >= '0' && c <= '9') {
        if (value->number > (UINT64_MAX - 9) / 10) fail("number too large");
        value->number = value->number * 10 + uint64_t(c - '0');
      } else if (c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E') {
        value->is_integer = false;
      } else {
        break;
      }
      at_++;
    }
    if (at_ == start) fail("expected a value");
  }

  void parse_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) fail("expected a value");
    at_ += word.size();
  }

  Json parse_value(int depth) {
    if (depth > kMaxDepth) fail("nested too deeply");
    Json value;
    const char c = peek();
    const size_t start = at_;
    if (c == '{') {
      value.kind = Json::kObject;
      std::unordered_set<std::string> keys;
      at_++;
      if (!accept('}')) {
        do {
          if (peek() != '"') fail("expected a key");
          std::string key = parse_string();
          if (!keys.insert(key).second) fail("key \"" + key + "\" twice");
          expect(':');
          value.members.emplace_back(std::move(key), parse_value(depth + 1));
        } while (accept(','));
        expect('}');
      }
    } else if (c == '[') {
      value.kind = Json::kArray;
      at_++;
      if (!accept(']')) {
        do value.items.push_back(parse_value(depth + 1));
        while (accept(','));
        expect(']');
      }
    } else if (c == '"') {
      value.kind = Json::kString;
      value.string = parse_string();
    } else if (c == 't' || c == 'f') {
      value.kind = Json::kBool;
      parse_word(c == 't' ? "true" : "false");
    } else if (c == 'n') {
      parse_word("null");
    } else {
      value.kind = Json::kNumber;
      parse_number(&value);
    }
    value.text = text_.substr(start, at_ - start);
    return value;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

const Json* Json::find(std::string_view key) const {
  for (const auto& member : members)
    if (member.first == key) return &member.second;
  return nullptr;
}

Json parse_json(std::string_view text) { return Parser(text).parse(); }

}  // namespace signbit
