// The life of a session: greeting, EHLO, AUTH, replies in their turn, time-outs, the end.
#include "services/mail/smtp_client_session.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/mail/smtp_client_verdict.h"

namespace sluice::mail {
namespace {

constexpr size_t kMaxKeywords = 64;
constexpr size_t kMaxMechanisms = 16;

// ehlo-keyword of RFC 5321 section 4.1.1.1; what else a remote says there is not worth keeping.
bool IsKeyword(std::string_view text) {
  if (text.empty() || !absl::ascii_isalnum(static_cast<unsigned char>(text[0]))) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-';
  });
}

}  // namespace

SmtpClientSession::Transaction* SmtpClientSession::Find(uint64_t id) {
  for (Transaction& each : transactions_) {
    if (each.given.id == id) return &each;
  }
  return nullptr;
}

SmtpStage SmtpClientSession::stage() const {
  if (sending_body_) return SmtpStage::kBody;
  if (tls_ == Tls::kHandshake) return SmtpStage::kStartTls;
  if (waiting_.empty()) return SmtpStage::kMail;
  switch (waiting_.front().what) {
    case Expect::kGreeting:
      return SmtpStage::kGreeting;
    case Expect::kEhlo:
    case Expect::kHelo:
      return SmtpStage::kEhlo;
    case Expect::kAuth:
      return SmtpStage::kAuth;
    case Expect::kStartTls:
      return SmtpStage::kStartTls;
    case Expect::kRcpt:
      return SmtpStage::kRcpt;
    case Expect::kData:
      return SmtpStage::kData;
    case Expect::kChunk:
      return SmtpStage::kBody;
    case Expect::kFinal:
      return SmtpStage::kFinalDot;
    default:
      return SmtpStage::kMail;
  }
}

Duration SmtpClientSession::timeout() const {
  const auto own = [this](Duration timeout) {
    return timeout.count() > 0 ? timeout : options_.command_timeout;
  };
  switch (stage()) {
    case SmtpStage::kGreeting:
      return options_.greeting_timeout;
    case SmtpStage::kBody:
      return options_.data_timeout;
    case SmtpStage::kFinalDot:
      return options_.final_timeout;
    case SmtpStage::kMail:
      return !waiting_.empty() && waiting_.front().what == Expect::kMail
                 ? own(options_.mail_timeout)
                 : options_.command_timeout;
    case SmtpStage::kRcpt:
      return own(options_.rcpt_timeout);
    case SmtpStage::kData:
      return own(options_.data_initiation_timeout);
    case SmtpStage::kStartTls:
      return tls_ == Tls::kHandshake ? options_.tls_timeout : options_.command_timeout;
    default:
      return options_.command_timeout;
  }
}

void SmtpClientSession::OnBytes(std::string_view bytes) {
  if (tls_ == Tls::kHandshake && !bytes.empty() && !ended_) return RefuseInjection();
  while (!bytes.empty() && !ended_) {
    bytes.remove_prefix(parser_.Consume(bytes));
    if (parser_.broken()) {
      fault_ = RemoteFault::kNoSmtp;
      End(LocalVerdict(parser_.problem(), stage(), "4.5.0"));
      return;
    }
    if (!parser_.complete()) continue;
    OnReply(parser_.Take());
    if ((tls_ == Tls::kAsked || tls_ == Tls::kHandshake) && !bytes.empty()) RefuseInjection();
  }
}

