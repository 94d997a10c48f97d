// One queue shard: keeps accepted mail, dispatches it to workers, retries, expires, bounces. An
// actor on one executor; every durable change goes through one journal (group commit), and nothing
// is promised to anybody before its batch is durable.
//
// The code lies in the shard_*.cc beside this file; services/queue/README.md says which has what.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "services/base/rpc/stream.h"
#include "services/base/rpc/unary.h"
#include "services/config/bounce_categories.h"
#include "services/config/owners.h"
#include "services/config/policy_view.h"
#include "services/queue/core/dispatch_order.h"
#include "services/queue/core/journal.h"
#include "services/queue/core/queue_table.h"
#include "services/queue/core/shard_options.h"
#include "services/queue/core/shard_state.h"
#include "services/queue/core/store.h"
#include "sluice/queue/v1/queue_control.pb.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::queue {

using EnqueueStream = Stream<v1::EnqueueResponse, v1::EnqueueRequest>;
using UploadStream = Stream<v1::UploadResponse, v1::UploadRequest>;
using DispatchStream = Stream<v1::DispatchResponse, v1::DispatchRequest>;
using FetchStream = Stream<v1::FetchBodyResponse, v1::FetchBodyRequest>;

struct WalkRow;
struct Standing;
struct WorkerLine;

// Of a key, for people.
std::string HexOf(std::string_view key);

// Thread-safety: the executor's thread. Lifetime: executor, store and committer outlive it; it
// outlives its streams. Failure: when the store fails it refuses everything and calls on_failed.
class Shard {
 public:
  Shard(const ShardOptions& options, Executor& executor, Store& store, Committer& committer);
  ~Shard();
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;

  // Reads queue rows and leases; then it serves. A row that cannot be read is told and passed over
  // (shard_damage.cc); an error is the store's.
  absl::Status Start();
  void SetPolicy(std::shared_ptr<const config::PolicyView> policy);
  // To which worker each queue goes from now on; queues that belong to another one change hands.
  // Workers keep to the same table by themselves, so a late one here delays mail and nothing else.
  void SetOwners(std::shared_ptr<const config::Owners> owners);
  void set_on_failed(absl::AnyInvocable<void(const absl::Status&)> on_failed);
  // Accepts and leases nothing more; `done` when what was asked before is durable.
  void Drain(absl::AnyInvocable<void()> done);

  StreamService<v1::EnqueueRequest, v1::EnqueueResponse>& enqueue() { return *enqueue_service_; }
  StreamService<v1::UploadRequest, v1::UploadResponse>& upload() { return *upload_service_; }
  StreamService<v1::DispatchRequest, v1::DispatchResponse>& dispatch() {
    return *dispatch_service_;
  }
  StreamService<v1::FetchBodyRequest, v1::FetchBodyResponse>& fetch_body() {
    return *fetch_service_;
  }

  // QueueControlService. Call `done` on the executor, possibly before they return.
  void GetShardStatus(v1::GetShardStatusRequest request, Done<v1::GetShardStatusResponse> done);
  void ListQueues(v1::ListQueuesRequest request, Done<v1::ListQueuesResponse> done);
  void GetQueue(v1::GetQueueRequest request, Done<v1::GetQueueResponse> done);
  void ListMessages(v1::ListMessagesRequest request, Done<v1::ListMessagesResponse> done);
  void GetMessage(v1::GetMessageRequest request, Done<v1::GetMessageResponse> done);
  void DeleteMessages(v1::DeleteMessagesRequest request, Done<v1::DeleteMessagesResponse> done);
  void RetryQueues(v1::RetryQueuesRequest request, Done<v1::RetryQueuesResponse> done);
  void RerouteMessages(v1::RerouteMessagesRequest request, Done<v1::RerouteMessagesResponse> done);
  void ReleaseMessages(v1::ReleaseMessagesRequest request, Done<v1::ReleaseMessagesResponse> done);
  void SetQueueMode(v1::SetQueueModeRequest request, Done<v1::SetQueueModeResponse> done);
  void SetQueueSource(v1::SetQueueSourceRequest request, Done<v1::SetQueueSourceResponse> done);
  void ConfirmClock(v1::ConfirmClockRequest request, Done<v1::ConfirmClockResponse> done);
  void ReadEvents(v1::ReadEventsRequest request, Done<v1::ReadEventsResponse> done);

