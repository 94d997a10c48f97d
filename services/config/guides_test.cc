// The configuration guides that operators follow, directive by directive: each line is in force, or
// is said not to be. The golden files hold what is said of each line, and what the file compiles
// to.
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "gtest/gtest.h"
#include "services/config/compiler.h"

namespace sluice::config {
namespace {

constexpr char kFolder[] = "services/config/testdata/";

std::string Golden(const std::string& name) {
  std::ifstream file(kFolder + name + ".golden");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// What is still wrong with the guide once all that refuses the load for being planned is accepted
// by the name that its message says.
std::string LeftWrong(const std::string& name) {
  constexpr char kOption[] = "--accept-unsupported ";
  DiskFiles files;
  const Compiled compiled = Compile({kFolder + name + ".conf"}, files);
  CompileOptions options;
  for (const Diagnostic& diagnostic : compiled.diagnostics) {
    const size_t at = diagnostic.hint.find(kOption);
    if (at == std::string::npos) continue;
    options.accept_unsupported.insert(diagnostic.hint.substr(at + sizeof(kOption) - 1));
  }
  const Compiled accepted = Compile({kFolder + name + ".conf"}, files, options);
  // As many lines have each status, whether they were accepted or not.
  EXPECT_EQ(accepted.tally.planned, compiled.tally.planned);
  EXPECT_EQ(accepted.tally.effective, compiled.tally.effective);
  std::stringstream left;
  for (const Diagnostic& diagnostic : accepted.diagnostics) {
    if (diagnostic.severity != Diagnostic::Severity::kError) continue;
    const std::string line = diagnostic.ToString();
    left << line.substr(sizeof(kFolder) - 1, line.find('\n') - sizeof(kFolder) + 1) << "\n";
  }
  return left.str();
}

// What a guide's file comes to, in lines that a person can review.
std::string Report(const std::string& name) {
  DiskFiles files;
  const Compiled compiled = Compile({kFolder + name + ".conf"}, files);
  std::stringstream report;
  for (const Diagnostic& diagnostic : compiled.diagnostics) {
    const std::string text = diagnostic.ToString();
    report << text.substr(sizeof(kFolder) - 1, text.find('\n') - sizeof(kFolder) + 1) << "\n";
  }
  for (const auto& section : compiled.snapshot.sections()) {
    report << section.name() << " {" << section.content().ShortDebugString() << "}\n";
  }
  return report.str();
}

class GuideTest : public testing::TestWithParam<const char*> {};

TEST_P(GuideTest, EveryLineIsKnownAndMeansTheSame) {
  const std::string report = Report(GetParam());
  EXPECT_EQ(report.find("unknown"), std::string::npos);
  EXPECT_EQ(report.find("may not be"), std::string::npos);
  EXPECT_EQ(report.find("is no value"), std::string::npos);
  if (const char* const folder = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR")) {
    std::ofstream(std::string(folder) + "/" + GetParam() + ".golden") << report;
  }
  EXPECT_EQ(report, Golden(GetParam()));
}

TEST(GuidesTest, WhatRestrictsAndIsPlannedIsLetInByNameOnly) {
  // Of this machine, not of the language.
  EXPECT_EQ(
      LeftWrong("guide_one"),
      "guide_one.conf:91:14: error: \"/etc/powermta/passwd\": cannot open it: No such file or "
      "directory\n");
  EXPECT_EQ(LeftWrong("guide_two"), "");
  EXPECT_EQ(LeftWrong("guide_three"), "");
  EXPECT_EQ(LeftWrong("guide_four"), "");
}

INSTANTIATE_TEST_SUITE_P(Guides, GuideTest,
                         testing::Values("guide_one", "guide_two", "guide_three", "guide_four"));

}  // namespace
}  // namespace sluice::config
