#include "json.h"

#include "error.h"

namespace signbit {
namespace {

constexpr int kMaxDepth = 8;

void append_utf8(std::string* out, unsigned code) {
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

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

void JsonReader::fail(const std::string& what) const {
  throw FormatError(name_ + ": " + what + " at byte " + std::to_string(at_));
}

char JsonReader::peek() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
    at_++;
  if (at_ >= text_.size()) fail("unexpected end");
  return text_[at_];
}

void JsonReader::expect(char c) {
  if (peek() != c) fail(std::string("expected '") + c + "'");
  at_++;
}

bool JsonReader::accept(char c) {
  if (peek() != c) return false;
  at_++;
  return true;
}

void JsonReader::enter(char c) {
  expect(c);
  if (++depth_ > kMaxDepth) fail("nested too deeply");
}

char JsonReader::next() {
  const char c = peek();
  switch (c) {
    case '{': case '[': case '"': case 't': case 'f': case 'n':
      return c;
    default:
      if (c == '-' || is_digit(c)) return '0';
      fail("expected a value");
  }
}

unsigned JsonReader::hex4() {
  if (text_.size() - at_ < 4) fail("short \\u escape");
  unsigned code = 0;
  for (int i = 0; i < 4; i++) {
    const char c = text_[at_++];
    code = code * 16;
    if (is_digit(c)) code += unsigned(c - '0');
    else if (c >= 'a' && c <= 'f') code += unsigned(c - 'a' + 10);
    else if (c >= 'A' && c <= 'F') code += unsigned(c - 'A' + 10);
    else fail("bad \\u escape");
  }
  return code;
}

void JsonReader::escape(std::string* out) {
  if (at_ >= text_.size()) fail("unterminated escape");
  const char e = text_[at_++];
  switch (e) {
    case '"': case '\\': case '/': *out += e; return;
    case 'b': *out += '\b'; return;
    case 'f': *out += '\f'; return;
    case 'n': *out += '\n'; return;
    case 'r': *out += '\r'; return;
    case 't': *out += '\t'; return;
    case 'u': break;
    default: fail("bad escape");
  }
  unsigned code = hex4();
  if (code >= 0xD800 && code < 0xE000) {
    if (code >= 0xDC00 || text_.substr(at_, 2) != "\\u") fail("half a surrogate pair");
    at_ += 2;
    const unsigned low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) fail("bad surrogate pair");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  append_utf8(out, code);
}

std::string JsonReader::string() {
  expect('"');
  std::string out;
  while (true) {
    if (at_ >= text_.size()) fail("unterminated string");
    const char c = text_[at_++];
    if (c == '"') return out;
    if (static_cast<unsigned char>(c) < 0x20) fail("control character in a string");
    if (c == '\\')
      escape(&out);
    else
      out += c;
  }
}

uint64_t JsonReader::integer() {
  if (!at_number()) fail("expected an integer");
  const size_t start = at_;
  number();
  uint64_t value = 0;
  for (char c : text_.substr(start, at_ - start)) {
    if (!is_digit(c)) fail("expected a non-negative integer");
    if (value > (UINT64_MAX - 9) / 10) fail("number too large");
    value = value * 10 + uint64_t(c - '0');
  }
  return value;
}

size_t JsonReader::digits() {
  const size_t start = at_;
  while (at_ < text_.size() && is_digit(text_[at_])) at_++;
  if (at_ == start) fail("expected a digit");
  return at_ - start;
}

void JsonReader::number() {
  if (text_[at_] == '-') at_++;
  const size_t start = at_;
  if (digits() > 1 && text_[start] == '0') fail("a number with a leading 0");
  if (at_ < text_.size() && text_[at_] == '.') {
    at_++;
    digits();
  }
  if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
    at_++;
    if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) at_++;
    digits();
  }
}

void JsonReader::word(std::string_view word) {
  if (text_.substr(at_, word.size()) != word) fail("expected a value");
  at_ += word.size();
}

void JsonReader::skip() {
  switch (next()) {
    case '{': return object([&](const std::string&) { skip(); });
    case '[': return array([&] { skip(); });
    case '"': string(); return;
    case 't': return word("true");
    case 'f': return word("false");
    case 'n': return word("null");
    default: number();
  }
}

void JsonReader::end() {
  while (at_ < text_.size() && text_[at_] == ' ') at_++;
  if (at_ < text_.size()) fail("text after the end");
}

}  // namespace signbit
