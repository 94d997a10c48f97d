#include "services/node/cpus.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace sluice::node {

unsigned AvailableCpus() {
  cpu_set_t set;
  unsigned cpus = 1;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    cpus = static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  }
  double quota = 0;
  double period = 0;
  std::string text;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> text >> period && text != "max") {
    quota = std::atof(text.c_str());
  } else {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  if (quota > 0 && period > 0) {
    cpus = std::min(cpus, std::max(1U, static_cast<unsigned>(quota / period)));
  }
  return cpus;
}

}  // namespace sluice::node
