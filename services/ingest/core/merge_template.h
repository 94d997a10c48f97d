// The mail merge that a client sends: the values of its recipients, and where the parts of the text
// lie.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "services/ingest/core/client_profile.h"
#include "services/mail/mail_merge.h"
#include "services/mail/server_reply.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::ingest {

// Values of all recipients of one message: they travel and are stored with it.
inline constexpr size_t kMaxMergeBytesPerMessage = 1024 * 1024;
// What one recipient's text may become.
inline constexpr uint64_t kMaxMergedBytes = 16 * 1024 * 1024;

// Thread-safety: none. Lifetime: one message.
class MergeTemplate {
 public:
  // Whether a recipient with these definitions may be added.
  std::optional<mail::ServerReply> Check(const ClientProfile& profile,
                                         const mail::MergeDefinitions& definitions) const;
  // After Check. *vmta goes before every other choice of a route.
  void Fill(const ClientProfile& profile, const mail::MergeDefinitions& definitions,
            common::v1::Delivery& delivery);

  // A part ends at this offset of the client's text.
  void EndPart(uint64_t offset) { ends_.push_back(offset); }

  // Whether what recipients get stays within bounds, now that all of `text` is there.
  std::optional<mail::ServerReply> CheckText(std::string_view text) const;
  // Writes where the parts lie: `front` bytes of ours, then the client's text, of whose first part
  // `cut` bytes were taken out.
  void WriteParts(uint64_t front, uint64_t cut, common::v1::Message& message) const;

 private:
  size_t bytes_ = 0;
  uint64_t longest_value_ = 0;
  uint64_t most_repeats_ = 1;  // of one part, for one recipient
  std::vector<uint64_t> ends_;
};

}  // namespace sluice::ingest
