// The header reader: what it reads, and what it refuses.
#include "check.h"
#include "error.h"
#include "json.h"

using signbit::FormatError;
using signbit::JsonReader;

namespace {

void skip_all(const std::string& text) {
  JsonReader json(text);
  json.skip();
  json.end();
}

}  // namespace

int main() {
  const std::string text = R"( {"a": [1, 22, 0], "b\n\u00e9\ud83d\ude00": {"c": "d\"\\"}, "t": true, "n": null, "x": -0.5e+3} )";
  JsonReader json(text);
  std::string keys;
  uint64_t sum = 0;
  json.object([&](const std::string& key) {
    keys += key + ";";
    if (key == "a") {
      json.array([&] { sum = 100 * sum + json.integer(); });
    } else if (key[0] == 'b') {
      json.object([&](const std::string& inner) {
        check::that(inner == "c" && json.at_string(), "a key within");
        const size_t start = json.position();
        check::that(json.string() == "d\"\\", "escapes");
        check::that(text.substr(start, json.position() - start) == R"("d\"\\")", "the source of a value");
      });
    } else {
      json.skip();
    }
  });
  json.end();
  check::that(keys == "a;b\n\xC3\xA9\xF0\x9F\x98\x80;t;n;x;", keys);
  check::that(sum == 12200, "integers: " + std::to_string(sum));
  check::that(JsonReader("18446744073709551600").integer() == 18446744073709551600u, "a large integer");

  for (const char* bad : {"", "{", "[1,]", "{\"a\":}", "{\"a\" 1}", "{1:1}", "\"\\x\"", "\"\\u12\"", "tru", "[1] 2", "\"a", "+1",
                          "{\"a\":1,\"a\":2}", "\"\n\"", "\"\\ud83d\\u0041\"", "\"\\ud83d\"", "\"\\udc00\"", "01", "1.", "-", "1e"})
    check::throws<FormatError>([&] { skip_all(bad); }, "header: ");
  for (const char* bad : {"-1", "1.5", "1e3", "\"1\"", "99999999999999999999999"})
    check::throws<FormatError>([&] { JsonReader(bad).integer(); }, "header: ");
  check::throws<FormatError>([] { skip_all(std::string(100000, '[')); }, "nested too deeply");
  check::throws<FormatError>([] { JsonReader("[", "list").skip(); }, "list: unexpected end");
  return check::report();
}
