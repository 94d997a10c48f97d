#include "services/delivery/io/outbound_tls.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::delivery {
namespace {

// Changes with the file.
std::string StampOf(const std::string& file) {
  struct stat info;
  if (file.empty() || ::stat(file.c_str(), &info) != 0) return "";
  return absl::StrCat(info.st_ino, "-", info.st_mtim.tv_sec, "-", info.st_mtim.tv_nsec);
}

bool Or(bool has, bool value, bool otherwise) { return has ? value : otherwise; }

TlsClientOptions OptionsOf(const policy::v1::QueueSettings& settings) {
  TlsClientOptions options;
  TlsProtocols& protocols = options.protocols;
  protocols.tls1_0 = settings.smtp_tls_allow_tlsv1();
  protocols.tls1_1 = settings.smtp_tls_allow_tlsv1_1();
  protocols.tls1_2 = Or(settings.has_smtp_tls_allow_tlsv1_2(), settings.smtp_tls_allow_tlsv1_2(),
                        protocols.tls1_2);
  protocols.tls1_3 = Or(settings.has_smtp_tls_allow_tlsv1_3(), settings.smtp_tls_allow_tlsv1_3(),
                        protocols.tls1_3);
  protocols.ciphers = settings.smtp_tls_ciphers();
  protocols.ciphersuites = settings.smtp_tls_tlsv1_3_ciphersuites();
  options.certificate.file = settings.smtp_client_certificate().file();
  options.certificate.password = settings.smtp_client_certificate().password();
  options.ca_file = settings.smtp_tls_ca_file();
  options.max_cached_sessions = OutboundTls::kMaxSessions;
  return options;
}

std::string KeyOf(const TlsClientOptions& options) {
  const TlsProtocols& on = options.protocols;
  return absl::StrCat(on.tls1_0, on.tls1_1, on.tls1_2, on.tls1_3, "\n", on.ciphers, "\n",
                      on.ciphersuites, "\n", options.certificate.file, "\n",
                      StampOf(options.certificate.file), "\n", options.certificate.password, "\n",
                      options.ca_file, "\n", StampOf(options.ca_file));
}

}  // namespace

bool OutboundTls::MayFallBack(const policy::v1::QueueSettings& settings) {
  return Or(settings.has_tls_fallback(), settings.tls_fallback(), true);
}

mail::StartTls OutboundTls::Wanted(const ConnectTarget& target, MonotonicTime now) const {
  if (target.tls.required || target.tls.implicit || target.settings->require_starttls()) {
    return mail::StartTls::kRequired;
  }
  if (!target.tls.use_starttls.value_or(target.settings->use_starttls())) {
    return mail::StartTls::kNever;
  }
  // Who checks certificates, be it for a report alone, sees every handshake.
  if (target.tls.check == nullptr && !failures_.empty() && MayFallBack(*target.settings)) {
    const auto failure = failures_.find(FailureKey(target));
    if (failure != failures_.end() && now < failure->second) return mail::StartTls::kNever;
  }
  return mail::StartTls::kOpportunistic;
}

// With the settings that it failed with: other ones may do.
std::string OutboundTls::FailureKey(const ConnectTarget& target) {
  return absl::StrCat(target.host, " ", target.address, " ", target.port, "\n",
                      KeyOf(OptionsOf(*target.settings)));
}

void OutboundTls::RememberFailure(const ConnectTarget& target, MonotonicTime now) {
  if (target.tls.check != nullptr) return;
  if (failures_.size() >= kMaxFailures) {
    absl::erase_if(failures_, [now](const auto& each) { return each.second <= now; });
    if (failures_.size() >= kMaxFailures) return;
  }
  failures_[FailureKey(target)] = now + kRememberFailure;
}

absl::StatusOr<TlsClientContext*> OutboundTls::ContextFor(
    const policy::v1::QueueSettings& settings) {
  const TlsClientOptions options = OptionsOf(settings);
  const std::string key = KeyOf(options);
  if (const auto found = contexts_.find(key); found != contexts_.end()) return found->second.get();
  auto made = TlsClientContext::Load(options);
  if (!made.ok()) return made.status();
  // Rare: only changed settings and files bring new ones.
  if (contexts_.size() >= kMaxContexts) contexts_.clear();
  return contexts_.emplace(key, *std::move(made)).first->second.get();
}

absl::StatusOr<std::unique_ptr<TlsSession>> OutboundTls::NewSession(const ConnectTarget& target) {
  auto context = ContextFor(*target.settings);
  if (!context.ok()) return context.status();
  TlsClientTarget tls;
  tls.server_name = target.tls.server_name.empty() ? target.host : target.tls.server_name;
  if (target.settings->reuse_ssl_session()) {
    tls.session_key = absl::StrCat(target.host, " ", target.address, " ", target.port);
    // What was let through by a weaker demand is not to be there for a stronger one.
    const std::string scope = target.tls.check == nullptr ? "" : target.tls.check->session_scope();
    if (!scope.empty()) absl::StrAppend(&tls.session_key, "\n", scope);
  }
  if (!target.tls.verify_names.empty()) {
    tls.verify = TlsSession::Verify::kRequired;
    tls.names = target.tls.verify_names;
  } else if (!target.settings->smtp_tls_ca_file().empty()) {
    tls.verify = TlsSession::Verify::kOptional;
    tls.names = {target.host};
  }
  std::unique_ptr<TlsSession> session = (*context)->NewSession(tls);
  if (session == nullptr) return absl::ResourceExhaustedError("no memory for a TLS session");
  return session;
}

absl::Status OutboundTls::OnReady(const ConnectTarget& target, const TlsSession& session) {
  if (target.tls.check != nullptr) {
    absl::Status status = target.tls.check->Check(session.facts(), session.PeerChain());
    if (!status.ok()) return status;
  }
  ++stats_.handshakes;
  if (session.facts().resumed) ++stats_.resumed;
  return absl::OkStatus();
}

void OutboundTls::OnFailed(const ConnectTarget& target, const TlsSession* session,
                           std::string_view why) {
  ++stats_.failures;
  if (target.tls.check != nullptr) target.tls.check->OnHandshakeFailed(why);
  if (session == nullptr) return;
  if (const auto context = ContextFor(*target.settings); context.ok()) (*context)->Forget(*session);
}

void OutboundTls::Fill(const ConnectTarget& target, const TlsFacts& facts,
                       common::v1::TlsInfo* info) const {
  info->set_version(facts.version);
  info->set_cipher(facts.cipher);
  const std::string_view verdict = target.tls.check != nullptr ? target.tls.check->verdict()
                                   : facts.verified            ? "verified"
                                                               : "opportunistic";
  info->set_verdict(std::string(verdict));
  info->set_peer_subject(facts.peer_subject);
}

}  // namespace sluice::delivery
