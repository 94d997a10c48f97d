// How many CPUs this process may use.
#pragma once

namespace sluice::node {

// The affinity mask, cut by the cgroup's quota (v1 and v2): hardware_concurrency shows the host's
// cores in a container. At least one.
unsigned AvailableCpus();

}  // namespace sluice::node
