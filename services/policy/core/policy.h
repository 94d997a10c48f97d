// The policy service's core: directive files and operators' decisions become one versioned
// snapshot, which every service follows.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "services/base/executor.h"
#include "services/base/rpc/stream.h"
#include "services/config/compiler.h"
#include "services/policy/core/source_owners.h"
#include "services/policy/core/watchers.h"
#include "sluice/policy/v1/policy_service.pb.h"

namespace sluice::policy {

struct PolicyOptions {
  // Holds policy-snapshot.pb: the version and the control entries outlive the process.
  std::string data_dir;
  // Directive files, read in this order as one.
  std::vector<std::string> files;
  // Directives and sections that restrict and are not effective, and may be gone without.
  std::vector<std::string> accept_unsupported = {};
  SourceOwnersOptions owners = {};
  // What the snapshot's auth-secret becomes where it has none yet. Empty: drawn from the system.
  std::string auth_secret = {};
};

struct LoadResult {
  // The snapshot in force is that of the files. Otherwise the old one stays in force.
  bool ok = false;
  bool changed = false;
  uint32_t sections_changed = 0;
  std::vector<config::Diagnostic> diagnostics;  // errors and warnings
};

// What services have been sent, with the lines that say it.
struct InForce {
  // The snapshot in force. Without origins of sections that the files say otherwise by now.
  config::Compiled compiled;
  std::string note;  // that there are such sections; for people
};

// Thread-safety: everything on the executor (before it runs, the constructing thread may call
// Load). File access blocks. Lifetime: executor and `files` outlive it.
class Policy {
 public:
  Policy(Executor& executor, PolicyOptions options, config::FileSource& files);
  ~Policy();

  // Reads the last snapshot and the files. Once, before anything else; where not ok, nothing can be
  // served.
  LoadResult Load();
  // Reads the files again. A bad file changes nothing.
  // The warnings say, too, which services hold on to what they started with.
  LoadResult Reload();
  // Whether a file may be read for somebody who names it, as diagnostics show its lines: one in the
  // folder of our files, or below, with the ending of one of them, wherever links lead.
  bool IsBesideOurs(const std::string& file) const;
  // Compiles and changes nothing; `files` empty: those of the options. `thorough`: says also what
  // is most likely not meant.
  config::Compiled Check(const std::vector<std::string>& files, bool thorough = false) const;

  // Reads the files to find the lines.
  InForce ReadInForce() const;

  StreamService<v1::WatchPolicyRequest, v1::WatchPolicyResponse>& watch() { return watchers_; }
  const Watchers& watchers() const { return watchers_; }
  Watchers& watchers() { return watchers_; }
  const SourceOwners& owners() const { return owners_; }

  uint64_t version() const { return snapshot_.version(); }
  const v1::PolicySnapshot& snapshot() const { return snapshot_; }

  // Control entries, in order of id.
  std::vector<v1::ControlEntry> controls() const;
  // Durable and on its way to all services when it returns. An entry with the same queue pattern
  // and job is replaced and keeps its id; id and since_us are given here. INVALID_ARGUMENT where
  // the entry names neither, or ended already.
  absl::StatusOr<v1::ControlEntry> AddControl(v1::ControlEntry entry);
  // Removes those for which `matches` is true; how many.
  absl::StatusOr<uint32_t> RemoveControls(
      absl::AnyInvocable<bool(const v1::ControlEntry&) const> matches);

 private:
  std::string snapshot_path() const;
  absl::Status ReadSnapshot();
  config::Compiled CompileWith(const std::vector<std::string>& files,
                               config::CompileOptions options) const;
  LoadResult Compile();
  std::map<std::string, std::string> NeedRestart() const;
  // Gives `sections` the next version, makes it durable and sends it. No change: no new version.
  absl::StatusOr<uint32_t> Publish(std::vector<v1::Section> sections);
  // What the files say, or what they do not.
  std::vector<v1::Section> SectionsOfFiles(bool of_files) const;
  v1::Section AuthSecret() const;
  void ScheduleExpiry();
  absl::Status PublishOwners(const v1::OwnersTable& table);
  void TellOwners();

  Executor& executor_;
  const PolicyOptions options_;
  config::FileSource& files_;
  config::CompileCache cache_;
  v1::PolicySnapshot snapshot_;
  Watchers watchers_;
  SourceOwners owners_;
  TimerId expiry_ = 0;
};

}  // namespace sluice::policy
