// The worker's parts. Private to the worker.
#pragma once

#include <algorithm>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/base/log/outage_notice.h"
#include "services/config/reply_rules.h"
#include "services/delivery/core/worker.h"

namespace sluice::delivery {

// Groups that one connection has at a time: the next one's commands go with the final dot.
inline constexpr size_t kGroupsPerConnection = 2;
// Where a transaction takes so long, a further one waits at the worker: one that is asked for when
// a reply comes would miss the final dot that leaves at that moment.
inline constexpr Duration kFarAway = std::chrono::milliseconds(10);
// After so many connections in a row that gave no answer, no new one is opened; when the last one
// has ended, the queue fails.
inline constexpr size_t kMostUselessConnections = 3;

// How far ahead of a shared limit's next token a connection is made.
inline constexpr Duration kPaceAhead = std::chrono::seconds(5);

// How long before a queue's next moment a connection is made for it: less than connections stay
// without anything to do.
inline constexpr Duration kConnectAhead = std::chrono::seconds(2);
// A credit for a rate-limited queue is granted when its next attempt is this near.
inline constexpr Duration kGrantAhead = std::chrono::milliseconds(500);

// A reply that no remote gave.
common::v1::Reply LocalReply(common::v1::Stage stage, std::string text, std::string enhanced);

// A limit that queues share, and their line before it.
struct Worker::Limiter {
  const char* directive = "max-smtp-out";
  std::string what;        // "virtual MTA", for people
  std::string rate;        // "max-msg-rate 5/1s"; empty: it has no name
  size_t most = SIZE_MAX;  // connections
  size_t busy = SIZE_MAX;  // connections that its pace can keep busy
  bool divided = false;    // other workers have the rest of `most`
  size_t connections = 0;
  RatePacer pacer;
  RateCap volume_cap;
  std::unique_ptr<VolumeWindow> volume;  // made with the first limit
  std::string volume_key;                // of VolumeRecord
  uint64_t volume_count = 0;             // bytes, of all workers
  uint64_t volume_share = 0;             // and this one's
  // A message that has no room yet: what is smaller does not take the room that comes free.
  std::string held_queue;
  uint64_t held_bytes = 0;
  std::list<std::string> waiters;     // queues that want a connection
  bool crowded = false;               // in crowded_, which may be a while longer than it has any
  std::deque<std::string> pace_line;  // queues that have a group, and wait for its token
  TimerId timer = 0;
  MonotonicTime timer_at{};
  MonotonicTime closed_until{};  // nothing goes by it
  std::string closed;            // why, or empty

  bool has_volume() const { return volume != nullptr && volume->limited(); }
  bool HasRoom(MonotonicTime now) const {
    return now >= closed_until && connections < std::min(most, busy) &&
           pacer.Next(now) <= now + kPaceAhead;
  }
};

// Connections that can be busy at that pace, if each transaction takes a few seconds.
inline size_t BusyAt(const RatePacer& pacer) {
  return pacer.limited() ? pacer.CellsWithin(kPaceAhead) : SIZE_MAX;
}

// A rate of <limits>; `pacer` is of this worker's part.
struct Worker::DomainLimit : Limiter {
  std::string name;    // for people
  std::string pool;    // divided over its sources; empty: over all
  bool whole = false;  // of one queue, which is one worker's
  std::string queue;   // that one
  uint64_t count = 0;  // of the whole cluster
  Duration period{};
  std::vector<std::string> codes;
  MonotonicTime until{};  // holds, because of a reply
  size_t queues = 0;
  TimerId raise = 0;

  // Holds after some replies only; then nobody stands in its line.
  bool replies() const { return !codes.empty(); }
};

// Of a host or a network.
struct Worker::HostLimit : Limiter {
  uint64_t round = 0;  // of host_round_, when it was set
};

// A limit that is divided over the sources of a pool, or over all.
struct Worker::Division {
  size_t count = 0;
  // Of these, the places of those that were ours until then; the last ones still are.
  std::vector<std::pair<MonotonicTime, std::vector<size_t>>> held;

  uint64_t PartOf(uint64_t limit, const std::vector<size_t>& places) const;
};

struct Worker::VmtaLimits {
  Limiter own;
  std::vector<Limiter*> pools;  // with a limit, that it is in
  bool paced = false;           // any of them
  bool counts_recipients = false;
  bool has_volume = false;

