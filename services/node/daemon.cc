#include "services/node/daemon.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/rpc/grpc_stream.h"
#include "services/base/rpc/inproc_stream.h"
#include "services/base/version.h"
#include "services/config/fixed_settings.h"
#include "services/config/policy_watcher.h"
#include "services/node/admin_part.h"
#include "services/node/process.h"
#include "services/node/spool_folder.h"

namespace sluice::node {
namespace {

// How long a service without any snapshot waits for its first one.
constexpr Duration kFirstPolicyWait = std::chrono::seconds(5);
// Four leases are asked for within the length of one.
constexpr Duration kReportEvery = std::chrono::seconds(5);
constexpr Duration kFirstShardWait = std::chrono::seconds(5);
constexpr char kQueueService[] = "/sluice.queue.v1.QueueService/";
constexpr char kWatchMethod[] = "/sluice.policy.v1.PolicyService/WatchPolicy";

template <class Req, class Resp>
std::unique_ptr<StreamClient<Req, Resp>> Remote(const std::shared_ptr<grpc::Channel>& channel,
                                                const std::string& method) {
  return std::make_unique<GrpcStreamClient<Req, Resp>>(channel, kQueueService + method);
}

template <class Req, class Resp>
std::unique_ptr<StreamClient<Req, Resp>> Local(StreamService<Req, Resp>& service) {
  return std::make_unique<InprocStreamClient<Req, Resp>>(service);
}

absl::StatusOr<std::pair<std::string, std::string>> SplitPeer(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not understood: give NAME=HOST:PORT"));
  }
  return std::pair(text.substr(0, equals), text.substr(equals + 1));
}

}  // namespace

// The ways to one shard, for ingest and for delivery.
struct Daemon::ShardLink {
  std::string name;
  std::shared_ptr<grpc::Channel> channel;  // null: in this process
  std::unique_ptr<StreamClient<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse>> enqueue;
  std::unique_ptr<StreamClient<queue::v1::UploadRequest, queue::v1::UploadResponse>> upload;
  std::unique_ptr<StreamClient<queue::v1::DispatchRequest, queue::v1::DispatchResponse>> dispatch;
  std::unique_ptr<StreamClient<queue::v1::FetchBodyRequest, queue::v1::FetchBodyResponse>> fetch;
};

struct Daemon::Follower {
  std::string service;
  LoopThread* thread = nullptr;
  std::unique_ptr<config::WatchPolicyClient> client;
  std::unique_ptr<config::PolicyWatcher> watcher;
};

Daemon::Daemon(Options options) : options_(std::move(options)) {}

Daemon::~Daemon() { Stop(); }

