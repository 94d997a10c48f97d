#include "services/config/regex_matcher.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "re2/re2.h"
#include "services/config/diagnostic.h"

namespace sluice::config {
namespace {

// Of a compiled expression; beyond it RE2 gets slower, not larger.
constexpr int64_t kMaxRe2Bytes = int64_t{1} << 20;
// PCRE2 tries ways: an ordinary match takes some hundred, a catastrophic one never ends.
constexpr uint32_t kMaxSteps = 100'000;
constexpr uint32_t kMaxDepth = 1'000;
constexpr uint32_t kMaxHeapKib = 1'024;

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct ContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct DataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

RE2::Options Options() {
  RE2::Options options(RE2::Quiet);
  options.set_max_mem(kMaxRe2Bytes);
  return options;
}

// Plain ASCII is.
bool IsUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = (text[at] & 0x80) == 0 ? 1 : Utf8Bytes(text, at);
    if (bytes == 0) return false;
    at += bytes;
  }
  return true;
}

PCRE2_SPTR Bytes(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct RegexMatcher::Impl {
  std::unique_ptr<const RE2> re2;
  // The same expression over bytes; made when the first text asks for it.
  mutable std::once_flag bytes_made;
  mutable std::unique_ptr<const RE2> bytes;
  std::unique_ptr<pcre2_code, CodeDeleter> code;
  std::unique_ptr<pcre2_match_context, ContextDeleter> context;
};

absl::StatusOr<RegexMatcher> RegexMatcher::Compile(std::string_view expression) {
  auto impl = std::make_shared<Impl>();
  impl->re2 = std::make_unique<const RE2>(re2::StringPiece(expression.data(), expression.size()),
                                          Options());
  if (impl->re2->ok()) return RegexMatcher(std::move(impl));
  // What is too large for RE2 is not tried with an engine that has no linear bound.
  const bool too_large = impl->re2->error_code() == RE2::ErrorPatternTooLarge ||
                         impl->re2->error_code() == RE2::ErrorRepeatSize;
  const std::string said = impl->re2->error();
  impl->re2.reset();
  if (too_large) return absl::InvalidArgumentError(said);
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl->code.reset(pcre2_compile(Bytes(expression), expression.size(),
                                 PCRE2_NEVER_BACKSLASH_C | PCRE2_NEVER_UCP, &error, &offset,
                                 nullptr));
  if (impl->code == nullptr) {
    unsigned char text[200] = {};
    pcre2_get_error_message(error, text, sizeof(text));
    return absl::InvalidArgumentError(
        absl::StrCat(reinterpret_cast<const char*>(text), " at byte ", offset));
  }
  impl->context.reset(pcre2_match_context_create(nullptr));
  if (impl->context == nullptr) return absl::ResourceExhaustedError("no memory for it");
  pcre2_set_match_limit(impl->context.get(), kMaxSteps);
  pcre2_set_depth_limit(impl->context.get(), kMaxDepth);
  pcre2_set_heap_limit(impl->context.get(), kMaxHeapKib);
  return RegexMatcher(std::move(impl));
}

bool RegexMatcher::Matches(std::string_view text) const {
  if (impl_->re2 != nullptr) {
    const re2::StringPiece piece(text.data(), text.size());
    if (RE2::PartialMatch(piece, *impl_->re2)) return true;
    if (IsUtf8(text)) return false;
    // To RE2 a byte that is no UTF-8 is not even ".", and much mail is Latin-1.
    std::call_once(impl_->bytes_made, [this] {
      RE2::Options options = Options();
      options.set_encoding(RE2::Options::EncodingLatin1);
      impl_->bytes = std::make_unique<const RE2>(impl_->re2->pattern(), options);
    });
    return impl_->bytes->ok() && RE2::PartialMatch(piece, *impl_->bytes);
  }
  const std::unique_ptr<pcre2_match_data, DataDeleter> data(pcre2_match_data_create(1, nullptr));
  if (data == nullptr) return false;
  // 0: it matches, and there is no room for its groups.
  return pcre2_match(impl_->code.get(), Bytes(text), text.size(), 0, 0, data.get(),
                     impl_->context.get()) >= 0;
}

bool RegexMatcher::uses_pcre() const { return impl_->re2 == nullptr; }

}  // namespace sluice::config
