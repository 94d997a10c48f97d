// Proves what files say of users, proxies and mail merge, and that no diagnosis shows a password.
#include <map>

#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/printer.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

class CompilerAuthTest : public ::testing::Test {
 protected:
  Compiled Compile(const std::string& text) { return CompileText("/etc/a.conf", text, files_); }
  std::string Errors(const std::string& text) { return Render(Compile(text).diagnostics); }
  MemoryFiles files_;
};

constexpr char kHash[] = "$6$abc$defghijklmnop";

TEST_F(CompilerAuthTest, UsersOfFilesAndSections) {
  files_.files["/etc/users"] = std::string("# who\n\nbob:") + kHash +
                               "\r\nann:SCRAM-SHA-256$4096:AAAA$BBBB:CCCC\nold:" + kHash +
                               ":1:2:\n";
  const Compiled compiled = Compile(
      "<source {bulk}>\nallow-relay yes\n</source>\n"
      "<smtp-user tim@x.test>\npassword \"open sesame\"\nsource {bulk}\n</smtp-user>\n"
      "<accepted-connect 192.0.2.0/24>\nrequire-auth yes\nauth-plain users\n"
      "allow-unencrypted-plain-auth yes\nsmtp-max-auth-failure-rate 10/m\n</accepted-connect>\n"
      "<accepted-connect 10/8>\nauth-plain /etc/./users\n</accepted-connect>\n");
  EXPECT_TRUE(compiled.diagnostics.empty()) << Render(compiled.diagnostics);
  const auto view = PolicyView::Build(compiled.snapshot);
  ASSERT_TRUE(view.ok());
  const auto client = (*view)->ForClient("192.0.2.1");
  EXPECT_EQ(client->auth_plain(), "/etc/users");
  EXPECT_TRUE(client->require_auth());
  EXPECT_TRUE(client->allow_unencrypted_plain_auth());
  EXPECT_EQ(client->smtp_max_auth_failure_rate().count(), 10u);
  EXPECT_EQ((*view)->ForClient("10.1.1.1")->auth_plain(), "/etc/users");
  EXPECT_EQ((*view)->ForClient("198.51.100.1")->auth_plain(), "");
  const auto* const file = (*view)->FindAuthFile("/etc/users");
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->hashes().size(), 3u);
  EXPECT_EQ(file->hashes().at("bob"), kHash);
  EXPECT_EQ(file->hashes().at("old"), kHash);
  EXPECT_EQ(file->hashes().at("ann"), "SCRAM-SHA-256$4096:AAAA$BBBB:CCCC");
  const auto* const user = (*view)->FindSmtpUser("tim@x.test");
  ASSERT_NE(user, nullptr);
  EXPECT_EQ(user->password(), "open sesame");
  EXPECT_EQ(user->source(), "{bulk}");
  EXPECT_EQ((*view)->smtp_users().size(), 1u);
  const std::string printed = PrintSnapshot(compiled.snapshot);
  EXPECT_NE(printed.find("tim@x.test"), std::string::npos);
  EXPECT_EQ(printed.find("sesame"), std::string::npos);
}

TEST_F(CompilerAuthTest, WrongFilesNameTheirLineAndNoPassword) {
  const auto error = [&](const std::string& text) {
    files_.files["/etc/users"] = text;
    return Errors("auth-plain users\n");
  };
  EXPECT_NE(Errors("auth-plain nowhere\n").find("cannot open it"), std::string::npos);
  const std::string clear = error(std::string("a:") + kHash + "\nbob:sesame123\n");
  EXPECT_NE(clear.find("line 2"), std::string::npos) << clear;
  EXPECT_EQ(clear.find("sesame"), std::string::npos) << clear;
  EXPECT_NE(error("nothing\n").find("user:hash"), std::string::npos);
  EXPECT_NE(error(":$6$abcdefgh\n").find("user:hash"), std::string::npos);
  EXPECT_NE(error("a:$6$abcdefgh\na:$6$abcdefgh\n").find("twice"), std::string::npos);
  // What services exchange is UTF-8, names and hashes.
  for (const char* latin : {"j\xFCrgen:$6$abcdefgh\n", "a:$6$abcdefg\xFC\n"}) {
    EXPECT_NE(error(latin).find("line 1: this is not UTF-8"), std::string::npos) << latin;
  }
  EXPECT_EQ(error("j\xC3\xBCrgen:$6$abcdefgh\n"), "");
  EXPECT_NE(Errors("<smtp-user a>\nsource nobody\n</smtp-user>\n").find("there is no <source"),
            std::string::npos);
}

TEST_F(CompilerAuthTest, ProxiesAndMailMerge) {
  const Compiled compiled = Compile(
      "smtp-proxy-listener 127.0.0.1:2526\nmailmerge-expands-undefined-variables no\n"
      "<source 127.0.0.1>\nallow-proxy-protocol yes\nallow-xclient yes\nallow-mailmerge yes\n"
      "</source>\n");
  EXPECT_TRUE(compiled.diagnostics.empty()) << Render(compiled.diagnostics);
  const auto view = PolicyView::Build(compiled.snapshot);
  ASSERT_TRUE(view.ok());
  EXPECT_EQ((*view)->global().smtp_proxy_listeners().values(0), "127.0.0.1:2526");
  EXPECT_FALSE((*view)->global().mailmerge_expands_undefined_variables());
  EXPECT_TRUE((*view)->ForClient("127.0.0.1")->allow_proxy_protocol());
  EXPECT_TRUE((*view)->ForClient("127.0.0.1")->allow_xclient());
  EXPECT_TRUE((*view)->ForClient("127.0.0.1")->allow_mailmerge());
  EXPECT_FALSE((*view)->ForClient("127.0.0.2")->allow_proxy_protocol());
  EXPECT_FALSE((*view)->ForClient("127.0.0.2")->allow_xclient());
}

}  // namespace
}  // namespace sluice::config
