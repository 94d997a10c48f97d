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

}  // namespace sluice::node
