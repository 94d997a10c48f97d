// Proves the header work on its own: what is captured, what is taken out and where from, what
// Received looks like, which route is chosen.
#include "services/ingest/core/envelope.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "services/ingest/testing/fake_policy.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;

struct Outcome {
  std::string buffer;
  size_t removed = 0;
  common::v1::Message message;
  ControlFields control;
};

class EnvelopeTest : public ::testing::Test {
 protected:
  std::shared_ptr<const ClientProfile> Profile() {
    return ClientProfile::Make(policy_, policy_->loopback, mail::SmtpServerOptions());
  }
  Outcome Read(const std::string& header, const std::string& body = "body\r\n") {
    const std::string before = "Received: ours\r\n";
    Outcome o;
    o.buffer = before + header + body;
    o.removed = ReadHeader(*Profile(), before.size(), before.size() + header.size(), o.buffer,
                           o.message, o.control);
    EXPECT_TRUE(o.buffer.starts_with(before));
    EXPECT_TRUE(o.buffer.ends_with(body));
    EXPECT_EQ(o.buffer.size() + o.removed, before.size() + header.size() + body.size());
    o.buffer = o.buffer.substr(before.size(), o.buffer.size() - before.size() - body.size());
    return o;
  }

  std::shared_ptr<FakePolicy> policy_ = std::make_shared<FakePolicy>();
};

TEST_F(EnvelopeTest, FieldsStayWhereNothingIsAllowed) {
  const std::string header = "X-Virtual-MTA: v\r\nX-Job: j\r\nX-Envid: e\r\n\r\n";
  const Outcome o = Read(header);
  EXPECT_EQ(o.buffer, header);
  EXPECT_FALSE(o.control.virtual_mta);
  EXPECT_EQ(o.control.job_id, "");
  EXPECT_EQ(o.control.envid, "");
  EXPECT_EQ(o.message.captured_headers_size(), 0);
}

TEST_F(EnvelopeTest, EveryOccurrenceGoesTheFirstOneCounts) {
  policy_->loopback->set_process_x_job(true);
  policy_->loopback->set_process_x_virtual_mta(true);
  const Outcome o = Read(
      "X-Job: 1\r\nA: a\r\nx-job: 2\r\nX-Virtual-MTA:\r\nB: b\r\n folded\r\nX-JOB:\r\n 3\r\n\r\n");
  EXPECT_EQ(o.buffer, "A: a\r\nB: b\r\n folded\r\n\r\n");
  EXPECT_EQ(o.control.job_id, "1");
  EXPECT_EQ(o.control.virtual_mta, "");
  EXPECT_EQ(o.message.captured_headers_size(), 4);
}

TEST_F(EnvelopeTest, NothingButControlFields) {
  policy_->loopback->set_process_x_job(true);
  EXPECT_EQ(Read("X-Job: 1\r\n").buffer, "");
  EXPECT_EQ(Read("X-Job: 1\r\n\r\n").buffer, "\r\n");
  EXPECT_EQ(Read("\r\n").buffer, "\r\n");
  EXPECT_EQ(Read("", "").buffer, "");
}

TEST_F(EnvelopeTest, JobIdFromAnotherField) {
  policy_->loopback->set_process_x_job(true);
  policy_->loopback->set_retain_x_job(true);
  policy_->loopback->set_jobid_header("X-Campaign");
  const Outcome o = Read("X-Job: 1\r\nX-Campaign: c\r\n\r\n");
  EXPECT_EQ(o.control.job_id, "c");
  EXPECT_EQ(o.removed, 0u);
}

TEST_F(EnvelopeTest, CapturedValuesAreBoundedAndFirst) {
  const Outcome o = Read("Subject: " + std::string(5000, 's') + "\r\nSubject: two\r\n" +
                         "Sender: x\r\nFrom: Me <me@B.test>\r\nFROM: other@b.test\r\n\r\n");
  ASSERT_EQ(o.message.captured_headers_size(), 3);
  EXPECT_EQ(o.message.captured_headers(0).value().size(), kMaxCapturedBytes);
  EXPECT_EQ(o.message.header_from(), "me@b.test");
}

