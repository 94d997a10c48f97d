#include "tests/simulation/remote_site.h"

#include <optional>

namespace sluice::simulation {

void SimResolver::Resolve(std::string_view domain, Done done) {
  auto result = std::make_shared<delivery::MxResult>();
  Random& random = internet_.world->random();
  const auto site = internet_.sites.find(domain);
  if (site == internet_.sites.end()) {
    result->outcome = delivery::MxOutcome::kNoSuchDomain;
  } else if (!random.Chance(site->second.dns_failure)) {
    result->outcome = delivery::MxOutcome::kFound;
    for (const auto& [address, of] : internet_.domains) {
      if (of != domain) continue;
      result->hosts.push_back({"mx." + address, 10, {address}});
    }
    result->site = std::string(domain);
  }
  result->detail = "simulated";
  result->expires = executor_.clock().Now() + std::chrono::minutes(5);
  Duration takes = random.Between(Duration(100), std::chrono::milliseconds(50));
  if (site != internet_.sites.end() && random.Chance(site->second.dns_hangs)) {
    takes = random.Between(std::chrono::seconds(2), std::chrono::seconds(90));
  }
  executor_.After(takes,
                  [alive = std::weak_ptr<bool>(alive_), result, done = std::move(done)]() mutable {
                    if (!alive.expired()) done(std::move(result));
                  });
}

namespace {

using delivery::ConnectionEnd;
using delivery::Transaction;

class SimConnection final : public delivery::Connection {
 public:
  SimConnection(Internet& internet, Executor& executor, const delivery::ConnectTarget& target,
                delivery::ConnectionHandler* handler)
      : internet_(internet),
        executor_(executor),
        random_(internet.world->random()),
        handler_(handler),
        target_(target),
        rules_(internet.sites.at(internet.domains.at(target.address))),
        queue_(internet.domains.at(target.address) + "/" + internet.vmtas.at(target.source_ip)) {
    internet_.ledger->Connected(queue_, target_.source_ip, target_.address,
                                executor_.clock().Now());
    open_ = true;
    const bool hangs = random_.Chance(rules_.hangs);
    Later(hangs ? Duration(std::chrono::minutes(2)) : rules_.round_trip + Thinks(), [this, hangs] {
      if (hangs || random_.Chance(rules_.refuse_connection)) {
        End(common::v1::STAGE_CONNECT, "connection refused");
        return;
      }
      ready_ = true;
      handler_->OnReady();
    });
  }
  ~SimConnection() override { Hang(); }

  void Send(Transaction transaction) override {
    work_.push_back(std::move(transaction));
    if (work_.size() == 1) Begin();
  }
  void Quit() override {
    quitting_ = true;
    if (work_.empty()) {
      Later(rules_.round_trip, [this] { End(common::v1::STAGE_UNSPECIFIED, "QUIT"); });
    }
  }
  void Abort() override {
    Later(Duration(1), [this] { Break(common::v1::STAGE_UNSPECIFIED, "closed by the worker"); });
  }

 private:
  Duration Thinks() { return random_.Between(Duration(0), rules_.thinks); }
  template <class F>
  void Later(Duration delay, F f) {
    executor_.After(delay, [alive = std::weak_ptr<bool>(alive_), f = std::move(f)]() mutable {
      if (!alive.expired()) f();
    });
  }
  void Hang() {
    if (std::exchange(open_, false))
      internet_.ledger->Disconnected(queue_, target_.source_ip, target_.address);
  }

  common::v1::Reply Reply(uint32_t code, common::v1::Stage stage, const std::string& text) const {
    common::v1::Reply reply;
    reply.set_code(code);
    reply.set_enhanced(code == 0 ? "4.4.2" : std::to_string(code / 100) + ".0.0");
    reply.set_text(text);
    reply.set_stage(stage);
    reply.set_local(code == 0);
    reply.set_host(target_.host);
    reply.set_ip(target_.address);
    return reply;
  }

  // MAIL, the RCPTs and DATA of the front transaction are written.
  void Begin() {
    const queue::v1::Lease& lease = *work_.front().lease;
    internet_.ledger->Attempted(queue_, target_.source_ip,
                                static_cast<size_t>(lease.deliveries_size()),
                                executor_.clock().Now());
    Later(rules_.round_trip + Thinks(), [this] { OnEnvelopeReplies(); });
  }

  void OnEnvelopeReplies() {
    if (random_.Chance(rules_.break_before_data)) {
      Break(common::v1::STAGE_RCPT, "the remote closed the connection");
      return;
    }
    const queue::v1::Lease& lease = *work_.front().lease;
    verdicts_.clear();
    bool any = false;
    for (int i = 0; i < lease.deliveries_size(); ++i) {
      uint32_t code = 250;
      if (random_.Chance(rules_.defer_rcpt)) code = 450;
      if (random_.Chance(rules_.refuse_rcpt)) code = 550;
      any |= code == 250;
      verdicts_.push_back(code);
    }
    if (!any) {
      Finish(0);
      return;
    }
    SendText(0, 0);
  }

  // The text, from `chunk` on where it comes in chunks; `size` of it was sent.
  void SendText(uint32_t chunk, uint64_t size) {
    const Transaction& transaction = work_.front();
    if (transaction.chunks == nullptr) {
      TextIsSent(transaction.body.size());
      return;
    }
    if (chunk == transaction.lease->chunk_count()) {
      TextIsSent(size);
      return;
    }
    transaction.chunks->Fetch(chunk, [this, alive = std::weak_ptr<bool>(alive_), chunk,
                                      size](const absl::StatusOr<Body>& body) {
      if (alive.expired()) return;
      // Not from here: the body asks its stream again, or goes with it.
      Later(Duration(1), [this, chunk, size, ok = body.ok(), more = body.ok() ? body->size() : 0] {
        if (ok) {
          SendText(chunk + 1, size + more);
        } else {
          Break(common::v1::STAGE_BODY, "the text could not be read");
        }
      });
    });
  }

