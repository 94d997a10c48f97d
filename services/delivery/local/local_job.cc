#include "services/delivery/local/local_job.h"

#include <optional>

namespace sluice::delivery {
namespace {

// What a message asks for that the end cannot keep.
std::optional<LocalVerdict> RefusalOf(const LocalJob& job) {
  const std::string& type = job.settings->type();
  const std::string& format = job.settings->file_format();
  const common::v1::Message& message = job.lease->message();
  // Mailboxes and programs here get lines, whose ends are changed, and what a pickup folder takes
  // is read as lines: binary mail would not stay what it is (RFC 3030 section 3).
  const bool lines =
      type == "pipe" || (type == "file" && (format == "maildir" || format == "append-mbox" ||
                                            format == "newfile-pickup"));
  if (lines && message.body_type() == common::v1::BODY_TYPE_BINARYMIME) {
    return Permanent("5.6.3", "the message is binary, and what takes it here keeps lines only");
  }
  // Whoever reads it there sends it on, and would not know (RFC 8689 section 4.2.1).
  if (type == "file" && format == "newfile-pickup" && message.require_tls() &&
      !message.mail_from().empty()) {
    return Permanent("5.7.30", "the message requires TLS, which a pickup folder cannot pass on");
  }
  return std::nullopt;
}

}  // namespace

std::vector<LocalVerdict> RunLocalJob(const LocalJob& job) {
  if (const auto refusal = RefusalOf(job)) {
    return std::vector<LocalVerdict>(static_cast<size_t>(job.lease->deliveries_size()), *refusal);
  }
  const std::string& type = job.settings->type();
  if (type == "file") return DeliverToFile(job);
  if (type == "pipe") return DeliverToPipe(job);
  if (type == "http-delivery") return DeliverByHttp(job);
  const LocalVerdict verdict =
      type != "discard" ? Transient("4.3.5", "type " + type + " is not known here")
      : job.settings->discard_as_bounce() ? Permanent("5.7.1", "discarded as a bounce")
                                          : Delivered("discarded");
  return std::vector<LocalVerdict>(static_cast<size_t>(job.lease->deliveries_size()), verdict);
}

}  // namespace sluice::delivery
