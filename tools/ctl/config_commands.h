// Commands about directive files on this machine; they ask no server.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "services/config/explain.h"
#include "tools/ctl/environment.h"

namespace sluice::ctl {

struct ConfigOptions {
  std::vector<std::string> files;
  std::vector<std::string> accept_unsupported;
  bool strict = false;  // check: a warning is as bad as an error
  // explain
  std::string domain, vmta, pool, source, client, mx;
  // directives
  std::string prefix, section;
  bool all = false;  // defaults too
  // diff
  std::string old_file, new_file;
  // test
  std::string test_file;
  // migrate
  std::string folder, out_folder;
};

// Exit codes of check: 0 all effective, 1 warnings, 2 would not load (with strict also warnings).
// `owned_ips`: addresses that delivery workers have, where a server said so.
int CheckFiles(Environment& env, const ConfigOptions& options, bool json,
               const std::optional<std::set<std::string>>& owned_ips = std::nullopt);
// The others: 0, or 1 where the answer is "no" (a test failed, a migration is not the same, the
// files do not load), 2 for wrong arguments, 4 where what is asked for is not there.
int ExplainConfig(Environment& env, const ConfigOptions& options, bool json);
void PrintExplanation(Environment& env, const config::Explanation& answer, bool all, bool json);
// Names that begin with `prefix`; of one kind of section, where `section` is given. For people and
// for completion: a name, its value, its status and what it means, separated by tabs.
int ListDirectives(Environment& env, const ConfigOptions& options, bool json);
int ShowConfig(Environment& env, const ConfigOptions& options, bool json);
int DiffFiles(Environment& env, const ConfigOptions& options, bool json);
int TestConfig(Environment& env, const ConfigOptions& options, bool json);
int MigrateConfig(Environment& env, const ConfigOptions& options, bool json);

}  // namespace sluice::ctl
