#include "services/node/spool_folder.h"

#include <filesystem>

#include "absl/strings/str_cat.h"

namespace sluice::node {
namespace {

// Every RocksDB has this file.
bool HasSpool(const std::string& folder) {
  std::error_code error;
  return std::filesystem::exists(folder + "/CURRENT", error);
}

}  // namespace

absl::StatusOr<std::string> SpoolFolder(const std::string& data_dir, const std::string& flag,
                                        const std::string& directive) {
  if (!flag.empty()) return flag;
  const std::string own = data_dir + "/spool";
  if (directive.empty()) return own;
  if (!directive.starts_with('/')) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk-queue ", directive, ": give the whole path, from / on"));
  }
  // The folder may hold what another system left there.
  std::string folder = directive;
  while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
  folder += "/sluice-spool";
  if (HasSpool(own) && !HasSpool(folder)) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is mail in ", own, ", and disk-queue says ", directive, ": move ", own,
                     " to ", folder, ", or give --spool-dir ", own));
  }
  return folder;
}

}  // namespace sluice::node
