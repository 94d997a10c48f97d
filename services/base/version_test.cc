// Proves that --version tells release, build and formats, and that the build is known.
#include "services/base/version.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace sluice {
namespace {

TEST(Version, TellsReleaseBuildAndFormats) {
  const std::string text = VersionText();
  EXPECT_EQ(text.rfind(std::string(kVersion) + "\nbuild " + BuildId() + ",", 0), 0u) << text;
  EXPECT_NE(text.find("\nspool format " + std::to_string(kSpoolFormat)), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
}

TEST(Version, BuildIsTheLinkersHash) {
  const std::string id = BuildId();
  EXPECT_EQ(id.size(), 40u) << id;
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos) << id;
}

}  // namespace
}  // namespace sluice
