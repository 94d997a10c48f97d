#include "services/ingest/core/delivery_window.h"

#include <optional>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/base/latest_time.h"

namespace sluice::ingest {
namespace {

std::string_view Trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::optional<int64_t> ParseTime(std::string_view text) {
  static constexpr const char* kFormats[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M",
                                             "%Y-%m-%dT%H:%M:%S%Ez", "%Y-%m-%d %H:%M:%S %Ez"};
  text = Trim(text);
  for (const char* format : kFormats) {
    absl::Time time;
    std::string error;
    if (absl::ParseTime(format, absl::string_view(text.data(), text.size()), absl::LocalTimeZone(),
                        &time, &error) &&
        time > absl::UnixEpoch() && time <= absl::FromUnixMicros(kLatestUnixUs)) {
      return absl::ToUnixMicros(time);
    }
  }
  return std::nullopt;
}

std::optional<DeliveryWindow> ParseOne(std::string_view text, std::string& problem) {
  const size_t slash = text.find('/');
  const std::optional<int64_t> begin = ParseTime(text.substr(0, slash));
  std::optional<int64_t> end;
  if (slash != std::string_view::npos) end = ParseTime(text.substr(slash + 1));
  if (!begin || (slash != std::string_view::npos && !end)) {
    problem = "X-Schedule is written YYYY-MM-DD HH:MM:SS / YYYY-MM-DD HH:MM:SS";
    return std::nullopt;
  }
  if (end && *end <= *begin) {
    problem = "X-Schedule ends before it begins";
    return std::nullopt;
  }
  return DeliveryWindow{*begin, end.value_or(0)};
}

}  // namespace

std::vector<DeliveryWindow> ParseDeliveryWindows(std::string_view text, std::string& problem) {
  std::vector<DeliveryWindow> windows;
  for (bool more = true; more;) {
    const size_t comma = text.find(',');
    more = comma != std::string_view::npos;
    const auto window = ParseOne(text.substr(0, comma), problem);
    if (!window) return {};
    if (!windows.empty() &&
        (windows.back().end_us == 0 || window->begin_us < windows.back().end_us)) {
      problem = "The windows of X-Schedule come in order of time, and none over another";
      return {};
    }
    if (windows.size() == kMaxDeliveryWindows) {
      problem = "X-Schedule has at most 32 windows";
      return {};
    }
    windows.push_back(*window);
    if (more) text.remove_prefix(comma + 1);
  }
  return windows;
}

}  // namespace sluice::ingest
