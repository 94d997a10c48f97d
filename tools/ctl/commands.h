// What each command of sluicectl does, once its arguments are read. Each prints its answer or what
// went wrong, and returns the exit code.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "tools/ctl/client.h"
#include "tools/ctl/config_commands.h"
#include "tools/ctl/environment.h"

namespace sluice::ctl {

// How a command talks: to whom, and in which form.
struct Context {
  Client& client;
  Environment& env;
  bool json = false;
};

struct QueueListOptions {
  std::string pattern, after, sort = "rcpt", mode;
  uint32_t limit = 100;
  bool paused_only = false;
};

struct TopOptions {
  int64_t interval_us = 2'000'000;
  uint32_t limit = 20;
  bool once = false;
};

// Which queued recipients; all that are given must match.
struct FilterOptions {
  std::string id, queue, sender, rcpt, job, envid, older_than, vmta;
  bool held = false;
  bool all = false;
};

struct ChangeOptions {
  std::string author, reason;
  uint64_t limit = 0;  // recipients; 0: no limit
  bool bounce = false;
  std::string target;  // reroute
};

// Of `queues backoff`, `normal`, `disable-source` and `enable-source`.
struct QueueModeOptions {
  std::vector<std::string> patterns;
  std::string reason, author, span, source;
};

struct PauseOptions {
  std::string pattern, job, id, reason, author, span;
};

int Status(Context& context);
int ListQueues(Context& context, const QueueListOptions& options);
int ShowQueue(Context& context, const std::string& name);
int Top(Context& context, const TopOptions& options);
// Exit code 0 where all is effective, 1 with warnings, 2 where it would not load.
int CheckConfig(Context& context, const std::vector<std::string>& files, bool strict);
// What is in force on the server.
int ExplainRunning(Context& context, const ConfigOptions& options);
// The addresses that the cluster's delivery workers have; false, with the error told, where no
// server says so.
bool OwnedAddresses(Context& context, std::set<std::string>* addresses);
int Reload(Context& context, uint32_t wait_ms);
int Pause(Context& context, const PauseOptions& options);
int Resume(Context& context, const PauseOptions& options);
int ListPauses(Context& context);
int ListOwners(Context& context);
int ListMessages(Context& context, const FilterOptions& filter, uint64_t limit);
int ShowMessage(Context& context, const std::string& id, bool body);
int DeleteMessages(Context& context, const FilterOptions& filter, const ChangeOptions& change);
int RerouteMessages(Context& context, const FilterOptions& filter, const ChangeOptions& change);
int ReleaseMessages(Context& context, const FilterOptions& filter, const ChangeOptions& change);
int RetryQueues(Context& context, const std::string& pattern, bool recipients);
int SetQueueMode(Context& context, bool backoff, const QueueModeOptions& options);
int SetQueueSource(Context& context, bool disable, const QueueModeOptions& options);
// Outbound connections of the workers; empty: of all queues.
int ListConnections(Context& context, const std::string& pattern);
// Each shard's wall clock beside this machine's, and whether expiry waits for it.
int ShowClock(Context& context);
int ConfirmClock(Context& context, const std::string& author);
int ListEvents(Context& context, const std::string& id, uint32_t limit);

}  // namespace sluice::ctl
