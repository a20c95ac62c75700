// The header parser: what it reads, and what it refuses.
#include "check.h"
#include "error.h"
#include "json.h"

using signbit::FormatError;
using signbit::Json;
using signbit::parse_json;

int main() {
  const std::string text = R"( {"a": [1, 22, -3, 1.5e3], "b\n\u00e9\ud83d\ude00": {"c": "d\"\\"}, "t": true, "n": null} )";
  const Json root = parse_json(text);
  check::that(root.kind == Json::kObject && root.members.size() == 4, "an object of four");
  const Json* a = root.find("a");
  check::that(a && a->items.size() == 4 && a->items[1].number == 22 && a->items[1].is_integer, "integers");
  check::that(a && !a->items[2].is_integer && !a->items[3].is_integer, "signs and fractions are not offsets");
  const Json* b = root.find("b\n\xC3\xA9\xF0\x9F\x98\x80");
  check::that(b && b->find("c") && b->find("c")->string == "d\"\\", "escapes");
  check::that(b && b->text == R"({"c": "d\"\\"})", "the source text of a value");
  for (const char* bad : {"", "{", "[1,]", "{\"a\":}", "{\"a\" 1}", "\"\\x\"", "\"\\u12\"", "tru", "[1] 2", "\"a",
                          "{\"a\":1,\"a\":2}", "\"\n\"", "99999999999999999999999", "\"\\ud83d\\u0041\""})
    check::throws<FormatError>([&] { parse_json(bad); }, "header: ");
  check::throws<FormatError>([] { parse_json(std::string(100000, '[')); }, "nested too deeply");
  return check::report();
}