  Executor& executor() { return executor_; }
  const ShardStats& stats() const { return stats_; }
  const ShardOptions& options() const { return options_; }

 private:
  friend struct WorkerSession;
  using Lease = GroupLease;
  using Count = OutstandingCount;
  using Sweep = SweepPosition;
  using Segment = EventSegment;
  template <class Req, class Resp, class Session>
  struct Service;
  struct EnqueueSession;
  struct UploadSession;
  struct FetchSession;
  struct Walk;
  struct Deletion;

  // ---- enqueue
  // Of the options and of max-queue-size the smaller one that is set; 0: none.
  uint64_t SpoolLimit() const;
  // Idempotency keys are kept by the hour: in the present one, and so many before it.
  static constexpr int64_t kKeyBucketUs = int64_t{3600} * 1'000'000;
  int64_t KeyBucketsBack() const;
  v1::EnqueueResult::Outcome Refusal(std::string* detail);
  void OnEnqueue(EnqueueSession& session, Frame<v1::EnqueueRequest> frame);
  void OnUpload(UploadSession& session, Frame<v1::UploadRequest> frame);
  void AbortUpload(uint64_t id);
  void DropUnnamedUploads();
  void OnFetch(FetchSession& session, Frame<v1::FetchBodyRequest> frame);
  // Puts a message and its deliveries into the batch; `on_durable` hears of the commit.
  void AddMessage(std::shared_ptr<StoredMessage> message,
                  std::vector<common::v1::Delivery> deliveries, uint64_t storage_key,
                  Journal::OnDurable on_durable);
  void RowsAreDurable(std::span<const AddedRow> rows);
  void ChooseVmta(common::v1::Delivery& delivery);
  Lane& LaneFor(Queue& queue, uint64_t lane, const std::string& job_id, uint32_t priority);
  uint64_t NextStorageKey();

  // ---- queues
  const policy::v1::QueueSettings& SettingsOf(Queue& queue);
  void RefreshPause(Queue& queue);
  void RefreshPause(Queue& queue, Lane& lane);
  void CountRow(Queue& queue, const DeliveryKey& key, int change);
  // Of a row whose hold begins or ends with the pending batch.
  void CountHeld(const DeliveryKey& key, int change);
  void MoveFloor(Queue& queue, Lane& lane);
  void ForgetWhenEmpty(Queue& queue);
  bool MayDispatch(const Queue& queue, int64_t now_us) const;
  void Wake(Queue& queue, int64_t when_us);
  std::string ReasonOf(Queue& queue, int64_t* next_us);
  std::string WhyLater(const Queue& queue, int64_t due_us) const;
  std::string ReasonOfRow(const WalkRow& row);

