// The day's reports: from connections that were counted to the mail that a domain wants.
#include "services/delivery/io/receiver_tls.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "services/base/testing/temp_folder.h"

namespace sluice::delivery {
namespace {

// Knows some TXT records, and nothing else.
class FakeTxt final : public DnsClient {
 public:
  void Query(const std::string& name, DnsType type, Done done) override {
    DnsAnswer answer;
    answer.status = DnsStatus::kNxDomain;
    const auto found = table.find(name);
    if (type == DnsType::kTxt && found != table.end()) {
      answer.status = DnsStatus::kAnswer;
      answer.records.push_back(
          {60, 0, std::string(1, static_cast<char>(found->second.size())) + found->second});
    }
    done(std::move(answer));
  }
  std::map<std::string, std::string> table;
};

// A remote that offers no TLS.
class ClearRemote final : public ConnectionFactory {
 public:
  std::unique_ptr<Connection> Connect(const ConnectTarget&, ConnectionHandler* handler) override {
    to = handler;
    return std::make_unique<Idle>();
  }
  ConnectionHandler* to = nullptr;

 private:
  struct Idle final : Connection {
    void Send(Transaction) override {}
    void Quit() override {}
  };
};

struct Owner final : ConnectionHandler {
  void OnReady() override { ready = true; }
  void OnResult(queue::v1::GroupResult) override {}
  bool MayFinish(uint64_t) override { return true; }
  void OnClosed(ConnectionEnd) override {}
  bool ready = false;
};

TEST(ReceiverTls, WhoWantsReportsByMailGetsThem) {
  EventLoop loop;
  FakeTxt dns;
  dns.table["_smtp._tls.wants.example"] = "v=TLSRPTv1; rua=mailto:tls@wants.example";
  // Whoever can take it by HTTPS gets no mail, which has no signature (RFC 8460 section 3).
  dns.table["_smtp._tls.posts.example"] =
      "v=TLSRPTv1; rua=mailto:tls@posts.example,https://192.0.2.1/nowhere";
  ClearRemote remote;
  std::vector<TlsReportMail> mails;
  ReceiverTlsOptions options;
  options.host_name = "out.example";
  options.send_mail = [&mails](TlsReportMail mail) { mails.push_back(std::move(mail)); };
  auto tls = ReceiverTls::Create(loop, dns, remote, std::move(options));
  ASSERT_TRUE(tls.ok()) << tls.status();

  auto settings = std::make_shared<policy::v1::QueueSettings>();
  settings->set_use_mta_sts(true);
  settings->set_use_starttls(true);
  for (const char* domain : {"wants.example", "silent.example", "posts.example"}) {
    ConnectTarget target;
    target.host = std::string("mx.") + domain;
    target.address = "192.0.2.1";
    target.settings = settings;
    target.route.domain = domain;
    Owner owner;
    const auto connection = (*tls)->connections().Connect(target, &owner);
    ASSERT_NE(remote.to, nullptr);
    remote.to->OnReady();
    EXPECT_TRUE(owner.ready);
  }
  (*tls)->reports().EndDay();
  ASSERT_EQ(mails.size(), 1u);
  EXPECT_EQ(mails[0].domain, "wants.example");
  EXPECT_EQ(mails[0].recipients, std::vector<std::string>{"tls@wants.example"});
  EXPECT_NE(mails[0].content.find("From: <postmaster@out.example>"), std::string::npos);
  // A day without connections has no reports.
  (*tls)->reports().EndDay();
  EXPECT_EQ(mails.size(), 1u);
}

// A stop in the middle of the day forgets nothing of it, and a second start counts nothing twice.
TEST(ReceiverTls, TheDayOutlivesARestart) {
  EventLoop loop;
  FakeTxt dns;
  dns.table["_smtp._tls.wants.example"] = "v=TLSRPTv1; rua=mailto:tls@wants.example";
  ClearRemote remote;
  std::vector<TlsReportMail> mails;
  const sluice::testing::TempFolder folder("receiver-tls");
  const auto start = [&] {
    ReceiverTlsOptions options;
    options.host_name = "out.example";
    options.data_dir = folder.path();
    options.send_mail = [&mails](TlsReportMail mail) { mails.push_back(std::move(mail)); };
    auto made = ReceiverTls::Create(loop, dns, remote, std::move(options));
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  };
  auto tls = start();
  auto settings = std::make_shared<policy::v1::QueueSettings>();
  settings->set_use_mta_sts(true);
  settings->set_use_starttls(true);
  ConnectTarget target;
  target.host = "mx.wants.example";
  target.address = "192.0.2.1";
  target.settings = settings;
  target.route.domain = "wants.example";
  Owner owner;
  {
    const auto connection = tls->connections().Connect(target, &owner);
    remote.to->OnReady();
  }
  tls.reset();
  tls = start();
  tls->reports().EndDay();
  EXPECT_EQ(mails.size(), 1u);
  tls.reset();
  tls = start();
  tls->reports().EndDay();
  EXPECT_EQ(mails.size(), 1u);
}

}  // namespace
}  // namespace sluice::delivery
