#include "services/node/policy_part.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "services/config/diagnostic.h"

namespace sluice::node {

PolicyPart::~PolicyPart() { Stop(); }

absl::Status PolicyPart::Start() {
  policy::PolicyOptions options;
  options.data_dir = options_.data_dir + "/policy";
  std::error_code error;
  std::filesystem::create_directories(options.data_dir, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make the folder ", options.data_dir, ": ", error.message()));
  }
  options.files = options_.config;
  options.accept_unsupported = options_.accept_unsupported;
  if (options_.role == Role::kNode) options.owners.embedded_worker = options_.instance;
  for (const std::string& shard : options_.shards) {
    options.owners.witnesses.push_back(shard.substr(0, shard.find('=')));
  }
  if (!options.owners.witnesses.empty() && options_.role == Role::kNode) {
    options.owners.witnesses.push_back(options_.shard);
  }
  policy_ = std::make_unique<policy::Policy>(thread_.loop(), options, files_);
  const policy::LoadResult loaded = policy_->Load();
  if (!loaded.ok) {
    return absl::InvalidArgumentError(
        absl::StrCat("the configuration cannot be used\n", config::Render(loaded.diagnostics)));
  }
  auto view = config::PolicyView::Build(policy_->snapshot());
  if (!view.ok()) return view.status();
  first_view_ = *std::move(view);
  thread_.Start();
  return absl::OkStatus();
}

std::string PolicyPart::Reload() {
  return thread_.Call([this] {
    const policy::LoadResult result = policy_->Reload();
    if (!result.ok) {
      return absl::StrCat("reload refused, the old configuration stays\n",
                          config::Render(result.diagnostics));
    }
    return absl::StrCat("reloaded: version ", policy_->version(), ", ", result.sections_changed,
                        " sections changed");
  });
}

PolicyPart::Figures PolicyPart::figures() {
  return thread_.Call([this] {
    Figures figures;
    figures.version = policy_->version();
    for (const policy::WatcherState& watcher : policy_->watchers().states()) {
      if (!watcher.connected) continue;
      ++figures.connected;
      figures.behind += watcher.acked_version != figures.version ? 1 : 0;
      figures.refusing += watcher.error.empty() ? 0 : 1;
    }
    figures.pauses = policy_->controls().size();
    figures.owners_epoch = policy_->owners().table().epoch();
    for (const auto& source : policy_->owners().List()) {
      figures.changing += source.changing ? 1 : 0;
      figures.unowned += source.worker.empty() ? 1 : 0;
    }
    return figures;
  });
}

}  // namespace sluice::node
