// FIPS 180-4 examples, and pieces of any size giving the same digest; with the CPU's own instructions, where it has them, and without.
#include <vector>

#include "check.h"
#include "sha256.h"

static std::string digest(const std::string& text, size_t piece, bool portable) {
  signbit::Sha256 hash(portable);
  for (size_t at = 0; at < text.size(); at += piece)
    hash.update(reinterpret_cast<const uint8_t*>(text.data()) + at, std::min(piece, text.size() - at));
  return hash.hex_digest();
}

static void test(bool portable) {
  const auto digest = [portable](const std::string& text, size_t piece) { return ::digest(text, piece, portable); };
  check::that(digest("", 1) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "empty");
  check::that(digest("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "abc");
  const std::string two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  check::that(digest(two, 56) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", "two blocks");
  const std::string million(1000000, 'a');
  for (size_t piece : {size_t(1000000), size_t(63), size_t(64), size_t(65), size_t(1)})
    check::that(digest(million, piece) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
                "a million times a, in pieces of " + std::to_string(piece));
}

int main() {
  for (const bool portable : {false, true}) test(portable);
  return check::report();
}
