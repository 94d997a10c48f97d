// Reads the request of an HTTP client that asks for one page: its first line; the header fields are
// passed over.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sluice {

// Thread-safety: none. Memory: at most kMaxBytes.
class HttpRequestReader {
 public:
  static constexpr size_t kMaxBytes = 8 * 1024;
  enum class State { kMore, kWhole, kTooLarge };

  // Takes nothing more once the state is another than kMore.
  State OnBytes(std::string_view bytes);

  // Once it is kWhole. Whatever stands there: nothing is decoded.
  std::string_view method() const;  // up to the first blank
  std::string_view path() const;    // behind it, without a query

 private:
  std::string_view Line() const;

  std::string text_;
  State state_ = State::kMore;
};

}  // namespace sluice
