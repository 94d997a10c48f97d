// A delivery worker: takes groups from the shards for the virtual MTAs whose sources it owns, and
// sends them within every limit. An actor on one executor.
//
// A shard announces a queue; the worker looks up its MX, opens connections within the limits, and
// grants the shard a credit for each free place on them. A group comes only for a credit, so it
// goes out at once. Connections stay warm for a while, with their credits: new mail of the queue
// then leaves with its own commit.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "services/base/executor.h"
#include "services/base/log/log.h"
#include "services/base/net/ip_address.h"
#include "services/base/rpc/stream.h"
#include "services/config/owners.h"
#include "services/config/policy_view.h"
#include "services/config/reply_rules.h"
#include "services/delivery/core/connection.h"
#include "services/delivery/core/outgoing_edits.h"
#include "services/delivery/core/queue_caps.h"
#include "services/delivery/core/rate_pacer.h"
#include "services/delivery/core/volume_ledger.h"
#include "services/delivery/core/volume_window.h"
#include "services/delivery/core/worker_options.h"
#include "services/delivery/dns/mx_resolver.h"
#include "sluice/delivery/v1/delivery_service.pb.h"
#include "sluice/delivery/v1/volume_records.pb.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::delivery {

// Thread-safety: the executor's thread. Lifetime: executor, resolver, factory and clients outlive
// it.
class Worker {
 public:
  Worker(const WorkerOptions& options, Executor& executor, MxResolver& resolver,
         ConnectionFactory& connections, std::vector<ShardAddress> shards);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void Start();
  // New limits hold from the next token; connections stay.
  void SetPolicy(std::shared_ptr<const config::PolicyView> policy);
  // What this worker may use from now on. What it has open besides is closed in good order; then
  // `on_released` hears the epoch.
  void SetOwners(std::shared_ptr<const config::Owners> owners);
  // What the table marks as leased may be used until `until`; what is open `grace` later is cut.
  void SetLease(MonotonicTime until, Duration grace);
  void set_on_released(absl::AnyInvocable<void(uint64_t epoch)> on_released) {
    on_released_ = std::move(on_released);
  }
  // The table that is kept to: nothing is open that it does not give.
  uint64_t released_epoch() const { return released_epoch_; }
  // Takes nothing more, finishes what is under way, says QUIT; then `done`.
  void Drain(absl::AnyInvocable<void()> done);

  // How much of its limits on bytes an earlier life of this worker has used, on this boot of the
  // machine: what Volumes() gave when it had drained. Without it all of them count as used up at
  // the start. Before SetPolicy and Start.
  void TakeOverVolumes(const delivery::v1::VolumeRecords& records);
  delivery::v1::VolumeRecords Volumes() const;
  // Before Start. With it what TakeOverVolumes gets may be what it kept last, of a worker that was
  // killed; without it such records say too little.
  void set_volume_ledger(VolumeLedger* ledger) { ledger_ = ledger; }

  // `queue_pattern`: connections and blocked queues of these queues alone; empty: all.
  delivery::v1::GetWorkerStatusResponse Status(bool with_connections,
                                               std::string_view queue_pattern = {}) const;
  const WorkerStats& stats() const { return stats_; }
  // Configured sources that this machine has, and that it lacks.
  std::vector<std::string> owned_sources() const;
  std::vector<std::string> missing_sources() const;
  size_t open_connections() const;

 private:
  struct Link;        // to one shard
  struct Queue;       // domain/vmta
  struct Conn;        // one outbound connection
  struct Limiter;     // a limit that queues share
  struct VmtaLimits;  // those of a virtual MTA
  struct DomainLimit;
  struct HostLimit;
  struct Division;
  struct Rollup;  // queues of an entry of <mx-rollup-list>
  struct Source;
  struct Site;
  struct Target;
  struct Search;
  struct TlsSearch;
  struct SourcePart;
  struct Ref;
  struct Held;  // a lease in work

