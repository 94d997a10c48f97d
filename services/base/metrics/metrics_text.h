// The page that Prometheus reads (text exposition format 0.0.4), metric by metric.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

namespace sluice {

// Names are sluice_SERVICE_WHAT; what only grows ends in _total, and units are seconds and bytes,
// in the name. `help` is one sentence for operators. Thread-safety: none. Failure: none.
class MetricsText {
 public:
  // Grows while the process lives, and begins at 0 with it.
  template <class Number>
  requires std::is_arithmetic_v<Number>
  void Counter(std::string_view name, std::string_view help, Number value) {
    Add(name, help, "counter", Text(value));
  }
  // As it is now.
  template <class Number>
  requires std::is_arithmetic_v<Number>
  void Gauge(std::string_view name, std::string_view help, Number value) {
    Add(name, help, "gauge", Text(value));
  }

  const std::string& text() const { return text_; }

 private:
  template <class Number>
  static std::string Text(Number value) {
    if constexpr (std::is_floating_point_v<Number>) {
      return FloatText(value);
    } else {
      return std::to_string(value);
    }
  }
  static std::string FloatText(double value);
  void Add(std::string_view name, std::string_view help, std::string_view type,
           std::string_view value);

  std::string text_;
};

}  // namespace sluice
