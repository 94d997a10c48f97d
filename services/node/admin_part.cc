#include "services/node/admin_part.h"

#include <utility>

namespace sluice::node {
namespace {

constexpr char kQueueControl[] = "/sluice.queue.v1.QueueControlService/";
constexpr char kAdmin[] = "/sluice.admin.v1.AdminService/";
constexpr char kWorkerStatus[] = "/sluice.delivery.v1.DeliveryService/GetWorkerStatus";
constexpr Duration kPeerDeadline = std::chrono::seconds(30);

template <class Owner, class Req, class Resp>
void Serve(RpcServer& server, Executor& executor, Owner& owner, const std::string& method,
           void (Owner::*call)(Req, Done<Resp>)) {
  server.AddUnary<Req, Resp>(method, executor, [&owner, call](Req request, Done<Resp> done) {
    (owner.*call)(std::move(request), std::move(done));
  });
}

class LocalShardClient final : public policy::QueueControlClient {
 public:
  LocalShardClient(Executor& admin, Executor& executor, queue::Shard& shard)
      : admin_(admin), executor_(executor), shard_(shard) {}
  const std::string& name() const override { return shard_.options().name; }
  void GetShardStatus(queue::v1::GetShardStatusRequest request,
                      Done<queue::v1::GetShardStatusResponse> done) override {
    Call(&queue::Shard::GetShardStatus, std::move(request), std::move(done));
  }
  void ListQueues(queue::v1::ListQueuesRequest request,
                  Done<queue::v1::ListQueuesResponse> done) override {
    Call(&queue::Shard::ListQueues, std::move(request), std::move(done));
  }
  void GetQueue(queue::v1::GetQueueRequest request,
                Done<queue::v1::GetQueueResponse> done) override {
    Call(&queue::Shard::GetQueue, std::move(request), std::move(done));
  }
  void ListMessages(queue::v1::ListMessagesRequest request,
                    Done<queue::v1::ListMessagesResponse> done) override {
    Call(&queue::Shard::ListMessages, std::move(request), std::move(done));
  }
  void GetMessage(queue::v1::GetMessageRequest request,
                  Done<queue::v1::GetMessageResponse> done) override {
    Call(&queue::Shard::GetMessage, std::move(request), std::move(done));
  }
  void DeleteMessages(queue::v1::DeleteMessagesRequest request,
                      Done<queue::v1::DeleteMessagesResponse> done) override {
    Call(&queue::Shard::DeleteMessages, std::move(request), std::move(done));
  }
  void RetryQueues(queue::v1::RetryQueuesRequest request,
                   Done<queue::v1::RetryQueuesResponse> done) override {
    Call(&queue::Shard::RetryQueues, std::move(request), std::move(done));
  }
  void SetQueueMode(queue::v1::SetQueueModeRequest request,
                    Done<queue::v1::SetQueueModeResponse> done) override {
    Call(&queue::Shard::SetQueueMode, std::move(request), std::move(done));
  }
  void SetQueueSource(queue::v1::SetQueueSourceRequest request,
                      Done<queue::v1::SetQueueSourceResponse> done) override {
    Call(&queue::Shard::SetQueueSource, std::move(request), std::move(done));
  }
  void ConfirmClock(queue::v1::ConfirmClockRequest request,
                    Done<queue::v1::ConfirmClockResponse> done) override {
    Call(&queue::Shard::ConfirmClock, std::move(request), std::move(done));
  }
  void RerouteMessages(queue::v1::RerouteMessagesRequest request,
                       Done<queue::v1::RerouteMessagesResponse> done) override {
    Call(&queue::Shard::RerouteMessages, std::move(request), std::move(done));
  }
  void ReleaseMessages(queue::v1::ReleaseMessagesRequest request,
                       Done<queue::v1::ReleaseMessagesResponse> done) override {
    Call(&queue::Shard::ReleaseMessages, std::move(request), std::move(done));
  }
  void ReadEvents(queue::v1::ReadEventsRequest request,
                  Done<queue::v1::ReadEventsResponse> done) override {
    Call(&queue::Shard::ReadEvents, std::move(request), std::move(done));
  }

 private:
  // Over to the shard's loop, and back with the answer.
  template <class Req, class Resp>
  void Call(void (queue::Shard::*method)(Req, Done<Resp>), Req request, Done<Resp> done) {
    executor_.Post([this, method, request = std::move(request), done = std::move(done)]() mutable {
      (shard_.*method)(std::move(request), [&admin = admin_, done = std::move(done)](
                                               absl::StatusOr<Resp> response) mutable {
        admin.Post([done = std::move(done), response = std::move(response)]() mutable {
          done(std::move(response));
        });
      });
    });
  }

