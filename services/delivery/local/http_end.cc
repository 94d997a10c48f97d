// Type http-delivery: the message is posted to a URL; the answer's status says what became of it.
#include <algorithm>
#include <charconv>

#include "services/delivery/local/http_post.h"
#include "services/delivery/local/local_job.h"
#include "services/mail/message_id.h"

namespace sluice::delivery {
namespace {

// 2xx: taken. Requests that the receiver calls wrong stay wrong; all else may get better.
LocalVerdict VerdictOf(const HttpAnswer& answer) {
  const std::string text = "HTTP " + std::to_string(answer.status) + " " + answer.reason +
                           (answer.body.empty() ? "" : ": " + answer.body);
  if (answer.status / 100 == 2) return Delivered(text);
  const bool permanent = answer.status / 100 == 4 && answer.status != 401 && answer.status != 403 &&
                         answer.status != 404 && answer.status != 407 && answer.status != 408 &&
                         answer.status != 425 && answer.status != 429;
  return permanent ? Permanent("5.3.0", text) : Transient("4.3.0", text);
}

}  // namespace

std::vector<LocalVerdict> DeliverByHttp(const LocalJob& job) {
  const size_t count = static_cast<size_t>(job.lease->deliveries_size());
  const auto url = ParseHttpUrl(job.settings->http_delivery_url());
  if (!url) {
    return std::vector<LocalVerdict>(count, Transient("4.3.5", "http-delivery-url is not usable"));
  }
  const common::v1::Message& message = job.lease->message();
  // REQUIRETLS (RFC 8689): no hop in clear, be it the last one; a report is not lost for it.
  if (message.require_tls() && !message.mail_from().empty() && !url->tls) {
    return std::vector<LocalVerdict>(
        count,
        Permanent("5.7.10", "the message requires TLS, and http-delivery-url is no https: URL"));
  }
  std::string fields = "Content-Type: message/rfc822\r\nUser-Agent: Sluice\r\n";
  fields += "X-Envelope-From: <" + message.mail_from() + ">\r\n";
  for (const auto& delivery : job.lease->deliveries()) {
    fields += "X-Envelope-To: <" + delivery.rcpt() + ">\r\n";
  }
  // The same for each attempt: a receiver that remembers it takes no message twice.
  fields += "X-Message-Id: " + mail::FormatMessageId(message.id()) + "\r\n";
  for (const std::string& field : job.settings->http_delivery_headers().values()) {
    fields += field + "\r\n";
  }
  HttpPostOptions options;
  options.connect_timeout = Duration(job.settings->connect_timeout_us());
  options.timeout = Duration(job.settings->smtp_data_termination_timeout_us());
  options.cancelled = job.cancelled.get();
  const absl::StatusOr<HttpAnswer> answer = HttpPost(*url, fields, job.body, options);
  return std::vector<LocalVerdict>(
      count, answer.ok() ? VerdictOf(*answer)
                         : Transient("4.4.1", std::string(answer.status().message())));
}

}  // namespace sluice::delivery
