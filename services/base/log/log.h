// Structured log: one line a record, as `key=value` for people or JSON for machines. For what
// operators act on; what happens to messages is in the event outbox.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "services/base/clock.h"

namespace sluice {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError };

// "debug", "info", "warn", "error".
std::optional<LogLevel> ParseLogLevel(std::string_view text);

struct LogField {
  LogField(std::string_view key, std::string_view text) : key(key), text(text) {}
  LogField(std::string_view key, const char* text) : key(key), text(text) {}
  LogField(std::string_view key, const std::string& text) : key(key), text(text) {}
  LogField(std::string_view key, bool value)
      : key(key), text(value ? "true" : "false"), raw(true) {}
  template <class Number>
  requires std::is_arithmetic_v<Number> LogField(std::string_view key, Number value)
      : key(key), text(std::to_string(value)), raw(true) {}

  std::string key;
  std::string text;
  bool raw = false;  // JSON without quotes
};

struct LogOptions {
  std::string service;
  LogLevel level = LogLevel::kInfo;
  bool json = false;
  // Records of one event a second; what is above is counted, and said with the next record that
  // passes. Errors too: a disk that fails a thousand times a second fills another one.
  uint32_t per_event_per_second = 20;
  // Gets each line without its end; unset: standard error.
  std::function<void(std::string_view)> sink;
};

// Thread-safety: all functions from any thread. Failure: a line that cannot be written is dropped.
// Never give it a body, a password or a key.
class Log {
 public:
  Log(LogOptions options, const Clock& clock);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  bool enabled(LogLevel level) const;
  // In place of LogOptions::sink. False: the line was not taken, and goes to standard error.
  void SetSink(std::function<bool(std::string_view)> sink);
  // `event`: what happened, as a fixed identifier such as "policy_reloaded"; the unit of the rate
  // limit. `message`: for people; may be empty. Fields without text are left out.
  void Write(LogLevel level, std::string_view event, std::string_view message,
             std::initializer_list<LogField> fields = {});
  void Info(std::string_view event, std::string_view message,
            std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kInfo, event, message, fields);
  }
  void Warn(std::string_view event, std::string_view message,
            std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kWarn, event, message, fields);
  }
  void Error(std::string_view event, std::string_view message,
             std::initializer_list<LogField> fields = {}) {
    Write(LogLevel::kError, event, message, fields);
  }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
