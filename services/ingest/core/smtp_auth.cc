#include "services/ingest/core/smtp_auth.h"

#include <utility>

#include "absl/strings/str_split.h"
#include "services/mail/header_fields.h"

namespace sluice::ingest {
namespace {

using Kind = mail::SaslStep::Kind;

constexpr Duration kTooManyDelay = std::chrono::seconds(1);

bool Has(std::string_view names, std::string_view wanted) {
  for (const absl::string_view name :
       absl::StrSplit(absl::string_view(names.data(), names.size()), ' ')) {
    if (mail::HeaderNameEquals({name.data(), name.size()}, wanted)) return true;
  }
  return false;
}

}  // namespace

SmtpAuth::SmtpAuth(Ingest& ingest, std::shared_ptr<const ClientProfile> profile,
                   std::string client_ip, Protection protection, mail::SaslChannelBindings bindings,
                   Owner& owner)
    : ingest_(ingest),
      profile_(std::move(profile)),
      client_ip_(std::move(client_ip)),
      protection_(protection),
      bindings_(std::move(bindings)),
      owner_(owner) {}

SmtpAuth::~SmtpAuth() {
  *self_ = nullptr;
  // Leaving an exchange must not be cheaper than failing in it.
  if (open_) Fail({});
}

std::string SmtpAuth::Mechanisms(const ClientProfile& profile, Protection protection) {
  const policy::v1::ClientSettings& client = *profile.settings;
  if (profile.users == nullptr || (client.has_allow_auth() && !client.allow_auth())) return "";
  if (!protection.encrypted && client.require_starttls_before_auth()) return "";
  return profile.users->Mechanisms(protection.encrypted || client.allow_unencrypted_plain_auth(),
                                   protection.can_bind);
}

std::optional<mail::ServerReply> SmtpAuth::Start(std::string_view mechanism,
                                                 std::optional<std::string_view> initial) {
  if (!Has(Mechanisms(*profile_, protection_), mechanism)) {
    if (!protection_.encrypted && Has(Mechanisms(*profile_, {true, true}), mechanism)) {
      ingest_.mutable_counters().auth_in_clear_refused.fetch_add(1, std::memory_order_relaxed);
      return mail::ServerReply{538, {5, 7, 11}, "Encryption is required for this mechanism"};
    }
    return mail::ServerReply{504, {5, 5, 4}, "This mechanism is not offered"};
  }
  begun_ = ingest_.now();
  if (!ingest_.auth_failures().Begin(client_ip_, profile_->settings->smtp_max_auth_failure_rate(),
                                     begun_)) {
    ingest_.mutable_counters().auth_throttled.fetch_add(1, std::memory_order_relaxed);
    return mail::ServerReply{
        454, {4, 7, 0}, "Too many failed authentications from your network, try again later"};
  }
  open_ = true;
  server_ = mail::SaslServer::Make(
      mechanism, {profile_->users.get(), profile_->smtp.host_name, ingest_.NextNonce(),
                  ingest_.lasting_secret(), std::move(bindings_)});
  return Take(server_->Start(initial));
}

std::optional<mail::ServerReply> SmtpAuth::OnResponse(std::string_view response) {
  return Take(server_->OnResponse(response));
}

std::optional<mail::ServerReply> SmtpAuth::Take(mail::SaslStep step) {
  switch (step.kind) {
    case Kind::kChallenge:
      return mail::ServerReply{334, {}, std::move(step.text)};
    case Kind::kWork: {
      auto done = [self = self_](bool ok) {
        if (*self != nullptr) (*self)->OnWorkDone(ok);
      };
      SlowWork* const slow = ingest_.slow_work();
      if (slow == nullptr) {
        ingest_.executor().Post(
            [work = std::move(step.work), done = std::move(done)]() mutable { done(work()); });
        return std::nullopt;
      }
      if (slow->Run(AuthFailures::NetworkOf(client_ip_), std::move(step.work), ingest_.executor(),
                    std::move(done))) {
        return std::nullopt;
      }
      ingest_.mutable_counters().auth_throttled.fetch_add(1, std::memory_order_relaxed);
      // Nobody has guessed: the client comes again, and not at once.
      open_ = false;
      ingest_.auth_failures().OnSuccess(client_ip_,
                                        profile_->settings->smtp_max_auth_failure_rate(), begun_);
      mail::ServerReply later{454, {4, 7, 0}, "Too many authentications at once, try again later"};
      later.delay = kTooManyDelay;
      return later;
    }
    case Kind::kSuccess:
      open_ = false;
      ingest_.auth_failures().OnSuccess(client_ip_,
                                        profile_->settings->smtp_max_auth_failure_rate(), begun_);
      ingest_.mutable_counters().auth_succeeded.fetch_add(1, std::memory_order_relaxed);
      return mail::ServerReply{235, {2, 7, 0}, "Authentication succeeded"};
    case Kind::kFailure:
      return Fail({535, {5, 7, 8}, "Authentication failed"});
    case Kind::kMalformed:
      break;
  }
  return Fail({501, {5, 5, 2}, "The response is not what the mechanism wants"});
}

mail::ServerReply SmtpAuth::Fail(mail::ServerReply reply) {
  open_ = false;
  ingest_.mutable_counters().auth_failed.fetch_add(1, std::memory_order_relaxed);
  reply.delay = ingest_.auth_failures().OnFailure(client_ip_, ingest_.now());
  return reply;
}

void SmtpAuth::OnWorkDone(bool ok) {
  if (const auto reply = Take(server_->OnWorkDone(ok))) owner_.OnAuthReply(*reply);
}

}  // namespace sluice::ingest
