// With what the compilation before left, the result is the same as without.
#include "services/config/compile_cache.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/lexer.h"
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

TEST(CompileCacheTest, MistakesOfAllKindsComeInTheirOrder) {
  CompileCache cache;
  for (int round = 0; round < 2; ++round) {
    ExpectSame(
        std::string("<domain a.test>\nunknown 1\nmax-smtp-out 1\0\nunknown 2\n</domain>\n", 62),
        &cache);
  }
}

// The parts as they are cut, sections in brackets.
std::string Cut(std::string_view text) {
  std::string shown;
  for (const TextPart& part : CutSections(text)) {
    absl::StrAppend(&shown, part.first_line, part.section ? "[" : "(", std::string(part.text),
                    part.section ? "]" : ")");
  }
  return shown;
}

TEST(CompileCacheTest, SectionsAreCutOutWhereThatIsSure) {
  EXPECT_EQ(Cut(""), "");
  EXPECT_EQ(Cut("x 1\n<domain a>\ny\n</domain>\nz 1"),
            "1(x 1\n)2[<domain a>\ny\n</domain>\n]5(z 1)");
  EXPECT_EQ(Cut("<domain a>\r\n y 1,\r\n 2\r\n </domain> \r\n<domain b>\n</domain>"),
            "1[<domain a>\r\n y 1,\r\n 2\r\n </domain> \r\n]5[<domain b>\n</domain>]");
  for (const std::string_view whole :
       {"x 1,\n<domain a>\n</domain>",         // what looks like a section is of the list
        "x 1,\n# c\n\n<domain a>\n</domain>",  // also here
        "<domain $a>\ny\n</domain>", "<domain a>\ny $a\n</domain>",
        "<domain a>\ninclude x\n</domain>", "<domain a>\nInclude x\n</domain>",
        "<domain a>\n<limits>\n</limits>\n</domain>", "<domain a>\ny\n", "<domain a\n</domain>",
        "<domain \"a\">\n</domain>", "<domains a>\n</domains>", "<domain a> # x>\n</domain>"}) {
    const std::string cut = Cut(whole);
    EXPECT_EQ(cut.find('['), cut.npos) << cut;
  }
}

// The lines of a section, whatever stands before it, are read as if they stood alone.
TEST(CompileCacheTest, PartsAreReadAsTheWholeIs) {
  static const std::vector<std::string> kParts = {
      "a 1\n",        "a 1,\n",         "# c,\n",     "\n",
      "<domain d>\n", "</domain>\n",    "a \"\n",     "/x,y/ <domain>\n",
      "<domain e>\n", " </domain>\r\n", "a b # c,\n", "</x>,\n"};
  const auto shown = [](const std::vector<Statement>& statements) {
    std::string text;
    for (const Statement& statement : statements) {
      absl::StrAppend(&text, statement.where.line, " ", statement.name, " ",
                      static_cast<int>(statement.kind));
      for (const Token& token : statement.arguments) absl::StrAppend(&text, " ", token.text);
      absl::StrAppend(&text, "\n");
    }
    return text;
  };
  constexpr auto kRegex = [](std::string_view) { return false; };
  const auto file = std::make_shared<const std::string>("f");
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(seed);
    std::string text;
    for (uint32_t i = random() % 12; i > 0; --i) text += kParts[random() % kParts.size()];
    std::vector<Diagnostic> diagnostics;
    std::vector<Statement> cut;
    for (const TextPart& part : CutSections(text)) {
      for (Statement& statement : LexPart(file, part.first_line, part.text, kRegex, &diagnostics)) {
        cut.push_back(std::move(statement));
      }
    }
    std::vector<Diagnostic> of_whole;
    const auto whole = Lex("f", text, kRegex, &of_whole);
    ASSERT_EQ(shown(cut), shown(whole)) << text;
    ASSERT_EQ(Render(diagnostics), Render(of_whole)) << text;
  }
}

}  // namespace
}  // namespace sluice::config
