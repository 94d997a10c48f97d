#include "services/mail/smtp_client_session.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/base/check.h"

namespace sluice::mail {
namespace {

constexpr size_t kMaxKeywords = 64;
constexpr size_t kMaxMechanisms = 16;

RecipientVerdict Of(SmtpReply reply, SmtpStage stage) {
  RecipientVerdict verdict;
  verdict.verdict = reply.permanent()  ? Verdict::kPermanent
                    : reply.positive() ? Verdict::kDelivered
                                       : Verdict::kTransient;
  verdict.stage = stage;
  verdict.reply = std::move(reply);
  return verdict;
}

RecipientVerdict Local(std::string_view text, SmtpStage stage, std::string_view enhanced) {
  RecipientVerdict verdict;
  verdict.verdict = Verdict::kTransient;
  verdict.stage = stage;
  verdict.reply.text = std::string(text);
  verdict.reply.enhanced = std::string(enhanced);
  verdict.local = true;
  return verdict;
}

// ehlo-keyword of RFC 5321 section 4.1.1.1; what else a remote says there is not worth keeping.
bool IsKeyword(std::string_view text) {
  if (text.empty() || !absl::ascii_isalnum(static_cast<unsigned char>(text[0]))) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-';
  });
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
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
  if (waiting_.empty()) return SmtpStage::kMail;
  switch (waiting_.front().what) {
    case Expect::kGreeting:
      return SmtpStage::kGreeting;
    case Expect::kEhlo:
    case Expect::kHelo:
      return SmtpStage::kEhlo;
    case Expect::kAuth:
      return SmtpStage::kAuth;
    case Expect::kRcpt:
      return SmtpStage::kRcpt;
    case Expect::kData:
      return SmtpStage::kData;
    case Expect::kFinal:
      return SmtpStage::kFinalDot;
    default:
      return SmtpStage::kMail;
  }
}

Duration SmtpClientSession::timeout() const {
  switch (stage()) {
    case SmtpStage::kGreeting:
      return options_.greeting_timeout;
    case SmtpStage::kBody:
      return options_.data_timeout;
    case SmtpStage::kFinalDot:
      return options_.final_timeout;
    default:
      return options_.command_timeout;
  }
}

void SmtpClientSession::OnBytes(std::string_view bytes) {
  while (!bytes.empty() && !ended_) {
    bytes.remove_prefix(parser_.Consume(bytes));
    if (parser_.broken()) {
      End(Local(parser_.problem(), stage(), "4.5.0"));
      return;
    }
    if (parser_.complete()) OnReply(parser_.Take());
  }
}

void SmtpClientSession::OnReply(SmtpReply reply) {
  if (waiting_.empty()) {
    // Unasked: most often 421 before the remote closes an idle connection, or within the body.
    End(Of(std::move(reply), stage()));
    return;
  }
  const Waiting waiting = waiting_.front();
  if (reply.code == 421 && waiting.what != Expect::kQuit) {
    End(Of(std::move(reply), stage()), true);
    return;
  }
  waiting_.pop_front();
  Transaction* transaction = Find(waiting.id);
  switch (waiting.what) {
    case Expect::kGreeting:
      if (reply.code != 220) {
        End(Of(std::move(reply), SmtpStage::kGreeting));
        return;
      }
      waiting_.push_back({Expect::kEhlo, 0});
      Write(absl::StrCat("EHLO ", options_.ehlo_name, "\r\n"));
      return;
    case Expect::kEhlo:
      if (reply.positive()) {
        OnEhlo(reply);
        Ready();
      } else if (reply.permanent()) {
        waiting_.push_back({Expect::kHelo, 0});
        Write(absl::StrCat("HELO ", options_.ehlo_name, "\r\n"));
      } else {
        End(Of(std::move(reply), SmtpStage::kEhlo));
      }
      return;
    case Expect::kHelo:
      if (!reply.positive()) {
        End(Of(std::move(reply), SmtpStage::kEhlo));
        return;
      }
      Ready();
      return;
    case Expect::kAuth:
      OnAuthReply(std::move(reply));
      return;
    case Expect::kRset:
      if (!reply.positive())
        End(Of(std::move(reply), SmtpStage::kMail));
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
    case Expect::kFinal:
      OnFinalReply(std::move(reply));
      return;
    case Expect::kQuit: {
      RecipientVerdict last = Of(std::move(reply), SmtpStage::kMail);
      End(std::move(last));
      return;
    }
  }
}