  // ---- dispatch
  void OnDispatch(WorkerSession& session, Frame<v1::DispatchRequest> frame);
  void OnHello(WorkerSession& session, const v1::WorkerHello& hello);
  // FAILED_PRECONDITION: this stream is not the worker's latest.
  absl::Status CheckLatest(const v1::WorkerHello& hello);
  void ForgetWorkers();
  void OnWorkerGone(WorkerSession& session);
  // Contact is lost: its queues go to others, its leases wait for it.
  void Detach(WorkerSession& session);
  void ReleaseAll(WorkerSession& session);
  void OnWorkerWritable(WorkerSession& session);
  void Announce(Queue& queue);
  // Looks whether the queue has something to do, and starts it. `in_turn`: it stood first in line.
  void Offer(Queue& queue, bool in_turn = false);
  // Reads the first row of lanes whose next due time is only what a restart knew.
  void LookAt(Queue& queue, Lane& lane);
  WorkerSession* ChooseWorker(Queue& queue);
  bool IsConnected(std::string_view worker) const;
  bool MayServe(const WorkerSession& worker, const Queue& queue) const;
  bool MayServe(const WorkerSession& worker, std::string_view vmta) const;
  // Takes back what `worker` has no right to any more.
  void ReleaseForeign(WorkerSession& worker);
  // Queues that wait for the same workers wait in one line.
  std::string LineOf(const Queue& queue) const;
  // One worker at a time: one that lost contact may still be sending, so nobody else gets the
  // queue. The policy service waits for that before it names another owner; a queue that came to a
  // rollup has one at once.
  bool WaitsForLast(const Queue& queue) const;
  // Until a worker comes that can take it, or one that has too much unanswered goes on.
  void AwaitWorker(Queue& queue);
  void PumpWaiting();
  void PumpWaitingLater();
  void Answered(const Queue& queue, WorkerSession& worker, Standing& standing);
  // Whether the worker takes the announcement of one more queue of the virtual MTA.
  bool HasRoom(const WorkerSession& worker, std::string_view vmta) const;
  // The line of a worker that keeps the queue from being announced; nullptr where none does.
  const WorkerLine* FullLineOf(const Queue& queue) const;
  // The queue stands in the line of a limit at its worker, as that says, or has left it.
  void SetInLine(Queue& queue, bool in_line, const std::string& limit);
  void Release(Queue& queue, bool tell_worker);
  void MarkReady(Queue& queue);
  void RunReady();
  void RunReadyLater();
  // Runs `task` after what is posted now, unless the shard is gone by then.
  void PostTask(absl::AnyInvocable<void()> task);
  // Leases what is due and for what there are credits, at most `budget` groups. True: there is
  // more.
  bool LeaseDue(Queue& queue, int& budget);
  // Groups taken, at most `most`. Moves the lane's cursor and next due time.
  int LeaseFromLane(Queue& queue, Lane& lane, int64_t now_us, int most);
  Lease& MakeLease(Queue& queue, Lane& lane, WorkerSession& session, std::vector<DeliveryKey> keys,
                   std::vector<common::v1::Delivery> deliveries,
                   std::shared_ptr<const StoredMessage> message);
  void SendLease(Lease& lease);
  void FillFrame(WorkerSession& worker);
  void PutIntoFrame(WorkerSession& worker, Lease& lease);
  void RenewLeases(WorkerSession& session, const v1::DispatchRequest& request);
  void CheckLeases();
  // Ends a lease without a result. `lost` counts for the poison rule.
  void TakeBack(Lease& lease, bool lost);
  bool LoadLease(Lease& lease);
  static std::vector<DeliveryKey> RowsOf(const Lease& lease);
  std::shared_ptr<const StoredMessage> LoadMessage(uint64_t storage_key);
  void Flush();
  void FlushLater();