  // After any of them was set.
  void FollowPaces() {
    counts_recipients = own.pacer.limited();
    has_volume = own.has_volume();
    for (const Limiter* pool : pools) {
      counts_recipients |= pool->pacer.limited();
      has_volume |= pool->has_volume();
    }
    paced = counts_recipients || has_volume;
  }
};

// Queues of one virtual MTA that an entry of <mx-rollup-list> puts together: they share all that
// their settings limit, and their mode. Kept for as long as the worker.
struct Worker::Rollup {
  std::string name;
  std::string key;  // name/vmta: its owner has all of them
  std::string vmta;
  std::string pool;  // the first queue's
  QueueCaps caps;    // of all of them together
  bool counted = false;
  // Connections, max-msg-rate, volume; the virtual MTA's and its pools' limits are behind it.
  VmtaLimits limits;
  Limiter per_hour;
  Limiter backoff_rate;
  Limiter backoff_per_hour;
  Pace pace;  // of which only the connects are used
  std::vector<std::unique_ptr<SourcePart>> parts;
  queue::v1::QueueModeState mode;  // the latest of any
  std::vector<queue::v1::DisabledSource> disabled;
  // When shards were told that all of it waits, or fails.
  std::optional<MonotonicTime> told_deferred;
  std::optional<MonotonicTime> told_bounced;

  std::vector<Limiter*> limiters() {
    return {&limits.own, &per_hour, &backoff_rate, &backoff_per_hour};
  }
};

struct Worker::Source : Limiter {
  std::string ip;         // empty: the system chooses
  std::string public_ip;  // that the world sees; empty: the connection's own
  // Connections of this source go through it, from `local_ip` (empty: the system chooses).
  std::shared_ptr<const EgressProxy> proxy;
  std::string local_ip;
  std::optional<bool> use_starttls;
  std::string ip_preference;  // its own; empty: the queue's
  uint64_t delivered = 0;
};

// Connections that were made alike: any queue that would make such a one may take one over.
struct Worker::Site {
  size_t connections = 0;
  std::list<Conn*> idle;  // for the longest time first
};

// A lease that is being sent.
struct Worker::Held {
  Link* link = nullptr;
  std::string queue;
  uint64_t recipients = 0;
  MonotonicTime until{};  // the final dot is sent before this
};

struct Worker::Link final
    : Stream<queue::v1::DispatchRequest, queue::v1::DispatchResponse>::Handler {
  Link(Worker& worker, ShardAddress address) : worker(worker), address(std::move(address)) {}
  void OnFrame(Frame<queue::v1::DispatchResponse> frame) override {
    worker.OnShardFrame(*this, std::move(frame));
  }
  void OnClosed(absl::Status status) override {
    worker.NoteLinkClosed(*this, status);
    worker.OnLinkClosed(*this);
  }

  Worker& worker;
  const ShardAddress address;
  std::shared_ptr<Stream<queue::v1::DispatchRequest, queue::v1::DispatchResponse>> stream;
  uint64_t streams = 0;  // opened so far
  bool greeted = false;  // the shard's hello came
  OutageNotice outage;
  Duration lease = std::chrono::seconds(60);
  // It knows of no table of owners after this one, and will not say otherwise until then.
  uint64_t vouched_epoch = 0;
  MonotonicTime vouched_until{};
  // When each renewal left that has had no answer yet; the hello is one. Answers come in order.
  std::deque<MonotonicTime> renewals;
  Duration backoff{};
  TimerId reconnect = 0;
  absl::flat_hash_map<uint64_t, Queue*> refs;
  absl::flat_hash_map<uint64_t, Held> held;
  // Until the shard says that they are durable.
  // Encoded: each is sent once, and hardly ever again.
  absl::flat_hash_map<uint64_t, std::string> unacknowledged;
  Frame<queue::v1::DispatchRequest> out;
  bool dirty = false;
};

// One address of one host.
struct Worker::Target {
  std::string host;
  std::string address;
  uint16_t port = 25;
  uint16_t preference = 0;
};

// The hosts that a connection was tried at, when the next try had to wait.
struct Worker::Search {
  std::shared_ptr<const MxResult> route;
  std::vector<size_t> order;
  size_t next_target = 0;
  uint32_t tried = 0;
  bool seeks_tls = false;
};

// What a queue may send from one source, where source-ip-... directives name it, and has sent.
struct Worker::SourcePart {
  const Source* source = nullptr;
  QueueCaps caps;
  Pace pace;
  size_t connections = 0;
};

// A shard that has mail of a queue.
struct Worker::Ref {
  Link* link = nullptr;
  uint64_t ref = 0;
  int64_t oldest_due_us = 0;
  uint32_t due_estimate = 0;
  uint32_t credits = 0;       // granted, and neither used nor revoked
  std::string rollup{};       // of the queue, as the shard says it
  std::string told{};         // and as it was told
  bool answered = false;      // the announcement
  bool tls_optional = false;  // of config::kTlsOptionalMark