void SmtpClientSession::OnEhlo(const SmtpReply& reply) {
  peer_ = {};
  peer_.esmtp = true;
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
                               options_.encrypted || options_.auth_in_clear, options_.auth_nonce);
  if (sasl == nullptr) {
    End(Local(peer_.auth.empty() ? "the remote offers no AUTH, and auth-username is set"
                                 : "the remote offers no AUTH mechanism that may be used here",
              SmtpStage::kAuth, "4.7.0"));
    return;
  }
  auth_.emplace(std::move(sasl));
  waiting_.push_back({Expect::kAuth, 0});
  Write(auth_->Command());
}

void SmtpClientSession::OnAuthReply(SmtpReply reply) {
  switch (auth_->OnReply(reply)) {
    case SmtpAuthExchange::Step::kSend:
      waiting_.push_back({Expect::kAuth, 0});
      Write(auth_->TakeOutput());
      return;
    case SmtpAuthExchange::Step::kDone:
      Ready();
      return;
    case SmtpAuthExchange::Step::kFailed:
      End(Of(std::move(reply), SmtpStage::kAuth));
      return;
    case SmtpAuthExchange::Step::kBroken:
      End(Local(auth_->problem(), SmtpStage::kAuth, "4.7.0"));
      return;
  }
}

std::string SmtpClientSession::MailCommand(const ClientTransaction& given) const {
  std::string command = absl::StrCat("MAIL FROM:<", given.mail_from, ">");
  if (peer_.size && given.size > 0) absl::StrAppend(&command, " SIZE=", given.size);
  if (peer_.eight_bit_mime && given.eight_bit && options_.use_8bitmime) {
    absl::StrAppend(&command, " BODY=8BITMIME");
  }
  const bool utf8 = given.smtputf8 || !IsAscii(given.mail_from) ||
                    !std::all_of(given.recipients.begin(), given.recipients.end(), IsAscii);
  if (peer_.smtputf8 && utf8) absl::StrAppend(&command, " SMTPUTF8");
  command += "\r\n";
  return command;
}

void SmtpClientSession::Begin(ClientTransaction transaction) {
  SLUICE_CHECK(ready_ && transactions_.size() < 2);
  Transaction& made = transactions_.emplace_back();
  made.recipients.resize(transaction.recipients.size());
  made.given = std::move(transaction);
  if (!ended_) StartWaiting();
}

// Sends the commands of the next transaction, where it is its turn.
void SmtpClientSession::StartWaiting() {
  for (size_t i = 0; i < transactions_.size() && !ended_; ++i) {
    Transaction& each = transactions_[i];
    if (each.commands_sent) {
      // The next one may follow the final dot, but nothing before it.
      if (!each.body_sent || !pipelining()) return;
      continue;
    }
    // Nothing follows a RSET that is not answered yet; its reply comes back here.
    if (!pipelining() && !waiting_.empty()) return;
    if (need_rset_) {
      need_rset_ = false;
      waiting_.push_back({Expect::kRset, 0});
      Write("RSET\r\n");
      if (!pipelining()) return;
    }
    if (!Check(each)) {
      // In its turn: results come in order.
      if (i == 0) Finish(each);
      return;
    }
    SendCommands(each);
    return;
  }
  if (quit_asked_ && transactions_.empty() && !quit_sent_ && !ended_) {
    quit_sent_ = true;
    waiting_.push_back({Expect::kQuit, 0});
    Write("QUIT\r\n");
  }
}