  // ---- results and retry
  void OnResults(WorkerSession& session, v1::DispatchRequest& request);
  void OnResult(WorkerSession& session, v1::GroupResult& result);
  void OnLateResult(WorkerSession& session, const v1::GroupResult& result);
  void SettleLate(const DeliveryKey& key, std::shared_ptr<const v1::GroupResult> result);
  void Acknowledge(const std::string& worker, uint64_t lease_id);
  struct Change;  // what happens to one recipient, gathered for one batch
  void EndLease(Lease& lease, bool acknowledge);
  void WriteLease(const Lease& lease, bool taken_back);
  // Puts a delivery's row, at another place or with other content than at first, into the batch.
  void MoveToRow(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
                 const common::v1::Message& envelope);
  void ForgetLaneWhenEmpty(Queue& queue, Lane& lane);
  void TouchRow(Queue& queue) {
    queues_.Touch(queue);
    journal_.batch();
  }
  // Not while the wall clock is in doubt.
  bool MayExpire() const { return executor_.clock().Now() >= expiry_frozen_until_; }
  // `spent`: the result, where nobody needs its attempt and reply after this.
  void Delivered(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
                 const StoredMessage& message, const v1::GroupResult& result,
                 const common::v1::Reply& reply, v1::GroupResult* spent = nullptr);
  // False where the recipient failed: it expired, or had its last attempt.
  bool Deferred(Queue& queue, const DeliveryKey& key, common::v1::Delivery& delivery,
                const StoredMessage& message, const v1::GroupResult& result,
                const common::v1::Reply& reply, int64_t now_us, std::vector<DeliveryKey>* moved);
  // Ends a recipient as failed, expired or deleted, with its DSN where one is due.
  void Fail(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
            const StoredMessage& message, common::v1::EventKind kind,
            const common::v1::Reply& reply, const common::v1::Attempt* attempt,
            const std::string& author = {}, const std::string& reason = {});
  // Ends a recipient as an operator wants.
  void Remove(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
              const StoredMessage& message, const std::string& author, const std::string& reason,
              bool bounce);
  std::string NewMessageId(int64_t now_us, uint64_t storage_key) const;
  // Queues the copy that bcc-upon-delivery asks for: once for each group of which a recipient,
  // `delivered`, was delivered.
  void CopyUponDelivery(Queue& queue, const StoredMessage& message,
                        const common::v1::Delivery& delivered, uint64_t storage_key);
  void SendDsn(Queue& queue, const common::v1::Delivery& delivery, const StoredMessage& message,
               uint64_t storage_key, const common::v1::Reply& reply, common::v1::EventKind kind,
               bool relayed = false);
  void SetCategory(const common::v1::Reply& reply, common::v1::Event* event) const;
  void DropRow(const DeliveryKey& key);
  // So many recipients of a message have ended; the last one takes message and body with it.
  void RecipientsLess(uint64_t storage_key, const StoredMessage& message, uint32_t ended);
  void OnQueueFailure(Queue& queue, const v1::QueueFailure& failure);
  void FailAll(Queue& queue, std::shared_ptr<const v1::QueueFailure> failure, std::string position);
  // Of a queue that reached nobody for the `step`th time, from 0.
  int64_t RetryWaitUs(Queue& queue, uint32_t step);
  void LeaveRetryMode(Queue& queue);
  int64_t NoticeOf(Queue& queue, uint64_t storage_key, const common::v1::Delivery& delivery);
  // When the sweep must look at it, at the latest.
  int64_t SweepTimeOf(Queue& queue, uint64_t storage_key, const common::v1::Delivery& delivery);
  void TellOfDelay(Queue& queue, const DeliveryKey& key, common::v1::Delivery delivery);
  // `when`, or where the delivery's windows do not have it, the beginning of the next one.
  static int64_t NextWindow(const common::v1::Delivery& delivery, int64_t when);
  int64_t ExpiryOf(Queue& queue, uint64_t storage_key, const common::v1::Delivery& delivery);
  common::v1::Event& NewEvent(common::v1::EventKind kind, const Queue& queue,
                              const common::v1::Message& envelope,
                              const common::v1::Delivery* delivery);
  void Expire(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery);
  // Makes `keys` free again once the batch is durable.
  void FreeWhenDurable(Queue& queue, std::vector<DeliveryKey> old_keys,
                       std::vector<DeliveryKey> new_keys);

  // ---- backoff mode and disabled sources
  bool InBackoff(const Queue& queue) const;
  // What is to be remembered of an empty queue.
  bool KeepsMode(const Queue& queue) const;
  const policy::v1::DurationList& RetryStepsOf(Queue& queue);
  void OnModeChange(Queue& queue, const v1::QueueModeChange& change);
  // The record that is to hold from now on; its row is written with the next batch.
  void AdoptMode(Queue& queue, const v1::QueueModeState& mode);
  void AdoptSource(Queue& queue, v1::DisabledSource& own, const v1::DisabledSource& source);
  // What ends by its time.
  void EndByTime(Queue& queue);
  void TellMode(Queue& queue);
  struct QueueChange;
  // What a request for queues is for: those named, which are made, then those that match.
  template <class Request, class Response>
  void ChangeQueues(Request request, Done<Response> done,
                    absl::AnyInvocable<bool(Queue&, const Request&)> change);
  void ChangeMoreQueues(std::shared_ptr<QueueChange> change);
  // Their names as queues are named. NOT_FOUND: no such virtual MTA.
  absl::StatusOr<std::string> QueueNameOf(std::string_view given);
  // A message to people who run this cluster.
  void TellPeople(Queue& queue, const policy::v1::StringList& addresses, const std::string& subject,
                  const std::string& text);

