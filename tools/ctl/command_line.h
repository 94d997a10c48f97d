// The commands and options of sluicectl, as CLI11 has them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "tools/ctl/client.h"
#include "tools/ctl/commands.h"
#include "tools/ctl/config_commands.h"
#include "tools/ctl/inject.h"
#include "tools/ctl/token.h"

namespace sluice::ctl {

// The options of all commands, in one place that outlives parsing.
struct Arguments {
  ClientOptions client;
  std::string output = "table";
  InjectOptions inject;
  QueueListOptions queues;
  TopOptions top;
  FilterOptions filter;
  ChangeOptions change;
  PauseOptions pause;
  QueueModeOptions mode;
  std::string top_interval = "2s", inject_retry, inject_delay, inject_within, queue_name,
              message_id, retry_pattern = "*/*";
  ConfigOptions config;
  TokenOptions token;
  bool on_server = false, live = false, running = false;
  uint64_t list_limit = 100;
  uint32_t events_limit = 1000;
  uint32_t wait_ms = 5000;
  bool body = false, retry_recipients = false;
};

using Action = std::function<int(Context&)>;

// Defines the commands; the one that was given leaves its action in `action`. Thread-safety: one
// thread. Lifetime: it, `args` and `action` outlive parsing by `app`, and the action's run.
class Commands {
 public:
  Commands(CLI::App& app, Arguments& args, Action& action)
      : app_(app), args_(args), action_(action) {}

  void Define();

 private:
  // command_line.cc
  CLI::App* Command(CLI::App& parent, const char* name, const char* help, Action action);
  void Global();
  void Tokens();
  void Pauses();
  void Owners();
  void Connections();
  void Clock();

  // command_line_mail.cc
  void Inject();
  void Queues();
  void QueueModes(CLI::App& queues);
  void Filter(CLI::App& c);
  void Change(CLI::App& c);
  void Messages();

  // command_line_config.cc
  void Config();
  void Files(CLI::App& c);
  void Accept(CLI::App& c);

  CLI::App& app_;
  Arguments& args_;
  Action& action_;
};

}  // namespace sluice::ctl