std::optional<RecipientVerdict> SmtpClientSession::RefusalOf(std::string_view address,
                                                             SmtpStage stage) const {
  std::string_view text;
  std::string_view enhanced = "5.6.7";
  if (std::any_of(address.begin(), address.end(),
                  [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); })) {
    text = "the address has a control character";
    enhanced = stage == SmtpStage::kMail ? "5.1.7" : "5.1.3";
  } else if (!IsAscii(address) && !peer_.smtputf8) {
    text = "the address is not ASCII, and the remote does not offer SMTPUTF8";
  } else {
    return std::nullopt;
  }
  RecipientVerdict verdict = Local(text, stage, enhanced);
  verdict.verdict = Verdict::kPermanent;
  return verdict;
}

bool SmtpClientSession::Check(Transaction& transaction) const {
  transaction.failed = RefusalOf(transaction.given.mail_from, SmtpStage::kMail);
  if (transaction.failed) return false;
  bool any = false;
  for (size_t i = 0; i < transaction.recipients.size(); ++i) {
    auto refusal = RefusalOf(transaction.given.recipients[i], SmtpStage::kRcpt);
    if (refusal) {
      transaction.recipients[i] = *std::move(refusal);
    } else {
      any = true;
    }
  }
  return any;
}

void SmtpClientSession::SendCommands(Transaction& transaction) {
  transaction.commands_sent = true;
  const uint64_t id = transaction.given.id;
  std::string commands = MailCommand(transaction.given);
  waiting_.push_back({Expect::kMail, id});
  if (pipelining()) {
    for (size_t i = 0; i < transaction.recipients.size(); ++i) {
      if (transaction.recipients[i].verdict == Verdict::kPermanent) continue;
      absl::StrAppend(&commands, "RCPT TO:<", transaction.given.recipients[i], ">\r\n");
      waiting_.push_back({Expect::kRcpt, id});
    }
    commands += "DATA\r\n";
    waiting_.push_back({Expect::kData, id});
  }
  Write(commands);
}

void SmtpClientSession::PassRefused(Transaction& transaction) {
  while (transaction.next_rcpt < transaction.recipients.size() &&
         transaction.recipients[transaction.next_rcpt].verdict == Verdict::kPermanent) {
    ++transaction.next_rcpt;
  }
}

// Without pipelining: the next command, or what follows the last one.
void SmtpClientSession::SendNextStep(Transaction& transaction) {
  if (pipelining()) return;
  const uint64_t id = transaction.given.id;
  PassRefused(transaction);
  if (transaction.failed ||
      (transaction.next_rcpt == transaction.recipients.size() && transaction.accepted == 0)) {
    need_rset_ = true;
    Finish(transaction);
    return;
  }
  if (transaction.next_rcpt < transaction.recipients.size()) {
    waiting_.push_back({Expect::kRcpt, id});
    Write(absl::StrCat("RCPT TO:<", transaction.given.recipients[transaction.next_rcpt], ">\r\n"));
    return;
  }
  waiting_.push_back({Expect::kData, id});
  Write("DATA\r\n");
}

void SmtpClientSession::OnMailReply(Transaction& transaction, SmtpReply reply) {
  if (!reply.positive()) transaction.failed = Of(std::move(reply), SmtpStage::kMail);
  SendNextStep(transaction);
}

void SmtpClientSession::OnRcptReply(Transaction& transaction, SmtpReply reply) {
  PassRefused(transaction);
  RecipientVerdict& recipient = transaction.recipients[transaction.next_rcpt++];
  recipient = Of(std::move(reply), SmtpStage::kRcpt);
  if (recipient.verdict == Verdict::kDelivered) ++transaction.accepted;
  SendNextStep(transaction);
}

void SmtpClientSession::OnDataReply(Transaction& transaction, SmtpReply reply) {
  const bool wanted = !transaction.failed && transaction.accepted > 0;
  if (reply.code == 354) {
    if (wanted) {
      stuffer_ = {};
      sending_body_ = true;
      body_of_ = transaction.given.id;
      handler_.OnWantBody(body_of_);
      return;
    }
    // RFC 2920 section 3.1: the remote waits for a message although it refused everybody.
    transaction.empty_body = true;
    transaction.body_sent = true;
    waiting_.push_back({Expect::kFinal, transaction.given.id});
    Write(".\r\n");
    StartWaiting();
    return;
  }
  if (wanted) {
    // A 2xx here would be nonsense: nothing was sent yet.
    transaction.failed = Of(std::move(reply), SmtpStage::kData);
    if (transaction.failed->verdict == Verdict::kDelivered) {
      transaction.failed->verdict = Verdict::kTransient;
    }
  }
  need_rset_ = true;
  Finish(transaction);
}

