#include "services/node/delivery_part.h"

#include <ifaddrs.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <random>

#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"

namespace sluice::node {
namespace {

std::vector<std::string> MachineAddresses() {
  std::vector<std::string> addresses;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return addresses;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    if (const auto ip = IpAddress::FromSockaddr(each->ifa_addr)) {
      addresses.push_back(ip->ToString());
    }
  }
  freeifaddrs(list);
  return addresses;
}

}  // namespace

DeliveryPart::~DeliveryPart() { Stop(); }

absl::Status DeliveryPart::Start(std::shared_ptr<const config::PolicyView> policy,
                                 bool follows_owners) {
  delivery::CaresOptions dns;
  dns.servers = options_.resolvers;
  if (dns.servers.empty()) {
    for (const std::string& each : policy->global().name_servers().values()) {
      dns.servers.push_back(each);
    }
  }
  if (policy->global().edns_udp_length() > 0) {
    dns.edns_bytes = static_cast<int>(policy->global().edns_udp_length());
  }
  auto client = delivery::CaresClient::Create(thread_.loop(), thread_.loop().io(), dns);
  if (!client.ok()) return client.status();
  dns_ = *std::move(client);
  resolver_ = std::make_unique<delivery::CachingMxResolver>(
      thread_.loop(), *dns_, delivery::MxResolverOptions(), std::random_device()());
  resolver_->SetMaxLookups(policy->global().dns_workers());
  lookups_ahead_ = std::make_unique<delivery::LookupsAhead>(
      thread_.loop(),
      [this](const std::string& domain, MonotonicTime until, delivery::MxResolver::Done done) {
        resolver_->Refresh(domain, until, std::move(done));
      });
  connections_ = std::make_unique<delivery::OutboundConnections>(thread_.loop());
  delivery::WorkerOptions worker;
  worker.name = options_.instance;
  worker.log = options_.log;
  // Grows with every start: the wall clock, in milliseconds.
  worker.incarnation = static_cast<uint64_t>(ToUnixMicros(Clock::Real().WallNow()) / 1000);
  worker.addresses = options_.source_ips.empty() ? MachineAddresses() : options_.source_ips;
  worker.follows_owners = follows_owners;
  incarnation_ = worker.incarnation;
  worker.only_listed = !options_.source_ips.empty();
  policy_ = policy;
  policy_since_ = thread_.loop().clock().Now();
  if (absl::Status status = SetUpReceiverTls(*policy); !status.ok()) return status;
  local_ = std::make_unique<delivery::LocalConnections>(
      thread_.loop(), receiver_tls_->connections(), delivery::LocalOptions());
  worker_ =
      std::make_unique<delivery::Worker>(worker, thread_.loop(), *resolver_, *local_, shards_);
  if (!options_.data_dir.empty()) {
    volumes_ = std::make_unique<VolumesFile>(options_.data_dir + "/delivery/volumes",
                                             thread_.loop(), options_.log);
    if (const auto records = volumes_->Take(); !records.boot().empty()) {
      worker_->TakeOverVolumes(records);
    }
    worker_->set_volume_ledger(volumes_.get());
  }
  lookups_ahead_->SetPolicy(policy->global());
  worker_->SetPolicy(std::move(policy));
  worker_->Start();
  thread_.Start();
  return absl::OkStatus();
}

void DeliveryPart::FollowOwners(config::PolicyWatcher& watcher) {
  watcher_ = &watcher;
  watcher.set_on_owners([this](std::shared_ptr<const config::Owners> owners) {
    worker_->SetOwners(std::move(owners));
  });
  watcher.set_on_lease([this](MonotonicTime until, const policy::v1::SourceLease& lease) {
    worker_->SetLease(until, Duration(lease.grace_us()));
  });
  worker_->set_on_released([this](uint64_t) { Report(); });
  Report();
}

