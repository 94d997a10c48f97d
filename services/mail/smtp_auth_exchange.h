// One AUTH command of an SMTP client (RFC 4954) without IO: the lines that it sends, and what the
// replies mean.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "services/mail/reply_parser.h"
#include "services/mail/sasl_client.h"

namespace sluice::mail {

// Thread-safety: none.
class SmtpAuthExchange {
 public:
  enum class Step : uint8_t {
    kSend,    // output() goes to the server, a reply is awaited
    kDone,    // authenticated
    kFailed,  // the server said no: its reply says why
    kBroken,  // the server's part made no sense: problem() says why; close the connection
  };

  explicit SmtpAuthExchange(std::unique_ptr<SaslClient> sasl) : sasl_(std::move(sasl)) {}

  // "AUTH ...\r\n".
  std::string Command();
  Step OnReply(const SmtpReply& reply);
  std::string TakeOutput() { return std::move(output_); }
  const std::string& problem() const { return problem_; }
  std::string_view mechanism() const { return sasl_->name(); }

 private:
  Step Break(std::string_view problem);

  const std::unique_ptr<SaslClient> sasl_;
  std::string pending_;  // an initial response too long for the command line
  bool has_pending_ = false;
  int challenges_ = 0;
  std::string output_;
  std::string problem_;
};

}  // namespace sluice::mail
