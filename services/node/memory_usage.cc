#include "services/node/memory_usage.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string_view>

namespace sluice::node {
namespace {

// The number after the first line that begins with `name` and a blank or a colon.
std::optional<uint64_t> Field(const std::string& path, std::string_view name) {
  std::ifstream file(path);
  uint64_t value = 0;
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with(name)) continue;
    const size_t digit = line.find_first_of("0123456789", name.size());
    if (digit == line.npos || line.find_first_not_of(" :\t", name.size()) != digit) continue;
    for (size_t i = digit; i < line.size() && line[i] >= '0' && line[i] <= '9'; ++i) {
      value = value * 10 + static_cast<uint64_t>(line[i] - '0');
    }
    return value;
  }
  return std::nullopt;
}

uint32_t Percent(uint64_t used, uint64_t of) {
  return of == 0 ? 0 : static_cast<uint32_t>(std::min<uint64_t>(100, used * 100 / of));
}

uint32_t OfMachine(const std::string& proc) {
  const auto total = Field(proc + "/meminfo", "MemTotal");
  const auto available = Field(proc + "/meminfo", "MemAvailable");
  if (!total || !available || *available > *total) return 0;
  return Percent(*total - *available, *total);
}

uint32_t OfGroup(const std::string& proc, const std::string& cgroups) {
  std::ifstream file(proc + "/self/cgroup");
  std::string line;
  std::string group;
  while (std::getline(file, line)) {
    if (line.starts_with("0::")) group = line.substr(3);
  }
  // In a container the group's name is as the machine sees it, and its files are at the top.
  if (group.empty() || !std::ifstream(cgroups + group + "/memory.max")) group = "";
  const auto most = Field(cgroups + group + "/memory.max", "");
  const auto used = Field(cgroups + group + "/memory.current", "");
  if (!most || !used) return 0;  // "max": no limit
  const uint64_t cache = Field(cgroups + group + "/memory.stat", "inactive_file").value_or(0);
  return Percent(*used - std::min(*used, cache), *most);
}

}  // namespace

uint32_t MemoryUsagePercent(const std::string& proc, const std::string& cgroups) {
  return std::max(OfMachine(proc), OfGroup(proc, cgroups));
}

}  // namespace sluice::node