  // worker_link.cc
  void OpenLink(Link& link);
  void OnShardFrame(Link& link, Frame<queue::v1::DispatchResponse> frame);
  void NoteLinkClosed(Link& link, const absl::Status& status) const;
  void OnLinkClosed(Link& link);
  void DropRefs(Link& link);
  void SendHello(Link& link);
  void Renew();
  void FlushLater();
  void Flush();
  void Report(Queue& queue, queue::v1::GroupResult result);

  // worker_queue.cc
  void OnReadyQueue(Link& link, const queue::v1::ReadyQueue& ready);
  void Pump(Queue& queue);
  void Grant(Queue& queue);
  void TakeIdleCredits(Queue& queue);
  void RevokeCredits(Ref& ref);
  void DropRef(Queue& queue, Link& link, uint64_t ref);
  void LetGo(Queue& queue);
  void TrimCredits(Queue& queue);
  void RememberPace(std::string key, Pace pace);
  void FirstPace(Queue& queue);
  // `in_line`: for a limit that none of its virtual MTA can pass.
  void Block(Queue& queue, const std::string& limit, MonotonicTime until, bool in_line = false);
  void TellBlocked(const Queue& queue, Ref& ref);
  void RefreshQueue(Queue& queue);
  void WakeAt(Queue& queue, MonotonicTime when);
  void PumpByName(std::string name);

  // worker_send.cc
  void OnLease(Link& link, queue::v1::Lease& lease, std::vector<Body>& bodies);
  void SendPaced(Queue& queue);
  void HoldForVolume(Queue& queue, uint64_t bytes, const std::string& limit, MonotonicTime next);
  void GiveBack(uint64_t work_id);

  // worker_hang.cc
  void NoteAnnounced(Link& link, uint64_t ref);
  void AnswerForSlow();
  static std::string WhyNoCredit(const Queue& queue);
  void EndLookup(Queue& queue);
  void BeginAttempt(Conn& conn);
  void EndAttempt(Conn& conn);
  void WatchAttempts();
  void GiveUpHanging();
  void GiveUp(Conn& conn, Limiter& limiter);

  // worker_ledger.cc
  using VolumePromises = absl::flat_hash_map<std::string, VolumeWindow::Promise>;
  void EachVolume(absl::FunctionRef<void(const std::string&, VolumeWindow&)> use) const;
  bool LedgerAllows(Queue& queue, Conn& conn, uint64_t bytes);
  void WriteLedger();
  void OnLedger(MonotonicTime began, const VolumePromises& promises, VolumeLedger::Kept kept);

  // worker_volumes.cc
  v1::VolumeRecords VolumesWith(const VolumePromises& promises) const;
  void FirstVolume(const std::string& key, VolumeWindow* volume);
  static std::string WhyVolume(const std::string& limit, const VolumeWindow& volume,
                               MonotonicTime now);

  static std::string WhyPart(const SourcePart& part, const RateCap& cap, MonotonicTime now);

  // worker_owners.cc
  bool MayUse(const Queue& queue) const;
  bool MayUse(const Source& source) const;
  void Judge(Queue& queue) const;
  void ApplyOwners();
  void MarkForeign();
  void Halt(Queue& queue);
  bool HasLease() const;
  void OnLeaseChange();
  void OnLeaseEnd();
  void AskVouches();
  void OnVouch(Link& link, const queue::v1::SourceVouch& vouch);
  template <class Names>
  MonotonicTime VouchedUntil(const Names& shards) const;
  void CutWhatIsLeft();
  void ReleasedWhenClosed();