void DeliveryPart::Report() {
  policy::v1::ServiceReport report;
  report.set_incarnation(incarnation_);
  report.set_released_epoch(worker_->released_epoch());
  for (const std::string& ip : worker_->owned_sources()) report.add_owned_source_ips(ip);
  for (const std::string& ip : worker_->missing_sources()) report.add_missing_source_ips(ip);
  watcher_->SetReport(std::move(report));
}

void DeliveryPart::StopFollowing() {
  worker_->set_on_released(nullptr);
  watcher_ = nullptr;
}

absl::Status DeliveryPart::SetUpReceiverTls(const config::PolicyView& policy) {
  delivery::ReceiverTlsOptions options;
  if (!options_.data_dir.empty()) {
    options.data_dir = options_.data_dir + "/delivery";
    std::error_code error;
    std::filesystem::create_directories(options.data_dir, error);
    if (error) {
      return absl::FailedPreconditionError(
          absl::StrCat("cannot make ", options.data_dir, ": ", error.message()));
    }
  }
  options.host_name = policy.global().host_name();
  options.instance = options_.instance;
  options.report_period = std::chrono::seconds(options_.tls_report_period_s);
  options.may_be_private = [this](const std::string& domain) {
    return policy_->ForQueue(domain, "default", "")->allow_private_destinations();
  };
  if (!intake_.empty()) {
    mailer_ = std::make_unique<ReportMailer>(thread_.loop(), intake_, std::random_device()(),
                                             options_.log);
    mailer_->SetPolicy(policy_);
    options.send_mail = [this](delivery::TlsReportMail mail) { mailer_->Send(std::move(mail)); };
  }
  auto made =
      delivery::ReceiverTls::Create(thread_.loop(), *dns_, *connections_, std::move(options));
  if (!made.ok()) return made.status();
  receiver_tls_ = *std::move(made);
  WarnOfDane(policy);
  return absl::OkStatus();
}

// DANE without a validating resolver on loopback checks nothing: somebody should know.
void DeliveryPart::WarnOfDane(const config::PolicyView& policy) const {
  if (options_.log == nullptr || dns_->trusted()) return;
  for (const auto* vmta : policy.virtual_mtas()) {
    if (!policy.ForQueue("any.invalid", vmta->name(), "")->use_dane()) continue;
    options_.log->Warn("dane_without_resolver",
                       "use-dane has no effect: not every name server is on loopback", {});
    return;
  }
}

void DeliveryPart::SetPolicy(std::shared_ptr<const config::PolicyView> policy) {
  policy_ = policy;
  policy_since_ = thread_.loop().clock().Now();
  resolver_->SetMaxLookups(policy_->global().dns_workers());
  WarnOfDane(*policy_);
  if (mailer_ != nullptr) mailer_->SetPolicy(policy_);
  lookups_ahead_->SetPolicy(policy->global());
  worker_->SetPolicy(std::move(policy));
}

delivery::v1::GetWorkerStatusResponse DeliveryPart::Status(
    const delivery::v1::GetWorkerStatusRequest& request) {
  auto status = worker_->Status(request.with_connections(), request.queue_pattern());
  if (policy_->version() != 0) {
    status.set_snapshot_age_us((thread_.loop().clock().Now() - policy_since_).count());
  }
  return status;
}

void DeliveryPart::Drain(Duration limit) {
  if (!thread_.running()) return;
  auto drained = std::make_shared<std::promise<void>>();
  auto future = drained->get_future();
  thread_.loop().Post([this, drained] {
    worker_->Drain([this, drained] {
      if (volumes_ != nullptr) volumes_->Leave(worker_->Volumes());
      drained->set_value();
    });
  });
  future.wait_for(limit);
}

void DeliveryPart::Stop() {
  thread_.Stop();
  worker_.reset();
  volumes_.reset();
  local_.reset();
  receiver_tls_.reset();
  mailer_.reset();
  connections_.reset();
  lookups_ahead_.reset();
  resolver_.reset();
  dns_.reset();
}

}  // namespace sluice::node