  Executor& admin_;
  Executor& executor_;
  queue::Shard& shard_;
};

class RemoteShardClient final : public policy::QueueControlClient {
 public:
  RemoteShardClient(Executor& admin, std::string name, std::shared_ptr<grpc::Channel> channel)
      : admin_(admin), name_(std::move(name)), channel_(std::move(channel)) {}
  const std::string& name() const override { return name_; }
  void GetShardStatus(queue::v1::GetShardStatusRequest request,
                      Done<queue::v1::GetShardStatusResponse> done) override {
    Call("GetShardStatus", request, std::move(done));
  }
  void ListQueues(queue::v1::ListQueuesRequest request,
                  Done<queue::v1::ListQueuesResponse> done) override {
    Call("ListQueues", request, std::move(done));
  }
  void GetQueue(queue::v1::GetQueueRequest request,
                Done<queue::v1::GetQueueResponse> done) override {
    Call("GetQueue", request, std::move(done));
  }
  void ListMessages(queue::v1::ListMessagesRequest request,
                    Done<queue::v1::ListMessagesResponse> done) override {
    Call("ListMessages", request, std::move(done));
  }
  void GetMessage(queue::v1::GetMessageRequest request,
                  Done<queue::v1::GetMessageResponse> done) override {
    Call("GetMessage", request, std::move(done));
  }
  void DeleteMessages(queue::v1::DeleteMessagesRequest request,
                      Done<queue::v1::DeleteMessagesResponse> done) override {
    Call("DeleteMessages", request, std::move(done));
  }
  void RetryQueues(queue::v1::RetryQueuesRequest request,
                   Done<queue::v1::RetryQueuesResponse> done) override {
    Call("RetryQueues", request, std::move(done));
  }
  void SetQueueMode(queue::v1::SetQueueModeRequest request,
                    Done<queue::v1::SetQueueModeResponse> done) override {
    Call("SetQueueMode", request, std::move(done));
  }
  void SetQueueSource(queue::v1::SetQueueSourceRequest request,
                      Done<queue::v1::SetQueueSourceResponse> done) override {
    Call("SetQueueSource", request, std::move(done));
  }
  void ConfirmClock(queue::v1::ConfirmClockRequest request,
                    Done<queue::v1::ConfirmClockResponse> done) override {
    Call("ConfirmClock", request, std::move(done));
  }
  void RerouteMessages(queue::v1::RerouteMessagesRequest request,
                       Done<queue::v1::RerouteMessagesResponse> done) override {
    Call("RerouteMessages", request, std::move(done));
  }
  void ReleaseMessages(queue::v1::ReleaseMessagesRequest request,
                       Done<queue::v1::ReleaseMessagesResponse> done) override {
    Call("ReleaseMessages", request, std::move(done));
  }
  void ReadEvents(queue::v1::ReadEventsRequest request,
                  Done<queue::v1::ReadEventsResponse> done) override {
    Call("ReadEvents", request, std::move(done));
  }

 private:
  template <class Req, class Resp>
  void Call(const char* method, const Req& request, Done<Resp> done) {
    CallUnary<Req, Resp>(channel_, std::string(kQueueControl) + method, request, kPeerDeadline,
                         admin_, std::move(done));
  }

  Executor& admin_;
  const std::string name_;
  const std::shared_ptr<grpc::Channel> channel_;
};

class LocalWorkerClient final : public policy::WorkerClient {
 public:
  LocalWorkerClient(Executor& admin, Executor& executor, WorkerStatus status, std::string name)
      : admin_(admin), executor_(executor), status_(std::move(status)), name_(std::move(name)) {}
  const std::string& name() const override { return name_; }
  void GetWorkerStatus(delivery::v1::GetWorkerStatusRequest request,
                       Done<delivery::v1::GetWorkerStatusResponse> done) override {
    executor_.Post([this, request = std::move(request), done = std::move(done)]() mutable {
      admin_.Post([done = std::move(done), status = status_(request)]() mutable {
        done(std::move(status));
      });
    });
  }

 private:
  Executor& admin_;
  Executor& executor_;
  const WorkerStatus status_;
  const std::string name_;
};

class RemoteWorkerClient final : public policy::WorkerClient {
 public:
  RemoteWorkerClient(Executor& admin, std::string name, std::shared_ptr<grpc::Channel> channel)
      : admin_(admin), name_(std::move(name)), channel_(std::move(channel)) {}
  const std::string& name() const override { return name_; }
  void GetWorkerStatus(delivery::v1::GetWorkerStatusRequest request,
                       Done<delivery::v1::GetWorkerStatusResponse> done) override {
    CallUnary<delivery::v1::GetWorkerStatusRequest, delivery::v1::GetWorkerStatusResponse>(
        channel_, kWorkerStatus, request, kPeerDeadline, admin_, std::move(done));
  }