void SmtpClientSession::OnReply(SmtpReply reply) {
  ++replies_;
  TraceReply(reply);
  if (waiting_.empty()) {
    // Unasked: most often 421 before the remote closes an idle connection, or within the body.
    if (reply.code != 421) fault_ = RemoteFault::kUnasked;
    End(VerdictOf(std::move(reply), stage()));
    return;
  }
  const Waiting waiting = waiting_.front();
  if (reply.code == 421 && waiting.what != Expect::kQuit) {
    End(VerdictOf(std::move(reply), stage()), true);
    return;
  }
  waiting_.pop_front();
  Transaction* transaction = Find(waiting.id);
  switch (waiting.what) {
    case Expect::kGreeting:
      if (reply.code != 220) {
        End(VerdictOf(std::move(reply), SmtpStage::kGreeting));
        return;
      }
      masked_greeting_ = reply.text.find("****") != std::string::npos;
      SayEhlo();
      return;
    case Expect::kEhlo:
      if (reply.positive()) {
        OnEhlo(reply);
        BecomeReady();
      } else if (reply.permanent() && !options_.lmtp) {
        waiting_.push_back({Expect::kHelo, 0});
        Say(absl::StrCat("HELO ", options_.ehlo_name, "\r\n"));
      } else {
        End(VerdictOf(std::move(reply), SmtpStage::kEhlo));
      }
      return;
    case Expect::kHelo:
      if (!reply.positive()) {
        End(VerdictOf(std::move(reply), SmtpStage::kEhlo));
        return;
      }
      BecomeReady();
      return;
    case Expect::kStartTls:
      OnStartTlsReply(std::move(reply));
      return;
    case Expect::kAuth:
      OnAuthReply(std::move(reply));
      return;
    case Expect::kRset:
      if (!reply.positive())
        End(VerdictOf(std::move(reply), SmtpStage::kMail));
      else if (!pipelining())
        StartWaiting();
      return;
    case Expect::kMail:
      OnMailReply(*transaction, std::move(reply));
      return;
    case Expect::kRcpt:
      OnRcptReply(*transaction, std::move(reply));
      return;
    case Expect::kData:
      OnDataReply(*transaction, std::move(reply));
      return;
    case Expect::kChunk:
      OnChunkReply(*transaction, std::move(reply));
      return;
    case Expect::kFinal:
      OnFinalReply(std::move(reply));
      return;
    case Expect::kQuit: {
      RecipientVerdict last = VerdictOf(std::move(reply), SmtpStage::kMail);
      End(std::move(last));
      return;
    }
  }
}

void SmtpClientSession::OnEhlo(const SmtpReply& reply) {
  peer_ = {};
  peer_.esmtp = true;
  peer_.masked_greeting = masked_greeting_;
  std::string_view text = reply.text;
  bool first = true;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    if (std::exchange(first, false)) continue;  // the remote's name
    const size_t space = std::min(line.find(' '), line.size());
    const std::string keyword = absl::AsciiStrToUpper(absl::string_view(line.data(), space));
    if (!IsKeyword(keyword)) continue;
    if (peer_.keywords.size() < kMaxKeywords) peer_.keywords.push_back(keyword);
    if (keyword == "PIPELINING") peer_.pipelining = true;
    if (keyword == "8BITMIME") peer_.eight_bit_mime = true;
    if (keyword == "SMTPUTF8") peer_.smtputf8 = true;
    if (keyword == "DSN") peer_.dsn = true;
    if (keyword == "STARTTLS") peer_.starttls = true;
    if (keyword == "CHUNKING") peer_.chunking = true;
    if (keyword == "AUTH") {
      const absl::string_view names(line.data() + space, line.size() - space);
      for (absl::string_view name : absl::StrSplit(names, ' ', absl::SkipEmpty())) {
        if (peer_.auth.size() < kMaxMechanisms) peer_.auth.push_back(absl::AsciiStrToUpper(name));
      }
    }
    if (keyword == "BINARYMIME") peer_.binary_mime = true;
    if (keyword == "REQUIRETLS") peer_.require_tls = true;
    if (keyword == "SIZE") {
      peer_.size = true;
      const std::string_view value = line.substr(std::min(line.size(), space + 1));
      std::from_chars(value.data(), value.data() + value.size(), peer_.max_size);
    }
  }
}

void SmtpClientSession::Ready() {
  if (!options_.auth || auth_) {
    ready_ = true;
    handler_.OnReady();
    return;
  }
  auto sasl = ChooseSaslClient(peer_.auth, *options_.auth,
                               secured() || options_.encrypted || options_.auth_in_clear,
                               options_.auth_nonce, bindings_);
  if (sasl == nullptr) {
    End(LocalVerdict(peer_.auth.empty()
                         ? "the remote offers no AUTH, and auth-username is set"
                         : "the remote offers no AUTH mechanism that may be used here",
                     SmtpStage::kAuth, "4.7.0"));
    return;
  }
  auth_.emplace(std::move(sasl));
  waiting_.push_back({Expect::kAuth, 0});
  SayAuth(true, auth_->Command());
}

void SmtpClientSession::OnAuthReply(SmtpReply reply) {
  switch (auth_->OnReply(reply)) {
    case SmtpAuthExchange::Step::kSend:
      waiting_.push_back({Expect::kAuth, 0});
      SayAuth(false, auth_->TakeOutput());
      return;
    case SmtpAuthExchange::Step::kDone:
      Ready();
      return;
    case SmtpAuthExchange::Step::kFailed:
      End(VerdictOf(std::move(reply), SmtpStage::kAuth));
      return;
    case SmtpAuthExchange::Step::kBroken:
      End(LocalVerdict(auth_->problem(), SmtpStage::kAuth, "4.7.0"));
      return;
  }
}

