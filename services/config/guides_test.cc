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

INSTANTIATE_TEST_SUITE_P(Guides, GuideTest,
                         testing::Values("guide_one", "guide_two", "guide_three"));

}  // namespace
}  // namespace sluice::config
