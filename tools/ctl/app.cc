#include "tools/ctl/app.h"

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "services/base/version.h"
#include "tools/ctl/client.h"
#include "tools/ctl/command_line.h"
#include "tools/ctl/completion.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

bool Span(const char* option, const std::string& text, int64_t& span_us, Environment& env) {
  if (text.empty()) return true;
  const auto parsed = ParseSpanUs(text);
  if (!parsed.has_value()) {
    env.err << "sluicectl: " << option << " " << PrintableText(text)
            << ": give a time such as 500ms, 2s or 1m\n";
    return false;
  }
  span_us = *parsed;
  return true;
}

}  // namespace

int Run(const std::vector<std::string>& arguments, Environment& env) {
  CLI::App app("Talks to a Sluice cluster: puts mail in, shows and changes what it holds.",
               "sluicectl");
  app.set_version_flag("--version", VersionText(), "print version, build and formats, and exit");
  Arguments args;
  Action action;
  Commands commands(app, args, action);  // the commands' actions refer to it
  commands.Define();
  if (!arguments.empty() && arguments[0] == "__complete") {
    for (const std::string& word : Complete(app, {arguments.begin() + 1, arguments.end()})) {
      env.out << word << "\n";
    }
    return kExitOk;
  }
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    const std::vector<std::string> unknown = app.remaining(true);
    const bool no_command = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
    int code = kExitUsage;
    if (no_command && !unknown.empty() && !unknown.front().starts_with('-')) {
      text << "sluicectl: there is no command \"" << unknown.front() << "\"; --help lists them\n";
    } else {
      code = app.exit(error, text, text);
    }
    // Arguments may come from a script's input: nothing of them may drive the terminal.
    std::istringstream lines(text.str());
    std::ostream& to = code == 0 ? env.out : env.err;
    for (std::string line; std::getline(lines, line);) to << PrintableText(line) << "\n";
    return code == 0 ? kExitOk : kExitUsage;
  }
  if (!Span("--interval", args.top_interval, args.top.interval_us, env) ||
      !Span("--retry", args.inject_retry, args.inject.retry_us, env) ||
      !Span("--delay", args.inject_delay, args.inject.delay_us, env) ||
      !Span("--deliver-within", args.inject_within, args.inject.deliver_within_us, env)) {
    return kExitUsage;
  }
  std::string error;
  const std::unique_ptr<Client> client = Client::Create(args.client, error);
  if (client == nullptr) {
    env.err << "sluicectl: " << error << "\n";
    return kExitUsage;
  }
  Context context{*client, env, args.output == "json"};
  return action(context);
}

}  // namespace sluice::ctl
