// Proves that assertions beside a configuration pass where they hold, and say what is where they
// do not.
#include "services/config/assertions.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace sluice::config {
namespace {

class OneFile final : public FileSource {
 public:
  absl::StatusOr<std::string> Read(const std::string& path) override {
    if (path == "/etc/pmta/config") {
      return "host-name a.test\nsmtp-greeting \"one # two\"\nmax-message-size "
             "20M\nmax-smtp-in unlimited\n"
             "<virtual-mta m1>\nsmtp-source-host 192.0.2.1 m1.test\n</virtual-mta>\n"
             "<virtual-mta m2>\nsmtp-source-host 192.0.2.2 m2.test\nmax-smtp-out 7\n"
             "<domain gmail.com>\nmax-smtp-out 5\n</domain>\n</virtual-mta>\n"
             "<virtual-mta-pool marketing>\nvirtual-mta m1\nvirtual-mta m2\n"
             "</virtual-mta-pool>\n<domain gmail.com>\nmax-smtp-out 20\nmax-msg-rate 100/m\n"
             "retry-after 10m,1h\n</domain>\n<source 10/8>\nrequire-auth yes\n</source>\n"
             "<source 192.0.2.1>\nmax-msg-rate 500/h\n</source>\n";
    }
    return absl::NotFoundError("cannot open it");
  }
  absl::StatusOr<std::vector<std::string>> Glob(const std::string&, size_t*) override {
    return std::vector<std::string>();
  }
};

AssertionResult RunText(const std::string& text) {
  OneFile files;
  return RunAssertions("/etc/pmta/tests", "config config\n" + text, {}, files);
}

// The message of a text's only failure.
std::string Failure(const std::string& text) {
  const AssertionResult result = RunText(text);
  EXPECT_EQ(result.failures.size(), 1u) << text;
  return result.failures.empty()
             ? ""
             : absl::StrCat(result.failures[0].line, ": ", result.failures[0].message);
}

TEST(AssertionsTest, WhatHoldsPasses) {
  const AssertionResult result = RunText(
      "# what marketing may do\n"
      "loads\n"
      "queue gmail.com/m1: max-smtp-out == 20   # the domain's\n"
      "queue Gmail.com/M2: max-smtp-out <= 5\n"
      "queue gmail.com/marketing: max-smtp-out <= 20\n"
      "queue gmail.com/m1: max-msg-rate == 6000/h\n"
      "queue gmail.com/m1: max-msg-rate < unlimited\n"
      "queue gmail.com/m1: retry-after == 600, 3600\n"
      "queue other.test/m1: max-msg-rate == unlimited\n"
      "queue other.test/m1: bounce-after >= 4d\n"
      "client 10.1.1.1: require-auth == yes\n"
      "client 192.0.2.7: allow-relay != yes\n"
      "source 192.0.2.1: max-msg-rate <= 500/h\n"
      "vmta m2: max-smtp-out == 7\n"
      "vmta m1: max-smtp-out == unlimited\n"
      "pool marketing: max-smtp-msg-rate == unlimited\n"
      "pool marketing: virtual-mta == M2\n"
      "pool marketing: virtual-mta != m3\n"
      "vmta m1: smtp-source-host != 192.0.2.99\n"
      "global: max-message-size == 20480k\n"
      "global: smtp-greeting == \"one # two\"   # with a comment\n"
      "global: smtp-greeting != \"one\"\n"
      "global: host-name == a.test\n");
  EXPECT_TRUE(result.ok()) << result.failures[0].line << result.failures[0].message;
  EXPECT_EQ(result.passed, 22);
}

TEST(AssertionsTest, WhatDoesNotHoldSaysWhatIs) {
  EXPECT_EQ(Failure("queue gmail.com/m1: max-smtp-out == 30"), "2: max-smtp-out is 20");
  EXPECT_EQ(Failure("queue gmail.com/marketing: max-smtp-out == 20"),
            "2: max-smtp-out is 5 for m2");
  EXPECT_EQ(Failure("vmta m1: max-smtp-out == 7"), "2: max-smtp-out is 0");
  EXPECT_EQ(Failure("refused"), "2: the configuration loads");
  EXPECT_EQ(Failure("vmta m1: smtp-source-host == 192.0.2.99 x.test"),
            "2: 192.0.2.99 x.test is not one of its");
  EXPECT_EQ(Failure("pool marketing: virtual-mta < m1"), "2: \"<\" does not compare virtual-mta");
  EXPECT_EQ(Failure("global: alias == x"), "2: \"alias\" cannot be asked for here");
}

TEST(AssertionsTest, MistakesAreFailures) {
  EXPECT_EQ(Failure("queue gmail.com/nobody: max-smtp-out == 1"),
            "2: there is no virtual MTA or pool \"nobody\"");
  EXPECT_EQ(Failure("queue gmail.com/m1: max-smpt-out == 1"),
            "2: \"max-smpt-out\" is no setting of it; did you mean \"max-smtp-out\"?");
  for (const char* text :
       {"queue", "queue a.test/m1 max-smtp-out 1", "x y: max-smtp-out == 1",
        "queue a.test: max-smtp-out == 1", "global: host-name < a.test",
        "queue a.test/m1: max-smtp-out == many", "global: smtp-greeting == \"one",
        "vmta m1: max-smtp-out ==", "queue a.test/m1: max-smtp-out ~ 1"}) {
    EXPECT_FALSE(Failure(text).empty()) << text;
  }
  OneFile files;
  EXPECT_FALSE(RunAssertions("t", "loads\n", {}, files).ok());
  EXPECT_TRUE(RunAssertions("t", "refused\n", {"/nowhere"}, files).ok());
}

}  // namespace
}  // namespace sluice::config