  // worker_route.cc
  struct SourceChoice {
    Source* source = nullptr;
    std::string ehlo_name;
  };
  void Resolve(Queue& queue);
  void OnResolved(Queue& queue, std::shared_ptr<const MxResult> result);
  size_t Random();
  std::optional<SourceChoice> ChooseSource(Queue& queue, std::optional<bool> family);
  std::string EhloName(const policy::v1::SourceHost& host) const;
  std::string EhloNameWithoutSource(const policy::v1::VirtualMtaSection* vmta) const;
  Source* SourceToAwait(Queue& queue);
  std::string WhySuspended(const Queue& queue, MonotonicTime* until) const;
  void OrderTargets(Queue& queue, Conn& conn);
  enum class Began : uint8_t { kYes, kNowhere, kLater };
  Began ConnectNext(Queue& queue, Conn& conn);
  bool MayConnectNow(Queue& queue, const SourcePart* part);
  void ChargeConnect(Conn& conn);
  Duration MayConnectAgain(Conn& conn);
  static std::string AsideKey(const Source& source, const std::string& address);
  void SetAside(const Queue& queue, const Conn& conn);
  bool IsAside(const Source& source, const Target& target) const;

  // worker_tls_optional.cc
  bool WaiveTlsPolicy(Queue& queue, const common::v1::Reply& reply);
  void RestoreTlsPolicy(Queue& queue);
  static void DropTlsPolicy(Queue& queue);

  // worker_require_tls.cc
  TlsSearch* FindTlsSearch(const Queue& queue);
  bool LacksTls(const TlsSearch& search, const std::string& host) const;
  bool AllLackTls(const TlsSearch& search, const Queue& queue) const;
  bool Suits(const Conn& conn, const Transaction& transaction);
  void SeekTls(Queue& queue);
  bool SeeksTls(const Queue& queue);
  void MakeRoomForTls(Queue& queue);
  void OrderForTls(Queue& queue, Conn& conn);
  void HeedLackOfTls(Conn& conn, queue::v1::GroupResult* result);
  void EndTlsSearch(Conn& conn);

  // worker_sites.cc
  const std::shared_ptr<const std::string>& SettingsKey(Queue& queue);
  std::string SiteKey(Queue& queue, const Source& source, const std::string& ehlo_name);
  // Whether its queue would make it otherwise by now.
  bool IsOutdated(const Conn& conn);
  void QuitOutdated(Queue& queue);
  void EnterSite(Conn& conn, std::string key);
  void LeaveSite(Conn& conn);
  void BeginIdle(Conn& conn);
  void EndIdle(Conn& conn);
  bool Spare(const Conn& conn) const;
  bool TakeIdle(Queue& queue, const SourceChoice& choice, bool at_once);
  bool TakeIdleOfAnySource(Queue& queue);
  void MoveConn(Conn& conn, Queue& to);
  void MakeRoom(const Limiter& limit, const Queue& queue);

  // worker_limits.cc
  using Share = std::function<uint64_t(uint64_t limit)>;
  bool SetLimiter(Limiter& limiter, uint64_t most, const policy::v1::Rate* rate,
                  const policy::v1::Rate* volume, const Share& share_of);
  void HoldWithoutLease(Limiter& limiter, const policy::v1::PoolSection& pool,
                        const std::vector<std::string>& sources);
  VmtaLimits& LimitsOf(const std::string& vmta);
  void SetLimits(std::vector<std::string>* owned);
  void SetSourceLimits(Source& source);
  static void CountVmta(VmtaLimits& limits, int change);
  static void CountFor(Queue& queue, int change);

  // worker_line.cc
  Limiter* FullFor(const Queue& queue, const Conn* instead);
  // All that the connection has a place of.
  void EachLimiter(const Conn& conn, absl::FunctionRef<void(Limiter&)> use) const;
  bool CountsAgainst(const Conn& conn, const Limiter& limiter) const;
  // "max-smtp-out 20 (virtual MTA)"
  static std::string FullName(const Limiter& limiter);
  bool HoldsAll(const Limiter& limiter, const Queue& queue) const;
  void Await(Limiter& limiter, Queue& queue);
  static void LeaveLine(Queue& queue);
  bool IsBehindMany(Queue& queue);
  void FreedSlot();
  void ServeLines();
  void WakeLine(Limiter& limiter);
  bool TurnIsOver(const Conn& conn) const;

