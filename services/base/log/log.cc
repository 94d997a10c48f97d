#include "services/base/log/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <ctime>
#include <map>
#include <mutex>
#include <utility>

#include "services/base/utf8.h"

namespace sluice {
namespace {

constexpr std::string_view kNames[] = {"debug", "info", "warn", "error"};
constexpr size_t kMostEvents = 1024;  // names are fixed in the code; a bound all the same

std::string Timestamp(WallTime now) {
  const int64_t us = ToUnixMicros(now);
  const auto seconds = static_cast<time_t>(us / 1'000'000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[40];
  const size_t length = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + length, sizeof(text) - length, ".%06dZ", static_cast<int>(us % 1'000'000));
  return text;
}

// Control characters never reach a terminal, and never end a line. Whoever reads lines as JSON
// wants UTF-8, which a remote host's reply need not be.
void AppendEscaped(std::string& out, std::string_view text) {
  std::string utf8;
  if (!IsUtf8(text)) text = utf8 = ToUtf8(text);
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char code[8];
      std::snprintf(code, sizeof(code), "\\u%04x", static_cast<unsigned>(c));
      out += code;
    } else {
      out += c;
    }
  }
}

void AppendQuoted(std::string& out, std::string_view text) {
  out += '"';
  AppendEscaped(out, text);
  out += '"';
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= 0x20 || c == '"' || c == '\\' || c == '=' || c == 0x7f) {
      return true;
    }
  }
  return false;
}

void AppendField(std::string& out, bool json, std::string_view key, std::string_view text,
                 bool raw) {
  if (!out.empty() && out.back() != '{') out += json ? ',' : ' ';
  if (json) {
    AppendQuoted(out, key);
    out += ':';
  } else {
    out += key;
    out += '=';
  }
  if (raw || (!json && !NeedsQuotes(text))) {
    out += text;
  } else {
    AppendQuoted(out, text);
  }
}

}  // namespace

std::optional<LogLevel> ParseLogLevel(std::string_view text) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] == text) return static_cast<LogLevel>(i);
  }
  return std::nullopt;
}

struct Log::State {
  struct Site {
    int64_t second = 0;
    uint32_t written = 0;
    uint64_t dropped = 0;
  };
  LogOptions options;
  const Clock& clock;
  std::mutex mutex;
  std::map<std::string, Site, std::less<>> sites;
  std::function<bool(std::string_view)> later_sink;  // under the mutex
  std::shared_ptr<spdlog::logger> logger;
};

Log::Log(LogOptions options, const Clock& clock)
    : state_(new State{std::move(options), clock, {}, {}, nullptr, nullptr}) {
  if (state_->options.sink) return;
  // Not registered anywhere: no global state.
  state_->logger =
      std::make_shared<spdlog::logger>("sluice", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  state_->logger->set_pattern("%v");
  state_->logger->set_level(spdlog::level::trace);
  state_->logger->flush_on(spdlog::level::trace);
}
Log::~Log() = default;

void Log::SetSink(std::function<bool(std::string_view)> sink) {
  const std::lock_guard lock(state_->mutex);
  state_->later_sink = std::move(sink);
}

bool Log::enabled(LogLevel level) const { return level >= state_->options.level; }

void Log::Write(LogLevel level, std::string_view event, std::string_view message,
                std::initializer_list<LogField> fields) {
  if (!enabled(level)) return;
  const LogOptions& options = state_->options;
  const int64_t second = state_->clock.Now().time_since_epoch().count() / 1'000'000;
  uint64_t dropped = 0;
  {
    std::lock_guard lock(state_->mutex);
    auto site = state_->sites.find(event);
    if (site == state_->sites.end()) {
      if (state_->sites.size() >= kMostEvents) state_->sites.clear();
      site = state_->sites.emplace(std::string(event), State::Site{}).first;
    }
    if (site->second.second != second) {
      site->second.second = second;
      site->second.written = 0;
    }
    if (site->second.written >= options.per_event_per_second) {
      ++site->second.dropped;
      return;
    }
    ++site->second.written;
    dropped = std::exchange(site->second.dropped, 0);
  }
  const bool json = options.json;
  std::string line = json ? "{" : "";
  AppendField(line, json, "time", Timestamp(state_->clock.WallNow()), false);
  AppendField(line, json, "level", kNames[static_cast<size_t>(level)], false);
  AppendField(line, json, "service", options.service, false);
  AppendField(line, json, "event", event, false);
  if (!message.empty()) AppendField(line, json, "message", message, false);
  for (const LogField& field : fields) {
    if (!field.text.empty()) AppendField(line, json, field.key, field.text, field.raw);
  }
  if (dropped > 0) AppendField(line, json, "suppressed", std::to_string(dropped), true);
  if (json) line += '}';
  {
    std::lock_guard lock(state_->mutex);
    if (state_->later_sink && state_->later_sink(line)) return;
    if (options.sink) options.sink(line);
  }
  if (state_->logger != nullptr) {
    state_->logger->log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
  }
}

}  // namespace sluice
