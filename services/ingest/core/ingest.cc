#include "services/ingest/core/ingest.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/escaping.h"
#include "services/base/check.h"
#include "services/mail/sasl_credential.h"

namespace sluice::ingest {
namespace {

// Distinct settings that are remembered; a policy view has few.
constexpr size_t kMaxProfiles = 4096;
// Of a command or a reply in a log.
constexpr size_t kMaxTraceBytes = 1024;

IngestOptions WithRandom(IngestOptions options) {
  if (options.random == 0) {
    std::random_device system;
    options.random = uint64_t{system()} << 32 | system();
  }
  return options;
}

}  // namespace

Ingest::Ingest(Executor& executor, const IngestOptions& options,
               const std::vector<ShardEndpoint>& shards,
               std::shared_ptr<const config::PolicyView> policy)
    : executor_(executor),
      options_(WithRandom(options)),
      shards_(options_.random ^ 0x9e3779b97f4a7c15),
      ids_(options_.random) {
  ShardClientOptions shard_options = options_.shard;
  if (shard_options.log == nullptr) shard_options.log = options_.log;
  std::string seed = std::to_string(options_.random);
  if (options.random == 0) {
    std::random_device system;
    for (int i = 0; i < 8; ++i) seed += "/" + std::to_string(system());
  }
  secret_ = mail::Sha256(seed);
  for (const ShardEndpoint& shard : shards) {
    SLUICE_CHECK(shard.enqueue != nullptr && shard.upload != nullptr);
    auto client = std::make_unique<ShardClient>(shard.name, executor, *shard.enqueue, *shard.upload,
                                                shard_options);
    client->set_on_change([this] { UpdateReady(); });
    shards_.Add(std::move(client));
  }
  SetPolicy(std::move(policy));
}

std::string Ingest::NextNonce() {
  const std::string bytes = mail::HmacSha256(secret_, std::to_string(++nonces_));
  return absl::WebSafeBase64Escape(bytes).substr(0, 32);
}

Ingest::~Ingest() { SLUICE_CHECK(drainables_.empty()); }

void Ingest::Start() {
  shards_.Start();
  UpdateReady();
}

void Ingest::SetPolicy(std::shared_ptr<const config::PolicyView> policy) {
  policy_ = std::move(policy);
  const std::string& host_name = policy_->global().host_name();
  tables_ = std::make_shared<PolicyTables>(*policy_,
                                           host_name.empty() ? options_.smtp.host_name : host_name);
  const uint64_t pool = policy_->global().memory_pool_max();
  max_body_bytes_ = pool == 0 ? options_.max_body_bytes : pool / std::max(options_.loops, 1U);
  ++policy_generation_;
  profiles_.clear();
}

std::shared_ptr<const ClientProfile> Ingest::ProfileFor(
    std::string_view client_ip, std::string_view listener,
    const std::vector<std::string>& user_sources) {
  std::vector<std::string> sources;
  const auto* const at = listener.empty() ? nullptr : policy_->FindListener(listener);
  if (at != nullptr && !at->source().empty()) sources.push_back(at->source());
  sources.insert(sources.end(), user_sources.begin(), user_sources.end());
  std::shared_ptr<const policy::v1::ClientSettings> settings =
      sources.empty() ? policy_->ForClient(client_ip) : policy_->ForClientOf(client_ip, sources);
  const auto it = profiles_.find(settings.get());
  if (it != profiles_.end()) return it->second;
  if (profiles_.size() >= kMaxProfiles) profiles_.clear();
  const policy::v1::ClientSettings* const key = settings.get();
  // The profile keeps the settings alive, so that the key stays theirs.
  return profiles_
      .emplace(key, ClientProfile::Make(policy_, std::move(settings), options_.smtp, tables_))
      .first->second;
}

std::shared_ptr<const ClientProfile> Ingest::ProfileForUser(std::string_view client_ip,
                                                            std::string_view listener,
                                                            const std::string& user) {
  std::vector<std::string> sources;
  if (!user.empty()) {
    sources.emplace_back("{auth}");
    const policy::v1::SmtpUserSection* const section = policy_->FindSmtpUser(user);
    if (section != nullptr && !section->source().empty()) sources.push_back(section->source());
  }
  return ProfileFor(client_ip, listener, sources);
}

std::optional<mail::ServerReply> Ingest::Admit(uint64_t bytes, uint64_t own) {
  if (draining_) return mail::ServerReply{421, {4, 3, 2}, "Shutting down"};
  const uint64_t others = body_bytes() - own;
  if (others + bytes > max_body_bytes_ && others != 0) {
    counters_.backpressure.fetch_add(1, std::memory_order_relaxed);
    return mail::ServerReply{451, {4, 3, 1}, "Too much mail at once, try again later"};
  }
  const uint32_t most_memory = policy_->global().max_memory_usage_percent();
  if (options_.memory_percent != nullptr && most_memory > 0 && most_memory < 100 &&
      options_.memory_percent->load(std::memory_order_relaxed) >= most_memory) {
    counters_.backpressure.fetch_add(1, std::memory_order_relaxed);
    return mail::ServerReply{451, {4, 3, 1}, "Too little memory, try again later"};
  }
  if (!shards_.any_healthy()) {
    counters_.backpressure.fetch_add(1, std::memory_order_relaxed);
    return mail::ServerReply{451, {4, 3, 2}, "No queue takes mail now, try again later"};
  }
  return std::nullopt;
}

bool Ingest::MayGrow(uint64_t bytes) {
  if (body_bytes() + bytes <= 2 * max_body_bytes_) return true;
  counters_.backpressure.fetch_add(1, std::memory_order_relaxed);
  return false;
}

void Ingest::NoteConnection(std::string_view client, std::string_view listener) {
  if (options_.log == nullptr) return;
  options_.log->Info("client_connected", "", {{"client", client}, {"listener", listener}});
}

void Ingest::NoteConnectionEnd(std::string_view client, std::string_view listener, Duration lasted,
                               uint32_t messages) {
  if (options_.log == nullptr) return;
  options_.log->Info("client_gone", "",
                     {{"client", client},
                      {"listener", listener},
                      {"ms", std::chrono::duration_cast<std::chrono::milliseconds>(lasted).count()},
                      {"messages", messages}});
}

void Ingest::NoteRelayRefused(std::string_view client, std::string_view listener,
                              std::string_view user, std::string_view recipient) {
  if (options_.log == nullptr) return;
  options_.log->Info("relay_refused",
                     "always-allow-relaying is not said for this client, and the recipient is no "
                     "relay-domain's, relay-address's or alias's",
                     {{"client", client},
                      {"listener", listener},
                      {"user", user},
                      {"recipient", recipient.substr(0, kMaxTraceBytes)}});
}

void Ingest::NoteTrace(std::string_view client, bool reply, std::string_view text) {
  if (options_.log == nullptr) return;
  options_.log->Info(reply ? "smtp_reply" : "smtp_command", "",
                     {{"client", client}, {"text", text.substr(0, kMaxTraceBytes)}});
}

void Ingest::NoteTls(std::string_view client, std::string_view listener, const TlsFacts& facts,
                     std::string_view user, std::string_view problem) {
  if (options_.log == nullptr) return;
  options_.log->Write(problem.empty() ? LogLevel::kInfo : LogLevel::kWarn,
                      problem.empty() ? "client_tls" : "client_tls_failed", problem,
                      {{"client", client},
                       {"listener", listener},
                       {"version", facts.version},
                       {"cipher", facts.cipher},
                       {"server_name", facts.server_name},
                       {"resumed", facts.resumed},
                       {"subject", facts.peer_subject},
                       {"user", user}});
}

void Ingest::NoteRefusal(std::string_view step, std::string_view client, int code,
                         std::string_view text) {
  if (options_.log == nullptr) return;
  // What is turned away for now is the cluster's trouble; what is refused is the client's.
  const bool for_now = code < 500;
  options_.log->Write(for_now ? LogLevel::kWarn : LogLevel::kInfo,
                      for_now ? "injection_deferred" : "injection_refused", text,
                      {{"step", step}, {"client", client}, {"code", code}});
}

void Ingest::Count(const SubmitResult& result, size_t recipients, uint64_t bytes) {
  const auto add = [](std::atomic<uint64_t>& counter, uint64_t n) {
    counter.fetch_add(n, std::memory_order_relaxed);
  };
  switch (result.outcome) {
    case SubmitOutcome::kQueued:
    case SubmitOutcome::kDuplicate:
      add(counters_.messages_accepted, 1);
      add(counters_.recipients_accepted, recipients);
      add(counters_.bytes_accepted, bytes);
      return;
    case SubmitOutcome::kInvalid:
      add(counters_.messages_refused, 1);
      return;
    case SubmitOutcome::kUnknown:
      add(counters_.outcomes_unknown, 1);
      break;
    default:
      break;
  }
  add(counters_.messages_deferred, 1);
}

void Ingest::UpdateReady() {
  ready_.store(!draining_ && shards_.any_healthy(), std::memory_order_relaxed);
}

std::string Ingest::not_ready_reason() const {
  if (draining_) return "shutting down";
  return shards_.any_healthy() ? "" : shards_.unhealthy_reason();
}

void Ingest::Drain(absl::AnyInvocable<void()> done) {
  draining_ = true;
  on_drained_ = std::move(done);
  UpdateReady();
  // Each may leave the set in its OnDrain.
  const std::vector<Drainable*> all(drainables_.begin(), drainables_.end());
  for (Drainable* drainable : all) {
    if (drainables_.contains(drainable)) drainable->OnDrain();
  }
  if (drainables_.empty() && on_drained_) executor_.Post(std::exchange(on_drained_, nullptr));
}

void Ingest::Remove(Drainable* drainable) {
  drainables_.erase(drainable);
  if (draining_ && drainables_.empty() && on_drained_) {
    executor_.Post(std::exchange(on_drained_, nullptr));
  }
}

}  // namespace sluice::ingest
