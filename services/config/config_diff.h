// What a new configuration changes in effect: queue by queue, client by client.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/config/compiler.h"

namespace sluice::config {

struct ChangedSetting {
  std::string directive;
  std::string before;  // empty: not there
  std::string after;
  std::string where_before;  // "file:line", or "default"
  std::string where_after;
  bool needs_restart = false;  // a reload does not bring it into force
};

struct ConfigChange {
  // "queue gmail.com/news", "queue gmail.com/*" for all virtual MTAs, "client 10.0.0.0/8",
  // "source 192.0.2.1", "virtual-mta news", "virtual-mta-pool all", "outside of sections".
  std::string subject;
  std::vector<ChangedSetting> settings;
};

// In order of subject; at most 10,000 subjects, a last one then says how many more there are. Both
// were made with keep_origins and are ok(). A pattern is shown by the pattern itself, "*.edu", and
// stands for a domain that only it matches. INVALID_ARGUMENT as PolicyView::Build. Pure.
absl::StatusOr<std::vector<ConfigChange>> DiffConfigs(const Compiled& before,
                                                      const Compiled& after);

std::string RenderChanges(const std::vector<ConfigChange>& changes);

}  // namespace sluice::config