  // worker_pace.cc
  // A decision is of one moment, `now`: where each part of it looked at the clock again, the later
  // part would always find the moment of the earlier one past, and wait for its own.
  Limiter* SlowestPace(Queue& queue, Conn& conn, MonotonicTime now, MonotonicTime* allowed);
  void ChargePace(Queue& queue, Conn& conn, uint64_t recipients);
  MonotonicTime NextOfSharedVolume(const Queue& queue, MonotonicTime now, uint64_t bytes,
                                   Limiter** limiter);
  bool BlockBySharedVolume(Queue& queue, Duration ahead);
  std::string VolumeLimit(const Limiter& limiter) const;
  void ForgetHeld(const Queue& queue);
  void ReserveVolume(Queue& queue, Conn& conn, uint64_t bytes);
  void SettleVolume(Conn& conn, bool sent);
  void AwaitPace(Limiter& limiter, Queue& queue);
  void RearmPace(Limiter& limiter);
  void PaceLater(Limiter& limiter, MonotonicTime when);
  void ServePace(Limiter& limiter);

  // worker_division.cc
  bool HasPartOf(const std::string& source) const;
  uint64_t ShareOf(uint64_t limit, const std::vector<std::string>& sources, bool with_lease) const;
  uint64_t ShareOf(uint64_t limit, const std::string& vmta,
                   const std::vector<std::string>& sources) const;
  std::vector<std::string> SourcesOf(const std::string& pool) const;
  absl::flat_hash_set<std::string> SourcesHeld() const;
  void SetSourcesHeld();
  const Division& DivisionOf(const std::string& pool);

  // worker_domains.cc
  void SetDomainParts();
  uint64_t PartOf(const DomainLimit& limit, MonotonicTime* next_change);
  void SetDomainPart(DomainLimit& limit);
  void SetDomainLimits(Queue& queue);
  // Of `settings`, which are of `domain` and of the queue `name`: its own, or its rollup's.
  void AddDomainLimits(Queue& queue, const policy::v1::QueueSettings& settings,
                       const std::string& domain, const std::string& name);
  static void LeaveDomainLimits(Queue& queue);
  void ForgetDomainLimits();
  void HeedThrottles(Queue& queue, const common::v1::Reply& reply);
  bool AfterReplies(const Queue& queue) const;
  MonotonicTime NextAfterReplies(const Queue& queue, MonotonicTime now,
                                 const DomainLimit** limit) const;
  bool BlockByDomain(Queue& queue, Duration ahead);

  // worker_hosts.cc
  void SetHostLimit(HostLimit& limiter, uint64_t limit);
  void SetHostLimits();
  std::vector<Limiter*> HostLimitsOf(const std::string& host, const std::string& address);
  void EnterHosts(Conn& conn, const std::string& host, const std::string& address);
  void LeaveHosts(Conn& conn);
  void ForgetHostLimits();
  Limiter* FullHost(const Target& target);
  Limiter* PassFullHost(const Queue& queue, Conn& conn);

  // worker_parts.cc
  SourcePart* PartOf(Queue& queue, const Source& source);
  void EnterPart(Conn& conn);
  void LeavePart(Conn& conn);
  bool PartHasRoom(Queue& queue, const Source& source, bool connect);
  bool BlockByParts(Queue& queue);
  void RefreshParts(Queue& queue);
  void RememberParts(Queue& queue);
  size_t PlacesOfParts(Queue& queue);