absl::Status Daemon::Start() {
  std::error_code error;
  std::filesystem::create_directories(options_.data_dir, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make the data folder ", options_.data_dir, ": ", error.message()));
  }
  if (Has(Role::kPolicy)) {
    if (absl::Status status = StartPolicy(); !status.ok()) return status;
  } else if (!options_.policy_address.empty()) {
    policy_channel_ = MakeChannel(options_.policy_address,
                                  {options_.tls_cert, options_.tls_key, options_.tls_ca});
  }
  const std::shared_ptr<const config::PolicyView> view =
      policy_ != nullptr ? policy_->first_view() : FirstView();
  UseLogFile(*view);
  started_with_ = config::FixedSettings(view->global());
  if (Has(Role::kQueue)) {
    const std::string directive = policy_ != nullptr ? view->global().disk_queue() : "";
    auto spool = SpoolFolder(options_.data_dir, options_.spool_dir, directive);
    if (!spool.ok()) return spool.status();
    if (absl::Status status = StartQueue(*spool, *view); !status.ok()) return status;
    queue_->SetPolicy(view);
  }
  for (const std::string& text : options_.shards) {
    auto peer = SplitPeer(text);
    if (!peer.ok()) return peer.status();
    const bool known = std::any_of(shards_.begin(), shards_.end(), [&peer](const auto& other) {
      return other->name == peer->first;
    });
    if (known) {
      return absl::InvalidArgumentError(
          absl::StrCat("two queue shards have the name ", peer->first));
    }
    auto link = std::make_unique<ShardLink>();
    link->name = peer->first;
    link->channel =
        MakeChannel(peer->second, {options_.tls_cert, options_.tls_key, options_.tls_ca});
    link->enqueue =
        Remote<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse>(link->channel, "Enqueue");
    link->upload =
        Remote<queue::v1::UploadRequest, queue::v1::UploadResponse>(link->channel, "Upload");
    link->dispatch =
        Remote<queue::v1::DispatchRequest, queue::v1::DispatchResponse>(link->channel, "Dispatch");
    link->fetch = Remote<queue::v1::FetchBodyRequest, queue::v1::FetchBodyResponse>(link->channel,
                                                                                    "FetchBody");
    shards_.push_back(std::move(link));
  }
  if (shards_.empty() && (options_.role == Role::kIngest || options_.role == Role::kDelivery)) {
    return absl::InvalidArgumentError("no queue shard is given: --shard NAME=HOST:PORT");
  }
  if (Has(Role::kIngest)) {
    if (absl::Status status = StartIngest(view); !status.ok()) return status;
  }
  if (Has(Role::kDelivery)) {
    if (absl::Status status = StartDelivery(view); !status.ok()) return status;
  }
  if (absl::Status status = StartAdmin(); !status.ok()) return status;
  if (absl::Status status = StartServer(); !status.ok()) return status;
  if (absl::Status status = StartAdminServer(); !status.ok()) return status;
  if (absl::Status status = StartMetrics(); !status.ok()) return status;
  serving_ = true;
  if (ingest_ != nullptr) {
    // Ready means that mail is taken: the streams to the shards are up. Shards that are away do not
    // keep us from starting.
    const MonotonicTime end = Clock::Real().Now() + kFirstShardWait;
    while (!ingest_->ready() && Clock::Real().Now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  server_->SetReady(true);
  if (admin_server_ != nullptr) admin_server_->SetReady(true);
  return WriteReady();
}

void Daemon::UseLogFile(const config::PolicyView& policy) {
  if (options_.log_file == nullptr) return;
  const auto& global = policy.global();
  LogFileOptions file;
  file.path = options_.log_path;
  if (file.path.empty() && options_.role == Role::kNode) file.path = global.log_file();
  if (!file.path.empty() && file.path[0] != '/') {
    file.path = absl::StrCat(options_.data_dir, "/", file.path);
  }
  file.keep = global.log_rotate();
  file.daily = global.log_auto_rotation();
  file.world_readable = global.log_file_world_readable();
  const absl::Status status = options_.log_file->Use(file);
  if (!status.ok() && options_.log != nullptr) {
    options_.log->Error("log_file_failed", std::string(status.message()));
  }
}

std::shared_ptr<const config::PolicyView> Daemon::FirstView() {
  if (policy_channel_ == nullptr) return config::PolicyView::Defaults();
  struct First {
    std::promise<std::shared_ptr<const config::PolicyView>> promise;
    bool given = false;
  };
  auto first = std::make_shared<First>();
  auto future = first->promise.get_future();
  const std::string service(RoleName(options_.role).substr(sizeof("sluice-") - 1));
  LoopThread thread("first-policy");
  GrpcStreamClient<policy::v1::WatchPolicyRequest, policy::v1::WatchPolicyResponse> client(
      policy_channel_, kWatchMethod);
  config::PolicyWatcherOptions options;
  options.hello.set_service(service);
  options.hello.set_instance(options_.instance);
  options.hello.set_keeps_owners(service == "queue");
  options.snapshot_file = options_.data_dir + "/" + service + ".snapshot";
  config::PolicyWatcher watcher(thread.loop(), client, std::move(options),
                                [first](std::shared_ptr<const config::PolicyView> view) {
                                  if (std::exchange(first->given, true)) return;
                                  first->promise.set_value(std::move(view));
                                });
  watcher.Start();
  thread.Start();
  const bool came = future.wait_for(kFirstPolicyWait) == std::future_status::ready;
  thread.Stop();
  return came ? future.get() : config::PolicyView::Defaults();
}

absl::Status Daemon::StartPolicy() {
  policy_ = std::make_unique<PolicyPart>(options_);
  return policy_->Start();
}

absl::Status Daemon::StartQueue(const std::string& spool_folder, const config::PolicyView& policy) {
  queue_ = std::make_unique<QueuePart>(options_);
  queue_->set_cache_shards(policy.global().queue_shards());
  absl::Status status = queue_->Start(spool_folder, [this](const absl::Status&) {
    failed_ = true;
    // The main thread waits for this: the process ends, and is started again.
    kill(getpid(), SIGTERM);
  });
  if (!status.ok()) return status;
  Follow(
      "queue", queue_->thread(),
      [this](std::shared_ptr<const config::PolicyView> view) {
        queue_->SetPolicy(std::move(view));
      },
      [this](config::PolicyWatcher& watcher) {
        watcher.set_on_owners([this, &watcher](std::shared_ptr<const config::Owners> owners) {
          policy::v1::ServiceReport report;
          report.set_shard(options_.shard);
          report.set_released_epoch(owners->epoch());
          queue_->shard().SetOwners(std::move(owners));
          watcher.SetReport(std::move(report));
        });
      });
  if (options_.role != Role::kNode) return absl::OkStatus();
  auto link = std::make_unique<ShardLink>();
  link->name = options_.shard;
  link->enqueue = Local(queue_->shard().enqueue());
  link->upload = Local(queue_->shard().upload());
  link->dispatch = Local(queue_->shard().dispatch());
  link->fetch = Local(queue_->shard().fetch_body());
  shards_.push_back(std::move(link));
  return absl::OkStatus();
}

absl::Status Daemon::StartIngest(const std::shared_ptr<const config::PolicyView>& policy) {
  std::vector<ingest::ShardEndpoint> endpoints;
  for (const auto& link : shards_) {
    endpoints.push_back({link->name, link->enqueue.get(), link->upload.get()});
  }
  ingest_ = std::make_unique<IngestPart>(options_, std::move(endpoints));
  if (absl::Status status = ingest_->Start(policy); !status.ok()) return status;
  Follow("ingest", ingest_->first_thread(), [this](std::shared_ptr<const config::PolicyView> view) {
    ingest_->SetPolicy(std::move(view));
  });
  return absl::OkStatus();
}

absl::Status Daemon::StartDelivery(const std::shared_ptr<const config::PolicyView>& policy) {
  std::vector<delivery::ShardAddress> addresses;
  for (const auto& link : shards_) {
    addresses.push_back({link->name, link->dispatch.get(), link->fetch.get()});
  }
  std::vector<ingest::ShardEndpoint> intake;
  for (const auto& link : shards_) {
    intake.push_back({link->name, link->enqueue.get(), link->upload.get()});
  }
  delivery_ = std::make_unique<DeliveryPart>(options_, std::move(addresses), std::move(intake));
  if (absl::Status status =
          delivery_->Start(policy, policy_ != nullptr || policy_channel_ != nullptr);
      !status.ok())
    return status;
  Follow(
      "delivery", delivery_->thread(),
      [this](std::shared_ptr<const config::PolicyView> view) {
        delivery_->SetPolicy(std::move(view));
        delivery_->Report();
      },
      [this](config::PolicyWatcher& watcher) { delivery_->FollowOwners(watcher); });
  return absl::OkStatus();
}

void Daemon::Follow(const std::string& service, LoopThread& thread,
                    std::function<void(std::shared_ptr<const config::PolicyView>)> use,
                    std::function<void(config::PolicyWatcher&)> prepare) {
  auto follower = std::make_unique<Follower>();
  follower->service = service;
  follower->thread = &thread;
  if (policy_ != nullptr) {
    follower->client = std::make_unique<
        InprocStreamClient<policy::v1::WatchPolicyRequest, policy::v1::WatchPolicyResponse>>(
        policy_->policy().watch());
  } else if (policy_channel_ != nullptr) {
    follower->client = std::make_unique<
        GrpcStreamClient<policy::v1::WatchPolicyRequest, policy::v1::WatchPolicyResponse>>(
        policy_channel_, kWatchMethod);
  } else {
    return;
  }
  use = [this, use = std::move(use)](std::shared_ptr<const config::PolicyView> view) {
    UseLogFile(*view);
    use(std::move(view));
  };
  thread.Call([&] {
    config::PolicyWatcherOptions options;
    options.hello.set_service(service);
    options.hello.set_instance(options_.instance);
    options.hello.set_keeps_owners(std::string_view(service) == "queue");
    *options.hello.mutable_started_with() = started_with_;
    if (!options_.smtp_listen.empty()) options.hello.add_flags_decide("smtp-listener");
    if (policy_ == nullptr || !options_.spool_dir.empty()) {
      options.hello.add_flags_decide("disk-queue");
    }
    options.log = options_.log;
    if (policy_ == nullptr) options.snapshot_file = options_.data_dir + "/" + service + ".snapshot";
    if (service == "delivery" || service == "queue") options.report_every = kReportEvery;
    follower->watcher = std::make_unique<config::PolicyWatcher>(thread.loop(), *follower->client,
                                                                std::move(options), std::move(use));
    if (prepare) prepare(*follower->watcher);
    follower->watcher->Start();
  });
  followers_.push_back(std::move(follower));
}

absl::Status Daemon::StartAdmin() {
  if (policy_ == nullptr) return absl::OkStatus();
  Executor& executor = policy_->thread().loop();
  policy::AdminPeers::Shards shards;
  policy::AdminPeers::Workers workers;
  if (queue_ != nullptr) shards.push_back(LocalShard(executor, queue_->loop(), queue_->shard()));
  for (const auto& link : shards_) {
    if (link->channel != nullptr) {
      shards.push_back(RemoteShard(executor, link->name, link->channel));
    }
  }
  if (delivery_ != nullptr) {
    workers.push_back(LocalWorker(
        executor, delivery_->loop(),
        [this](const auto& request) { return delivery_->Status(request); }, options_.instance));
  }
  for (const std::string& text : options_.workers) {
    auto peer = SplitPeer(text);
    if (!peer.ok()) return peer.status();
    workers.push_back(RemoteWorker(
        executor, peer->first,
        MakeChannel(peer->second, {options_.tls_cert, options_.tls_key, options_.tls_ca})));
  }
  peers_ = std::make_unique<policy::FixedPeers>(std::move(shards), std::move(workers));
  policy::AdminOptions options;
  options.version = std::string(kVersion);
  admin_ =
      std::make_unique<policy::Admin>(executor, policy_->policy(), *peers_, std::move(options));
  admin_access_ = std::make_unique<AdminAccess>(options_.admin_tokens, Clock::Real(), options_.log);
  return admin_access_->Load();
}

absl::Status Daemon::StartServer() {
  RpcServerOptions options;
  options.addresses = options_.rpc_listen;
  if (options.addresses.empty()) options.addresses = {"127.0.0.1:7100"};
  options.tls = {options_.tls_cert, options_.tls_key, options_.tls_ca};
  options.allow_insecure = options_.allow_insecure_rpc;
  if (admin_access_ != nullptr) {
    options.admit = [this](const RpcCall& call) { return admin_access_->Admit(call); };
  }
  server_ = std::make_unique<RpcServer>(std::move(options));
  if (queue_ != nullptr) {
    queue::Shard& shard = queue_->shard();
    server_->AddStream(absl::StrCat(kQueueService, "Enqueue"), shard.enqueue());
    server_->AddStream(absl::StrCat(kQueueService, "Upload"), shard.upload());
    server_->AddStream(absl::StrCat(kQueueService, "Dispatch"), shard.dispatch());
    server_->AddStream(absl::StrCat(kQueueService, "FetchBody"), shard.fetch_body());
    ServeQueueControl(*server_, queue_->loop(), shard);
  }
  if (ingest_ != nullptr) {
    server_->AddStream("/sluice.ingest.v1.IngestService/InjectStream", ingest_->inject());
    server_->AddUnaryWithPeer<ingest::v1::InjectRequest, ingest::v1::InjectResponse>(
        "/sluice.ingest.v1.IngestService/Inject", ingest_->loop(),
        [this](const std::string& peer, ingest::v1::InjectRequest request,
               Done<ingest::v1::InjectResponse> done) {
          ingest_->inject().InjectFrom(ingest_->inject().OriginOf(peer), std::move(request),
                                       std::move(done));
        });
  }
  if (delivery_ != nullptr) {
    server_->AddUnary<delivery::v1::GetWorkerStatusRequest, delivery::v1::GetWorkerStatusResponse>(
        "/sluice.delivery.v1.DeliveryService/GetWorkerStatus", delivery_->loop(),
        [this](delivery::v1::GetWorkerStatusRequest request,
               Done<delivery::v1::GetWorkerStatusResponse> done) {
          done(delivery_->Status(request));
        });
  }
  if (policy_ != nullptr) {
    server_->AddStream(kWatchMethod, policy_->policy().watch());
    ServeAdmin(*server_, *admin_);
  }
  return server_->Start();
}

absl::Status Daemon::StartAdminServer() {
  if (options_.admin_listen.empty()) return absl::OkStatus();
  RpcServerOptions options;
  options.addresses = options_.admin_listen;
  options.tls = {options_.tls_cert, options_.tls_key, ""};
  options.allow_insecure = options_.allow_insecure_rpc;
  options.client_certificates = false;
  options.admit = [this](const RpcCall& call) { return admin_access_->AdmitByToken(call); };
  admin_server_ = std::make_unique<RpcServer>(std::move(options));
  ServeAdmin(*admin_server_, *admin_);
  return admin_server_->Start();
}

absl::Status Daemon::StartMetrics() {
  if (options_.metrics_listen.empty()) return absl::OkStatus();
  HttpStatusHandlers handlers;
  handlers.metrics = [this] { return Metrics(); };
  handlers.not_ready_reason = [this] { return NotReadyReason(); };
  auto http = HttpStatus::Open(status_thread_.loop(), options_.metrics_listen, std::move(handlers));
  if (!http.ok()) return http.status();
  http_ = *std::move(http);
  status_thread_.Start();
  return absl::OkStatus();
}

std::vector<std::pair<std::string, bool>> Daemon::PolicyLinks() {
  std::vector<std::pair<std::string, bool>> links;
  for (const auto& follower : followers_) {
    links.emplace_back(follower->service,
                       follower->thread->Call([&] { return follower->watcher->connected(); }));
  }
  return links;
}

std::string Daemon::NotReadyReason() {
  if (!serving_) return "starting or stopping";
  if (failed_) return "the spool failed";
  if (ingest_ != nullptr && !ingest_->ready()) return "no queue shard takes messages";
  return "";
}

absl::Status Daemon::WriteReady() {
  if (options_.ready_file.empty()) return absl::OkStatus();
  std::vector<std::pair<std::string, std::string>> fields;
  fields.emplace_back("rpc", server_->addresses()[0]);
  if (admin_server_ != nullptr) fields.emplace_back("admin", admin_server_->addresses()[0]);
  if (ingest_ != nullptr) fields.emplace_back("smtp", ingest_->addresses()[0]);
  if (http_ != nullptr) fields.emplace_back("metrics", http_->address());
  return WriteReadyFile(options_.ready_file, fields);
}

std::string Daemon::Reload() {
  if (policy_ == nullptr) return "SIGHUP: this process reads no directive files";
  return policy_->Reload();
}

void Daemon::Stop() {
  serving_ = false;
  const Duration limit = std::chrono::seconds(options_.stop_timeout_s);
  if (!options_.ready_file.empty()) unlink(options_.ready_file.c_str());
  for (RpcServer* server : {server_.get(), admin_server_.get()}) {
    if (server != nullptr) server->SetReady(false);
  }
  if (ingest_ != nullptr) {
    ingest_->StopAccepting();
    ingest_->Drain(limit);
  }
  if (delivery_ != nullptr) delivery_->Drain(limit);
  if (queue_ != nullptr && !failed_) queue_->Drain();
  // /metrics looks at them.
  std::vector<std::unique_ptr<Follower>> followers;
  status_thread_.Call([&] { followers.swap(followers_); });
  for (auto& follower : followers) {
    follower->thread->Call([this, &follower] {
      if (delivery_ != nullptr && follower->thread == &delivery_->thread()) {
        delivery_->StopFollowing();
      }
      follower->watcher.reset();
    });
  }
  followers.clear();
  for (RpcServer* server : {server_.get(), admin_server_.get()}) {
    if (server != nullptr) server->Shutdown(std::chrono::milliseconds(200));
  }
  status_thread_.Stop();
  http_.reset();
  if (ingest_ != nullptr) ingest_->Stop();
  if (delivery_ != nullptr) delivery_->Stop();
  if (queue_ != nullptr) queue_->Stop();
  if (policy_ != nullptr) policy_->Stop();
  server_.reset();
  admin_server_.reset();
  admin_.reset();
  peers_.reset();
  ingest_.reset();
  delivery_.reset();
  shards_.clear();
  queue_.reset();
  policy_.reset();
}

}  // namespace sluice::node