void SmtpClientSession::Quit() {
  quit_asked_ = true;
  if (!ready_) {
    End(LocalVerdict("closed before it was ready", stage(), "4.4.2"));
    return;
  }
  StartWaiting();
}

void SmtpClientSession::OnDisconnect(std::string_view why) {
  if (ended_) return;
  End(LocalVerdict(why, stage(), "4.4.2"), true, true);
}

void SmtpClientSession::OnTimeout() {
  if (ended_) return;
  fault_ = RemoteFault::kTimeout;
  static constexpr std::string_view kNames[] = {"the greeting",  "EHLO", "MAIL",
                                                "RCPT",          "DATA", "the message",
                                                "the final dot", "AUTH", "STARTTLS"};
  const SmtpStage where = stage();
  const std::string_view name = kNames[static_cast<size_t>(where)];
  RecipientVerdict last = LocalVerdict(
      absl::StrCat("timeout: no answer to ", absl::string_view(name.data(), name.size()),
                   " within ", timeout() / std::chrono::seconds(1), " s"),
      where, "4.4.2");
  if (where == SmtpStage::kFinalDot && options_.assume_delivery_upon_final_timeout &&
      !transactions_.front().empty_body) {
    Transaction& transaction = transactions_.front();
    RecipientVerdict assumed = last;
    assumed.verdict = Verdict::kDelivered;
    assumed.reply.enhanced = "2.0.0";
    absl::StrAppend(&assumed.reply.text, "; taken for delivered");
    for (size_t i = transaction.next_final; i < transaction.recipients.size(); ++i) {
      if (transaction.recipients[i].verdict == Verdict::kDelivered) {
        transaction.recipients[i] = assumed;
      }
    }
    Transaction done = std::move(transaction);
    transactions_.pop_front();
    handler_.OnResult(done.given.id, std::move(done.recipients));
  }
  End(std::move(last), false, true);
}

void SmtpClientSession::End(RecipientVerdict last, bool remote_left, bool broke) {
  if (std::exchange(ended_, true)) return;
  if (last.verdict == Verdict::kDelivered) last.verdict = Verdict::kTransient;
  while (!transactions_.empty()) {
    Transaction transaction = std::move(transactions_.front());
    transactions_.pop_front();
    RecipientVerdict verdict = last;
    // A 5xx that ends the connection (554 at the greeting and the like) says nothing of recipients.
    const bool unheard = remote_left && delivered_ &&
                         std::any_of(waiting_.begin(), waiting_.end(), [&](const Waiting& each) {
                           return each.what == Expect::kMail && each.id == transaction.given.id;
                         });
    verdict.verdict =
        transaction.commands_sent && !unheard ? Verdict::kTransient : Verdict::kNotAttempted;
    if (transaction.body_sent) {
      verdict.stage = SmtpStage::kFinalDot;
    } else if (verdict.stage == SmtpStage::kFinalDot) {
      verdict.stage = SmtpStage::kMail;  // the final dot was the transaction's before it
    }
    const bool in_transfer =
        transaction.body_sent || (sending_body_ && body_of_ == transaction.given.id);
    if (broke && in_transfer && verdict.verdict == Verdict::kTransient &&
        (options_.bounce_upon_transfer_failure ||
         (options_.bounce_upon_pix_transfer_failure && masked_greeting_))) {
      verdict.verdict = Verdict::kPermanent;
      verdict.reply.enhanced = "5.4.2";
    }
    for (size_t i = 0; i < transaction.recipients.size(); ++i) {
      RecipientVerdict& recipient = transaction.recipients[i];
      const bool open =
          recipient.verdict == Verdict::kDelivered || recipient.verdict == Verdict::kNotAttempted;
      if (transaction.failed && (open || transaction.failed->stage == SmtpStage::kMail)) {
        recipient = *transaction.failed;
      } else if (open && !(options_.lmtp && i < transaction.next_final)) {
        recipient = verdict;
      }
    }
    handler_.OnResult(transaction.given.id, std::move(transaction.recipients));
  }
  handler_.OnEnd(last);
}

}  // namespace sluice::mail