 private:
  Executor& admin_;
  const std::string name_;
  const std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace

void ServeQueueControl(RpcServer& server, Executor& executor, queue::Shard& shard) {
  const std::string prefix = kQueueControl;
  Serve(server, executor, shard, prefix + "GetShardStatus", &queue::Shard::GetShardStatus);
  Serve(server, executor, shard, prefix + "ListQueues", &queue::Shard::ListQueues);
  Serve(server, executor, shard, prefix + "GetQueue", &queue::Shard::GetQueue);
  Serve(server, executor, shard, prefix + "ListMessages", &queue::Shard::ListMessages);
  Serve(server, executor, shard, prefix + "GetMessage", &queue::Shard::GetMessage);
  Serve(server, executor, shard, prefix + "DeleteMessages", &queue::Shard::DeleteMessages);
  Serve(server, executor, shard, prefix + "RetryQueues", &queue::Shard::RetryQueues);
  Serve(server, executor, shard, prefix + "RerouteMessages", &queue::Shard::RerouteMessages);
  Serve(server, executor, shard, prefix + "ReleaseMessages", &queue::Shard::ReleaseMessages);
  Serve(server, executor, shard, prefix + "SetQueueMode", &queue::Shard::SetQueueMode);
  Serve(server, executor, shard, prefix + "SetQueueSource", &queue::Shard::SetQueueSource);
  Serve(server, executor, shard, prefix + "ConfirmClock", &queue::Shard::ConfirmClock);
  Serve(server, executor, shard, prefix + "ReadEvents", &queue::Shard::ReadEvents);
}

void ServeAdmin(RpcServer& server, policy::Admin& admin) {
  const std::string prefix = kAdmin;
  Executor& executor = admin.executor();
  Serve(server, executor, admin, prefix + "GetStatus", &policy::Admin::GetStatus);
  Serve(server, executor, admin, prefix + "ListQueues", &policy::Admin::ListQueues);
  Serve(server, executor, admin, prefix + "GetQueue", &policy::Admin::GetQueue);
  Serve(server, executor, admin, prefix + "ListMessages", &policy::Admin::ListMessages);
  Serve(server, executor, admin, prefix + "GetMessage", &policy::Admin::GetMessage);
  Serve(server, executor, admin, prefix + "DeleteMessages", &policy::Admin::DeleteMessages);
  Serve(server, executor, admin, prefix + "RetryQueues", &policy::Admin::RetryQueues);
  Serve(server, executor, admin, prefix + "SetQueueMode", &policy::Admin::SetQueueMode);
  Serve(server, executor, admin, prefix + "SetQueueSource", &policy::Admin::SetQueueSource);
  Serve(server, executor, admin, prefix + "ConfirmClock", &policy::Admin::ConfirmClock);
  Serve(server, executor, admin, prefix + "RerouteMessages", &policy::Admin::RerouteMessages);
  Serve(server, executor, admin, prefix + "ReleaseMessages", &policy::Admin::ReleaseMessages);
  Serve(server, executor, admin, prefix + "ListEvents", &policy::Admin::ListEvents);
  Serve(server, executor, admin, prefix + "Pause", &policy::Admin::Pause);
  Serve(server, executor, admin, prefix + "Resume", &policy::Admin::Resume);
  Serve(server, executor, admin, prefix + "ListPauses", &policy::Admin::ListPauses);
  Serve(server, executor, admin, prefix + "ListOwners", &policy::Admin::ListOwners);
  Serve(server, executor, admin, prefix + "ReloadConfig", &policy::Admin::ReloadConfig);
  Serve(server, executor, admin, prefix + "CheckConfig", &policy::Admin::CheckConfig);
  Serve(server, executor, admin, prefix + "ExplainConfig", &policy::Admin::ExplainConfig);
}

std::shared_ptr<policy::QueueControlClient> LocalShard(Executor& admin, Executor& executor,
                                                       queue::Shard& shard) {
  return std::make_shared<LocalShardClient>(admin, executor, shard);
}

std::shared_ptr<policy::QueueControlClient> RemoteShard(Executor& admin, std::string name,
                                                        std::shared_ptr<grpc::Channel> channel) {
  return std::make_shared<RemoteShardClient>(admin, std::move(name), std::move(channel));
}

std::shared_ptr<policy::WorkerClient> LocalWorker(Executor& admin, Executor& executor,
                                                  WorkerStatus status, std::string name) {
  return std::make_shared<LocalWorkerClient>(admin, executor, std::move(status), std::move(name));
}

std::shared_ptr<policy::WorkerClient> RemoteWorker(Executor& admin, std::string name,
                                                   std::shared_ptr<grpc::Channel> channel) {
  return std::make_shared<RemoteWorkerClient>(admin, std::move(name), std::move(channel));
}

}  // namespace sluice::node