// RFC 8689 section 3: a field of its own kind, and nothing where the envelope says REQUIRETLS.
TEST_F(EnvelopeTest, TlsRequiredNo) {
  const std::pair<const char*, bool> kCases[] = {
      {"TLS-Required: No\r\n\r\n", true},
      {"Subject: x\r\ntls-required:no \r\n\r\n", true},
      {"TLS-Required:\r\n\tNO\r\n\r\n", true},
      {"TLS-Required: Yes\r\n\r\n", false},
      {"TLS-Required: No, really\r\n\r\n", false},
      {"TLS-Required: N\r\n\r\n", false},
      {"TLS-Required:\r\n\r\n", false},
      {"X-TLS-Required: No\r\n\r\n", false},
      {"TLS-Required: No\r\nTLS-Required: No\r\n\r\n", false},
      {"TLS-Required: Yes\r\nTLS-Required: No\r\n\r\n", false},
      {"\r\nTLS-Required: No\r\n", false}};
  for (const auto& [header, optional] : kCases) {
    const Outcome o = Read(header);
    EXPECT_EQ(o.control.tls_optional, optional) << header;
    EXPECT_EQ(o.buffer, header);  // it stays, for those behind us
  }
  std::string buffer = "TLS-Required: No\r\n\r\n";
  common::v1::Message message;
  message.set_require_tls(true);
  ControlFields control;
  ReadHeader(*Profile(), 0, buffer.size(), buffer, message, control);
  EXPECT_FALSE(control.tls_optional);
  // Who has it taken out does not want it heeded.
  policy_->loopback->mutable_remove_header()->add_values("TLS-Required");
  EXPECT_FALSE(Read("TLS-Required: No\r\n\r\n").control.tls_optional);
}

TEST_F(EnvelopeTest, MailThatDoesNotInsistOnTlsHasAQueueOfItsOwn) {
  const auto queue_of = [this](bool optional, const std::string& queue_to) {
    policy_->queue_to_domain = "books.test";
    policy_->queue_to = queue_to;
    queue::v1::NewMessage message;
    AddRecipient(*Profile(), "u@books.test", 0, "", message);
    AddInvalidRecipient("nobody at all", 0, "", WallTime(), message);
    RouteChoice choice;
    choice.route = Route{"default", ""};
    ControlFields control;
    control.tls_optional = optional;
    CompleteEnvelope(*Profile(), choice, control, message);
    EXPECT_EQ(message.deliveries(1).delivery().queue_domain(), "invalid-recipients.invalid");
    return message.deliveries(0).delivery().queue_domain();
  };
  EXPECT_EQ(queue_of(false, ""), "");
  EXPECT_EQ(queue_of(true, ""), "{tls-optional}books.test");
  EXPECT_EQ(queue_of(true, "all.rollup"), "{tls-optional}all.rollup");
  EXPECT_EQ(queue_of(true, "all.rollup/nowhere"), "{tls-optional}all.rollup");
  EXPECT_EQ(queue_of(false, "all.rollup"), "all.rollup");
}

