// Pickup folders: files that are put there are taken in as messages. All file work happens on a
// thread of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "services/base/clock.h"
#include "services/base/log/log.h"
#include "services/config/policy_view.h"
#include "sluice/ingest/v1/ingest_service.pb.h"

namespace sluice::ingest {

struct PickupOptions {
  Duration period = std::chrono::seconds(1);
  // A file that changed less long ago may still be being written: programs move finished files in,
  // and a moved file keeps its time.
  Duration settle = std::chrono::seconds(1);
  // After a message was put off, or a file could not be read (then twice as long each time), where
  // the policy does not say it.
  Duration retry = std::chrono::seconds(10);
  Duration max_retry = std::chrono::minutes(10);
  // A file that could not be read so often is a bad one.
  uint32_t max_reads = 8;
  size_t max_messages = 32;                     // on their way at once
  uint64_t max_bytes = 64 * 1024 * 1024;        // of them; one that is larger goes alone
  uint64_t max_file_bytes = 256 * 1024 * 1024;  // larger ones are bad
};

struct PickupCounters {
  uint64_t taken = 0;
  uint64_t bad = 0;
  uint64_t put_off = 0;
  uint64_t unreadable = 0;  // tries
  // Now: files that wait after an error, and folders that cannot be read or written to.
  uint64_t stuck = 0;
};

// A file is removed once its message is durable. Where the process dies in between, the file is
// offered again under the same idempotency key, and nothing is sent twice as long as shards
// remember the key. Bad files are moved to the bad folder, with the reason beside them
// (NAME.reason); one that cannot be read is tried max_reads times before. A file that is taken and
// cannot be removed is not offered again as long as the process lives, nor is one of a folder that
// may not be written to. Files whose name begins with "." and what is no regular file are left
// alone. Thread-safety: all functions from any thread. Lifetime: whatever `submit` needs outlives
// it.
class Pickup {
 public:
  // Called on the pickup's thread. `done` may be called from any thread, also after the pickup is
  // gone: OK once the message is durable; INVALID_ARGUMENT and PERMISSION_DENIED make the file a
  // bad one; with all else it is tried again.
  using Submit = std::function<void(v1::InjectRequest, absl::AnyInvocable<void(absl::Status)>)>;

  // `log` may be nullptr.
  Pickup(const Clock& clock, Submit submit, const PickupOptions& options, Log* log);
  ~Pickup();
  Pickup(const Pickup&) = delete;
  Pickup& operator=(const Pickup&) = delete;

  // The folders of the policy, and how their files are read. A folder that cannot be read is named
  // in the log, once.
  void SetPolicy(const config::PolicyView& policy);
  // Starts the thread.
  void Start();
  // Takes nothing new; what is on its way is answered within `limit`, or stays a file.
  void Stop(Duration limit);

  // One turn, for tests without the thread.
  void RunOnce();
  PickupCounters counters() const;

 private:
  struct Folder {
    std::string path;
    std::string bad;
    MonotonicTime not_before{};
    std::string broken;  // why, as it was said in the log
  };
  // A file after an error.
  struct Trouble {
    uint32_t tries = 0;
    MonotonicTime not_before{};
    std::string taken;  // the key of the message that was taken from it
  };
  struct File;
  struct Shared;

  void Work();
  void TakeAnswers();
  void Scan(Folder& folder);
  // False: no room now.
  bool Offer(Folder& folder, const std::string& name);
  void Finish(const File& file, const absl::Status& status);
  // Leaves the file alone for a while.
  Trouble& Delay(const std::string& path);
  void OnUnreadable(const std::string& path, const std::string& bad, const std::string& why);
  void RemoveTaken(const std::string& path, const std::string& folder, const std::string& key);
  void SayBroken(Folder& folder, std::string why);
  void ForgetTroubles(const std::string& folder, const std::vector<std::string>& names);
  void Warn(const std::string& what, const std::string& path);
  void MarkBad(const std::string& path, const std::string& bad, const std::string& reason);

  const Clock& clock_;
  Log* const log_;
  const Submit submit_;
  PickupOptions options_;
  bool remove_dot_ = false;
  // Answers, and what outside says; outlives the pickup where an answer is late.
  const std::shared_ptr<Shared> shared_;
  std::vector<Folder> folders_;              // the thread's, as all below
  std::set<std::string> under_way_;          // paths
  std::map<std::string, Trouble> troubles_;  // by path
  uint64_t bytes_under_way_ = 0;
  std::thread thread_;
};

}  // namespace sluice::ingest
