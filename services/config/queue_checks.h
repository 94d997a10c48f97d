// What does not go together among the settings that hold for a queue, whichever sections say them.
#pragma once

#include <vector>

#include "services/config/compiler.h"

namespace sluice::config {

// Warnings at the lines concerned, each pair of lines once: limits of backoff mode above the
// ordinary ones, require-starttls where use-starttls is off. `compiled` is ok() and was made with
// keep_origins. Looks at 100,000 queues at most: one for each pattern and virtual MTA that says
// something of it. Pure.
std::vector<Diagnostic> CheckQueues(const Compiled& compiled);

}  // namespace sluice::config