  // ---- <mx-rollup-list>
  void OnRollup(WorkerSession& session, const v1::QueueRollup& said);
  bool IsRollup(std::string_view name) const;
  void SetRollup(Queue& queue, const std::string* name);
  // Does what its worker wishes, where the policy knows of it, and when its time has come.
  void HeedRollup(Queue& queue);
  // Every queue of the rollup fails, or waits.
  void OnRollupFailure(const v1::RollupFailure& said);
  void FailRollup(std::shared_ptr<const v1::RollupFailure> said, std::string position);
  void FailWithRollup(Queue& queue, const v1::QueueFailure& failure);
  uint64_t RowsFailing(const Queue& queue) const;
  // After a new policy: rollups that are no more. True where there were any.
  bool DropRollups();
  // By which its owner is chosen, and operators may name it: rollup/vmta, or its own name.
  static std::string OwnerKey(const Queue& queue);
  static bool IsNamed(const Queue& queue, std::string_view pattern);
  // Of the queue, or of its rollup; nullptr: none.
  const policy::v1::ControlEntry* PauseOf(const Queue& queue, std::string_view job_id) const;
  // Lines of queues without a worker, made anew: other workers may own them now.
  void LineUpAnew();

  // ---- reroute-to-virtual-mta and backoff-reroute-to-virtual-mta
  // The virtual MTA or pool that the queue's mail is to go by; empty: its own.
  const std::string& RerouteTarget(Queue& queue);
  // Gives a recipient of the queue another virtual MTA, where the policy wants that.
  bool RerouteByPolicy(Queue& queue, common::v1::Delivery& delivery);
  // Moves what waits in the queue, where that was not done a moment ago.
  void RerouteWaiting(Queue& queue);
  void RerouteSome(Queue& queue, std::string position);

  // ---- index
  // Whether index rows of this message may exist.
  bool Indexed(uint64_t storage_key) const {
    return storage_key < watermark_ || storage_key < unknown_below_ ||
           indexed_.contains(storage_key);
  }
  void IndexRow(const common::v1::Message& envelope, const common::v1::Delivery& delivery,
                const DeliveryKey& key);
  void UnindexRow(const DeliveryKey& key, const common::v1::Delivery& delivery);
  void IndexMessage(const common::v1::Message& envelope, uint64_t storage_key);
  void IndexUntil(uint64_t target);
  static std::string IndexPrefixOf(const v1::MessageFilter& filter);
  // Indexes what is older than a minute and still queued, a little at a time.
  void AdvanceWatermark();
  void NoteDrop(const DeliveryKey& key);
  void UnindexMessage(const common::v1::Message& envelope, uint64_t storage_key);

  // ---- maintenance
  void LookAtSome();
  void LoadOutbox();
  void Tick();
  void CountSome();
  // Shows `on_row` the recipients of a queue in the order of their keys, busy ones too, behind
  // `position`, which becomes the last row looked at. At most `budget` rows, which goes down by
  // them. True when it is through.
  enum class PausedLanes : uint8_t { kSkip, kToo };
  using OnQueuedRow = void(Lane&, const DeliveryKey&, common::v1::Delivery&);
  bool LookThrough(Queue& queue, PausedLanes paused, std::string& position, int& budget,
                   absl::FunctionRef<OnQueuedRow> on_row);
  void SweepSome();
  bool SweepQueue(Queue& queue, int& budget);
  void EvictIdle(Queue& queue);
  void CloseOutboxSegment();
  void TrimEvents();
  absl::Status CheckMeant(std::string_view name) const;
  void NoteIntake();
  void WatchWallClock();
  void ReadClock();
  void WriteClock();
  void NoteStep(int64_t step_us);