  void TextIsSent(uint64_t size) {
    const queue::v1::Lease& lease = *work_.front().lease;
    if (size != lease.message().body_size()) {
      internet_.ledger->Fail("a text of " + std::to_string(size) + " bytes, of " +
                             std::to_string(lease.message().body_size()));
    }
    internet_.ledger->Sent(queue_, target_.source_ip, lease.message().body_size(),
                           executor_.clock().Now());
    if (!handler_->MayFinish(lease.lease_id())) {
      Break(common::v1::STAGE_BODY, "the lease has run out");
      return;
    }
    // The final dot is on its way; what the site does with it no longer depends on us.
    const uint32_t code = random_.Chance(rules_.refuse_final)  ? 554
                          : random_.Chance(rules_.defer_final) ? 451
                                                               : 250;
    const bool reply_lost = random_.Chance(rules_.break_after_dot);
    auto seen = std::make_shared<std::vector<size_t>>();
    const Duration reaches = rules_.round_trip / 2 + Thinks();
    if (code == 250) {
      internet_.world->At(
          internet_.world->now() + reaches,
          [&internet = internet_, verdicts = verdicts_, lease = work_.front().lease, seen] {
            for (int i = 0; i < lease->deliveries_size(); ++i) {
              if (verdicts[static_cast<size_t>(i)] != 250) continue;
              seen->push_back(internet.ledger->Took(*lease, lease->deliveries(i).rcpt(),
                                                    internet.world->now()));
            }
          });
    }
    Later(reaches + rules_.round_trip / 2 + Duration(1), [this, code, reply_lost, seen] {
      if (reply_lost) {
        Break(common::v1::STAGE_FINAL_DOT, "the remote closed the connection");
        return;
      }
      for (const size_t each : *seen) internet_.ledger->ReplySeen(each);
      Finish(code);
    });
  }

  static queue::v1::RecipientOutcome Outcome(uint32_t code) {
    return code == 250  ? queue::v1::RECIPIENT_OUTCOME_DELIVERED
           : code < 500 ? queue::v1::RECIPIENT_OUTCOME_TRANSIENT
                        : queue::v1::RECIPIENT_OUTCOME_PERMANENT;
  }

  queue::v1::GroupResult NewResult(const Transaction& transaction) const {
    queue::v1::GroupResult result;
    result.set_lease_id(transaction.lease->lease_id());
    result.set_time_us(ToUnixMicros(executor_.clock().WallNow()));
    result.mutable_attempt()->set_source_ip(target_.source_ip);
    result.mutable_attempt()->set_destination_ip(target_.address);
    return result;
  }

  // The final reply to the front transaction; 0: every recipient has its own.
  void Finish(uint32_t final_code) {
    const Transaction transaction = std::move(work_.front());
    work_.pop_front();
    queue::v1::GroupResult result = NewResult(transaction);
    const uint32_t common_code = final_code == 0 ? verdicts_[0] : final_code;
    result.set_outcome(Outcome(common_code));
    *result.mutable_reply() =
        Reply(common_code, final_code == 0 ? common::v1::STAGE_RCPT : common::v1::STAGE_FINAL_DOT,
              "the remote's reply");
    for (size_t i = 0; i < verdicts_.size(); ++i) {
      const uint32_t code = verdicts_[i] == 250 ? common_code : verdicts_[i];
      if (code == common_code) continue;
      auto* own = result.add_recipients();
      own->set_position(static_cast<uint32_t>(i));
      own->set_outcome(Outcome(code));
      *own->mutable_reply() = Reply(code, common::v1::STAGE_RCPT, "of this recipient");
    }
    if (!work_.empty()) {
      Begin();
    } else if (quitting_) {
      Later(rules_.round_trip, [this] { End(common::v1::STAGE_UNSPECIFIED, "QUIT"); });
    }
    handler_->OnResult(std::move(result));  // may destroy us
  }

  // The connection is gone: the front transaction has failed, the others were never begun.
  void Break(common::v1::Stage stage, const std::string& text) {
    const std::weak_ptr<bool> alive = alive_;
    bool first = true;
    auto work = std::exchange(work_, {});
    for (const Transaction& transaction : work) {
      queue::v1::GroupResult result = NewResult(transaction);
      result.set_outcome(std::exchange(first, false) ? queue::v1::RECIPIENT_OUTCOME_TRANSIENT
                                                     : queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
      *result.mutable_reply() = Reply(0, stage, text);
      handler_->OnResult(std::move(result));
      if (alive.expired()) return;
    }
    End(stage, text);
  }

  void End(common::v1::Stage stage, const std::string& text) {
    Hang();
    ConnectionEnd end;
    end.ready = ready_;
    end.reply = Reply(0, stage, text);
    handler_->OnClosed(std::move(end));  // destroys us
  }

  Internet& internet_;
  Executor& executor_;
  Random& random_;
  delivery::ConnectionHandler* handler_;
  const delivery::ConnectTarget target_;
  const SiteRules rules_;
  const std::string queue_;
  std::deque<Transaction> work_;
  std::vector<uint32_t> verdicts_;
  bool open_ = false;
  bool ready_ = false;
  bool quitting_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

std::unique_ptr<delivery::Connection> SimConnections::Connect(
    const delivery::ConnectTarget& target, delivery::ConnectionHandler* handler) {
  return std::make_unique<SimConnection>(internet_, executor_, target, handler);
}

}  // namespace sluice::simulation
