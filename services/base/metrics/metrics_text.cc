#include "services/base/metrics/metrics_text.h"

#include <array>
#include <charconv>

namespace sluice {

std::string MetricsText::FloatText(double value) {
  std::array<char, 32> text;
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? std::string(text.data(), end) : std::string("NaN");
}

void MetricsText::Add(std::string_view name, std::string_view help, std::string_view type,
                      std::string_view value) {
  const auto line = [this](std::initializer_list<std::string_view> parts) {
    for (std::string_view part : parts) text_.append(part);
    text_.push_back('\n');
  };
  line({"# HELP ", name, " ", help});
  line({"# TYPE ", name, " ", type});
  line({name, " ", value});
}

}  // namespace sluice