  // ---- damage
  // To be called for each row that cannot be read: an operator is told of each once.
  void NoteDamage(Family family, std::string_view key, std::string_view what,
                  std::string_view queue = {});
  void FillDamage(v1::GetShardStatusResponse* status) const;
  void KeepDamagedQueueRows();
  uint64_t HighestKey(Family family) const;
  uint64_t StoredNumber(std::string_view key, absl::FunctionRef<uint64_t()> otherwise);
  // The lane's rows cannot be read now: not before some seconds again.
  void PutOff(Queue& queue, Lane& lane, const absl::Status& status);
  void RemoveDamaged(const v1::DeleteMessagesRequest& request, const WalkRow& row);
  std::map<std::pair<Family, std::string>, DamagedRow> damaged_;

  // ---- control
  struct QueueListing;
  void ListMoreQueues(std::shared_ptr<QueueListing> listing);
  void FillMoreQueues(std::shared_ptr<QueueListing> listing);
  void RunWalk(std::shared_ptr<Walk> walk);
  bool DeleteRow(Deletion& deletion, const WalkRow& row);
  void DeleteChanging(const std::shared_ptr<Deletion>& deletion);
  bool WalkDeliveries(Walk& walk);
  bool HasMoved(const Walk& walk, const DeliveryKey& key, std::string_view value) const;
  bool FindRow(DeliveryKey& key, std::string* value) const;
  bool WalkIndex(Walk& walk, const std::string& prefix);
  bool WalkRecent(Walk& walk);
  bool VisitMessage(Walk& walk, uint64_t storage_key, std::string_view positions, uint32_t last);
  void VisitRow(Walk& walk, const DeliveryKey& key, std::string_view value);
  void FillStatus(Queue& queue, v1::QueueStatus* status, bool with_lanes);
  void FillOldest(const Queue& queue, v1::QueueStatus* status) const;
  void FillRecipient(const WalkRow& row, v1::QueuedRecipient* shown);
  // Writes a row with another key or content, and frees it there once durable.
  void MoveRow(Queue& from, const DeliveryKey& key, Queue& to, DeliveryKey next,
               const common::v1::Delivery& delivery, const common::v1::Message& envelope);

  int64_t NowUs() const { return ToUnixMicros(executor_.clock().WallNow()); }

  const ShardOptions options_;
  Executor& executor_;
  Store& store_;
  Committer& committer_;
  Journal journal_;
  QueueTable queues_;
  std::shared_ptr<const config::PolicyView> policy_;
  std::shared_ptr<const config::Owners> owners_;  // null: no policy service says
  config::BounceCategories categories_;           // of policy_
  absl::AnyInvocable<void(const absl::Status&)> on_failed_;
  ShardStats stats_;
  StoreHealth health_;
  // What came in since then takes about twice its size: in the log, then in a file.
  uint64_t bytes_since_health_ = 0;
  // Of the messages that are queued; with each batch that changes it, its row.
  static constexpr char kBodiesKey[] = "bodies-bytes";
  uint64_t bodies_bytes_ = 0;
  uint64_t stored_bodies_bytes_ = 0;
  MonotonicTime policy_since_{};
  uint64_t epoch_ = 0;
  int64_t started_us_ = 0;
  bool serving_ = false;
  bool draining_ = false;
  bool intake_refused_ = false;  // as the log was told
  bool full_ = false;            // mail was refused for want of space, and there is little yet

  uint64_t last_storage_key_ = 0;
  uint64_t storage_key_mark_ = 0;
  uint64_t last_lease_id_ = 0;
  uint64_t next_queue_ref_ = 1;
  uint64_t pool_turn_ = 0;
  uint64_t moves_back_ = 0;  // of rows to places before their own
  uint64_t recipients_ = 0;