TEST_F(EnvelopeTest, ReceivedWithAndWithoutItsParts) {
  ReceivedWriter writer;
  std::string out;
  writer.Append({.client_name = "c.test",
                 .client_ip = "2001:db8::1",
                 .host_name = "mx.test",
                 .protocol = "ESMTP",
                 .id = "ID",
                 .recipient = "a@b.test"},
                FromUnixMicros(1'795'237'921'000'000), out);
  EXPECT_EQ(
      out,
      "Received: from c.test ([IPv6:2001:db8::1])\r\n\tby mx.test (Sluice) with ESMTP id ID\r\n"
      "\tfor <a@b.test>;\r\n\tSat, 21 Nov 2026 05:12:01 +0000\r\n");
  out.clear();
  writer.Append({.host_name = "mx.test", .protocol = "gRPC", .id = "ID"}, FromUnixMicros(0), out);
  EXPECT_EQ(
      out,
      "Received: by mx.test (Sluice) with gRPC id ID;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n");
  out.clear();
  writer.Append({.host_name = "mx.test", .protocol = "ESMTPS", .tls = "TLSv1.3 TLS_X", .id = "ID"},
                FromUnixMicros(0), out);
  EXPECT_TRUE(out.starts_with("Received: by mx.test (Sluice) with ESMTPS (TLSv1.3 TLS_X) id ID;"));
}

// What we add to a message makes it no message that needs SMTPUTF8, unless its recipient does.
TEST_F(EnvelopeTest, ReceivedIsAsciiWhereItCanBe) {
  const auto received = [](const char* client, const char* recipient) {
    ReceivedWriter writer;
    std::string out;
    writer.Append({.client_name = client,
                   .client_ip = "192.0.2.1",
                   .host_name = "mx.test",
                   .protocol = "UTF8SMTP",
                   .id = "ID",
                   .recipient = recipient},
                  FromUnixMicros(0), out);
    return out.substr(0, out.find(';'));
  };
  EXPECT_EQ(
      received("b\u00fccher.test", "u@b\u00fccher.test"),
      "Received: from xn--bcher-kva.test ([192.0.2.1])\r\n\tby mx.test (Sluice) with UTF8SMTP "
      "id ID\r\n\tfor <u@xn--bcher-kva.test>");
  EXPECT_EQ(received("\u0080.test", "\u00fc@b\u00fccher.test"),
            "Received: from unknown ([192.0.2.1])\r\n\tby mx.test (Sluice) with UTF8SMTP "
            "id ID\r\n\tfor <\u00fc@b\u00fccher.test>");
}

TEST_F(EnvelopeTest, RoutesByName) {
  policy_->AddVirtualMta("v");
  policy_->pool.set_name("p");
  policy_->loopback->set_default_virtual_mta("p");
  const auto profile = Profile();
  RouteChoice choice;
  EXPECT_FALSE(ChooseRoute(*profile, {}, "", "", choice));
  EXPECT_EQ(choice.For("a@b"), (Route{"", "p"}));
  EXPECT_FALSE(ChooseRoute(*profile, {.virtual_mta = "v"}, "", "", choice));
  EXPECT_EQ(choice.For("a@b"), (Route{"v", ""}));
  EXPECT_EQ(ChooseRoute(*profile, {.virtual_mta = ""}, "", "", choice)->code, 554);
  EXPECT_EQ(ChooseRoute(*profile, {.virtual_mta = "x\r\nEvil: 1"}, "", "", choice)->enhanced,
            (mail::EnhancedCode{5, 7, 1}));
}

TEST_F(EnvelopeTest, TheAddressThatTheClientCameToMayDecide) {
  policy_->AddVirtualMta("v", "192.0.2.5");
  policy_->loopback->set_default_virtual_mta("by-smtp-source-ip");
  RouteChoice choice;
  EXPECT_FALSE(ChooseRoute(*Profile(), {}, "", "192.0.2.5", choice));
  EXPECT_EQ(choice.For("a@b").vmta, "v");
  EXPECT_FALSE(ChooseRoute(*Profile(), {}, "", "192.0.2.6", choice));
  EXPECT_EQ(choice.For("a@b").vmta, "default");
}

// ip ADDRESS domain = DOMAIN; goes over all that a message or its client asks for.
TEST_F(EnvelopeTest, ASendersDomainMayHaveToLeaveFromItsAddress) {
  policy_->AddVirtualMta("v");
  policy_->AddVirtualMta("its", "192.0.2.1");
  auto& sender = *policy_->global_settings.add_sender_sources();
  sender.set_domain("example.com");
  sender.set_virtual_mta("its");
  const auto vmta = [&](const char* from, ControlFields control) {
    RouteChoice choice;
    EXPECT_FALSE(ChooseRoute(*Profile(), control, from, "", choice));
    return choice.For("a@b").vmta;
  };
  EXPECT_EQ(vmta("news@Example.COM", {}), "its");
  EXPECT_EQ(vmta("news@example.com", {.virtual_mta = "v"}), "its");
  EXPECT_EQ(vmta("news@sub.example.com", {}), "default");
  EXPECT_EQ(vmta("", {.virtual_mta = "v"}), "v");
}

TEST_F(EnvelopeTest, PatternListDecidesByItsFirstLineThatMatches) {
  for (const char* name : {"a", "b", "c", "d"}) policy_->AddVirtualMta(name);
  using Rule = policy::v1::PatternRule;
  const auto add = [&](Rule::Subject subject, const char* header, const char* regex,
                       const char* vmta) {
    Rule* const rule = policy_->pattern_list.add_rules();
    rule->set_subject(subject);
    rule->set_header(header);
    rule->set_regex(regex);
    rule->set_virtual_mta(vmta);
  };
  policy_->pattern_list.set_name("list");
  add(Rule::SUBJECT_MAIL_FROM, "", "(?i)^VIP@", "a");
  add(Rule::SUBJECT_RCPT_TO, "", "(?i)@slow\\.", "b");
  add(Rule::SUBJECT_HEADER, "Subject", "(?i)urgent", "c");
  add(Rule::SUBJECT_MAIL_FROM, "", "news@", "d");
  add(Rule::SUBJECT_MAIL_FROM, "", "news@", "not there");
  policy_->loopback->set_pattern_list("list");
  const auto vmta = [&](const char* from, const char* header, const char* rcpt) {
    const Outcome o = Read(header);
    RouteChoice choice;
    EXPECT_FALSE(ChooseRoute(*Profile(), o.control, from, "", choice));
    return choice.For(rcpt).vmta;
  };
  EXPECT_EQ(vmta("vip@x", "subject: very\r\n Urgent\r\n\r\n", "r@slow.test"), "a");
  EXPECT_EQ(vmta("x@y", "Subject: urgent\r\n\r\n", "r@slow.test"), "b");
  EXPECT_EQ(vmta("news@y", "Subject: urgent\r\n\r\n", "r@fast.test"), "c");
  EXPECT_EQ(vmta("news@y", "Subject: calm\r\nSubject: \r\n\r\n", "r@fast.test"), "d");
  EXPECT_EQ(vmta("news@y", "Other: urgent\r\n\r\n", "r@slow.test"), "b");
  EXPECT_EQ(vmta("", "\r\n", "r@fast.test"), "default");

  // What the message asks for comes first.
  RouteChoice choice;
  EXPECT_FALSE(ChooseRoute(*Profile(), {.virtual_mta = "d"}, "vip@x", "", choice));
  EXPECT_EQ(choice.For("r@slow.test").vmta, "d");

  // Each recipient goes its own way.
  EXPECT_FALSE(ChooseRoute(*Profile(), {}, "x@y", "", choice));
  queue::v1::NewMessage message;
  EXPECT_FALSE(AddRecipient(*Profile(), "r@slow.test", 0, "", message));
  EXPECT_FALSE(AddRecipient(*Profile(), "r@fast.test", 0, "", message));
  CompleteEnvelope(*Profile(), choice, {}, message);
  EXPECT_EQ(message.deliveries(0).delivery().vmta(), "b");
  EXPECT_EQ(message.deliveries(1).delivery().vmta(), "default");
}

TEST_F(EnvelopeTest, FieldsThatAreMissingAreAdded) {
  policy_->loopback->set_add_message_id_header(true);
  policy_->loopback->set_add_date_header("yes");
  const auto add = [&](const std::string& header) {
    Outcome o = Read(header);
    queue::v1::NewMessage message;
    EXPECT_FALSE(AddRecipient(*Profile(), "r@c.test", 0, "", message));
    RouteChoice choice;
    EXPECT_FALSE(ChooseRoute(*Profile(), o.control, "", "", choice));
    const size_t before = o.buffer.size();
    const size_t added = AddHeaderFields(*Profile(), o.control, choice, "ID", FromUnixMicros(0), 0,
                                         o.buffer, message);
    EXPECT_EQ(o.buffer.size(), before + added);
    return o.buffer;
  };
  EXPECT_EQ(add("A: 1\r\n\r\n"),
            "Message-ID: <ID@mx.test>\r\nDate: Thu, 01 Jan 1970 00:00:00 +0000\r\nA: 1\r\n\r\n");
  EXPECT_EQ(add("message-id: <x>\r\nDATE: never\r\n\r\n"),
            "message-id: <x>\r\nDATE: never\r\n\r\n");
  EXPECT_EQ(add("\r\n"),
            "Message-ID: <ID@mx.test>\r\nDate: Thu, 01 Jan 1970 00:00:00 +0000\r\n\r\n");
  policy_->loopback->set_add_date_header("override");
  policy_->loopback->set_add_message_id_header(false);
  EXPECT_EQ(add("Date: never\r\nA: 1\r\ndate: again\r\n\r\n"),
            "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nA: 1\r\n\r\n");
  policy_->loopback->set_add_date_header("no");
  policy_->loopback->set_add_x_virtual_mta_header(true);
  EXPECT_EQ(add("X-Virtual-MTA: theirs\r\n\r\n"), "X-Virtual-MTA: default\r\n\r\n");
}

TEST_F(EnvelopeTest, ADateOfDeliveryIsLeftToThoseWhoDeliver) {
  policy_->loopback->set_add_date_header("override");
  policy_->loopback->set_date_header_time("delivery");
  Outcome o = Read("Date: never\r\nA: 1\r\n\r\n");
  queue::v1::NewMessage message;
  EXPECT_FALSE(AddRecipient(*Profile(), "r@c.test", 0, "", message));
  RouteChoice choice;
  EXPECT_FALSE(ChooseRoute(*Profile(), o.control, "", "", choice));
  EXPECT_EQ(
      AddHeaderFields(*Profile(), o.control, choice, "ID", FromUnixMicros(0), 0, o.buffer, message),
      0U);
  EXPECT_EQ(o.buffer, "A: 1\r\n\r\n");
  ASSERT_EQ(message.message().header_edits_size(), 1);
  EXPECT_EQ(message.message().header_edits(0).name(), "Date");
  // A message that has its own is left as it is.
  policy_->loopback->set_add_date_header("yes");
  Outcome dated = Read("Date: never\r\n\r\n");
  queue::v1::NewMessage second;
  AddHeaderFields(*Profile(), dated.control, choice, "ID", FromUnixMicros(0), 0, dated.buffer,
                  second);
  EXPECT_EQ(second.message().header_edits_size(), 0);
  EXPECT_EQ(dated.buffer, "Date: never\r\n\r\n");
}

TEST_F(EnvelopeTest, ReceivedFieldsAndEmptyVirtualMta) {
  policy_->loopback->set_remove_received_headers(true);
  policy_->loopback->set_process_x_virtual_mta(true);
  policy_->loopback->set_allow_empty_x_virtual_mta(true);
  policy_->loopback->set_process_x_job(true);
  policy_->loopback->set_jobid_prefix("p-");
  const Outcome o =
      Read("Received: a\r\n b\r\nX-Virtual-MTA: \r\nreceived: c\r\nX-Job: 7\r\nA: 1\r\n\r\n");
  EXPECT_EQ(o.buffer, "A: 1\r\n\r\n");
  EXPECT_FALSE(o.control.virtual_mta);
  EXPECT_EQ(o.control.job_id, "p-7");
}

TEST_F(EnvelopeTest, JobAndEnvidHaveNoControlCharacters) {
  policy_->loopback->set_process_x_job(true);
  policy_->loopback->set_process_x_envid(true);
  const Outcome o = Read("X-Job: a\x1b[2Jb\r\n\tc\r\nX-Envid: e\x7f\r\n\r\n");
  EXPECT_EQ(o.control.job_id, "a?[2Jb c");
  EXPECT_EQ(o.control.envid, "e?");
}

// The job's id is a string of stored records: with other bytes in it they could not be read again,
// and accepted mail would stand still, unseen.
TEST_F(EnvelopeTest, AJobIdIsUtf8WhateverTheHeaderHas) {
  policy_->loopback->set_process_x_job(true);
  for (const auto& [header, job] : {std::pair("caf\xe9", "caf?"), {"caf\xc3\xa9", "caf\xc3\xa9"}}) {
    const Outcome o = Read(std::string("X-Job: ") + header + "\r\n\r\n");
    queue::v1::NewMessage message;
    message.add_deliveries()->mutable_delivery()->set_rcpt("u@d.test");
    message.add_deliveries()->mutable_delivery()->set_rcpt("v@d.test");
    message.mutable_deliveries(1)->mutable_delivery()->set_job_id(header);  // as XDFN sets it
    CompleteEnvelope(*Profile(), {}, o.control, message);
    queue::v1::NewMessage read;
    ASSERT_TRUE(read.ParseFromString(message.SerializeAsString()));
    EXPECT_EQ(read.deliveries(0).delivery().job_id(), job);
    EXPECT_EQ(read.deliveries(1).delivery().job_id(), job);
  }
}

TEST_F(EnvelopeTest, AliasesBlindCopyAndGroup) {
  auto* alias = policy_->global_settings.add_aliases();
  alias->set_source("sales");
  alias->set_target("People@C.test");
  alias = policy_->global_settings.add_aliases();
  alias->set_source("loop");
  alias->set_target("loop2@mx.test");
  alias = policy_->global_settings.add_aliases();
  alias->set_source("loop2@mx.test");
  alias->set_target("loop");
  policy_->loopback->set_bcc("archive@d.test");
  policy_->loopback->set_source_group("g");
  queue::v1::NewMessage message;
  EXPECT_FALSE(AddRecipient(*Profile(), "Sales@mx.test", 0, "", message));
  EXPECT_FALSE(AddRecipient(*Profile(), "sales@other.test", 0, "", message));
  EXPECT_EQ(AddRecipient(*Profile(), "loop@mx.test", 0, "", message)->code, 550);
  CompleteEnvelope(*Profile(), {{"default", ""}, nullptr}, {}, message);
  ASSERT_EQ(message.deliveries_size(), 3);
  EXPECT_EQ(message.deliveries(0).delivery().rcpt(), "People@c.test");
  EXPECT_EQ(message.deliveries(0).delivery().rcpt_given(), "Sales@mx.test");
  EXPECT_EQ(message.deliveries(1).delivery().rcpt(), "sales@other.test");
  EXPECT_EQ(message.deliveries(2).delivery().rcpt(), "archive@d.test");
  EXPECT_EQ(message.deliveries(2).delivery().notify(), mail::kNotifyNever);
  EXPECT_EQ(message.deliveries(2).delivery().vmta(), "default");
  EXPECT_EQ(message.message().source_group(), "g");
  // The copy's address is resolved as any other; one that loops stays as it is.
  for (const auto& [bcc, rcpt] :
       {std::pair("sales@mx.test", "People@c.test"), std::pair("loop@mx.test", "loop@mx.test")}) {
    policy_->loopback->set_bcc(bcc);
    message.Clear();
    EXPECT_FALSE(AddRecipient(*Profile(), "x@other.test", 0, "", message));
    CompleteEnvelope(*Profile(), {{"default", ""}, nullptr}, {}, message);
    ASSERT_EQ(message.deliveries_size(), 2);
    EXPECT_EQ(message.deliveries(1).delivery().rcpt(), rcpt);
    EXPECT_EQ(message.deliveries(1).delivery().rcpt_given(), bcc);
  }
}

TEST_F(EnvelopeTest, EnvelopeDefaultsOfTheClient) {
  policy_->loopback->set_suppress_local_dsn(true);
  policy_->loopback->set_dsn_return_default("full");
  const auto profile = Profile();
  queue::v1::NewMessage message;
  AddRecipient(*profile, "\"a@b\"@c.test", 0, "", message);
  AddRecipient(*profile, "x@c.test", mail::kNotifyFailure, "rfc822;o@c.test", message);
  CompleteEnvelope(*profile, {{"v", ""}, nullptr}, {}, message);
  EXPECT_EQ(message.message().dsn_return(), common::v1::DSN_RETURN_FULL);
  EXPECT_EQ(message.deliveries(0).delivery().rcpt(), "\"a@b\"@c.test");
  EXPECT_EQ(message.deliveries(0).delivery().notify(), mail::kNotifyNever);
  EXPECT_EQ(message.deliveries(1).delivery().notify(), mail::kNotifyFailure);
  EXPECT_EQ(message.deliveries(1).delivery().orcpt(), "rfc822;o@c.test");
  EXPECT_EQ(message.deliveries(1).delivery().vmta(), "v");
}

}  // namespace
}  // namespace sluice::ingest