bool SmtpClientSession::SendBody(std::string_view piece, bool last,
                                 absl::FunctionRef<void(std::string_view)> slice) {
  if (ended_ || !sending_body_) return false;
  stuffer_.Write(piece, slice, [this](std::string_view text) { Write(text); });
  if (!last) return true;
  if (!handler_.MayFinish(body_of_)) {
    AbortBody("the lease of the message ran out before its final dot");
    return false;
  }
  Write(stuffer_.Finish());
  sending_body_ = false;
  Find(body_of_)->body_sent = true;
  waiting_.push_back({Expect::kFinal, body_of_});
  StartWaiting();
  return true;
}

void SmtpClientSession::AbortBody(std::string_view why) {
  if (ended_) return;
  RecipientVerdict verdict = Local(why, SmtpStage::kBody, "4.4.2");
  End(std::move(verdict));
}

void SmtpClientSession::OnFinalReply(SmtpReply reply) {
  Transaction& transaction = transactions_.front();
  if (!transaction.empty_body) {
    const RecipientVerdict verdict = Of(std::move(reply), SmtpStage::kFinalDot);
    if (verdict.verdict == Verdict::kDelivered) delivered_ = true;
    for (RecipientVerdict& recipient : transaction.recipients) {
      if (recipient.verdict == Verdict::kDelivered) recipient = verdict;
    }
  }
  Finish(transaction);
}

// The first transaction is over.
void SmtpClientSession::Finish(Transaction& transaction) {
  SLUICE_CHECK(&transaction == &transactions_.front());
  Transaction done = std::move(transaction);
  transactions_.pop_front();
  if (done.failed) {
    for (RecipientVerdict& recipient : done.recipients) {
      // One that was refused by itself keeps its own reply, unless it only echoes MAIL's failure.
      if (recipient.verdict == Verdict::kDelivered || done.failed->stage == SmtpStage::kMail) {
        recipient = *done.failed;
      } else if (recipient.verdict == Verdict::kNotAttempted) {
        recipient = *done.failed;
      }
    }
  }
  handler_.OnResult(done.given.id, std::move(done.recipients));
  if (!ended_) StartWaiting();
}

void SmtpClientSession::Quit() {
  quit_asked_ = true;
  if (!ready_) {
    End(Local("closed before it was ready", stage(), "4.4.2"));
    return;
  }
  StartWaiting();
}

void SmtpClientSession::OnDisconnect(std::string_view why) {
  if (ended_) return;
  End(Local(why, stage(), "4.4.2"), true);
}

void SmtpClientSession::OnTimeout() {
  if (ended_) return;
  static constexpr std::string_view kNames[] = {
      "the greeting", "EHLO", "MAIL", "RCPT", "DATA", "the message", "the final dot", "AUTH"};
  const SmtpStage where = stage();
  const std::string_view name = kNames[static_cast<size_t>(where)];
  End(Local(absl::StrCat("timeout: no answer to ", absl::string_view(name.data(), name.size()),
                         " within ", timeout() / std::chrono::seconds(1), " s"),
            where, "4.4.2"));
}

void SmtpClientSession::End(RecipientVerdict last, bool remote_left) {
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
    for (RecipientVerdict& recipient : transaction.recipients) {
      if (transaction.failed) {
        recipient = *transaction.failed;
      } else if (recipient.verdict == Verdict::kDelivered ||
                 recipient.verdict == Verdict::kNotAttempted) {
        recipient = verdict;
      }
    }
    handler_.OnResult(transaction.given.id, std::move(transaction.recipients));
  }
  handler_.OnEnd(last);
}

}  // namespace sluice::mail