  // Has mail that nobody has promised to take.
  bool wants() const { return due_estimate > credits; }
};

struct Worker::Queue {
  std::string name;
  std::string domain;
  bool tls_reports = false;  // of config::kTlsReportMark
  // worker_tls_optional.cc: a host failed a policy of TLS; none holds, for mail that said so.
  bool tls_refused = false;
  bool tls_waived = false;
  std::string vmta;
  std::string pool;
  VmtaLimits* limits = nullptr;
  Rollup* rollup = nullptr;
  Limiter* line = nullptr;  // whose waiters it is one of
  std::list<std::string>::iterator place_in_line;
  bool told_in_line = false;                  // to the shards, with `blocked`
  bool stays_in_line = false;                 // as Block has said since PumpByName began
  bool in_pace_line = false;                  // of some limiter's pace_line
  std::vector<DomainLimit*> throttles;        // that hold always
  std::vector<DomainLimit*> reply_throttles;  // and after some replies
  std::shared_ptr<const policy::v1::QueueSettings> settings;
  // What of these a connection is made with, made when it is first needed.
  std::shared_ptr<const policy::v1::QueueSettings> site_settings;
  std::shared_ptr<const std::string> site_settings_key;
  uint64_t policy_version = 0;
  QueueCaps caps;
  Pace pace;
  bool by_source = false;  // has limits by source
  std::vector<std::unique_ptr<SourcePart>> parts;
  uint64_t last_bytes = 0;         // of the message that was sent last
  uint64_t held_bytes = 0;         // of the message that the volume has no room for yet, or 0
  std::unique_ptr<Search> search;  // that goes on with the next connection
  // What shards and this worker know of its mode, the latest change.
  queue::v1::QueueModeState mode;
  std::vector<queue::v1::DisabledSource> disabled;  // and those that are enabled again
  bool untold = false;                              // a change that no shard has heard of
  uint64_t mode_round = 0;                          // grows when the mode changes
  uint32_t errors_in_row = 0;                       // of max-errors-per-domain
  std::shared_ptr<const config::ReplyRules> rules;  // nullptr: none
  std::vector<Ref> refs;
  std::list<std::unique_ptr<Conn>> conns;
  // Leased and waiting for the pacer.
  struct Waiting {
    uint64_t work_id;
    Transaction transaction;
  };
  std::list<Waiting> waiting;
  bool probe = false;  // retry mode: one connection
  // Connections that ended without an answer to any message, since the last answer.
  size_t useless = 0;
  bool resolving = false;
  uint64_t lookup = 0;  // which one is awaited
  bool slow_lookup = false;
  uint32_t given_up = 0;  // attempts in a row, for others that waited
  TimerId dns_timer = 0;
  MonotonicTime asked_dns{};
  Duration dns_took{};  // of the last lookup, until an attempt has told of it
  // Every connection so far was greeted with a 5xx.
  bool only_5xx_greetings = true;
  MonotonicTime last_open{};
  std::shared_ptr<const MxResult> route;
  std::vector<Target> targets;  // of the route, by preference
  // Of one transaction, as its hosts have let us know; 0: they have not.
  uint32_t most_recipients = 0;
  size_t turn = 0;  // over sources, hosts and addresses of equal rank
  std::string blocked;
  MonotonicTime blocked_until{};
  TimerId timer = 0;
  MonotonicTime timer_at{};
  common::v1::Reply last_failure;
  bool mine = false;    // by the policy service's table
  bool leased = false;  // only within its lease

  // By which its owner is chosen.
  const std::string& owner_key() const { return rollup == nullptr ? name : rollup->key; }

  // By its own rate, or by that of a source it has a connection from: a recipient at a time.
  inline bool counts_recipients() const;
  // Of all its connections.
  inline size_t free_places() const;
  uint64_t due() const {
    uint64_t sum = 0;
    for (const Ref& ref : refs) sum += ref.due_estimate;
    return sum;
  }
  uint32_t credits() const {
    uint32_t sum = 0;
    for (const Ref& ref : refs) sum += ref.credits;
    return sum;
  }
};

struct Worker::Conn final : ConnectionHandler {
  Conn(Worker& worker, Queue& queue) : worker(worker), queue(&queue), site(worker.sites_.end()) {}
  Duration MayConnect() override { return worker.MayConnectAgain(*this); }
  void OnReady() override { worker.OnConnectionReady(*this); }
  void OnResult(queue::v1::GroupResult result) override {
    worker.OnConnectionResult(*this, std::move(result));
  }
  bool MayFinish(uint64_t work_id) override;
  void OnClosed(ConnectionEnd end) override { worker.OnConnectionClosed(*this, std::move(end)); }
  void OnTrace(bool reply, std::string_view text) override { worker.LogTrace(*this, reply, text); }

