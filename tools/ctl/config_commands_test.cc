// Proves that `sluicectl config` says what it should, to people and to scripts, by its exit code
// too.
#include "tools/ctl/config_commands.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/base/testing/temp_folder.h"

namespace sluice::ctl {
namespace {

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class ConfigCommandsTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
    return folder_ + "/" + name;
  }
  std::string ReadBack(const std::string& name) {
    std::ifstream file(folder_ + "/" + name);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  template <class Command>
  int Run(Command command) {
    out_.str("");
    err_.str("");
    Environment env{in_, out_, err_, false, "me", [] { return int64_t{0}; }, [](int64_t) {}};
    return command(env, options_);
  }
  std::string out() const { return out_.str(); }
  std::string err() const { return err_.str(); }

  const sluice::testing::TempFolder temp_{"config"};
  const std::string folder_ = temp_.path();
  ConfigOptions options_;
  std::istringstream in_;
  std::ostringstream out_, err_;
};

constexpr auto kCheck = [](Environment& env, const ConfigOptions& options) {
  return CheckFiles(env, options, false);
};

TEST_F(ConfigCommandsTest, CheckTellsByItsExitCode) {
  options_.files = {Write("good", "hostname a.test\n<domain *>\nmax-smtp-out 5\n</domain>\n")};
  EXPECT_EQ(Run(kCheck), 0);
  EXPECT_TRUE(Has(out(), "1 lines effective, 1 effective by another name, 0 planned")) << out();
  EXPECT_TRUE(Has(out(), "0 errors, 0 warnings; the configuration loads"));

  options_.files = {Write("warns", "thread-reuse yes\n")};
  EXPECT_EQ(Run(kCheck), 1);
  EXPECT_TRUE(Has(out(), "warns:1:1: warning: thread-reuse has no meaning here: "));
  options_.strict = true;
  EXPECT_EQ(Run(kCheck), 2);
  options_.strict = false;

  options_.files = {Write("refused", "adaptive-max-smtp-out yes\n")};
  EXPECT_EQ(Run(kCheck), 2);
  EXPECT_TRUE(Has(out(), "--accept-unsupported adaptive-max-smtp-out"));
  options_.accept_unsupported = {"adaptive-max-smtp-out"};
  EXPECT_EQ(Run(kCheck), 1);

  options_.files = {Write("lone", "<virtual-mta v>\nsmtp-source-host 192.0.2.1\n</virtual-mta>\n")};
  EXPECT_EQ(Run(kCheck), 0);
  EXPECT_EQ(Run([](Environment& env, const ConfigOptions& options) {
              return CheckFiles(env, options, false, std::set<std::string>{"192.0.2.9"});
            }),
            1);
  EXPECT_TRUE(Has(out(), "no delivery worker has the address 192.0.2.1"));
}

TEST_F(ConfigCommandsTest, CheckAsJson) {
  options_.files = {Write("bad", "\x1b[2J\nhost-name \xff\n")};
  EXPECT_EQ(Run([](Environment& env, const ConfigOptions& o) { return CheckFiles(env, o, true); }),
            2);
  EXPECT_TRUE(Has(out(), "\"loads\": false"));
  EXPECT_TRUE(Has(out(), "\"line\": 2"));
  EXPECT_FALSE(Has(out(), "\x1b"));
}

TEST_F(ConfigCommandsTest, ExplainNamesTheLine) {
  options_.files = {Write("c",
                          "<virtual-mta v>\nsmtp-source-host 192.0.2.1 v.test\n<domain a.test>\n"
                          "max-smtp-out 3\n</domain>\n</virtual-mta>\n<virtual-mta-pool p>\n"
                          "virtual-mta v\n</virtual-mta-pool>\n")};
  options_.domain = "a.test";
  options_.vmta = "v";
  const auto explain = [](Environment& env, const ConfigOptions& o) {
    return ExplainConfig(env, o, false);
  };
  EXPECT_EQ(Run(explain), kExitOk);
  EXPECT_TRUE(Has(out(), "max-smtp-out  3  " + options_.files[0] + ":4 <virtual-mta v> ")) << out();
  EXPECT_TRUE(Has(out(), "192.0.2.1 v.test"));
  EXPECT_TRUE(Has(out(), "give --pool p"));
  EXPECT_FALSE(Has(out(), "bounce-after"));
  options_.all = true;
  EXPECT_EQ(Run(explain), kExitOk);
  EXPECT_TRUE(Has(out(), "bounce-after"));
  options_.vmta = "p";
  EXPECT_EQ(Run(explain), kExitOk);
  EXPECT_TRUE(Has(out(), "queue a.test/v, mail for the pool p"));
  options_.vmta = "nobody";
  EXPECT_EQ(Run(explain), kExitNotFound);
  options_.files = {folder_ + "/none"};
  EXPECT_EQ(Run(explain), kExitRefused);
  EXPECT_TRUE(Has(err(), "does not load"));
}

TEST_F(ConfigCommandsTest, ShowAndDiff) {
  options_.files = {Write("a", "max-msg-rate 60/h\n")};
  EXPECT_EQ(Run([](Environment& env, const ConfigOptions& o) { return ShowConfig(env, o, false); }),
            kExitOk);
  EXPECT_TRUE(Has(out(), "max-msg-rate 60/h\n"));
  options_.old_file = options_.files[0];
  options_.new_file = Write("b", "max-msg-rate 90/h\n");
  EXPECT_EQ(Run([](Environment& env, const ConfigOptions& o) { return DiffFiles(env, o, false); }),
            kExitOk);
  EXPECT_TRUE(Has(out(), "queue */*\n  max-msg-rate  60/h -> 90/h")) << out();
}

TEST_F(ConfigCommandsTest, TestRunsAssertions) {
  Write("c", "max-msg-rate 60/h\n");
  options_.test_file = Write("t", "config c\nqueue a.test/default: max-msg-rate == 60/h\n");
  const auto test = [](Environment& env, const ConfigOptions& o) {
    return TestConfig(env, o, false);
  };
  EXPECT_EQ(Run(test), kExitOk);
  EXPECT_EQ(out(), "1 passed, 0 failed\n");
  options_.test_file = Write("t", "config c\nqueue a.test/default: max-msg-rate == 1/s\n");
  EXPECT_EQ(Run(test), kExitRefused);
  EXPECT_TRUE(Has(out(), "t:2: max-msg-rate is 60/h"));
  options_.test_file = folder_ + "/none";
  EXPECT_EQ(Run(test), kExitUsage);
}

TEST_F(ConfigCommandsTest, ShowAsJson) {
  options_.files = {Write("a",
                          "max-msg-rate 60/h\n<virtual-mta v>\nsource 192.0.2.1\n"
                          "<domain x.test>\nretry-after 10m,1h\n</domain>\n</virtual-mta>\n")};
  const auto show = [](Environment& env, const ConfigOptions& o) {
    return ShowConfig(env, o, true);
  };
  EXPECT_EQ(Run(show), kExitOk);
  const auto json = nlohmann::json::parse(out());
  EXPECT_EQ(json["directives"][0]["name"], "max-msg-rate");
  EXPECT_EQ(json["directives"][0]["value"], "60/h");
  const auto& vmta = json["sections"].back();
  EXPECT_EQ(vmta["section"], "<virtual-mta v>");
  EXPECT_EQ(vmta["sections"][0]["section"], "<domain x.test>");
  EXPECT_EQ(vmta["sections"][0]["directives"][0]["value"], "10m,1h");
}

// Whatever the command, a script gets the errors of files that do not load as check gives them.
TEST_F(ConfigCommandsTest, FilesThatDoNotLoadAsJson) {
  options_.files = {Write("bad", "max-smpt-out 5\n")};
  options_.old_file = options_.new_file = options_.files[0];
  using Command = int (*)(Environment&, const ConfigOptions&, bool);
  for (const Command command : {&ExplainConfig, &ShowConfig, &DiffFiles}) {
    EXPECT_EQ(
        Run([command](Environment& env, const ConfigOptions& o) { return command(env, o, true); }),
        kExitRefused);
    const auto json = nlohmann::json::parse(out());
    EXPECT_EQ(json["loads"], false);
    EXPECT_EQ(json["diagnostics"][0]["line"], 1);
    EXPECT_EQ(json["diagnostics"][0]["hint"], "did you mean \"max-smtp-out\"?");
    EXPECT_EQ(err(), "");
  }
}

TEST_F(ConfigCommandsTest, StrictIsForWarningsOnly) {
  options_.strict = true;
  options_.files = {Write("good", "host-name a.test\n")};
  EXPECT_EQ(Run(kCheck), 0);
  // Of the semantic checks, too.
  options_.files = {Write("lone", "<virtual-mta v>\n</virtual-mta>\n")};
  EXPECT_EQ(Run(kCheck), 2);
  EXPECT_TRUE(Has(out(), "has no source address")) << out();
  EXPECT_TRUE(Has(out(), "the configuration loads"));
  options_.strict = false;
  EXPECT_EQ(Run(kCheck), 1);
  options_.files = {Write("wrong", "max-smtp-out many\n")};
  EXPECT_EQ(Run(kCheck), 2);
  options_.files = {folder_ + "/none"};
  EXPECT_EQ(Run(kCheck), 2);
}

TEST_F(ConfigCommandsTest, ExplainRefusesWhatIsNoAddressOrDomain) {
  options_.files = {Write("a", "max-msg-rate 60/h\n")};
  const auto explain = [](Environment& env, const ConfigOptions& o) {
    return ExplainConfig(env, o, false);
  };
  options_.client = "10.0.0.l";
  EXPECT_EQ(Run(explain), kExitUsage);
  EXPECT_EQ(err(), "sluicectl: 10.0.0.l is no IP address\n");
  options_.client.clear();
  options_.domain = "gmail..com";
  EXPECT_EQ(Run(explain), kExitUsage);
  options_.domain = "GMail.com";
  options_.vmta = "nobody";
  EXPECT_EQ(Run(explain), kExitNotFound);
  options_.vmta.clear();
  options_.source = "192.0.2.77";
  EXPECT_EQ(Run(explain), kExitOk);
  EXPECT_TRUE(Has(out(), "no line is about the source 192.0.2.77")) << out();
}

TEST_F(ConfigCommandsTest, TestTakesWhatIsAcceptedFromTheCommandLine) {
  Write("c", "adaptive-max-smtp-out yes\nmax-msg-rate 60/h\n");
  options_.test_file = Write("t", "config c\nqueue a.test/default: max-msg-rate == 60/h\n");
  const auto test = [](Environment& env, const ConfigOptions& o) {
    return TestConfig(env, o, true);
  };
  EXPECT_EQ(Run(test), kExitRefused);
  EXPECT_EQ(nlohmann::json::parse(out())["diagnostics"][0]["severity"], "error");
  options_.accept_unsupported = {"adaptive-max-smtp-out"};
  EXPECT_EQ(Run(test), kExitOk);
}

TEST_F(ConfigCommandsTest, DirectivesForCompletion) {
  const auto list = [](Environment& env, const ConfigOptions& o) {
    return ListDirectives(env, o, false);
  };
  options_.prefix = "connection-idle";
  options_.section = "domain";
  EXPECT_EQ(Run(list), kExitOk);
  EXPECT_TRUE(out().starts_with("connection-idle-timeout\tTIME ")) << out();
  EXPECT_TRUE(Has(out(), "\teffective\t"));
  options_.prefix = "idle-t";
  EXPECT_EQ(Run(list), kExitOk);
  EXPECT_TRUE(Has(out(), "\talias of connection-idle-timeout\t"));
  options_.prefix = "no-such";
  EXPECT_EQ(Run(list), kExitNotFound);
  options_.section = "nothing";
  EXPECT_EQ(Run(list), kExitNotFound);
}

TEST_F(ConfigCommandsTest, MigrateWritesATree) {
  Write("config", "run-as-root no\ninclude more\n");
  Write("more", "hostname a.test\n");
  options_.folder = folder_;
  options_.out_folder = folder_ + "/new";
  EXPECT_EQ(
      Run([](Environment& env, const ConfigOptions& o) { return MigrateConfig(env, o, false); }),
      kExitOk);
  EXPECT_EQ(ReadBack("new/more"), "host-name a.test\n");
  EXPECT_TRUE(Has(ReadBack("new/config"), "# run-as-root no\n"));
  EXPECT_TRUE(Has(out(), "2 files; the same in effect"));
  EXPECT_TRUE(Has(ReadBack("new/migration-report.txt"), "run-as-root left out"));
  // What only its owner may read stays so.
  namespace fs = std::filesystem;
  fs::permissions(folder_ + "/more", fs::perms::owner_read | fs::perms::owner_write);
  const auto migrate = [](Environment& env, const ConfigOptions& o) {
    return MigrateConfig(env, o, false);
  };
  EXPECT_EQ(Run(migrate), kExitOk);
  EXPECT_EQ(fs::status(folder_ + "/new/more").permissions(),
            fs::perms::owner_read | fs::perms::owner_write);
  // Never over the original.
  options_.out_folder = folder_ + "/new/..";
  EXPECT_EQ(Run(migrate), kExitUsage);
  EXPECT_EQ(ReadBack("more"), "hostname a.test\n");
  options_.folder = folder_ + "/new/none";
  EXPECT_EQ(
      Run([](Environment& env, const ConfigOptions& o) { return MigrateConfig(env, o, false); }),
      kExitUsage);
}

}  // namespace
}  // namespace sluice::ctl
