// Proves that the reference page is the registry's.
#include "services/config/reference_page.h"

#include <fstream>
#include <sstream>

#include "gtest/gtest.h"

namespace sluice::config {
namespace {

TEST(ReferencePageTest, TheFileInTheTreeIsTheRegistrys) {
  std::ifstream file("services/config/REFERENCE.md");
  ASSERT_TRUE(file.is_open());
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), ReferencePage())
      << "run `bazel run //services/config:write_reference` and commit the file";
}

}  // namespace
}  // namespace sluice::config
