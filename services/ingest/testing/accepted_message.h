// What holds of every message that ingest hands to a shard, whoever sent it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "services/base/check.h"
#include "services/mail/header_fields.h"
#include "services/mail/merge_body.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::ingest::testing {

// No CR without its LF, no LF without its CR, no NUL.
inline bool HasOnlyWholeLineEnds(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\0') return false;
    if (text[i] == '\r' && (i + 1 == text.size() || text[i + 1] != '\n')) return false;
    if (text[i] == '\n' && (i == 0 || text[i - 1] != '\r')) return false;
  }
  return true;
}

inline bool HasNoControls(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 127; });
}

// The same bytes for the same message: those of its maps have an order.
inline std::string Canonical(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    SLUICE_CHECK(message.SerializeToCodedStream(&coded));
  }
  return bytes;
}

// Nobody writes on in a field of ours: it ends where we end it.
inline void CheckReceived(std::string_view text) {
  mail::HeaderFieldReader reader(text);
  mail::HeaderField received;
  SLUICE_CHECK(reader.Next(received) && received.name == "Received");
  SLUICE_CHECK(std::count(received.value.begin(), received.value.end(), '\n') <= 3);
}

// Ends the program where `stored` is not the text that `message` says, where one of its recipients
// would get something else than whole lines, or where the record cannot be read as it was written.
inline void CheckAccepted(const queue::v1::NewMessage& taken, std::string_view stored) {
  const common::v1::Message& message = taken.message();
  SLUICE_CHECK(message.body_size() == stored.size());
  SLUICE_CHECK(message.header_size() <= stored.size());
  const std::string_view header = stored.substr(0, message.header_size());
  SLUICE_CHECK(header.starts_with("Received: ") && HasOnlyWholeLineEnds(header));
  if (message.body_type() != common::v1::BODY_TYPE_BINARYMIME) {
    SLUICE_CHECK(HasOnlyWholeLineEnds(stored));
  }
  if (!message.is_template()) CheckReceived(stored);

  SLUICE_CHECK(message.id().size() == 16);
  SLUICE_CHECK(HasNoControls(message.mail_from()) && HasNoControls(message.envid()));
  SLUICE_CHECK(taken.deliveries_size() > 0);
  uint64_t at = 0;
  for (const common::v1::BodyPart& part : message.parts()) {
    SLUICE_CHECK(part.offset() == at && part.size() <= stored.size() - at);
    at += part.size();
  }
  SLUICE_CHECK(message.parts().empty() || at == stored.size());
  for (const queue::v1::NewDelivery& each : taken.deliveries()) {
    const common::v1::Delivery& delivery = each.delivery();
    SLUICE_CHECK(HasNoControls(delivery.rcpt()) && HasNoControls(delivery.orcpt()));
    SLUICE_CHECK(HasNoControls(delivery.job_id()) && HasNoControls(delivery.envelope_id()));
    SLUICE_CHECK(HasNoControls(delivery.queue_domain()));
    SLUICE_CHECK(delivery.vmta().empty() != delivery.pool().empty());
    if (!message.is_template()) continue;
    const std::string text = mail::MergedBody(stored, message, delivery, true);
    SLUICE_CHECK(HasOnlyWholeLineEnds(text));
    CheckReceived(text);
  }
  queue::v1::NewMessage read;
  SLUICE_CHECK(read.ParseFromString(taken.SerializeAsString()));
  SLUICE_CHECK(Canonical(read) == Canonical(taken));
}

}  // namespace sluice::ingest::testing