  // worker_rollup.cc
  bool MayRollUp(const Queue& queue) const;
  bool IsRollup(std::string_view name) const;
  std::string RollupFor(const Queue& queue) const;
  std::string_view RollupByMx(const MxResult& route) const;
  Rollup& RollupOf(const std::string& name, const Queue& queue);
  static void LinkRollup(VmtaLimits& vmta, Rollup& rollup);
  void SetRollupCaps(Rollup& rollup, bool backoff);
  void CapsInRollup(Queue& queue);
  static Pace& ConnectPace(Queue& queue);
  static const QueueCaps& ConnectCaps(const Queue& queue);
  static std::vector<std::unique_ptr<SourcePart>>& PartsOf(Queue& queue);
  static void LeaveLines(Queue& queue);
  void EnterRollup(Queue& queue, const std::string& name);
  void FollowRollup(Queue& queue);
  void ShareMode(Queue& queue);
  void ShareSources(Queue& queue);
  void FailRollup(const Queue& queue, const common::v1::Reply& reply, bool permanent);
  std::shared_ptr<const policy::v1::QueueSettings> SettingsFor(const Queue& queue) const;

  // worker_mode.cc
  int64_t WallUs() const { return ToUnixMicros(executor_.clock().WallNow()); }
  bool InBackoff(const Queue& queue) const;
  size_t MostConnections(const Queue& queue) const;
  void SetCaps(Queue& queue);
  // From a shard; `ref` is its. Tells whoever knows less.
  void LearnMode(Queue& queue, Ref& ref, const queue::v1::QueueModeState& mode,
                 const google::protobuf::RepeatedPtrField<queue::v1::DisabledSource>& sources);
  void TellMode(Queue& queue, const Ref* only, const Ref* except);
  void EndModeByTime(Queue& queue);
  void RememberMode(const Queue& queue);
  void Recall(Queue& queue);
  void ApplyMode(Queue& queue, bool was_backoff);
  void SetMode(Queue& queue, bool backoff, const std::string& reason, int64_t after_us);
  void CloseExcess(Queue& queue);
  // The least useful ones.
  void CloseSome(std::vector<Conn*> open, size_t count);
  std::shared_ptr<const config::ReplyRules> RulesFor(const policy::v1::QueueSettings& settings);
  void KeepRules();
  config::ReplyActions HeedReplies(Conn& conn, queue::v1::GroupResult* result,
                                   common::v1::Reply* cause);
  config::ReplyActions HeedEnd(Conn& conn, const ConnectionEnd& end);
  void Heed(Queue& queue, Conn& conn, const config::ReplyActions& actions,
            const common::v1::Reply& reply);
  void CountErrors(Queue& queue, uint32_t errors, const common::v1::Reply& reply);
  bool IsDisabled(const Queue& queue, const std::string& ip) const;
  // Whether this worker has a source for the queue that is not disabled; else the first time when
  // one is enabled by itself, 0 where that is never.
  bool AnySourceEnabled(const Queue& queue, int64_t* until_us) const;
  void CloseDisabled(Queue& queue);
  void DisableSource(Queue& queue, const std::string& ip, const std::string& reason,
                     int64_t after_us);

