// Who the client of an SmtpConnection is, and the rules that hold for it: TLS and the certificate
// that it showed, AUTH, what a trusted proxy says of it.
#include <utility>

#include "services/base/net/ip_address.h"
#include "services/base/utf8.h"
#include "services/ingest/core/smtp_connection.h"
#include "services/mail/header_fields.h"

namespace sluice::ingest {

void SmtpConnection::OnStartTls(size_t discarded) {
  if (discarded == 0) return;
  ingest_.mutable_counters().starttls_injections.fetch_add(1, std::memory_order_relaxed);
}

void SmtpConnection::OnTlsReady(const TlsFacts& facts, std::string user, bool can_bind) {
  IngestCounters& counters = ingest_.mutable_counters();
  counters.tls_connections.fetch_add(1, std::memory_order_relaxed);
  if (facts.resumed) counters.tls_resumed.fetch_add(1, std::memory_order_relaxed);
  tls_ = facts;
  can_bind_ = can_bind;
  tls_text_ = facts.version + " " + facts.cipher;
  hello_.clear();
  claimed_hello_.clear();
  extended_ = false;
  if (profile_->settings->log_tls()) {
    ingest_.NoteTls(peer_.client_ip, peer_.listener, facts, user, "");
  }
  if (!user.empty()) counters.auth_succeeded.fetch_add(1, std::memory_order_relaxed);
  // What was said in clear does not count any more.
  if (!user.empty() || !user_.empty()) BecomeUser(std::move(user));
  session_.OnTlsReady(ingest_.now());
}

void SmtpConnection::OnTrace(mail::SmtpTrace kind, std::string_view text) {
  ingest_.NoteTrace(peer_.client_ip, kind == mail::SmtpTrace::kReply, text);
}

void SmtpConnection::OnTlsFailed(std::string_view problem) {
  if (profile_->settings->log_tls()) {
    ingest_.NoteTls(peer_.client_ip, peer_.listener, {}, "", problem);
  }
  ingest_.mutable_counters().tls_failures.fetch_add(1, std::memory_order_relaxed);
}

std::string SmtpConnection::AuthMechanisms() {
  return SmtpAuth::Mechanisms(*profile_, protection());
}

std::optional<mail::ServerReply> SmtpConnection::OnAuth(std::string_view mechanism,
                                                        std::optional<std::string_view> initial) {
  FollowPolicy();  // a user that is gone does not get in
  auth_ = std::make_unique<SmtpAuth>(
      ingest_, profile_, peer_.client_ip, protection(),
      can_bind_ ? driver_.ChannelBindings() : mail::SaslChannelBindings(),
      static_cast<SmtpAuth::Owner&>(*this));
  auto reply = auth_->Start(mechanism, initial);
  Settle(reply);
  return reply;
}

std::optional<mail::ServerReply> SmtpConnection::OnAuthResponse(std::string_view response) {
  auto reply = auth_->OnResponse(response);
  Settle(reply);
  return reply;
}

void SmtpConnection::OnAuthReply(const mail::ServerReply& reply) {
  const mail::ServerReply copy = reply;
  Settle(copy);
  session_.OnVerdict(ingest_.now(), copy);
}

void SmtpConnection::Settle(const std::optional<mail::ServerReply>& reply) {
  if (!reply || reply->code == 334) return;
  const std::unique_ptr<SmtpAuth> auth = std::move(auth_);
  if (reply->code == 235) BecomeUser(auth->user());
}

void SmtpConnection::BecomeUser(std::string user) {
  user_ = std::move(user);
  UpdateProfile();
  // max-smtp-in and the group of {auth} and of the user's source; told at MAIL, where there is room
  // for a reply.
  full_ = driver_.OnOtherClient(*profile_);
}

void SmtpConnection::FollowPolicy() {
  if (policy_generation_ == ingest_.policy_generation()) return;
  policy_generation_ = ingest_.policy_generation();
  UpdateProfile();
}

void SmtpConnection::UpdateProfile() {
  std::shared_ptr<const ClientProfile> profile =
      ingest_.ProfileForUser(peer_.client_ip, peer_.listener, user_);
  session_.UseOptions(profile->smtp);
  profile_ = std::move(profile);
}

bool SmtpConnection::OffersXclient() {
  return ingest_.ProfileFor(connected_ip_, peer_.listener)->settings->allow_xclient();
}

mail::ServerReply SmtpConnection::OnXclient(const mail::XclientCommand& xclient) {
  SmtpPeer peer = peer_;
  if (xclient.address) {
    std::string_view text = *xclient.address;
    // Postfix's way to write IPv6 in attributes.
    if (mail::HeaderNameEquals(text.substr(0, 5), "IPv6:")) text.remove_prefix(5);
    const auto address = IpAddress::Parse(text);
    if (!address) return {501, {5, 5, 4}, "ADDR wants an IP address"};
    peer.client_ip = address->ToString();
  }
  if (xclient.dest_address) {
    const auto address = IpAddress::Parse(*xclient.dest_address);
    if (!address) return {501, {5, 5, 4}, "DESTADDR wants an IP address"};
    peer.local_ip = address->ToString();
  }
  // It stands in the message's record, which nobody could read again.
  if (xclient.login && !IsUtf8(*xclient.login)) return {501, {5, 5, 4}, "LOGIN wants UTF-8"};
  const auto profile = ingest_.ProfileFor(peer.client_ip, peer.listener);
  if (profile->settings->has_smtp_service() && !profile->settings->smtp_service()) {
    return {421, {4, 7, 0}, "No SMTP service for this client"};
  }
  if (auto full = driver_.OnOtherClient(*profile)) {
    ingest_.mutable_counters().connections_refused.fetch_add(1, std::memory_order_relaxed);
    return *std::move(full);
  }
  peer_ = std::move(peer);
  can_bind_ = false;  // the connection is the proxy's, and its client knows another one
  claimed_hello_ = xclient.helo.value_or("");
  BecomeUser(xclient.login.value_or(""));
  return {220, {}, ""};
}

}  // namespace sluice::ingest
