#include "services/mail/smtp_client_session.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/base/check.h"
#include "services/mail/xtext.h"

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
  while (!bytes.empty() && !ended_) {
    bytes.remove_prefix(parser_.Consume(bytes));
    if (parser_.broken()) {
      fault_ = RemoteFault::kNoSmtp;
      End(Local(parser_.problem(), stage(), "4.5.0"));
      return;
    }
    if (!parser_.complete()) continue;
    OnReply(parser_.Take());
    if ((tls_ == Tls::kAsked || tls_ == Tls::kHandshake) && !bytes.empty()) RefuseInjection();
  }
}

void SmtpClientSession::OnReply(SmtpReply reply) {
  ++replies_;
  if (waiting_.empty()) {
    // Unasked: most often 421 before the remote closes an idle connection, or within the body.
    if (reply.code != 421) fault_ = RemoteFault::kUnasked;
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
      masked_greeting_ = reply.text.find("****") != std::string::npos;
      SayEhlo();
      return;
    case Expect::kEhlo:
      if (reply.positive()) {
        OnEhlo(reply);
        BecomeReady();
      } else if (reply.permanent() && !options_.lmtp) {
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
    case Expect::kChunk:
      OnChunkReply(*transaction, std::move(reply));
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
                               options_.auth_nonce);
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

bool SmtpClientSession::MustBeUtf8(const ClientTransaction& given) const {
  return given.smtputf8 || !IsAscii(given.mail_from) ||
         !std::all_of(given.recipients.begin(), given.recipients.end(), IsAscii);
}

std::string SmtpClientSession::MailCommand(const ClientTransaction& given) const {
  std::string command = absl::StrCat("MAIL FROM:<", given.mail_from, ">");
  if (peer_.size && given.size > 0) absl::StrAppend(&command, " SIZE=", given.size);
  if (given.binary) {
    command += " BODY=BINARYMIME";
  } else if (peer_.eight_bit_mime && given.eight_bit && options_.use_8bitmime) {
    command += " BODY=8BITMIME";
  }
  if (peer_.smtputf8 && MustBeUtf8(given)) command += " SMTPUTF8";
  if (given.require_tls) command += " REQUIRETLS";
  if (peer_.dsn && options_.use_dsn) {
    if (given.ret == ClientTransaction::Ret::kFull) command += " RET=FULL";
    if (given.ret == ClientTransaction::Ret::kHeaders) command += " RET=HDRS";
    if (!given.envid.empty()) absl::StrAppend(&command, " ENVID=", EncodeXtext(given.envid));
  }
  command += "\r\n";
  return command;
}

void SmtpClientSession::AppendRcpt(const ClientTransaction& given, size_t recipient,
                                   std::string* command) const {
  absl::StrAppend(command, "RCPT TO:<", given.recipients[recipient], ">");
  if (recipient < given.dsn.size() && peer_.dsn && options_.use_dsn) {
    const RecipientDsn& dsn = given.dsn[recipient];
    if ((dsn.notify & 1) != 0) {
      *command += " NOTIFY=NEVER";
    } else if (dsn.notify != 0) {
      static constexpr std::pair<uint32_t, const char*> kNames[] = {
          {2, "SUCCESS"}, {4, "FAILURE"}, {8, "DELAY"}};
      const char* before = " NOTIFY=";
      for (const auto& [bit, name] : kNames) {
        if ((dsn.notify & bit) != 0) absl::StrAppend(command, std::exchange(before, ","), name);
      }
    }
    // xtext has no form for an address that is not ASCII.
    if (!dsn.orcpt.empty() && IsAscii(dsn.orcpt)) {
      absl::StrAppend(command, " ORCPT=", EncodeXtext(dsn.orcpt));
    }
  }
  *command += "\r\n";
}

void SmtpClientSession::Begin(ClientTransaction transaction) {
  if (ended_) {
    RecipientVerdict verdict = Local("the connection had ended", SmtpStage::kMail, "4.4.2");
    verdict.verdict = Verdict::kNotAttempted;
    handler_.OnResult(transaction.id, std::vector<RecipientVerdict>(transaction.recipients.size(),
                                                                    std::move(verdict)));
    return;
  }
  SLUICE_CHECK(ready_ && transactions_.size() < 2);
  Transaction& made = transactions_.emplace_back();
  made.recipients.resize(transaction.recipients.size());
  made.given = std::move(transaction);
  StartWaiting();
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
    // RFC 3030 section 2: what a refused last chunk leaves behind is not certain.
    if (need_rset_ || (i > 0 && transactions_[i - 1].chunking)) {
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
  const ClientTransaction& given = transaction.given;
  transaction.failed = RefusalOf(given.mail_from, SmtpStage::kMail);
  if (!transaction.failed && given.require_tls &&
      !((secured() || options_.encrypted) && given.tls_verified && peer_.require_tls)) {
    transaction.failed =
        Local(peer_.require_tls ? "the message requires TLS, and the remote is not verified"
                                : "the message requires TLS, and the remote does not offer it",
              SmtpStage::kMail, "5.7.30");
    transaction.failed->verdict = Verdict::kPermanent;
  }
  if (!transaction.failed && given.binary && !(peer_.binary_mime && chunking())) {
    transaction.failed = Local("the message is binary, and the remote does not offer BINARYMIME",
                               SmtpStage::kMail, "5.6.3");
    transaction.failed->verdict = Verdict::kPermanent;
  }
  if (!transaction.failed && given.smtputf8 && !peer_.smtputf8) {
    transaction.failed = Local("the message needs SMTPUTF8, and the remote does not offer it",
                               SmtpStage::kMail, "5.6.7");
    transaction.failed->verdict = Verdict::kPermanent;
  }
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
  // Chunks that do not wait for each other's replies need PIPELINING.
  transaction.chunking = chunking() && (pipelining() || transaction.given.binary);
  const uint64_t id = transaction.given.id;
  std::string commands = MailCommand(transaction.given);
  waiting_.push_back({Expect::kMail, id});
  if (pipelining()) {
    for (size_t i = 0; i < transaction.recipients.size(); ++i) {
      if (transaction.recipients[i].verdict == Verdict::kPermanent) continue;
      AppendRcpt(transaction.given, i, &commands);
      waiting_.push_back({Expect::kRcpt, id});
    }
    if (!transaction.chunking) {
      commands += "DATA\r\n";
      waiting_.push_back({Expect::kData, id});
    }
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
  if (pipelining()) {
    if (transaction.chunking) AfterEnvelope(transaction);
    return;
  }
  const uint64_t id = transaction.given.id;
  PassRefused(transaction);
  if (!transaction.failed && transaction.next_rcpt < transaction.recipients.size()) {
    waiting_.push_back({Expect::kRcpt, id});
    std::string command;
    AppendRcpt(transaction.given, transaction.next_rcpt, &command);
    Write(command);
    return;
  }
  if (transaction.failed || transaction.accepted == 0 || transaction.chunking) {
    transaction.next_rcpt = transaction.recipients.size();
    AfterEnvelope(transaction);
    return;
  }
  waiting_.push_back({Expect::kData, id});
  Write("DATA\r\n");
}

void SmtpClientSession::AfterEnvelope(Transaction& transaction) {
  PassRefused(transaction);
  if (transaction.next_rcpt < transaction.recipients.size()) return;
  if (!transaction.failed && transaction.accepted > 0) {
    WantBody(transaction);
    return;
  }
  need_rset_ = true;
  Finish(transaction);
}

void SmtpClientSession::WantBody(Transaction& transaction) {
  stuffer_ = {};
  cr_sent_ = crlf_sent_ = false;
  sending_body_ = true;
  body_of_ = transaction.given.id;
  handler_.OnWantBody(body_of_);
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
      WantBody(transaction);
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
  Transaction& transaction = *Find(body_of_);
  if (transaction.chunking) return SendChunk(transaction, piece, last, slice);
  stuffer_.Write(piece, slice, [this](std::string_view text) { Write(text); });
  if (!last) return true;
  if (!handler_.MayFinish(body_of_)) {
    AbortBody("the lease of the message ran out before its final dot");
    return false;
  }
  Write(stuffer_.Finish());
  BodySent(transaction);
  return true;
}

bool SmtpClientSession::SendChunk(Transaction& transaction, std::string_view piece, bool last,
                                  absl::FunctionRef<void(std::string_view)> slice) {
  if (last && !handler_.MayFinish(body_of_)) {
    AbortBody("the lease of the message ran out before its last chunk");
    return false;
  }
  if (piece.size() == 1) {
    crlf_sent_ = cr_sent_ && piece[0] == '\n';
  } else if (!piece.empty()) {
    crlf_sent_ = piece.ends_with("\r\n");
  }
  if (!piece.empty()) cr_sent_ = piece.back() == '\r';
  // Text ends with a line's end, as it would by DATA.
  const bool end_line = last && !crlf_sent_ && !transaction.given.binary;
  const size_t size = piece.size() + (end_line ? 2 : 0);
  if (size > 0 || last) Write(absl::StrCat("BDAT ", size, last ? " LAST\r\n" : "\r\n"));
  if (!piece.empty()) slice(piece);
  if (end_line) Write("\r\n");
  if (last) {
    BodySent(transaction);
  } else if (size > 0) {
    waiting_.push_back({Expect::kChunk, body_of_});
  }
  return true;
}

void SmtpClientSession::BodySent(Transaction& transaction) {
  sending_body_ = false;
  transaction.body_sent = true;
  // RFC 2033 section 4.2: a reply for each recipient that was taken.
  const size_t replies = options_.lmtp ? transaction.accepted : 1;
  for (size_t i = 0; i < replies; ++i) waiting_.push_back({Expect::kFinal, body_of_});
  StartWaiting();
}

void SmtpClientSession::OnChunkReply(Transaction& transaction, SmtpReply reply) {
  if (reply.positive()) return;
  // More of the body may be on its way, and nothing but another chunk could follow it.
  transaction.failed = Of(std::move(reply), SmtpStage::kBody);
  End(*transaction.failed);
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
    if (verdict.verdict == Verdict::kDelivered) {
      delivered_ = true;
    } else if (transaction.chunking && transactions_.size() == 1) {
      need_rset_ = true;
    }
    size_t& next = transaction.next_final;
    for (; next < transaction.recipients.size(); ++next) {
      RecipientVerdict& recipient = transaction.recipients[next];
      if (recipient.verdict != Verdict::kDelivered) continue;
      recipient = verdict;
      if (options_.lmtp) {
        ++next;
        break;
      }
    }
    const bool more = !waiting_.empty() && waiting_.front().what == Expect::kFinal &&
                      waiting_.front().id == transaction.given.id;
    if (more) return;
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
  End(Local(why, stage(), "4.4.2"), true, true);
}

void SmtpClientSession::OnTimeout() {
  if (ended_) return;
  fault_ = RemoteFault::kTimeout;
  static constexpr std::string_view kNames[] = {"the greeting",  "EHLO", "MAIL",
                                                "RCPT",          "DATA", "the message",
                                                "the final dot", "AUTH", "STARTTLS"};
  const SmtpStage where = stage();
  const std::string_view name = kNames[static_cast<size_t>(where)];
  RecipientVerdict last =
      Local(absl::StrCat("timeout: no answer to ", absl::string_view(name.data(), name.size()),
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