  // worker_connect.cc
  void OpenConnections(Queue& queue, size_t wanted);
  void LogResolution(const Queue& queue, const MxResult& result) const;
  void LogTransfer(const Conn& conn, const queue::v1::GroupResult& result) const;
  void LogTls(Conn& conn, const common::v1::Attempt& attempt) const;
  void LogTlsFailure(const Conn& conn, const ConnectionEnd& end) const;
  void LogConnected(const Conn& conn) const;
  void LogClosed(const Conn& conn, const ConnectionEnd& end) const;
  void LogTrace(const Conn& conn, bool reply, std::string_view text) const;
  void OnConnectionReady(Conn& conn);
  void OnConnectionResult(Conn& conn, queue::v1::GroupResult result);
  void OnConnectionClosed(Conn& conn, ConnectionEnd end);
  void TellFailure(const Ref& ref, const queue::v1::QueueFailure& failure);
  void FailQueue(Queue& queue, const common::v1::Reply& reply, bool dns, bool permanent,
                 int64_t permanent_after_us = 0, const config::ReplyActions* asked = nullptr);
  // As bounce-queue or defer-queue of a reply to its mail says; so for its whole rollup.
  void FailAsAsked(Queue& queue, const common::v1::Reply& reply, const config::ReplyActions& asked);
  void SetIdleTimer(Conn& conn);
  void QuitIdle(Conn& conn);
  void Quit(Conn& conn);
  void QuitAll(Queue& queue, bool only_foreign);
  void TakeBack421(Conn& conn, queue::v1::GroupResult* result);
  void TakeBackBroken(Conn& conn, queue::v1::GroupResult* result);
  void TakeBackTooMany(Queue& queue, queue::v1::GroupResult* result);
  static void Replace421(Conn& conn, queue::v1::GroupResult* result);
  static void NoteNoRoom(Conn& conn, const queue::v1::GroupResult& result);
  uint32_t Refusals(const Queue& queue, const queue::v1::GroupResult& result) const;
  uint64_t RecipientsOf(const queue::v1::GroupResult& result) const;
  void RemoveConn(Conn& conn, bool freed = true);
  void CheckDrained();
  bool Owns(const std::string& ip) const;
  bool OwnsHost(const policy::v1::SourceHost& host, std::string* local_ip) const;