  // Places for groups, where it may take any.
  size_t free_places() const {
    if (!ready || quitting || too_many_errors()) return 0;
    const size_t most_groups = kGroupsPerConnection + (far_away ? 1 : 0);
    size_t places = most_groups - std::min(under_way, most_groups);
    const uint32_t most = queue->settings->max_msg_per_connection();
    if (most > 0) places = std::min<size_t>(places, most > sent ? most - sent : 0);
    return places;
  }
  // Where a rate holds, the RCPTs must go out at the moment they are charged for, and not behind
  // another transaction that takes its time: the next group waits here, and not at the shard.
  bool may_send() const {
    return under_way < (paced() ? 1 : kGroupsPerConnection) && free_places() > 0;
  }

  // Has had its share of messages, or of errors.
  bool spent() const {
    const uint32_t most = queue->settings->max_msg_per_connection();
    return (most > 0 && sent >= most) || too_many_errors();
  }
  bool too_many_errors() const {
    const uint32_t most = queue->settings->max_errors_per_connection();
    return most > 0 && (errors >= most || no_room);
  }

  bool paced() const {
    return queue->pace.paces() || queue->limits->paced || source->pacer.limited() ||
           !queue->throttles.empty() || worker.AfterReplies(*queue) ||
           (part != nullptr && part->pace.paces());
  }

  Worker& worker;
  Queue* queue;  // that it serves now
  std::unique_ptr<Connection> connection;
  Source* source = nullptr;
  std::vector<Limiter*> hosts;  // and networks with a limit, that it goes to
  SourcePart* part = nullptr;   // of its queue, where there are limits by source
  uint64_t id = 0;
  std::string host;
  std::string address;
  std::string ehlo_name;
  std::vector<size_t> order;  // of the queue's targets, as this one tries them
  size_t next_target = 0;     // into order
  bool ready = false;
  bool quitting = false;
  bool foreign = false;  // of a queue or source that is not ours any more
  size_t under_way = 0;
  MonotonicTime busy_since{};  // with the first of those under way
  bool far_away = false;       // a transaction took kFarAway or longer
  std::vector<uint64_t> work;  // their ids
  bool attempting = false;
  std::list<Conn*>::iterator place_in_attempts;
  uint64_t sent = 0;
  uint64_t delivered = 0;
  uint32_t errors = 0;
  bool no_room = false;  // for more of them, with others of a group still to be sent
  uint32_t tried = 0;    // addresses
  bool tls_logged = false;
  bool set_aside = false;  // its host was, for what it said here
  bool seeks_tls = false;  // is for mail that requires TLS: worker_require_tls.cc
  bool answered = false;   // to any message, be it by a refusal
  // The remote's last one, other than a 421.
  std::optional<common::v1::Reply> refusal;
  // Of the message under way, in every volume that is limited.
  std::vector<std::pair<VolumeWindow*, VolumeWindow::Reserved>> volume;
  TimerId idle = 0;
  MonotonicTime opened{};
  MonotonicTime serving_since{};  // this queue
  MonotonicTime idle_since{};
  std::map<std::string, Site>::iterator site;
  // Queue::site_settings_key and Source::use_starttls as they were when it began.
  std::shared_ptr<const std::string> made_with;
  std::optional<bool> made_starttls;
  // The links of the two lists of idle connections, while it is in neither.
  std::list<Conn*> site_place{this};
  std::list<Conn*> age_place{this};
  std::list<Conn*>::iterator place_in_site;
  std::list<Conn*>::iterator place_in_age;
};

size_t Worker::Queue::free_places() const {
  size_t places = 0;
  for (const auto& conn : conns) places += conn->free_places();
  return places;
}

bool Worker::Queue::counts_recipients() const {
  return pace.counts_recipients() || limits->counts_recipients || !throttles.empty() ||
         (!conns.empty() && conns.front()->worker.AfterReplies(*this)) ||
         std::any_of(conns.begin(), conns.end(), [](const auto& conn) {
           return conn->source->pacer.limited() ||
                  (conn->part != nullptr && conn->part->pace.counts_recipients());
         });
}

}  // namespace sluice::delivery
