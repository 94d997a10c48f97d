// Completion knows every command, and every name of the directive language.
#include "tools/ctl/completion.h"

#include <algorithm>
#include <sstream>

#include "gtest/gtest.h"
#include "tools/ctl/app.h"

namespace sluice::ctl {
namespace {

// The words that sluicectl offers for the last of these.
std::string Offered(std::vector<std::string> words) {
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  Environment env{.in = in, .out = out, .err = err};
  words.insert(words.begin(), "__complete");
  EXPECT_EQ(Run(words, env), kExitOk);
  std::string text = out.str();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

TEST(CompletionTest, CommandsAndTheirOptions) {
  EXPECT_EQ(Offered({"rel"}), "reload ");
  EXPECT_EQ(Offered({"config", "di"}), "diff directives ");
  EXPECT_EQ(Offered({"--server", "config", "config", "ch"}), "check ");
  EXPECT_EQ(Offered({"config", "explain", "a.test", "--run"}), "--running ");
  EXPECT_EQ(Offered({"config", "check", "--s"}), "--server --strict ");
  EXPECT_EQ(Offered({"-o", "j"}), "json ");
}

TEST(CompletionTest, NamesOfTheLanguage) {
  EXPECT_EQ(Offered({"config", "directives", "max-smtp-out-per"}),
            "max-smtp-out-per-ip max-smtp-out-per-source-ip ");
  EXPECT_EQ(Offered({"config", "directives", "--section", "virtual-mta"}),
            "virtual-mta virtual-mta-pool ");
  EXPECT_NE(Offered({"config", "check", "--accept-unsupported", ""}), "");
  EXPECT_EQ(Offered({"config", "directives", "no-such"}), "");
}

TEST(CompletionTest, TheScriptAsksForTheWords) {
  EXPECT_NE(CompletionScript().find("__complete"), std::string::npos);
}

}  // namespace
}  // namespace sluice::ctl
