// Settings that hold from the start of a service until its end, whatever is reloaded: the addresses
// that it listens on, for one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sluice/policy/v1/settings.pb.h"

namespace sluice::config {

// Of these only they. Pure.
policy::v1::GlobalSettings FixedSettings(const policy::v1::GlobalSettings& settings);

// Directives of which `service` ("ingest", "queue", "delivery") started with other values than
// `now` has: it takes its restart to bring them into force. Pure.
std::vector<std::string> NeedRestart(std::string_view service,
                                     const policy::v1::GlobalSettings& started_with,
                                     const policy::v1::GlobalSettings& now);

}  // namespace sluice::config
