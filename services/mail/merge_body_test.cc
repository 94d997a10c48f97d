// Proves that each recipient gets its own parts and values, what is predefined, and that no record
// leads out of the text.
#include "services/mail/merge_body.h"

#include <string>

#include "gtest/gtest.h"

namespace sluice::mail {
namespace {

constexpr char kStored[] =
    "Received: ([1.2.3.4]) [name]\r\nTo: [*to]\r\n\r\nHi [Name]\r\nBye [*jobid]\r\n";

class MergeBodyTest : public testing::Test {
 protected:
  MergeBodyTest() {
    const std::string_view text(kStored);
    Add(0, 0, text.find("To:"));
    Add(1, text.find("To:"), text.find("Bye") - text.find("To:"));
    Add(2, text.find("Bye"), text.size() - text.find("Bye"));
    message_.set_mail_from("bounce@x.test");
    delivery_.set_rcpt("bob@y.test");
    delivery_.set_job_id("j7");
    (*delivery_.mutable_merge_variables())["name"] = "Bob";
  }
  void Add(uint32_t number, uint64_t offset, uint64_t size) {
    auto* const part = message_.add_parts();
    part->set_number(number);
    part->set_offset(offset);
    part->set_size(size);
  }
  common::v1::Message message_;
  common::v1::Delivery delivery_;
};

TEST_F(MergeBodyTest, AllPartsOrThoseOfTheRecipient) {
  EXPECT_EQ(MergedBody(kStored, message_, delivery_, true),
            "Received: ([1.2.3.4]) [name]\r\nTo: bob@y.test\r\n\r\nHi Bob\r\nBye j7\r\n");
}

TEST_F(MergeBodyTest, PartsInTheOrderGiven) {
  delivery_.add_parts(2);
  EXPECT_EQ(MergedBody(kStored, message_, delivery_, true).substr(30), "\r\nBye j7\r\n");
  delivery_.add_parts(1);
  delivery_.add_parts(9);
  const std::string body = MergedBody(kStored, message_, delivery_, true);
  EXPECT_LT(body.find("Bye"), body.find("To:"));
}

// A part, or a value at its beginning, does not go on in the field before it.
TEST_F(MergeBodyTest, OnlyAHeaderSectionFollowsTheFieldsInFront) {
  const std::string field = "Received: by x\r\n";
  const std::string stored = field + "[indent]Subject: s\r\n\r\n by y\r\nhello: z\r\n";
  message_.clear_parts();
  const size_t second = stored.find(" by y");
  Add(0, 0, field.size());
  Add(1, field.size(), second - field.size());
  Add(2, second, stored.find("hello") - second);
  Add(3, stored.find("hello"), 10);
  const auto merged = [&](uint32_t part) {
    delivery_.clear_parts();
    delivery_.add_parts(part);
    return MergedBody(stored, message_, delivery_, true).substr(field.size());
  };
  EXPECT_EQ(merged(1), "Subject: s\r\n\r\n");
  EXPECT_EQ(merged(2), "\r\n by y\r\n");
  EXPECT_EQ(merged(3), "hello: z\r\n");
  (*delivery_.mutable_merge_variables())["indent"] = " ";
  EXPECT_EQ(merged(1), "\r\n Subject: s\r\n\r\n");
}

TEST_F(MergeBodyTest, DamagedRangesAreLeftOut) {
  Add(3, 1000, 1);
  Add(4, 5, UINT64_MAX);
  EXPECT_EQ(MergedBody(kStored, message_, delivery_, true).find("Received", 5), std::string::npos);
}

TEST(VerpSender, HasTheRecipientInIt) {
  EXPECT_EQ(VerpSender("bounce@x.test", "bob@y.test"), "bounce-bob=y.test@x.test");
  EXPECT_EQ(VerpSender("", "bob@y.test"), "");
  EXPECT_EQ(VerpSender("bounce@x.test", "\"b b\"@y.test"), "bounce@x.test");
}

}  // namespace
}  // namespace sluice::mail
