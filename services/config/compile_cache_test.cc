// With what the compilation before left, the result is the same as without.
#include "services/config/compile_cache.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

void ExpectSame(const std::string& text, CompileCache* cache) {
  MemoryFiles files;
  CompileOptions options;
  options.cache = cache;
  const Compiled with = CompileText("a.conf", text, files, options);
  const Compiled without = CompileText("a.conf", text, files);
  EXPECT_EQ(with.snapshot.SerializeAsString(), without.snapshot.SerializeAsString()) << text;
  EXPECT_EQ(Render(with.diagnostics), Render(without.diagnostics)) << text;
  EXPECT_EQ(with.tally.effective, without.tally.effective) << text;
  EXPECT_EQ(with.tally.aliases, without.tally.aliases) << text;
  EXPECT_EQ(with.tally.planned, without.tally.planned) << text;
}

std::string AnySection(std::mt19937& random) {
  static const std::vector<std::string> kLines = {
      "max-smtp-out 1",         "max-smtp-out 2", "max-msg-rate 5/s",      "idle-timeout 9",
      "bounce-after 1d",        "dkim-sign yes",  "retry-after 10m,\n 1h", "route x.test",
      "queue-to b.test/v",      "no-such-line",   "queue-to \"\"",         "<domain x>",
      "default-smtp-port 99999"};
  static const std::vector<std::string> kPatterns = {"a.test", "b.test", "*.c.test",
                                                     "$m",     "A.test", "a..b"};
  std::string text = absl::StrCat("<domain ", kPatterns[random() % kPatterns.size()], ">\n");
  for (uint32_t i = random() % 4; i > 0; --i) {
    // Mistakes are rare, or most files would be all mistakes.
    const size_t last = random() % 10 == 0 ? kLines.size() : kLines.size() - 4;
    absl::StrAppend(&text, kLines[random() % last], "\n");
  }
  return text + (random() % 30 == 0 ? "" : "</domain>\n");
}

TEST(CompileCacheTest, TheSameAsWithoutIt) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    std::mt19937 random(seed);
    CompileCache cache;
    std::vector<std::string> sections(1 + random() % 6);
    for (std::string& section : sections) section = AnySection(random);
    for (int round = 0; round < 8; ++round) {
      std::string text = "domain-macro m m.test,a.test\n<virtual-mta v>\n</virtual-mta>\n";
      for (const std::string& section : sections) text += section;
      ExpectSame(text, &cache);
      sections[random() % sections.size()] = AnySection(random);
      if (random() % 3 == 0) std::swap(sections.front(), sections.back());
    }
    if (HasFailure()) break;
  }
}

TEST(CompileCacheTest, FingerprintsAreOfLinesAndTheirBorders) {
  std::vector<Diagnostic> diagnostics;
  const auto lex = [&](std::string_view text) {
    return Lex(
        "f", text, [](std::string_view) { return false; }, &diagnostics);
  };
  const auto one = lex("<domain a>\nx y z\n</domain>");
  const auto two = lex("<domain a>\nx yz\n</domain>");
  const auto quoted = lex("<domain a>\nx y \"z\"\n</domain>");
  const auto spaced = lex("\n<domain  a> # c\n  x   y z\n</domain>");
  EXPECT_EQ(CompileCache::EndOf(one, 0), 2u);
  EXPECT_NE(CompileCache::FingerprintOf(one, 0, 2), CompileCache::FingerprintOf(two, 0, 2));
  EXPECT_NE(CompileCache::FingerprintOf(one, 0, 2), CompileCache::FingerprintOf(quoted, 0, 2));
  EXPECT_EQ(CompileCache::FingerprintOf(one, 0, 2), CompileCache::FingerprintOf(spaced, 0, 2));
  EXPECT_FALSE(CompileCache::EndOf(lex("<domain $a>\n</domain>"), 0));
  EXPECT_FALSE(CompileCache::EndOf(lex("<domain a>\ninclude x\n</domain>"), 0));
  EXPECT_FALSE(CompileCache::EndOf(lex("<domain a>\n<limits>\n</limits>\n</domain>"), 0));
  EXPECT_FALSE(CompileCache::EndOf(lex("<domain a>\nx y\n"), 0));
}

}  // namespace
}  // namespace sluice::config
