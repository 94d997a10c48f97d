// The text of a message (or a chunk of it), immutable and reference-counted: it is read from a
// socket once and then shared by the store, the transports and every connection that sends it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace sluice {

// Above this many bytes a body travels and is stored in chunks of at most this size.
inline constexpr size_t kMaxInlineBodyBytes = 256 * 1024;

// Thread-safety: immutable; copies may be used from any thread. Copying costs one atomic increment.
class Body {
 public:
  Body() = default;
  explicit Body(std::string text) : text_(std::make_shared<const std::string>(std::move(text))) {}

  std::string_view view() const { return text_ ? std::string_view(*text_) : std::string_view(); }
  size_t size() const { return text_ ? text_->size() : 0; }
  bool empty() const { return size() == 0; }

 private:
  std::shared_ptr<const std::string> text_;
};

}  // namespace sluice
