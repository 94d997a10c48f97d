// What must hold of every run, checked while it goes: nothing accepted is lost, nothing comes twice
// without a reason that DESIGN gives, no limit is passed in any window.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/base/clock.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::simulation {

// At most so much in any half-open window of `period`; 0: no limit.
struct WindowLimit {
  uint64_t most = 0;
  Duration period{};
};

struct QueueLimit {
  uint32_t connections = 0;  // 0: no limit
  WindowLimit recipients;
  WindowLimit hourly;  // recipients, too
  WindowLimit connects;
  WindowLimit bytes;  // of messages; one that is larger goes alone
};

inline const std::string kPool = "pool";

// Thread-safety: none.
class Ledger {
 public:
  // Told of every step, for people who look for the cause of a failure.
  std::function<void(const std::string&)> log;

  // By queue, "domain/vmta", by virtual MTA, "*/vmta", or by what a queue sends from one source,
  // "domain/vmta@ip", or by address of a site, "ip", or of the pool of v1 and both, kPool, or by
  // domain, "domain/*"; where none stands there is no limit.
  std::map<std::string, QueueLimit, std::less<>> limits;
  // Domains whose limits are those of another name, with all that have the same one.
  std::map<std::string, std::string, std::less<>> rollups;

  // The configuration says so from `now` on. What began before may end within two minutes, and is
  // not counted; connections that stand may stay.
  void Change(const std::string& queue, const QueueLimit& limit, MonotonicTime now);

  // ---- what clients know
  void Accepted(const std::string& id, const std::vector<std::string>& rcpts);

  // ---- what shards say to workers
  void OnShardSays(const std::string& shard, const queue::v1::DispatchResponse& response);

  // ---- what remote sites see
  void Connected(const std::string& queue, const std::string& source, const std::string& address,
                 MonotonicTime now);
  void Disconnected(const std::string& queue, const std::string& source,
                    const std::string& address);
  void Attempted(const std::string& queue, const std::string& source, size_t recipients,
                 MonotonicTime now);
  // The text of a message is written.
  void Sent(const std::string& queue, const std::string& source, uint64_t bytes, MonotonicTime now);
  // The site has taken the message for `rcpt`. Returns a number for ReplySeen.
  size_t Took(const queue::v1::Lease& lease, const std::string& rcpt, MonotonicTime now);
  // The worker has read that reply.
  void ReplySeen(size_t transmission) { taken_[transmission].reply_seen = true; }

  // ---- at the end
  // `duplicates_allowed` false: no fault could have made one.
  void CheckEnd(bool duplicates_allowed);

  void Fail(std::string what);
  const std::vector<std::string>& failures() const { return failures_; }
  size_t accepted_recipients() const { return accepted_recipients_; }
  size_t taken() const { return taken_.size(); }
  size_t duplicates() const { return duplicates_; }
  size_t failed_with_report() const { return reported_; }

 private:
  std::array<std::string, 7> LimitsOf(const std::string& queue, const std::string& source,
                                      const std::string& address = "") const;
  struct Issued {
    std::string shard;
    uint64_t sent = 0;
    uint64_t acknowledged = 0;  // 0: not yet
  };
  struct Taken {
    std::string id;
    std::string rcpt;
    std::pair<std::string, uint64_t> lease;
    bool reply_seen = false;
  };

  uint64_t order_ = 0;
  std::map<std::string, std::vector<std::string>> accepted_;
  size_t accepted_recipients_ = 0;
  std::map<std::pair<std::string, uint64_t>, Issued> leases_;  // shard and id
  // Message and recipient, to the last lease of it.
  std::map<std::pair<std::string, std::string>, std::pair<std::string, uint64_t>> last_lease_;
  std::vector<Taken> taken_;
  std::map<std::pair<std::string, std::string>, std::vector<size_t>> by_recipient_;
  // Each injection has recipients of its own.
  std::map<std::string, std::string> message_of_;
  std::set<std::string> reports_;  // messages of which the sender got a DSN
  std::map<std::string, uint32_t> connections_;
  // What happened within the period.
  struct Window {
    std::deque<std::pair<MonotonicTime, uint64_t>> amounts;
    uint64_t sum = 0;
  };
  void Count(const char* directive, const std::string& name, const WindowLimit& limit,
             uint64_t amount, MonotonicTime now);
  std::map<std::pair<std::string, const char*>, Window> windows_;
  std::map<std::string, MonotonicTime> counted_from_;  // where a limit has changed
  size_t duplicates_ = 0;
  size_t reported_ = 0;
  size_t unexplained_ = 0;
  std::vector<std::string> failures_;
};

}  // namespace sluice::simulation
