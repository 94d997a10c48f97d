#include "services/policy/core/policy.h"

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "services/base/latest_time.h"
#include "services/config/durable_file.h"
#include "services/config/fixed_settings.h"
#include "services/config/policy_view.h"
#include "services/config/semantic_checks.h"
#include "services/config/snapshot_delta.h"
#include "services/config/snapshot_hash.h"

namespace sluice::policy {
namespace {

constexpr std::string_view kControlPrefix = "control/";
constexpr std::string_view kAuthSecret = "auth-secret";
constexpr int kAuthSecretBytes = 32;
// Versions beyond this are taken for nonsense, not for ours.
constexpr uint64_t kMaxVersion = uint64_t{1} << 60;
constexpr size_t kMaxControls = 10'000;
constexpr size_t kMaxTextBytes = 1'000;

config::Diagnostic ErrorOf(std::string message) {
  return {config::Diagnostic::Severity::kError, {}, std::move(message), ""};
}

bool IsOfFiles(const v1::Section& section) {
  return section.name() != kAuthSecret && !section.name().starts_with(kControlPrefix);
}

uint32_t CountChanges(const v1::PolicySnapshot& before, const v1::PolicySnapshot& after) {
  const auto delta = config::MakeDelta(before, after);
  return static_cast<uint32_t>(delta.changed_size() + delta.removed_size());
}

}  // namespace

Policy::Policy(Executor& executor, PolicyOptions options, config::FileSource& files)
    : executor_(executor),
      options_(std::move(options)),
      files_(files),
      watchers_(executor, snapshot_),
      owners_(executor, options_.owners,
              [this](const v1::OwnersTable& table) { return PublishOwners(table); }) {
  watchers_.set_on_report([this](const std::string& worker, const v1::ServiceReport& report) {
    return owners_.OnReport(worker, report);
  });
  watchers_.set_on_shard_report(
      [this](const v1::ServiceReport& report) { owners_.OnShardReport(report); });
  watchers_.set_on_shard_hello([this](const std::string& shard, bool keeps_owners) {
    owners_.OnShardHello(shard, keeps_owners);
  });
  watchers_.set_on_shard_gone([this](const std::string& shard) { owners_.OnShardGone(shard); });
  watchers_.set_on_worker_gone([this](const std::string& worker) { owners_.OnGone(worker); });
  watchers_.set_on_newer([this](uint64_t version) {
    if (version >= kMaxVersion) return;
    // Services must not mistake an old version of theirs for ours: go on above it.
    v1::PolicySnapshot next = snapshot_;
    next.set_version(version + 1);
    if (!config::ReplaceFile(snapshot_path(), next.SerializeAsString(), true).ok()) return;
    const v1::PolicySnapshot before = std::exchange(snapshot_, std::move(next));
    watchers_.Changed(before);
  });
}

Policy::~Policy() {
  if (expiry_ != 0) executor_.Cancel(expiry_);
}

std::string Policy::snapshot_path() const {
  return absl::StrCat(options_.data_dir, "/policy-snapshot.pb");
}

absl::Status Policy::ReadSnapshot() {
  const auto bytes = config::ReadWholeFile(snapshot_path());
  if (absl::IsNotFound(bytes.status())) return absl::OkStatus();
  if (!bytes.ok()) return bytes.status();
  v1::PolicySnapshot snapshot;
  if (!snapshot.ParseFromString(*bytes) || !config::IsIntact(snapshot)) {
    // To go on without it would silently end every operator's pause.
    return absl::DataLossError(absl::StrCat(
        snapshot_path(), " is damaged; move it away to start without the pauses that it keeps"));
  }
  snapshot_ = std::move(snapshot);
  return absl::OkStatus();
}

LoadResult Policy::Load() {
  std::error_code error;  // the first write says what is wrong with the folder
  std::filesystem::create_directories(options_.data_dir, error);
  if (const absl::Status status = ReadSnapshot(); !status.ok()) {
    LoadResult result;
    result.diagnostics.push_back(ErrorOf(std::string(status.message())));
    return result;
  }
  if (snapshot_.owners().epoch() != 0) owners_.Load(snapshot_.owners());
  LoadResult result = Compile();
  if (result.ok) executor_.Post([this] { ScheduleExpiry(); });
  return result;
}

LoadResult Policy::Reload() {
  LoadResult result = Compile();
  if (!result.ok) return result;
  for (const auto& [name, instances] : NeedRestart()) {
    result.diagnostics.push_back(
        {config::Diagnostic::Severity::kWarning,
         {},
         absl::StrCat(name, " is not what holds: that takes a restart of ", instances),
         ""});
  }
  return result;
}

// By directive the services that started with another value of it: "ingest mx-1, ingest mx-2".
std::map<std::string, std::string> Policy::NeedRestart() const {
  v1::GlobalSettings now;
  for (const v1::Section& section : snapshot_.sections()) {
    if (section.content().has_global()) now = section.content().global().settings();
  }
  std::map<std::string, std::string> needed;
  for (const WatcherState& state : watchers_.states()) {
    if (!state.connected || !state.hello.has_started_with()) continue;
    const auto& decided = state.hello.flags_decide();
    for (const std::string& name :
         config::NeedRestart(state.service, state.hello.started_with(), now)) {
      if (std::find(decided.begin(), decided.end(), name) != decided.end()) continue;
      std::string& instances = needed[name];
      absl::StrAppend(&instances, instances.empty() ? "" : ", ", state.service, " ",
                      state.instance);
    }
  }
  return needed;
}

config::Compiled Policy::CompileWith(const std::vector<std::string>& files,
                                     config::CompileOptions options) const {
  options.accept_unsupported = {options_.accept_unsupported.begin(),
                                options_.accept_unsupported.end()};
  config::Compiled compiled =
      config::Compile(files.empty() ? options_.files : files, files_, options);
  if (!compiled.ok()) return compiled;
  if (const auto view = config::PolicyView::Build(compiled.snapshot); !view.ok()) {
    compiled.diagnostics.push_back(ErrorOf(std::string(view.status().message())));
  }
  return compiled;
}

bool Policy::IsBesideOurs(const std::string& file) const {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path path = fs::canonical(file, error);
  if (error) return false;
  const auto is_below = [&path](const fs::path& folder) {
    if (folder.empty() || folder == "/" || folder == "/etc") return false;  // not ours alone
    const auto end = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
    return end.first == folder.end() && end.second != path.end();
  };
  return std::any_of(options_.files.begin(), options_.files.end(), [&](const std::string& ours) {
    const fs::path own = fs::canonical(ours, error);
    if (error) return false;
    const fs::path named = fs::canonical(fs::absolute(ours).parent_path(), error);
    // By its name before links: a mounted ConfigMap is all links.
    return path == own || (fs::path(file).extension() == fs::path(ours).extension() &&
                           path.extension() == own.extension() &&
                           (is_below(own.parent_path()) || (!error && is_below(named))));
  });
}

config::Compiled Policy::Check(const std::vector<std::string>& files, bool thorough) const {
  config::CompileOptions options;
  options.keep_origins = thorough;
  config::Compiled compiled = CompileWith(files, std::move(options));
  if (!compiled.ok() || !thorough) return compiled;
  for (auto& warning : config::CheckSemantics(compiled, files_, std::nullopt)) {
    compiled.diagnostics.push_back(std::move(warning));
  }
  return compiled;
}

InForce Policy::ReadInForce() const {
  config::CompileOptions options;
  options.keep_origins = true;
  InForce in_force{CompileWith({}, std::move(options)), ""};
  config::Compiled& compiled = in_force.compiled;
  if (!compiled.ok()) {
    compiled.origins.clear();
    compiled.lines.clear();
    compiled.host_lines.clear();
    in_force.note = "the files do not load by now, so no lines are known";
  } else {
    v1::PolicySnapshot files = std::move(compiled.snapshot);
    std::set<std::string> changed;
    for (const auto& section : SectionsOfFiles(false)) *files.add_sections() = section;
    config::SortSections(&files);
    const auto delta = config::MakeDelta(snapshot_, files);
    for (const v1::Section& section : delta.changed()) changed.insert(section.name());
    for (const std::string& name : delta.removed()) changed.insert(name);
    absl::erase_if(compiled.origins, [&](const auto& place) {
      // Places begin with the section's name.
      return changed.contains(place.first.substr(0, place.first.find(' ')));
    });
    std::erase_if(compiled.host_lines, [&](const config::HostLine& line) {
      return changed.contains(absl::StrCat("vmta/", line.vmta));
    });
    if (!changed.empty()) {
      in_force.note = absl::StrCat(changed.size(),
                                   " sections are different in the files by now; a reload brings "
                                   "them into force");
    }
  }
  compiled.snapshot = snapshot_;
  return in_force;
}

LoadResult Policy::Compile() {
  LoadResult result;
  config::CompileOptions options;
  options.cache = &cache_;
  config::Compiled compiled = CompileWith({}, std::move(options));
  const bool good = compiled.ok();
  result.diagnostics = std::move(compiled.diagnostics);
  if (!good) return result;
  std::vector<v1::Section> sections = SectionsOfFiles(false);
  if (std::none_of(sections.begin(), sections.end(),
                   [](const v1::Section& each) { return each.name() == kAuthSecret; })) {
    sections.push_back(AuthSecret());
  }
  for (auto& section : *compiled.snapshot.mutable_sections()) {
    sections.push_back(std::move(section));
  }
  const absl::StatusOr<uint32_t> changes = Publish(std::move(sections));
  if (!changes.ok()) {
    result.diagnostics.push_back(ErrorOf(std::string(changes.status().message())));
    return result;
  }
  TellOwners();
  result.ok = true;
  result.changed = *changes > 0;
  result.sections_changed = *changes;
  return result;
}

std::vector<v1::Section> Policy::SectionsOfFiles(bool of_files) const {
  std::vector<v1::Section> sections;
  for (const v1::Section& section : snapshot_.sections()) {
    if (IsOfFiles(section) == of_files) sections.push_back(section);
  }
  return sections;
}

v1::Section Policy::AuthSecret() const {
  std::string secret = options_.auth_secret;
  std::random_device system;  // bytes of the kernel's
  while (secret.size() < kAuthSecretBytes) {
    const uint32_t four = system();
    secret.append(reinterpret_cast<const char*>(&four), sizeof(four));
  }
  v1::SectionContent content;
  content.mutable_auth_secret()->set_secret(secret);
  return config::MakeSection(std::string(kAuthSecret), std::move(content));
}

absl::StatusOr<uint32_t> Policy::Publish(std::vector<v1::Section> sections) {
  v1::PolicySnapshot next;
  for (v1::Section& section : sections) *next.add_sections() = std::move(section);
  config::SortSections(&next);
  *next.mutable_owners() = snapshot_.owners();
  const uint32_t changes = CountChanges(snapshot_, next);
  if (changes == 0 && snapshot_.version() != 0) return 0;
  next.set_version(snapshot_.version() + 1);
  next.set_compiled_unix_us(ToUnixMicros(executor_.clock().WallNow()));
  if (const absl::Status status =
          config::ReplaceFile(snapshot_path(), next.SerializeAsString(), true);
      !status.ok()) {
    return status;
  }
  const v1::PolicySnapshot before = std::exchange(snapshot_, std::move(next));
  watchers_.Changed(before);
  return std::max<uint32_t>(changes, 1);
}

absl::Status Policy::PublishOwners(const v1::OwnersTable& table) {
  v1::PolicySnapshot next = snapshot_;
  *next.mutable_owners() = table;
  if (absl::Status status = config::ReplaceFile(snapshot_path(), next.SerializeAsString(), true);
      !status.ok()) {
    return status;
  }
  *snapshot_.mutable_owners() = table;
  watchers_.OwnersChanged();
  return absl::OkStatus();
}

void Policy::TellOwners() {
  std::vector<SourceOwners::Vmta> vmtas;
  for (const v1::Section& section : snapshot_.sections()) {
    if (!section.content().has_virtual_mta()) continue;
    const v1::VirtualMtaSection& said = section.content().virtual_mta();
    SourceOwners::Vmta& vmta = vmtas.emplace_back();
    vmta.name = said.name();
    for (const auto& host : said.source_hosts()) vmta.ips.push_back(host.ip());
    vmta.whole = SourceOwners::OneWorkers(said);
  }
  if (vmtas.empty()) vmtas.push_back({"default", {}, false});  // as PolicyView has it
  owners_.SetConfig(std::move(vmtas));
}

std::vector<v1::ControlEntry> Policy::controls() const {
  std::vector<v1::ControlEntry> entries;
  for (const v1::Section& section : snapshot_.sections()) {
    if (section.content().has_control()) entries.push_back(section.content().control());
  }
  return entries;
}

absl::StatusOr<v1::ControlEntry> Policy::AddControl(v1::ControlEntry entry) {
  const int64_t now_us = ToUnixMicros(executor_.clock().WallNow());
  if (entry.queue_pattern().empty() && entry.job_id().empty()) {
    return absl::InvalidArgumentError("a queue pattern or a job is needed; \"*\" is every queue");
  }
  if (entry.until_us() != 0 && entry.until_us() <= now_us) {
    return absl::InvalidArgumentError("the end is in the past");
  }
  if (entry.until_us() > kLatestUnixUs) {
    return absl::InvalidArgumentError("the end is after the year 9999");
  }
  for (const std::string* text :
       {&entry.queue_pattern(), &entry.job_id(), &entry.reason(), &entry.author()}) {
    if (text->size() > kMaxTextBytes) {
      return absl::InvalidArgumentError("a text is longer than 1000 bytes");
    }
  }
  entry.set_since_us(now_us);
  entry.clear_id();
  std::vector<v1::Section> sections;
  size_t others = 0;
  bool taken = true;
  for (const v1::Section& section : snapshot_.sections()) {
    const v1::ControlEntry& old = section.content().control();
    if (section.content().has_control() && old.kind() == entry.kind() &&
        old.queue_pattern() == entry.queue_pattern() && old.job_id() == entry.job_id()) {
      entry.set_id(old.id());
      continue;
    }
    others += section.content().has_control() ? 1 : 0;
    sections.push_back(section);
  }
  if (others >= kMaxControls) {
    return absl::ResourceExhaustedError("there are 10000 pauses; resume some, or use patterns");
  }
  for (int64_t unique = now_us; entry.id().empty() && taken; ++unique) {
    const std::string id = absl::StrCat("pause-", unique);
    taken = std::any_of(sections.begin(), sections.end(), [&](const v1::Section& section) {
      return section.content().control().id() == id;
    });
    if (!taken) entry.set_id(id);
  }
  v1::SectionContent content;
  *content.mutable_control() = entry;
  sections.push_back(config::MakeSection(absl::StrCat("control/", entry.id()), std::move(content)));
  if (const auto changes = Publish(std::move(sections)); !changes.ok()) return changes.status();
  ScheduleExpiry();
  return entry;
}

absl::StatusOr<uint32_t> Policy::RemoveControls(
    absl::AnyInvocable<bool(const v1::ControlEntry&) const> matches) {
  std::vector<v1::Section> kept;
  uint32_t removed = 0;
  for (const v1::Section& section : snapshot_.sections()) {
    if (section.content().has_control() && matches(section.content().control())) {
      ++removed;
    } else {
      kept.push_back(section);
    }
  }
  if (removed == 0) return 0;
  if (const auto changes = Publish(std::move(kept)); !changes.ok()) return changes.status();
  ScheduleExpiry();
  return removed;
}

void Policy::ScheduleExpiry() {
  if (expiry_ != 0) executor_.Cancel(expiry_);
  expiry_ = 0;
  int64_t first_us = 0;
  for (const v1::ControlEntry& entry : controls()) {
    if (entry.until_us() != 0 && (first_us == 0 || entry.until_us() < first_us)) {
      first_us = entry.until_us();
    }
  }
  if (first_us == 0) return;
  const int64_t now_us = ToUnixMicros(executor_.clock().WallNow());
  // Not in one long wait: the wall clock may be set in between. At least a second, so that a full
  // disk does not make this a busy loop.
  const int64_t wait_us =
      std::clamp<int64_t>(first_us - now_us, 1'000'000, int64_t{60} * 1'000'000);
  expiry_ = executor_.After(std::chrono::microseconds(wait_us), [this] {
    expiry_ = 0;
    const int64_t now = ToUnixMicros(executor_.clock().WallNow());
    const auto removed = RemoveControls([now](const v1::ControlEntry& entry) {
      return entry.until_us() != 0 && entry.until_us() <= now;
    });
    if (!removed.ok() || *removed == 0) ScheduleExpiry();
  });
}

}  // namespace sluice::policy
