#include "tests/powercut/victim.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/net/event_loop.h"
#include "services/base/rpc/inproc_stream.h"
#include "services/queue/core/shard.h"
#include "services/queue/io/rocksdb_store.h"
#include "services/queue/io/writer_thread.h"

namespace sluice::powercut {
namespace {

constexpr int kWindow = 48;  // unanswered messages
constexpr int kDomains = 7;
constexpr uint32_t kCredits = 3;  // groups out in each queue

// Tokens with it have large bodies: those of a spool that is to be filled.
constexpr uint64_t kLargeBit = uint64_t{1} << 60;
constexpr Duration kRefusedPause = std::chrono::milliseconds(5);
constexpr uint64_t kReserveBytes = uint64_t{16} << 20;
constexpr uint64_t kGiveUpBallastBelowBytes = uint64_t{8} << 20;

class Reporter {
 public:
  explicit Reporter(int fd) : fd_(fd) {}
  // A status of RocksDB may have several lines: it is one report.
  void Say(std::string bytes) {
    std::replace(bytes.begin(), bytes.end(), '\n', ' ');
    bytes += '\n';
    if (write(fd_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) _exit(3);
  }

 private:
  const int fd_;
};

// The text of a message can be told from its recipient alone.
std::string BodyOf(uint64_t token) {
  std::mt19937_64 random(token);
  const bool large = token % 40 == 0 || (token & kLargeBit) != 0;
  const size_t size = large ? 100'000 : 100 + random() % 4000;
  std::string body = absl::StrCat("Subject: ", token, "\r\n\r\n");
  while (body.size() < size) absl::StrAppend(&body, random(), "\r\n");
  return body;
}

class Injector final
    : public Stream<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse>::Handler {
 public:
  Injector(queue::Shard& shard, Executor& executor, Reporter& reporter,
           const VictimOptions& options)
      : client_(shard.enqueue()),
        executor_(executor),
        reporter_(reporter),
        options_(options),
        left_(options.messages) {
    stream_ = client_.Open(executor);
    stream_->Start(this);
    Fill();
  }
  void OnFrame(Frame<queue::v1::EnqueueResponse> frame) override {
    bool refused = false;
    for (const auto& result : frame.header.results()) {
      --unanswered_;
      if (result.outcome() == queue::v1::EnqueueResult::OUTCOME_QUEUED) {
        reporter_.Say(absl::StrCat("A ", result.token(), " ", RecipientsOf(result.token())));
        continue;
      }
      refused = true;
      if (!refusals_.insert(result.outcome()).second) continue;
      reporter_.Say(absl::StrCat("B ", queue::v1::EnqueueResult::Outcome_Name(result.outcome()),
                                 " ", result.detail()));
    }
    if (!refused) {
      Fill();
    } else if (!pausing_) {
      pausing_ = true;
      executor_.After(kRefusedPause, [this] {
        pausing_ = false;
        Fill();
      });
    }
  }
  void OnClosed(absl::Status) override {}

 private:
  static uint32_t RecipientsOf(uint64_t token) { return token % 5 == 0 ? 3 : 1; }
  void Fill() {
    if (pausing_) return;
    for (; left_ > 0 && unanswered_ < kWindow; --left_, ++unanswered_) {
      const uint64_t token =
          (options_.hold ? kLargeBit : 0) + (options_.incarnation << 24) + ++last_;
      Frame<queue::v1::EnqueueRequest> frame;
      auto* message = frame.header.add_messages();
      message->set_token(token);
      std::string id(16, '\0');
      for (int i = 0; i < 8; ++i) id[size_t(i) + 8] = static_cast<char>(token >> (56 - 8 * i));
      message->mutable_message()->set_id(id);
      message->mutable_message()->set_mail_from(absl::StrCat("s", token, "@from.example"));
      for (uint32_t i = 0; i < RecipientsOf(token); ++i) {
        auto* delivery = message->add_deliveries()->mutable_delivery();
        delivery->set_rcpt(absl::StrCat(token, ".", i, "@d", token % kDomains, ".example"));
        delivery->set_rcpt_given(delivery->rcpt());
        delivery->set_vmta("default");
        if (token % 11 == 0) delivery->set_job_id("job");
      }
      message->set_body_index(0);
      frame.bodies.emplace_back(BodyOf(token));
      stream_->Send(std::move(frame));
    }
  }

  InprocStreamClient<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse> client_;
  std::shared_ptr<Stream<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse>> stream_;
  Executor& executor_;
  Reporter& reporter_;
  const VictimOptions& options_;
  bool pausing_ = false;
  int left_;
  int unanswered_ = 0;
  uint64_t last_ = 0;
  std::set<int> refusals_;
};

class Worker final
    : public Stream<queue::v1::DispatchRequest, queue::v1::DispatchResponse>::Handler {
 public:
  Worker(queue::Shard& shard, Executor& executor, Reporter& reporter, const VictimOptions& options)
      : client_(shard.dispatch()), reporter_(reporter), random_(options.seed), hold_(options.hold) {
    stream_ = client_.Open(executor);
    stream_->Start(this);
    Frame<queue::v1::DispatchRequest> frame;
    auto* hello = frame.header.mutable_hello();
    hello->set_worker("w");
    hello->set_incarnation(options.incarnation);
    hello->add_vmtas("default");
    stream_->Send(std::move(frame));
  }
  void OnFrame(Frame<queue::v1::DispatchResponse> frame) override {
    if (hold_) return;
    Frame<queue::v1::DispatchRequest> answer;
    for (const auto& ready : frame.header.ready()) {
      auto* credit = answer.header.add_credits();
      credit->set_queue_ref(ready.queue_ref());
      credit->set_groups(kCredits);
    }
    for (const auto& lease : frame.header.leases()) {
      auto* credit = answer.header.add_credits();
      credit->set_queue_ref(lease.queue_ref());
      credit->set_groups(1);
      if (lease.body_case() != queue::v1::Lease::kBodyIndex) {
        reporter_.Say("X a lease without its body");
        continue;
      }
      Deliver(lease, frame.bodies.at(lease.body_index()).view(), *answer.header.add_results());
    }
    for (const uint64_t id : frame.header.acknowledged_leases()) {
      for (const std::string& rcpt : ended_[id]) reporter_.Say(absl::StrCat("R ", rcpt));
      ended_.erase(id);
    }
    stream_->Send(std::move(answer));
  }
  void OnClosed(absl::Status) override {}

 private:
  // Plays the remote: what it took is reported before the shard can know.
  void Deliver(const queue::v1::Lease& lease, std::string_view body,
               queue::v1::GroupResult& result) {
    result.set_lease_id(lease.lease_id());
    result.set_outcome(queue::v1::RECIPIENT_OUTCOME_DELIVERED);
    result.mutable_reply()->set_code(250);
    std::vector<std::string>& ended = ended_[lease.lease_id()];
    for (int i = 0; i < lease.deliveries_size(); ++i) {
      const std::string& address = lease.deliveries(i).rcpt();
      const std::string rcpt = address.substr(0, address.find('@'));
      if (address.ends_with("@from.example")) {
        DeliverDsn(body);
        continue;
      }
      if (body != BodyOf(std::stoull(rcpt))) reporter_.Say("X wrong body for " + rcpt);
      const uint64_t dice = random_() % 100;
      const char verdict = dice < 85 ? 'D' : dice < 95 ? 'T' : 'P';
      reporter_.Say(absl::StrCat(std::string(1, verdict), " ", rcpt));
      if (verdict != 'T') ended.push_back(rcpt);
      if (verdict == 'D') continue;
      auto* own = result.add_recipients();
      own->set_position(static_cast<uint32_t>(i));
      own->set_outcome(verdict == 'T' ? queue::v1::RECIPIENT_OUTCOME_TRANSIENT
                                      : queue::v1::RECIPIENT_OUTCOME_PERMANENT);
      own->mutable_reply()->set_code(verdict == 'T' ? 451 : 550);
      own->mutable_reply()->set_text("as the dice fell");
    }
  }
  void DeliverDsn(std::string_view body) {
    constexpr std::string_view kField = "Final-Recipient: rfc822; ";
    const size_t at = body.find(kField);
    if (at == std::string_view::npos) {
      reporter_.Say("X a DSN without a recipient");
      return;
    }
    const std::string_view rest = body.substr(at + kField.size());
    reporter_.Say("N " + std::string(rest.substr(0, rest.find('@'))));
  }

  InprocStreamClient<queue::v1::DispatchRequest, queue::v1::DispatchResponse> client_;
  std::shared_ptr<Stream<queue::v1::DispatchRequest, queue::v1::DispatchResponse>> stream_;
  Reporter& reporter_;
  std::mt19937_64 random_;
  const bool hold_;
  std::map<uint64_t, std::vector<std::string>> ended_;  // by lease, until acknowledged
};

std::shared_ptr<const config::PolicyView> QuickRetries() {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(1);
  auto* domain = snapshot.add_sections()->mutable_content()->mutable_domain();
  domain->set_pattern("*");
  domain->mutable_settings()->mutable_retry_after()->add_us(20'000);
  domain->mutable_settings()->set_retry_recipients_after_us(20'000);
  snapshot.add_sections()->mutable_content()->mutable_virtual_mta()->set_name("default");
  return *config::PolicyView::Build(snapshot);
}

}  // namespace

int RunVictim(const VictimOptions& options) {
  Reporter reporter(options.report_fd);
  queue::RocksdbOptions rocksdb;
  rocksdb.folder = options.folder;
  // Small, so that memtables are flushed, files compacted and logs dropped while the cuts come.
  rocksdb.memtable_bytes = size_t{1} << 20;
  rocksdb.max_wal_bytes = uint64_t{1} << 20;
  rocksdb.ballast_bytes = options.ballast_bytes;
  rocksdb.give_up_ballast_below_bytes = kGiveUpBallastBelowBytes;
  auto store = queue::OpenRocksdbStore(rocksdb);
  if (!store.ok()) {
    reporter.Say(absl::StrCat("X cannot open: ", store.status().ToString()));
    return 1;
  }
  EventLoop loop;
  queue::WriterThread writer(loop, **store);
  queue::ShardOptions shard_options;
  shard_options.reserve_bytes = kReserveBytes;
  shard_options.lost_leases_held = 1'000'000;  // every cut loses some
  queue::Shard shard(shard_options, loop, **store, writer);
  shard.SetPolicy(QuickRetries());
  if (absl::Status status = shard.Start(); !status.ok()) {
    reporter.Say(absl::StrCat("X cannot start: ", status.ToString()));
    return 1;
  }
  reporter.Say("O");
  Injector injector(shard, loop, reporter, options);
  Worker worker(shard, loop, reporter, options);
  for (;;) {
    loop.RunOnce(std::chrono::milliseconds(5));
    if (!options.drain) continue;
    // The rows themselves, not the shard's own counts.
    const bool empty = !(*store)->Scan(queue::Family::kDeliveries, "", "")->Valid();
    if (!empty) continue;
    reporter.Say("Z");
    return 0;
  }
}

}  // namespace sluice::powercut
