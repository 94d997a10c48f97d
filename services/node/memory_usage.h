// How much of the memory that this process may use is in use, by whomever.
#pragma once

#include <cstdint>
#include <string>

namespace sluice::node {

// From 0 to 100: of the machine (what is no cache that could be given back), or of the control
// group (version 2) that this process is in, whichever is more. 0 where neither can be read.
// `proc` and `cgroups` are where those file systems are, for tests. Reads four small files.
uint32_t MemoryUsagePercent(const std::string& proc = "/proc",
                            const std::string& cgroups = "/sys/fs/cgroup");

}  // namespace sluice::node