  std::list<std::unique_ptr<EnqueueSession>> enqueue_sessions_;
  std::list<std::unique_ptr<UploadSession>> upload_sessions_;
  std::list<std::unique_ptr<FetchSession>> fetch_sessions_;
  std::list<std::unique_ptr<WorkerSession>> workers_;
  // Of each worker, as long as an earlier one may still be heard of.
  absl::flat_hash_map<std::string, LastStream> last_streams_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Lease>> leases_;
  absl::flat_hash_map<uint64_t, Queue*> refs_;
  absl::flat_hash_map<uint64_t, LostLease> lost_;
  // Ids of queues whose mail is rerouted, and when they are looked through again.
  absl::flat_hash_map<uint64_t, int64_t> reroutes_;
  absl::flat_hash_set<uint64_t> failing_;             // ids of queues that FailAll is going through
  absl::flat_hash_set<std::string> failing_rollups_;  // that FailRollup is, for what
  DispatchOrder order_;                               // queues with credits and mail
  bool run_posted_ = false;
  // Ids of queues that have due mail and no worker, by LineOf, in turn.
  std::map<std::string, std::deque<uint64_t>, std::less<>> waiting_;
  bool pump_posted_ = false;
  bool flush_posted_ = false;
  std::deque<uint64_t> start_queue_;  // ids of queues that a restart has not looked at yet
  TimerId sweep_timer_ = 0;
  std::string row_value_;  // reused
  std::string domain_;     // reused

  // Outstanding recipients of messages with several, while batches that change them are on the way.
  absl::flat_hash_map<uint64_t, Count> counts_;

  // Messages that workers will probably ask for soon.
  absl::flat_hash_map<uint64_t, FreshMessage> fresh_;
  std::list<uint64_t> fresh_order_;
  size_t fresh_bytes_ = 0;
  void KeepFresh(uint64_t storage_key, std::shared_ptr<const StoredMessage> message);

  struct Upload {
    uint64_t storage_key = 0;
    uint32_t chunks = 0;
    bool complete = false;
    MonotonicTime finished{};
    UploadSession* session = nullptr;
  };
  absl::flat_hash_map<uint64_t, Upload> uploads_;

  absl::flat_hash_set<std::string> keys_in_flight_;  // idempotency
  int64_t oldest_key_bucket_ = 0;                    // older ones are dropped

  bool counting_ = false;
  std::string count_position_;  // rows before it are in the counts
  uint64_t first_sequence_ = 1;
  TimerId tick_ = 0;

  // Everything that is queued and has a smaller storage key is in the index. Durable.
  static constexpr char kWatermarkKey[] = "index-watermark";
  uint64_t watermark_ = 0;          // with what is in the batch
  uint64_t durable_watermark_ = 0;  // as the store shows it
  uint64_t indexed_accepted_ = 0;
  absl::flat_hash_set<uint64_t> ending_;  // messages that the batch on its way removes
  // Recipients, by message and position, whose row it removes or moves.
  absl::flat_hash_map<std::pair<uint64_t, uint32_t>, int> dropping_;
  // Below this (a restart's) it is not known whether a message is indexed.
  uint64_t unknown_below_ = 0;
  absl::flat_hash_set<uint64_t> indexed_;  // behind the watermark all the same
  TimerId index_timer_ = 0;

  // Where the sweep is: the queue's name, and the last row of it that was looked at.
  Sweep sweep_;

  // Closed stretches of the outbox, oldest first.
  std::deque<Segment> segments_;
  uint64_t outbox_bytes_ = 0;  // of all of them
  uint64_t open_first_ = 0;    // the stretch that is being written
  int64_t open_since_us_ = 0;
  uint64_t open_bytes_before_ = 0;
  uint64_t open_events_before_ = 0;
  struct EventReading;
  void ReadMoreEvents(std::shared_ptr<EventReading> reading);
  void PutSegment(const Segment& segment);

  // Wall clock minus monotonic clock, as last seen; after a step nothing expires for a while.
  std::optional<int64_t> wall_offset_us_;
  MonotonicTime clock_written_{};
  std::string clock_unknown_fields_;  // of its row
  MonotonicTime expiry_frozen_until_{};
  int64_t clock_step_us_ = 0;  // that froze it

  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::unique_ptr<StreamService<v1::EnqueueRequest, v1::EnqueueResponse>> enqueue_service_;
  std::unique_ptr<StreamService<v1::UploadRequest, v1::UploadResponse>> upload_service_;
  std::unique_ptr<StreamService<v1::DispatchRequest, v1::DispatchResponse>> dispatch_service_;
  std::unique_ptr<StreamService<v1::FetchBodyRequest, v1::FetchBodyResponse>> fetch_service_;
};

}  // namespace sluice::queue
