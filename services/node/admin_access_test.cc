// Proves who may call the admin API: what a certificate, a token of each role, and a place on this
// machine are worth; that a token which is taken out of the file opens nothing a second later, and
// that a damaged file opens nothing at all.
#include "services/node/admin_access.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "services/base/testing/manual_executor.h"
#include "services/base/testing/temp_folder.h"

namespace sluice::node {
namespace {

using absl::StatusCode;
using policy::AdminRole;
using policy::AdminTokens;

constexpr char kPause[] = "/sluice.admin.v1.AdminService/Pause";
constexpr char kStatus[] = "/sluice.admin.v1.AdminService/GetStatus";
constexpr char kReload[] = "/sluice.admin.v1.AdminService/ReloadConfig";
constexpr char kShardDelete[] = "/sluice.queue.v1.QueueControlService/DeleteMessages";
constexpr char kEnqueue[] = "/sluice.queue.v1.QueueService/Enqueue";
constexpr char kHere[] = "ipv4:127.0.0.1:4711";
constexpr char kElsewhere[] = "ipv4:192.0.2.7:4711";
const std::string kSees(43, 's');
const std::string kChanges(43, 'c');

class AdminAccessTest : public ::testing::Test {
 protected:
  AdminAccessTest() { Write(Both()); }
  ~AdminAccessTest() override { std::filesystem::remove(file_); }
  static std::string Both() {
    return AdminTokens::Line("probe", AdminRole::kMonitor, kSees) + "\n" +
           AdminTokens::Line("anna", AdminRole::kOperator, kChanges) + "\n";
  }
  // As an editor does it: another file of that name.
  void Write(const std::string& text) {
    std::ofstream(file_ + ".new") << text;
    std::filesystem::rename(file_ + ".new", file_);
  }
  static StatusCode Code(const absl::Status& status) { return status.code(); }

  const sluice::testing::TempFolder temp_{"tokens"};
  const std::string file_ = temp_.File("tokens");
  sluice::testing::ManualExecutor executor_;
};

TEST_F(AdminAccessTest, WithoutTokensOnlyThisMachineAndCertificatesAreServed) {
  AdminAccess access("", executor_.clock(), nullptr);
  ASSERT_TRUE(access.Load().ok());
  for (const char* method : {kPause, kStatus, kReload, kShardDelete}) {
    EXPECT_TRUE(access.Admit({method, kHere, "", false}).ok());
    EXPECT_TRUE(access.Admit({method, "unix:/run/sluice.sock", "", false}).ok());
    EXPECT_TRUE(access.Admit({method, "ipv6:%5B::1%5D:1", "", false}).ok());
    EXPECT_TRUE(access.Admit({method, kElsewhere, "", true}).ok());
    for (const char* peer : {kElsewhere, "ipv6:%5B2001:db8::1%5D:1", "", "inproc"}) {
      EXPECT_EQ(Code(access.Admit({method, peer, "", false})), StatusCode::kUnauthenticated)
          << peer << " " << method;
    }
    EXPECT_EQ(Code(access.AdmitByToken({method, kHere, "", false})), StatusCode::kUnauthenticated);
  }
  // What services say to each other is not its business.
  EXPECT_TRUE(access.Admit({kEnqueue, kElsewhere, "", false}).ok());
  EXPECT_GT(access.refused(), 0u);
}

TEST_F(AdminAccessTest, ATokenOpensWhatItsRoleMayDo) {
  AdminAccess access(file_, executor_.clock(), nullptr);
  ASSERT_TRUE(access.Load().ok());
  for (const char* peer : {kHere, kElsewhere}) {
    for (const bool alone : {false, true}) {
      const auto ask = [&](const char* method, const std::string& token) {
        const RpcCall call{method, peer, token, false};
        return Code(alone ? access.AdmitByToken(call) : access.Admit(call));
      };
      EXPECT_EQ(ask(kStatus, kSees), StatusCode::kOk);
      EXPECT_EQ(ask(kPause, kSees), StatusCode::kPermissionDenied);
      EXPECT_EQ(ask(kShardDelete, kSees), StatusCode::kPermissionDenied);
      EXPECT_EQ(ask(kPause, kChanges), StatusCode::kOk);
      EXPECT_EQ(ask(kReload, kChanges), StatusCode::kPermissionDenied);
      for (const std::string& wrong : {std::string(), kSees + "x", std::string("sha256:")}) {
        EXPECT_EQ(ask(kStatus, wrong), StatusCode::kUnauthenticated) << wrong;
      }
    }
  }
  EXPECT_TRUE(access.Admit({kReload, kElsewhere, "", true}).ok());
  // A certificate is not looked at where tokens are asked for.
  EXPECT_FALSE(access.AdmitByToken({kReload, kElsewhere, "", true}).ok());
}

TEST_F(AdminAccessTest, WhatIsTakenOutOfTheFileOpensNothing) {
  std::string logged;
  Log log({.service = "t", .sink = [&](std::string_view line) { logged += line; }},
          executor_.clock());
  AdminAccess access(file_, executor_.clock(), &log);
  ASSERT_TRUE(access.Load().ok());
  const RpcCall call{kPause, kElsewhere, kChanges, false};
  EXPECT_TRUE(access.Admit(call).ok());
  EXPECT_NE(logged.find("by=anna"), std::string::npos) << logged;
  Write(AdminTokens::Line("probe", AdminRole::kMonitor, kSees));
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(Code(access.Admit(call)), StatusCode::kUnauthenticated);
  Write(Both() + "anna\n");
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(Code(access.Admit({kStatus, kHere, kSees, false})), StatusCode::kUnauthenticated);
  EXPECT_NE(logged.find("admin_tokens_unusable"), std::string::npos) << logged;
  EXPECT_NE(logged.find("line 3"), std::string::npos) << logged;
  std::filesystem::remove(file_);
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(Code(access.Admit(call)), StatusCode::kUnauthenticated);
  Write(Both());
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(access.Admit(call).ok());
  for (const std::string& token : {kSees, kChanges}) {
    EXPECT_EQ(logged.find(token), std::string::npos);
  }
}

TEST_F(AdminAccessTest, AFileThatCannotBeUsedEndsTheStart) {
  Write("anna admin " + kChanges);
  const absl::Status status = AdminAccess(file_, executor_.clock(), nullptr).Load();
  EXPECT_EQ(Code(status), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(file_ + ": line 1: "), std::string::npos) << status;
  EXPECT_EQ(status.message().find(kChanges), std::string::npos);
  EXPECT_FALSE(AdminAccess(file_ + "x", executor_.clock(), nullptr).Load().ok());
}

}  // namespace
}  // namespace sluice::node
