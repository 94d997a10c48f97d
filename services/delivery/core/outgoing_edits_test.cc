// Proves that senders, header lines and dates are changed on the way out as configured.
#include "services/delivery/core/outgoing_edits.h"

#include <gtest/gtest.h>

#include <optional>

namespace sluice::delivery {
namespace {

class OutgoingEditsTest : public ::testing::Test {
 protected:
  OutgoingEditsTest() {
    auto& vmta = *Section("vmta/news").mutable_virtual_mta();
    vmta.set_name("news");
    vmta.set_rewrite_list("partners");
    vmta.set_include_headers("X-Sent-By: news\r\n");
    Section("vmta/plain").mutable_virtual_mta()->set_name("plain");
    auto& pool = *Section("pool/all").mutable_pool();
    pool.set_name("all");
    pool.add_virtual_mtas("plain");
    pool.set_rewrite_list("Partners");
    Section("global").mutable_global()->mutable_settings()->set_include_headers(
        "X-Abuse: abuse@example.com\r\n");
    auto& list = *Section("rewrite-list/partners").mutable_rewrite_list();
    list.set_name("partners");
    (*list.mutable_mail_from())["ceo@old.example"] = "boss@new.example";
    (*list.mutable_from_domain())["old.example"] = "new.example";
    edits_.SetPolicy(*config::PolicyView::Build(snapshot_));
    lease_.mutable_message()->set_body_size(4);
    lease_.mutable_message()->set_header_size(2);
    transaction_.body = Body("text");
  }
  policy::v1::SectionContent& Section(const std::string& name) {
    auto* section = snapshot_.add_sections();
    section->set_name(name);
    return *section->mutable_content();
  }
  std::string Sender(const std::string& vmta, const std::string& pool, const std::string& from) {
    queue::v1::Lease lease;
    Transaction transaction;
    lease.mutable_message()->set_mail_from(from);
    edits_.Apply(vmta, pool, FromUnixMicros(0), &lease, &transaction);
    return lease.message().mail_from_rewritten();
  }

  policy::v1::PolicySnapshot snapshot_;
  OutgoingEdits edits_;
  queue::v1::Lease lease_;
  Transaction transaction_;
};

TEST_F(OutgoingEditsTest, AWholeAddressGoesBeforeItsDomain) {
  EXPECT_EQ(Sender("news", "", "CEO@Old.Example"), "boss@new.example");
  EXPECT_EQ(Sender("news", "", "Ann@OLD.example"), "Ann@new.example");
  EXPECT_EQ(Sender("news", "", "ann@sub.old.example"), "");
  EXPECT_EQ(Sender("news", "", "ann@other.example"), "");
  EXPECT_EQ(Sender("news", "", ""), "") << "the null sender is nobody's";
}

TEST_F(OutgoingEditsTest, AVirtualMtaWithoutAListHasItsPools) {
  EXPECT_EQ(Sender("plain", "all", "ann@old.example"), "ann@new.example");
  EXPECT_EQ(Sender("plain", "", "ann@old.example"), "");
}

TEST_F(OutgoingEditsTest, HeaderLinesStandBeforeTheMessageAndCount) {
  edits_.Apply("news", "", FromUnixMicros(0), &lease_, &transaction_);
  EXPECT_EQ(transaction_.body.view(), "X-Sent-By: news\r\ntext");
  EXPECT_EQ(lease_.message().body_size(), 4U + 17U);
  EXPECT_EQ(lease_.message().header_size(), 2U + 17U);
}

TEST_F(OutgoingEditsTest, WithoutLinesOfItsOwnAMessageHasTheGlobalOnes) {
  edits_.Apply("plain", "all", FromUnixMicros(0), &lease_, &transaction_);
  EXPECT_EQ(transaction_.body.view(), "X-Abuse: abuse@example.com\r\ntext");
}

TEST_F(OutgoingEditsTest, ADateOfDeliverySaysWhenItLeft) {
  auto* edit = lease_.mutable_message()->add_header_edits();
  edit->set_action(common::v1::HeaderEdit::ACTION_ADD);
  edit->set_name("Date");
  edits_.Apply("news", "", FromUnixMicros(1'700'000'061'000'000), &lease_, &transaction_);
  EXPECT_EQ(transaction_.body.view(),
            "X-Sent-By: news\r\nDate: Tue, 14 Nov 2023 22:14:21 +0000\r\ntext");
}

TEST_F(OutgoingEditsTest, OfALargeMessageTheFirstChunkHasThem) {
  struct Chunks final : ChunkSource {
    void Fetch(uint32_t chunk, absl::AnyInvocable<void(absl::StatusOr<Body>)> done) override {
      if (chunk == 2) return done(absl::UnavailableError("gone"));
      done(Body(chunk == 0 ? "first" : "second"));
    }
  };
  transaction_.body = Body();
  transaction_.chunks = std::make_unique<Chunks>();
  edits_.Apply("news", "", FromUnixMicros(0), &lease_, &transaction_);
  const auto fetch = [this](uint32_t chunk) {
    std::string text;
    transaction_.chunks->Fetch(chunk, [&](absl::StatusOr<Body> body) {
      text = body.ok() ? std::string(body->view()) : body.status().ToString();
    });
    return text;
  };
  EXPECT_EQ(fetch(0), "X-Sent-By: news\r\nfirst");
  EXPECT_EQ(fetch(1), "second");
  EXPECT_EQ(fetch(2), "UNAVAILABLE: gone");
}

}  // namespace
}  // namespace sluice::delivery
