#include "services/delivery/io/outbound_terms.h"

#include <algorithm>
#include <random>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace sluice::delivery {
namespace {

using mail::RecipientVerdict;
using mail::SmtpStage;
using mail::Verdict;

constexpr size_t kKeptReplyBytes = 2048;

common::v1::Stage ToStage(SmtpStage stage) {
  switch (stage) {
    case SmtpStage::kGreeting:
      return common::v1::STAGE_GREETING;
    case SmtpStage::kEhlo:
      return common::v1::STAGE_EHLO;
    case SmtpStage::kAuth:
      return common::v1::STAGE_AUTH;
    case SmtpStage::kMail:
      return common::v1::STAGE_MAIL;
    case SmtpStage::kRcpt:
      return common::v1::STAGE_RCPT;
    case SmtpStage::kData:
      return common::v1::STAGE_DATA;
    case SmtpStage::kBody:
      return common::v1::STAGE_BODY;
    case SmtpStage::kFinalDot:
      return common::v1::STAGE_FINAL_DOT;
    case SmtpStage::kStartTls:
      return common::v1::STAGE_STARTTLS;
  }
  return common::v1::STAGE_UNSPECIFIED;
}

queue::v1::RecipientOutcome ToOutcome(Verdict verdict) {
  switch (verdict) {
    case Verdict::kDelivered:
      return queue::v1::RECIPIENT_OUTCOME_DELIVERED;
    case Verdict::kTransient:
      return queue::v1::RECIPIENT_OUTCOME_TRANSIENT;
    case Verdict::kPermanent:
      return queue::v1::RECIPIENT_OUTCOME_PERMANENT;
    case Verdict::kNotAttempted:
      return queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED;
  }
  return queue::v1::RECIPIENT_OUTCOME_TRANSIENT;
}

bool Equal(const RecipientVerdict& a, const RecipientVerdict& b) {
  return a.verdict == b.verdict && a.stage == b.stage && a.reply.code == b.reply.code &&
         a.reply.enhanced == b.reply.enhanced && a.reply.text == b.reply.text;
}

// What the sender asked of delivery reports goes on to a peer that makes them (RFC 3461
// section 5.2).
void FillDsn(const queue::v1::Lease& lease, mail::ClientTransaction* transaction) {
  const common::v1::Message& message = lease.message();
  // Of a mail merge each recipient goes alone, with its own.
  const std::string& own = lease.deliveries(0).envelope_id();
  transaction->envid = own.empty() ? message.envid() : own;
  if (message.dsn_return() == common::v1::DSN_RETURN_FULL) {
    transaction->ret = mail::ClientTransaction::Ret::kFull;
  } else if (message.dsn_return() == common::v1::DSN_RETURN_HEADERS) {
    transaction->ret = mail::ClientTransaction::Ret::kHeaders;
  }
  const bool any =
      std::any_of(lease.deliveries().begin(), lease.deliveries().end(),
                  [](const auto& each) { return each.notify() != 0 || !each.orcpt().empty(); });
  if (!any) return;
  for (const auto& each : lease.deliveries()) {
    transaction->dsn.push_back({each.notify(), each.orcpt()});
  }
}

// Whether a message that came with SMTPUTF8 needs it: many clients say it for plain ASCII. What is
// not at hand is taken to need it.
bool HeaderNeedsUtf8(const Transaction& transaction) {
  if (transaction.chunks != nullptr) return true;
  std::string_view header = transaction.body.view();
  const uint64_t size = transaction.lease->message().header_size();
  if (size > 0) header = header.substr(0, size);
  return std::any_of(header.begin(), header.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

// For SCRAM: 160 bits of the system's randomness.
std::string MakeNonce() {
  std::random_device random;
  std::string nonce;
  for (int i = 0; i < 5; ++i) absl::StrAppend(&nonce, absl::Hex(random(), absl::kZeroPad8));
  return nonce;
}

}  // namespace

mail::SmtpClientOptions SessionOptions(const ConnectTarget& target, mail::StartTls wanted) {
  const auto& settings = *target.settings;
  mail::SmtpClientOptions options;
  options.ehlo_name = target.ehlo_name.empty() ? "localhost" : target.ehlo_name;
  options.trace = settings.log_commands();
  options.use_pipelining = !settings.ignore_pipelining();
  options.use_8bitmime = !settings.ignore_8bitmime();
  options.use_chunking = !settings.ignore_chunking();
  options.use_dsn = !settings.ignore_dsn();
  options.lmtp = settings.type() == "lmtp";
  options.bounce_upon_transfer_failure = settings.bounce_upon_transfer_failure();
  options.bounce_upon_pix_transfer_failure = settings.bounce_upon_pix_transfer_failure();
  options.assume_delivery_upon_final_timeout =
      settings.assume_delivery_upon_data_termination_timeout();
  options.mail_timeout = Duration(settings.smtp_mail_reply_timeout_us());
  options.rcpt_timeout = Duration(settings.smtp_rcpt_reply_timeout_us());
  options.data_initiation_timeout = Duration(settings.smtp_data_initiation_timeout_us());
  options.greeting_timeout = Duration(settings.smtp_greeting_timeout_us());
  options.command_timeout = Duration(settings.smtp_command_reply_timeout_us());
  options.data_timeout = Duration(settings.data_send_timeout_us());
  options.final_timeout = Duration(settings.smtp_data_termination_timeout_us());
  if (!settings.auth_username().empty()) {
    options.auth = mail::SaslCredentials{settings.auth_username(), settings.auth_password()};
    options.auth_in_clear = settings.use_unencrypted_plain_auth();
    options.auth_nonce = MakeNonce();
  }
  options.starttls = wanted;
  options.implicit_tls = target.tls.implicit;
  if (settings.tls_handshake_timeout_us() > 0) {
    options.tls_timeout = Duration(settings.tls_handshake_timeout_us());
  }
  return options;
}

mail::ClientTransaction SessionTransaction(const Transaction& transaction,
                                           const mail::PeerCapabilities& peer) {
  const queue::v1::Lease& lease = *transaction.lease;
  const common::v1::Message& message = lease.message();
  mail::ClientTransaction begin;
  begin.id = lease.lease_id();
  begin.mail_from =
      message.mail_from_rewritten().empty() ? message.mail_from() : message.mail_from_rewritten();
  for (const auto& delivery : lease.deliveries()) begin.recipients.push_back(delivery.rcpt());
  begin.size = message.body_size();
  begin.eight_bit = message.body_type() == common::v1::BODY_TYPE_8BITMIME;
  begin.binary = message.body_type() == common::v1::BODY_TYPE_BINARYMIME;
  begin.require_tls = message.require_tls();
  begin.most_errors = transaction.most_errors;
  begin.smtputf8 = message.smtputf8() && (peer.smtputf8 || HeaderNeedsUtf8(transaction));
  FillDsn(lease, &begin);
  return begin;
}

common::v1::Reply ToReply(const RecipientVerdict& verdict, const ConnectTarget& target) {
  common::v1::Reply reply;
  reply.set_code(static_cast<uint32_t>(verdict.reply.code));
  reply.set_enhanced(verdict.reply.enhanced);
  reply.set_text(verdict.reply.text.substr(0, kKeptReplyBytes));
  reply.set_stage(ToStage(verdict.stage));
  reply.set_local(verdict.local);
  reply.set_host(target.host);
  reply.set_ip(target.address);
  return reply;
}

void FillOutcomes(const std::vector<RecipientVerdict>& recipients, const ConnectTarget& target,
                  queue::v1::GroupResult* result) {
  size_t common = 0;
  size_t best = 0;
  for (size_t i = 0; i < recipients.size() && i < 8; ++i) {
    const size_t same = static_cast<size_t>(
        std::count_if(recipients.begin(), recipients.end(),
                      [&](const auto& each) { return Equal(each, recipients[i]); }));
    if (same > best) {
      best = same;
      common = i;
    }
  }
  result->set_outcome(ToOutcome(recipients[common].verdict));
  *result->mutable_reply() = ToReply(recipients[common], target);
  for (size_t i = 0; i < recipients.size(); ++i) {
    if (Equal(recipients[i], recipients[common])) continue;
    queue::v1::RecipientResult* own = result->add_recipients();
    own->set_position(static_cast<uint32_t>(i));
    own->set_outcome(ToOutcome(recipients[i].verdict));
    *own->mutable_reply() = ToReply(recipients[i], target);
  }
}

}  // namespace sluice::delivery
