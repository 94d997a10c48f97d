#include "services/node/ingest_part.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "services/base/log/log.h"
#include "services/node/cpus.h"
#include "services/node/memory_usage.h"

namespace sluice::node {
namespace {

// How often the certificates' files are looked at.
constexpr Duration kCertificateLook = std::chrono::seconds(10);
constexpr Duration kMemoryLook = std::chrono::seconds(1);

}  // namespace

IngestPart::~IngestPart() { Stop(); }

absl::Status IngestPart::Start(std::shared_ptr<const config::PolicyView> policy) {
  const uint32_t loops =
      options_.ingest_threads > 0 ? options_.ingest_threads : std::max(1U, AvailableCpus() / 2);
  ingest::IngestOptions ingest_options;
  ingest_options.log = options_.log;
  ingest_options.smtp.host_name = policy->global().host_name();
  work_ = std::make_unique<ingest::WorkThread>();
  ingest_options.slow_work = work_.get();
  ingest_options.auth_failures = &auth_failures_;
  ingest_options.memory_percent = &memory_percent_;
  ingest_options.loops = loops;
  std::vector<ingest::IngestLoop> on_loops;
  for (uint32_t i = 0; i < loops; ++i) {
    threads_.push_back(std::make_unique<LoopThread>(absl::StrCat("ingest-", i)));
    ingests_.push_back(
        std::make_unique<ingest::Ingest>(threads_.back()->loop(), ingest_options, shards_, policy));
    on_loops.push_back({&threads_.back()->loop(), ingests_.back().get()});
  }
  // With a CA the server takes nobody without a certificate of it.
  inject_ = std::make_unique<ingest::InjectService>(*ingests_[0], !options_.tls_ca.empty());

  std::vector<std::string> addresses = options_.smtp_listen;
  if (addresses.empty()) {
    for (const std::string& each : policy->global().smtp_listeners().values()) {
      addresses.push_back(each);
    }
  }
  if (addresses.empty()) addresses.push_back("127.0.0.1:2525");
  ingest::SmtpListenerOptions listen;
  for (const std::string& each : policy->global().smtp_proxy_listeners().values()) {
    listen.proxied.push_back(addresses.size());
    addresses.push_back(each);
  }
  for (const std::string& text : addresses) {
    const auto endpoint = Endpoint::Parse(text);
    if (!endpoint) {
      return absl::InvalidArgumentError(
          absl::StrCat("SMTP address \"", text, "\" is not understood: give IP:PORT"));
    }
    listen.addresses.push_back(*endpoint);
  }
  listen_ = listen.addresses;
  auto tls = tls_.Make(*policy, listen_);
  if (!tls.ok()) return tls.status();
  listen.tls = *std::move(tls);
  auto listener = ingest::SmtpListener::Open(threads_[0]->loop(), listen, std::move(on_loops));
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  for (auto& each : ingests_) each->Start();
  WatchCertificates();
  WatchMemory();
  for (auto& thread : threads_) thread->Start();
  pickup_ = std::make_unique<ingest::Pickup>(
      Clock::Real(),
      [this](ingest::v1::InjectRequest request, absl::AnyInvocable<void(absl::Status)> done) {
        loop().Post([this, request = std::move(request), done = std::move(done)]() mutable {
          inject_->InjectFrom(
              {common::v1::SOURCE_TYPE_PICKUP, "pickup", {"{pickup}"}}, std::move(request),
              [done =
                   std::move(done)](absl::StatusOr<ingest::v1::InjectResponse> response) mutable {
                done(response.status());
              });
        });
      },
      ingest::PickupOptions(), options_.log);
  pickup_->SetPolicy(*policy);
  pickup_->Start();
  return absl::OkStatus();
}

void IngestPart::WatchMemory() {
  memory_percent_.store(MemoryUsagePercent(), std::memory_order_relaxed);
  threads_[0]->loop().After(kMemoryLook, [this] { WatchMemory(); });
}

void IngestPart::WatchCertificates() {
  threads_[0]->loop().After(kCertificateLook, [this] {
    const auto changes = tls_.ReloadChanged();
    if (!changes.empty() && listener_ != nullptr) listener_->SetTls(tls_.made());
    for (const auto& change : changes) {
      if (options_.log == nullptr) continue;
      if (change.ok) {
        options_.log->Info("certificate_reloaded", "", {{"file", change.text}});
      } else {
        options_.log->Error("certificate_reload_failed", change.text);
      }
    }
    WatchCertificates();
  });
}

void IngestPart::SetPolicy(std::shared_ptr<const config::PolicyView> policy) {
  if (pickup_ != nullptr) pickup_->SetPolicy(*policy);
  if (!threads_.empty() && listener_ != nullptr) {
    threads_[0]->loop().Post([this, policy] {
      auto tls = tls_.Make(*policy, listen_);
      if (tls.ok()) {
        listener_->SetTls(*std::move(tls));
      } else if (options_.log != nullptr) {
        options_.log->Error("tls_settings_refused", tls.status().ToString());
      }
    });
  }
  for (size_t i = 0; i < threads_.size(); ++i) {
    threads_[i]->loop().Post(
        [ingest = ingests_[i].get(), policy]() mutable { ingest->SetPolicy(std::move(policy)); });
  }
}

void IngestPart::StopAccepting() {
  if (listener_ == nullptr || threads_.empty()) return;
  threads_[0]->Call([this] { listener_->StopAccepting(); });
}

void IngestPart::Drain(Duration limit) {
  // What it has offered is answered while the loops still run.
  if (pickup_ != nullptr) pickup_->Stop(limit);
  struct Count {
    std::mutex mutex;
    std::condition_variable changed;
    size_t left;
  };
  auto count = std::make_shared<Count>();
  count->left = threads_.size();
  for (size_t i = 0; i < threads_.size(); ++i) {
    if (!threads_[i]->running()) return;
    threads_[i]->loop().Post([ingest = ingests_[i].get(), count] {
      ingest->Drain([count] {
        std::lock_guard lock(count->mutex);
        --count->left;
        count->changed.notify_one();
      });
    });
  }
  std::unique_lock lock(count->mutex);
  count->changed.wait_for(lock, limit, [&] { return count->left == 0; });
}

void IngestPart::Stop() {
  pickup_.reset();
  for (auto& thread : threads_) thread->Stop();
  // No loop runs any more: everything on them may go.
  listener_.reset();
  inject_.reset();
  ingests_.clear();
  work_.reset();
}

std::vector<std::string> IngestPart::addresses() const {
  std::vector<std::string> addresses;
  for (const Endpoint& each : listener_->addresses()) addresses.push_back(each.ToString());
  return addresses;
}

bool IngestPart::ready() const {
  return std::all_of(ingests_.begin(), ingests_.end(),
                     [](const auto& each) { return each->ready(); });
}

std::vector<const ingest::Ingest*> IngestPart::ingests() const {
  std::vector<const ingest::Ingest*> all;
  for (const auto& each : ingests_) all.push_back(each.get());
  return all;
}

}  // namespace sluice::node
