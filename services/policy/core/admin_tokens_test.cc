// Proves that a token opens what its role may do and nothing else, that only hashes are kept, and
// that a file with a mistake is refused by line without showing what stands there.
#include "services/policy/core/admin_tokens.h"

#include <gtest/gtest.h>

#include "sluice/admin/v1/admin_service.pb.h"

namespace sluice::policy {
namespace {

const std::string kToken = "slt_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
const std::string kOther = "slt_0123456789abcdefghijklmnopqrstuvwxyzABCDEFH";

TEST(AdminTokens, FindsWhoHasATokenAndNobodyElse) {
  const std::string line = AdminTokens::Line("anna@example", AdminRole::kOperator, kToken);
  EXPECT_EQ(line.find(kToken), std::string::npos);
  const auto tokens = AdminTokens::Parse("# people\n\n  " + line + "  # since May\r\n" +
                                         AdminTokens::Line("probe", AdminRole::kMonitor, kOther));
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->size(), 2u);
  const auto* holder = tokens->Find(kToken);
  ASSERT_NE(holder, nullptr);
  EXPECT_EQ(holder->name, "anna@example");
  EXPECT_EQ(holder->role, AdminRole::kOperator);
  EXPECT_EQ(tokens->Find(kOther)->role, AdminRole::kMonitor);
  for (const std::string& wrong : {kToken.substr(1), kToken + "x", std::string(), line,
                                   std::string(64, '0'), line.substr(line.find("sha256:"))}) {
    EXPECT_EQ(tokens->Find(wrong), nullptr) << wrong;
  }
}

// The hash of a word that somebody may guess is no protection.
TEST(AdminTokens, TakesNoShortToken) {
  const auto tokens =
      AdminTokens::Parse(AdminTokens::Line("weak", AdminRole::kAdmin, "correct horse"));
  ASSERT_TRUE(tokens.ok());
  EXPECT_EQ(tokens->Find("correct horse"), nullptr);
}

TEST(AdminTokens, AMistakeIsNamedByLineAndNotShown) {
  const std::string good = AdminTokens::Line("a", AdminRole::kAdmin, kToken);
  for (const std::string& wrong :
       {std::string("b operator ") + kToken, std::string("b root sha256:") + std::string(64, 'a'),
        std::string("b admin sha256:") + std::string(63, 'a'),
        std::string("b admin sha256:") + std::string(64, 'g'), std::string("b admin"),
        std::string("b/c admin sha256:") + std::string(64, 'a'), good, good + " more"}) {
    const auto tokens = AdminTokens::Parse(good + "\n" + wrong + "\n");
    ASSERT_FALSE(tokens.ok()) << wrong;
    const std::string said(tokens.status().message());
    EXPECT_EQ(said.rfind("line 2: ", 0), 0u) << said;
    EXPECT_EQ(said.find(kToken), std::string::npos) << said;
  }
}

// A method that somebody adds is for admins until it is given a role here.
TEST(AdminTokens, EveryMethodHasARole) {
  const auto* service =
      admin::v1::GetStatusRequest::descriptor()->file()->FindServiceByName("AdminService");
  ASSERT_NE(service, nullptr);
  std::map<AdminRole, int> methods;
  for (int i = 0; i < service->method_count(); ++i) {
    const std::string& name = service->method(i)->name();
    const AdminRole role = RoleForAdminMethod(name);
    ++methods[role];
    if (role == AdminRole::kMonitor) {
      EXPECT_TRUE(name.starts_with("Get") || name.starts_with("List") || name == "ExplainConfig")
          << name << " is open to monitors";
    }
    if (role == AdminRole::kAdmin) {
      EXPECT_TRUE(name == "ReloadConfig" || name == "CheckConfig") << name << " has no role";
    }
  }
  EXPECT_EQ(methods.size(), 3u);
  EXPECT_EQ(RoleForAdminMethod("NoSuchMethod"), AdminRole::kAdmin);
}

}  // namespace
}  // namespace sluice::policy
