// The admin calls that the policy service answers by itself.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/config/explain.h"
#include "services/policy/core/admin.h"

namespace sluice::policy {
namespace {

// An RPC's status travels in a header line, which has a bound.
constexpr size_t kMaxStatusBytes = 4'000;
constexpr uint32_t kDefaultWaitMs = 5'000;
constexpr uint32_t kMaxWaitMs = 60'000;

void WriteWatchers(const Watchers& watchers,
                   google::protobuf::RepeatedPtrField<admin::v1::WatcherStatus>* list) {
  for (const WatcherState& state : watchers.states()) {
    auto* const watcher = list->Add();
    watcher->set_service(state.service);
    watcher->set_instance(state.instance);
    watcher->set_acked_version(state.acked_version);
    watcher->set_error(state.error);
    watcher->set_connected(state.connected);
  }
}

}  // namespace

Admin::Admin(Executor& executor, Policy& policy, AdminPeers& peers, AdminOptions options)
    : executor_(executor), policy_(policy), peers_(peers), options_(std::move(options)) {}

void Admin::Pause(admin::v1::PauseRequest request, Done<admin::v1::PauseResponse> done) {
  v1::ControlEntry entry;
  entry.set_kind(v1::ControlEntry::KIND_PAUSE);
  // Queue names are in lower case.
  entry.set_queue_pattern(absl::AsciiStrToLower(request.queue_pattern()));
  entry.set_job_id(request.job_id());
  entry.set_reason(request.reason());
  entry.set_author(request.author());
  entry.set_until_us(request.until_us());
  auto added = policy_.AddControl(std::move(entry));
  if (!added.ok()) return done(added.status());
  admin::v1::PauseResponse response;
  *response.mutable_entry() = *std::move(added);
  response.set_snapshot_version(policy_.version());
  policy_.watchers().WhenAcknowledged(
      policy_.version(), options_.control_wait,
      [done = std::move(done), response = std::move(response)]() mutable {
        done(std::move(response));
      });
}

void Admin::Resume(admin::v1::ResumeRequest request, Done<admin::v1::ResumeResponse> done) {
  if (request.id().empty() && request.queue_pattern().empty() && request.job_id().empty()) {
    return done(absl::InvalidArgumentError("an id, a queue pattern or a job is needed"));
  }
  const std::string pattern = absl::AsciiStrToLower(request.queue_pattern());
  const auto removed = policy_.RemoveControls([&](const v1::ControlEntry& entry) {
    if (!request.id().empty()) return entry.id() == request.id();
    return entry.queue_pattern() == pattern && entry.job_id() == request.job_id();
  });
  if (!removed.ok()) return done(removed.status());
  admin::v1::ResumeResponse response;
  response.set_resumed(*removed);
  response.set_snapshot_version(policy_.version());
  policy_.watchers().WhenAcknowledged(
      policy_.version(), options_.control_wait,
      [done = std::move(done), response = std::move(response)]() mutable {
        done(std::move(response));
      });
}

void Admin::ListOwners(admin::v1::ListOwnersRequest, Done<admin::v1::ListOwnersResponse> done) {
  admin::v1::ListOwnersResponse response;
  const SourceOwners& owners = policy_.owners();
  response.set_epoch(owners.table().epoch());
  for (SourceOwners::Shown& each : owners.List()) {
    auto* const source = response.add_sources();
    source->set_vmta(std::move(each.vmta));
    source->set_source_ip(std::move(each.ip));
    source->set_worker(std::move(each.worker));
    source->set_connected(each.connected);
    source->set_leased(each.leased);
    if (each.lease_age) {
      source->set_lease_age_us(std::max<int64_t>(1, each.lease_age->count()));
    }
    source->set_changing(each.changing);
    source->set_next_worker(std::move(each.next));
    source->set_waits_for(std::move(each.waits_for));
  }
  for (const std::string& shard : owners.table().witnesses()) {
    auto* const witness = response.add_witnesses();
    witness->set_shard(shard);
    witness->set_epoch(owners.WitnessEpoch(shard));
    witness->set_old_release(owners.WitnessIsOld(shard));
  }
  done(std::move(response));
}

void Admin::ListPauses(admin::v1::ListPausesRequest, Done<admin::v1::ListPausesResponse> done) {
  admin::v1::ListPausesResponse response;
  for (v1::ControlEntry& entry : policy_.controls()) {
    if (entry.kind() == v1::ControlEntry::KIND_PAUSE) *response.add_entries() = std::move(entry);
  }
  done(std::move(response));
}

void Admin::ReloadConfig(admin::v1::ReloadConfigRequest request,
                         Done<admin::v1::ReloadConfigResponse> done) {
  const LoadResult result = policy_.Reload();
  if (!result.ok) {
    std::string text = config::Render(result.diagnostics);
    if (text.size() > kMaxStatusBytes) text = text.substr(0, kMaxStatusBytes) + "...";
    return done(absl::FailedPreconditionError(text));
  }
  admin::v1::ReloadConfigResponse response;
  response.set_version(policy_.version());
  response.set_changed(result.changed);
  response.set_sections_changed(result.sections_changed);
  for (const config::Diagnostic& warning : result.diagnostics) {
    response.add_warnings(warning.ToString());
  }
  const uint32_t wait_ms =
      std::min(request.wait_ms() == 0 ? kDefaultWaitMs : request.wait_ms(), kMaxWaitMs);
  policy_.watchers().WhenAcknowledged(
      policy_.version(), std::chrono::milliseconds(wait_ms),
      [this, done = std::move(done), response = std::move(response)]() mutable {
        WriteWatchers(policy_.watchers(), response.mutable_watchers());
        done(std::move(response));
      });
}

void Admin::CheckConfig(admin::v1::CheckConfigRequest request,
                        Done<admin::v1::CheckConfigResponse> done) {
  for (const std::string& file : request.files()) {
    if (policy_.IsBesideOurs(file)) continue;
    return done(absl::PermissionDeniedError(
        absl::StrCat(file,
                     " is not in the folder of the files that the policy service was started "
                     "with, or has another ending than they: check it where it is, with "
                     "`sluicectl config check`")));
  }
  const config::Compiled compiled =
      policy_.Check({request.files().begin(), request.files().end()}, true);
  admin::v1::CheckConfigResponse response;
  response.set_loads(compiled.ok());
  response.set_effective(compiled.tally.effective);
  response.set_aliases(compiled.tally.aliases);
  response.set_planned(compiled.tally.planned);
  response.set_no_meaning(compiled.tally.no_meaning);
  response.set_unsupported(compiled.tally.unsupported);
  for (const config::Diagnostic& diagnostic : compiled.diagnostics) {
    response.add_diagnostics(diagnostic.ToString());
  }
  done(std::move(response));
}

void Admin::ExplainConfig(admin::v1::ExplainConfigRequest request,
                          Done<admin::v1::ExplainConfigResponse> done) {
  const InForce in_force = policy_.ReadInForce();
  auto answer =
      config::Explain(in_force.compiled, {request.domain(), request.vmta(), request.pool(),
                                          request.source(), request.client(), request.mx()});
  if (!answer.ok()) return done(answer.status());
  admin::v1::ExplainConfigResponse response;
  response.set_snapshot_version(policy_.version());
  for (const auto& [name, settings] : answer->subjects) {
    auto* const subject = response.add_subjects();
    subject->set_subject(name);
    for (const config::ExplainedSetting& setting : settings) {
      auto* const row = subject->add_settings();
      row->set_directive(setting.directive);
      row->set_value(setting.value);
      row->set_section(setting.section);
      row->set_where(setting.where);
      row->set_is_default(setting.is_default);
    }
  }
  for (const std::string& note : answer->notes) response.add_notes(note);
  if (!in_force.note.empty()) response.add_notes(in_force.note);
  done(std::move(response));
}

}  // namespace sluice::policy
