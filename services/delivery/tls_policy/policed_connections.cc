#include "services/delivery/tls_policy/policed_connections.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sluice::delivery {
namespace {

// What the certificates of one connection are held to, and how that went.
class VerdictCheck final : public TlsPeerCheck {
 public:
  VerdictCheck(const ChainVerifier& verifier, TlsVerdict verdict)
      : verifier_(verifier), verdict_(std::move(verdict)) {}

  absl::Status Check(const TlsFacts&, const std::vector<std::string>& chain) const override {
    switch (verdict_.verify) {
      case TlsVerdict::Verify::kNone:
        result_ = ChainResult{true, "", ""};
        break;
      case TlsVerdict::Verify::kPkix:
        result_ = verifier_.VerifyPkix(chain, verdict_.names);
        break;
      case TlsVerdict::Verify::kDane:
        result_ = verifier_.VerifyDane(chain, *verdict_.dane);
        break;
    }
    if (result_->good || verdict_.report_only) return absl::OkStatus();
    return absl::UnauthenticatedError(absl::StrCat(
        verdict_.verify == TlsVerdict::Verify::kDane ? "DANE: " : "MTA-STS: ", result_->reason));
  }

  void OnHandshakeFailed(std::string_view why) const override {
    if (!result_) result_ = ChainResult{false, std::string(why), "validation-failure"};
  }

  std::string_view verdict() const override {
    if (!result_ || !result_->good) return "not verified";
    switch (verdict_.verify) {
      case TlsVerdict::Verify::kNone:
        return verdict_.required ? "encrypted" : "opportunistic";
      case TlsVerdict::Verify::kPkix:
        // A test may let a host pass that is none of the policy's.
        return verdict_.reason.empty() ? "mta-sts" : "not verified";
      case TlsVerdict::Verify::kDane:
        return "dane";
    }
    return "";
  }

  std::string session_scope() const override {
    switch (verdict_.verify) {
      case TlsVerdict::Verify::kNone:
        return verdict_.required ? "encrypted" : "";
      case TlsVerdict::Verify::kPkix:
        return verdict_.report_only ? "tested" : "mta-sts";
      case TlsVerdict::Verify::kDane:
        break;
    }
    std::string scope = absl::StrCat("dane ", verdict_.dane->base_domain);
    for (const std::string& record : verdict_.report.text) absl::StrAppend(&scope, "\n", record);
    return scope;
  }

  const TlsVerdict& given() const { return verdict_; }
  // Nothing: there was no handshake that got so far.
  const std::optional<ChainResult>& result() const { return result_; }

 private:
  const ChainVerifier& verifier_;
  const TlsVerdict verdict_;
  mutable std::optional<ChainResult> result_;
};

}  // namespace

class PolicedConnections::Policed final : public Connection, private ConnectionHandler {
 public:
  Policed(PolicedConnections& owner, const ConnectTarget& target, ConnectionHandler* handler)
      : owner_(owner), target_(target), handler_(handler) {
    question_.domain = target.route.domain;
    question_.canonical = target.route.canonical;
    question_.host = target.host;
    question_.port = target.port;
    question_.use_dane = target.settings->use_dane();
    question_.use_mta_sts = target.settings->use_mta_sts();
    question_.from_dns = target.route.from_dns;
    question_.authenticated = target.route.authenticated;
    ++owner.stats_.checks;
    owner.policy_.Check(question_, [this, alive = std::weak_ptr<bool>(alive_)](TlsVerdict verdict) {
      if (!alive.expired()) OnVerdict(std::move(verdict));
    });
    constructed_ = true;
  }

  void Send(Transaction transaction) override { inner_->Send(std::move(transaction)); }
  void Quit() override {
    // Before it is ready the owner destroys it.
    if (inner_ != nullptr) inner_->Quit();
  }
  void Abort() override {
    if (inner_ != nullptr) inner_->Abort();
  }