  const WorkerOptions options_;
  Executor& executor_;
  MxResolver& resolver_;
  ConnectionFactory& connections_;
  std::shared_ptr<const config::PolicyView> policy_;
  OutgoingEdits edits_;
  std::vector<std::unique_ptr<Link>> links_;
  std::map<std::string, std::unique_ptr<Queue>, std::less<>> queues_;
  std::map<std::string, std::unique_ptr<Source>, std::less<>> sources_;  // by IP
  std::unique_ptr<Limiter> total_limit_;
  Limiter& total_;
  std::map<std::string, std::unique_ptr<Rollup>, std::less<>> rollups_;  // by key in lower case
  std::map<std::string, std::unique_ptr<VmtaLimits>, std::less<>> vmta_limits_;  // lower case
  std::map<std::string, std::unique_ptr<Limiter>, std::less<>> pool_limits_;
  absl::flat_hash_map<std::string, std::unique_ptr<DomainLimit>> domain_limits_;
  // Sources that only this worker used, until then.
  struct PastSources {
    MonotonicTime until{};
    absl::flat_hash_set<std::string> sources;
  };
  std::deque<PastSources> past_sources_;
  absl::flat_hash_set<std::string> held_sources_;
  bool knows_sources_ = false;
  bool alone_ = false;  // has all of them
  uint64_t parts_epoch_ = 0;
  absl::flat_hash_map<std::string, std::unique_ptr<Division>> divisions_;  // by pool
  // What was sent before, under <limits>, is not known.
  MonotonicTime unknown_since_{};
  // Of hosts, by name in lower case, and of networks.
  std::map<std::string, std::unique_ptr<HostLimit>, std::less<>> host_limits_;
  std::vector<std::pair<Cidr, Limiter*>> networks_;
  uint64_t host_round_ = 0;  // grows whenever they are set
  bool limits_hosts_ = false;
  std::vector<Limiter*> crowded_;  // those with waiters
  bool serve_posted_ = false;
  const Queue* serving_ = nullptr;  // whose turn it is in a line, within ServeLines
  const Queue* pacing_ = nullptr;   // and within ServePace
  // Announcements in their order; some have been answered.
  struct Announced {
    MonotonicTime when{};
    Link* link = nullptr;
    uint64_t ref = 0;
  };
  std::deque<Announced> announced_;
  TimerId answer_timer_ = 0;
  size_t slow_lookups_ = 0;    // of queues whose announcement was answered meanwhile
  std::list<Conn*> attempts_;  // connections that are being made, in the order that they began
  TimerId hang_timer_ = 0;
  std::map<std::string, Site> sites_;
  // What a connection is made with, of settings that queues share.
  struct SiteSettings {
    std::shared_ptr<const policy::v1::QueueSettings> settings;
    std::shared_ptr<const std::string> key;
  };
  absl::flat_hash_map<const policy::v1::QueueSettings*, SiteSettings> site_settings_;
  std::list<Conn*> idle_;  // all, for the longest time first
  size_t first_turn_ = 0;
  // Of queues that were let go and that a new one of the same name must not forget.
  absl::flat_hash_map<std::string, Pace> resting_;
  MonotonicTime resting_forgotten_{};
  MonotonicTime started_{};
  // Of an earlier life, what no limit has taken over yet.
  absl::flat_hash_map<std::string, VolumeWindow::Record> past_volumes_;
  VolumeLedger* ledger_ = nullptr;
  bool ledger_writing_ = false;
  bool ledger_fails_ = false;
  TimerId ledger_timer_ = 0;
  uint64_t ledger_epoch_ = 0;
  MonotonicTime ledger_next_{};
  MonotonicTime ledger_off_until_{};
  std::set<std::string> ledger_waits_;  // queues
  MonotonicTime short_unknown_until_{};
  bool knows_past_ = false;
  uint64_t past_epoch_ = 0;
  // What was sent before, of limits without a record, is not known.
  MonotonicTime unknown_until_{};
  std::shared_ptr<const config::Owners> owners_;
  MonotonicTime owners_since_{};
  MonotonicTime rollups_since_{};  // <mx-rollup-list> as it is now
  MonotonicTime lease_until_{};
  Duration lease_grace_{};
  TimerId lease_timer_ = 0;
  TimerId vouch_timer_ = 0;
  size_t foreign_connections_ = 0;  // that are to close before owners_ is kept to
  uint64_t released_epoch_ = 0;
  absl::AnyInvocable<void(uint64_t)> on_released_;
  std::vector<std::string> owned_vmtas_;
  WorkerStats stats_;
  uint64_t last_connection_id_ = 0;
  uint64_t last_lookup_ = 0;
  uint64_t random_ = 0;
  // Until when an address is not used from a source (smtp-421-means-mx-unavailable).
  absl::flat_hash_map<std::string, MonotonicTime> aside_;
  // Of queues with mail that a host would not take for want of TLS (REQUIRETLS), by name: the
  // host's word outlives the queue here.
  struct TlsSearch {
    std::map<std::string, MonotonicTime> lacking;  // hosts, until when that is believed
    MonotonicTime given_up_until{};
    bool wanted = false;  // the next connection is for it
  };
  absl::flat_hash_map<std::string, TlsSearch> tls_searches_;
  // Compiled for queues that have the same list and patterns.
  struct Rules {
    std::string list;   // its name
    std::string lines;  // as they were compiled
    std::shared_ptr<const config::ReplyRules> rules;
  };
  absl::flat_hash_map<std::string, Rules> rules_;
  // Of queues that were let go: what shards may not know yet.
  struct KnownMode {
    queue::v1::QueueModeState mode;
    std::vector<queue::v1::DisabledSource> disabled;
    bool untold = false;
    MonotonicTime since{};
  };
  std::map<std::string, KnownMode> known_modes_;
  const Conn* judged_ = nullptr;  // ends now, whatever its mode asks for
  // Shards number their leases each for itself: here each group in work has a number of ours.
  struct InWork {
    Link* link;
    uint64_t lease_id;
    uint64_t mode_round = 0;  // of its queue when it was sent
  };
  absl::flat_hash_map<uint64_t, InWork> in_work_;
  uint64_t last_work_id_ = 0;
  bool flush_posted_ = false;
  bool draining_ = false;
  TimerId renew_timer_ = 0;
  absl::AnyInvocable<void()> drained_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::delivery
