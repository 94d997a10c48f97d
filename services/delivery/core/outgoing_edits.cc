#include "services/delivery/core/outgoing_edits.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace sluice::delivery {
namespace {

// The first chunk has something before it.
class PrefixedChunks final : public ChunkSource {
 public:
  PrefixedChunks(std::string prefix, std::unique_ptr<ChunkSource> rest)
      : prefix_(std::move(prefix)), rest_(std::move(rest)) {}

  void Fetch(uint32_t chunk, absl::AnyInvocable<void(absl::StatusOr<Body>)> done) override {
    if (chunk != 0) return rest_->Fetch(chunk, std::move(done));
    rest_->Fetch(0, [this, done = std::move(done)](absl::StatusOr<Body> body) mutable {
      if (body.ok()) {
        std::string text = prefix_;
        text.append(body->view());
        body = Body(std::move(text));
      }
      done(std::move(body));
    });
  }

 private:
  const std::string prefix_;
  const std::unique_ptr<ChunkSource> rest_;
};

std::string DateOf(WallTime now) {
  return absl::FormatTime("%a, %d %b %Y %H:%M:%S +0000", absl::FromUnixMicros(ToUnixMicros(now)),
                          absl::UTCTimeZone());
}

bool AsksForDate(const common::v1::Message& message) {
  return std::any_of(message.header_edits().begin(), message.header_edits().end(),
                     [](const common::v1::HeaderEdit& edit) {
                       return edit.action() == common::v1::HeaderEdit::ACTION_ADD &&
                              edit.name() == "Date" && edit.value().empty();
                     });
}

}  // namespace

void OutgoingEdits::SetPolicy(std::shared_ptr<const config::PolicyView> policy) {
  policy_ = std::move(policy);
  includes_ = !policy_->global().include_headers().empty();
  rewrites_ = false;
  for (const auto* vmta : policy_->virtual_mtas()) {
    includes_ |= !vmta->include_headers().empty();
    rewrites_ |= !vmta->rewrite_list().empty();
  }
  for (const auto* pool : policy_->pools()) {
    includes_ |= !pool->include_headers().empty();
    rewrites_ |= !pool->rewrite_list().empty();
  }
}

std::string OutgoingEdits::HeaderFor(std::string_view vmta, std::string_view pool, WallTime now,
                                     const common::v1::Message& message) const {
  std::string header;
  if (includes_) {
    const auto* own = policy_->FindVirtualMta(vmta);
    const auto* of_pool = pool.empty() ? nullptr : policy_->FindPool(pool);
    header = own != nullptr && own->has_include_headers() ? own->include_headers()
             : of_pool != nullptr && of_pool->has_include_headers()
                 ? of_pool->include_headers()
                 : policy_->global().include_headers();
  }
  if (AsksForDate(message)) absl::StrAppend(&header, "Date: ", DateOf(now), "\r\n");
  return header;
}

std::string OutgoingEdits::SenderFor(std::string_view vmta, std::string_view pool,
                                     const std::string& sender) const {
  const auto* own = policy_->FindVirtualMta(vmta);
  const auto* of_pool = pool.empty() ? nullptr : policy_->FindPool(pool);
  const std::string& name = own != nullptr && !own->rewrite_list().empty() ? own->rewrite_list()
                            : of_pool != nullptr                           ? of_pool->rewrite_list()
                                                                           : std::string();
  const auto* list = name.empty() ? nullptr : policy_->FindRewriteList(name);
  const size_t at = sender.rfind('@');
  if (list == nullptr || at == std::string::npos) return sender;
  const std::string lower = absl::AsciiStrToLower(sender);
  if (const auto found = list->mail_from().find(lower); found != list->mail_from().end()) {
    return found->second;
  }
  const auto domain = list->from_domain().find(lower.substr(at + 1));
  if (domain == list->from_domain().end()) return sender;
  return absl::StrCat(sender.substr(0, at + 1), domain->second);
}

void OutgoingEdits::Apply(std::string_view vmta, std::string_view pool, WallTime now,
                          queue::v1::Lease* lease, Transaction* transaction) const {
  if (rewrites_ && !lease->message().mail_from().empty()) {
    std::string sender = SenderFor(vmta, pool, lease->message().mail_from());
    if (sender != lease->message().mail_from()) {
      lease->mutable_message()->set_mail_from_rewritten(std::move(sender));
    }
  }
  if (!includes_ && lease->message().header_edits().empty()) return;
  const std::string header = HeaderFor(vmta, pool, now, lease->message());
  if (header.empty()) return;
  common::v1::Message& message = *lease->mutable_message();
  message.set_body_size(message.body_size() + header.size());
  if (message.header_size() > 0) message.set_header_size(message.header_size() + header.size());
  if (transaction->chunks != nullptr) {
    transaction->chunks = std::make_unique<PrefixedChunks>(header, std::move(transaction->chunks));
    return;
  }
  std::string text = header;
  text.append(transaction->body.view());
  transaction->body = Body(std::move(text));
}

}  // namespace sluice::delivery