 private:
  void OnVerdict(TlsVerdict verdict) {
    check_ = std::make_shared<VerdictCheck>(owner_.verifier_, std::move(verdict));
    const TlsVerdict& given = check_->given();
    if (!given.allowed) {
      ++owner_.stats_.refused;
      Count(given.failure_type, given.reason);
      owner_.policy_.Failed(question_);
      // Never within a call of the owner's.
      owner_.executor_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
        if (!alive.expired()) Refuse();
      });
      return;
    }
    ConnectTarget target = target_;
    target.tls.required |= given.enforced();
    if (given.dane) target.tls.server_name = given.dane->base_domain;
    target.tls.check = check_;
    // Limits on connects count them when they begin.
    if (constructed_) {
      ConnectLater(std::move(target));
    } else {
      inner_ = owner_.inner_.Connect(target, this);
    }
  }

  void ConnectLater(ConnectTarget target) {
    const Duration wait = handler_->MayConnect();
    if (wait.count() == 0) {
      inner_ = owner_.inner_.Connect(target, this);
      return;
    }
    owner_.executor_.After(
        wait, [this, alive = std::weak_ptr<bool>(alive_), target = std::move(target)]() mutable {
          if (!alive.expired()) ConnectLater(std::move(target));
        });
  }

  void Refuse() {
    ConnectionEnd end;
    end.reply.set_local(true);
    end.reply.set_stage(common::v1::STAGE_STARTTLS);
    end.reply.set_enhanced("4.7.5");
    end.reply.set_text(check_->given().reason);
    end.reply.set_host(target_.host);
    end.reply.set_ip(target_.address);
    handler_->OnClosed(std::move(end));  // destroys us
  }

  // One session for TLS-RPT; an empty type is a success.
  void Count(const std::string& type, const std::string& reason) {
    if (std::exchange(counted_, true)) return;
    const TlsReportPolicy& policy = check_->given().report;
    if (type.empty()) {
      ++owner_.stats_.passed;
      owner_.reports_.Success(question_.domain, policy);
      return;
    }
    ++owner_.stats_.failed;
    // The address that the receiver sees.
    const std::string source_ip =
        target_.proxy != nullptr ? target_.proxy->client.ip.ToString() : target_.source_ip;
    owner_.reports_.Failure(question_.domain, policy,
                            {type, source_ip, target_.host, target_.address, reason});
  }

  // ---- ConnectionHandler, of the inner connection
  Duration MayConnect() override { return handler_->MayConnect(); }
  void OnReady() override {
    const TlsVerdict& given = check_->given();
    const auto& result = check_->result();
    if (!result) {
      // In clear text, without STARTTLS. Only where nothing is demanded, or the demand is being
      // tested. That we did not ask for it is nothing that the receiver did.
      const bool asked =
          given.enforced() || target_.tls.use_starttls.value_or(target_.settings->use_starttls());
      if (asked) Count("starttls-not-supported", "");
    } else if (!result->good) {
      Count(result->result_type, result->reason);
    } else {
      // The policy could not be had, or does not know the host, and mail went all the same.
      Count(given.failure_type, given.reason);
    }
    handler_->OnReady();
  }
  void OnResult(queue::v1::GroupResult result) override { handler_->OnResult(std::move(result)); }
  bool MayFinish(uint64_t lease_id) override { return handler_->MayFinish(lease_id); }
  void OnTrace(bool reply, std::string_view text) override { handler_->OnTrace(reply, text); }
  void OnClosed(ConnectionEnd end) override {
    if (!end.ready && end.reply.stage() == common::v1::STAGE_STARTTLS) {
      const auto& result = check_->result();
      if (result && !result->good) {
        Count(result->result_type, result->reason);
      } else {
        Count(end.reply.code() == 0 && end.reply.enhanced() == "4.7.4" ? "starttls-not-supported"
                                                                       : "validation-failure",
              end.reply.text());
      }
      owner_.policy_.Failed(question_);
    }
    handler_->OnClosed(std::move(end));  // destroys us
  }

  PolicedConnections& owner_;
  const ConnectTarget target_;
  ConnectionHandler* const handler_;
  TlsQuestion question_;
  std::shared_ptr<VerdictCheck> check_;
  std::unique_ptr<Connection> inner_;
  bool constructed_ = false;
  bool counted_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

std::unique_ptr<Connection> PolicedConnections::Connect(const ConnectTarget& target,
                                                        ConnectionHandler* handler) {
  if (!target.settings->use_dane() && !target.settings->use_mta_sts()) {
    return inner_.Connect(target, handler);
  }
  return std::make_unique<Policed>(*this, target, handler);
}

}  // namespace sluice::delivery
