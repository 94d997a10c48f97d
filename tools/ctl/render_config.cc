// What the policy service says of the configuration files.
#include <sstream>

#include "tools/ctl/render.h"
#include "tools/ctl/render_parts.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

// Messages show a line of a file and a caret below it.
std::string PrintableLines(const std::string& text) {
  std::string out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) out += PrintableText(line) + "\n";
  return out;
}

}  // namespace

bool Acknowledged(const admin::v1::WatcherStatus& watcher, uint64_t version) {
  // It may have gone on to a later version meanwhile.
  return watcher.acked_version() >= version && watcher.error().empty();
}

std::string RenderReload(const admin::v1::ReloadConfigResponse& reload) {
  std::string out = reload.changed()
                        ? "configuration " + Number(reload.version()) + ": " +
                              Number(reload.sections_changed()) + " sections changed\n"
                        : "nothing changed, configuration " + Number(reload.version()) + "\n";
  for (const std::string& warning : reload.warnings()) out += PrintableLines(warning);
  size_t acknowledged = 0;
  for (const auto& watcher : reload.watchers()) {
    const bool done = Acknowledged(watcher, reload.version());
    if (!done) continue;
    out += (acknowledged++ == 0 ? "acknowledged by " : ", ") +
           PrintableText(watcher.service() + "/" + watcher.instance());
  }
  if (acknowledged > 0) out += "\n";
  for (const auto& watcher : reload.watchers()) {
    if (Acknowledged(watcher, reload.version())) continue;
    const std::string at = " (at " + Number(watcher.acked_version()) + ")";
    out += PrintableText(watcher.service() + "/" + watcher.instance() +
                         (!watcher.connected()
                              ? " is not connected" + at + ": it has this once it is there again"
                          : watcher.error().empty() ? " has not acknowledged it yet" + at
                                                    : " refuses it: " + watcher.error())) +
           "\n";
  }
  return out;
}

std::string RenderCheck(const admin::v1::CheckConfigResponse& check) {
  std::string out;
  for (const std::string& text : check.diagnostics()) out += PrintableLines(text);
  out += Number(check.effective()) + " lines effective, " + Number(check.aliases()) +
         " effective by another name, " + Number(check.planned()) + " planned, " +
         Number(check.no_meaning()) + " without a meaning here, " + Number(check.unsupported()) +
         " unsupported\n";
  return out + (check.loads() ? "the configuration loads\n" : "the configuration does not load\n");
}

}  // namespace sluice::ctl
