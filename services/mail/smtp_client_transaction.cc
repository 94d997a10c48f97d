// The part of SmtpClientSession that sends messages: envelopes, bodies, and what the remote says of
// them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/check.h"
#include "services/mail/smtp_client_session.h"
#include "services/mail/smtp_client_verdict.h"

namespace sluice::mail {
namespace {

RecipientVerdict NoRoomForErrors(SmtpStage stage) {
  RecipientVerdict verdict =
      LocalVerdict("the connection has had as many errors as it may", stage, "4.4.2");
  verdict.verdict = Verdict::kNotAttempted;
  return verdict;
}

}  // namespace

void SmtpClientSession::Begin(ClientTransaction transaction) {
  if (ended_ || quit_sent_) {
    RecipientVerdict verdict = LocalVerdict("the connection had ended", SmtpStage::kMail, "4.4.2");
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
    if (RoomForErrors(each) == 0) {
      if (i > 0) return;  // until it is known how the one before ends
      each.failed = NoRoomForErrors(SmtpStage::kMail);
      quit_asked_ = true;
      Finish(each);
      return;
    }
    // RFC 3030 section 2: what a refused last chunk leaves behind is not certain.
    if (need_rset_ || (i > 0 && transactions_[i - 1].chunking)) {
      need_rset_ = false;
      waiting_.push_back({Expect::kRset, 0});
      Say("RSET\r\n");
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
    Say("QUIT\r\n");
  }
}

bool SmtpClientSession::Check(Transaction& transaction) const {
  const ClientTransaction& given = transaction.given;
  transaction.failed = RefusalOf(given.mail_from, SmtpStage::kMail);
  // RFC 8689 section 4.2.1, with the codes that it asks for.
  if (!transaction.failed && given.require_tls) {
    const bool encrypted = (secured() || options_.encrypted) && given.tls_verified;
    const bool passed_on = encrypted && peer_.require_tls;
    // Section 5: a report asks for the same, and is not lost where it cannot have it.
    if (!passed_on && given.mail_from.empty()) {
      transaction.given.require_tls = false;
    } else if (!encrypted && given.tls_failed) {
      transaction.failed =
          LocalVerdict("the message requires TLS, and a handshake with the remote failed",
                       SmtpStage::kMail, "4.7.10");
    } else if (!passed_on) {
      transaction.failed =
          LocalVerdict(encrypted ? "the message requires TLS, and the remote offers no REQUIRETLS"
                                 : "the message requires TLS, and there is none that is verified",
                       SmtpStage::kMail, encrypted ? "5.7.30" : "5.7.10");
      transaction.failed->verdict = Verdict::kPermanent;
    }
  }
  if (!transaction.failed && given.binary && !(peer_.binary_mime && chunking())) {
    transaction.failed =
        LocalVerdict("the message is binary, and the remote does not offer BINARYMIME",
                     SmtpStage::kMail, "5.6.3");
    transaction.failed->verdict = Verdict::kPermanent;
  }
  if (!transaction.failed && given.smtputf8 && !peer_.smtputf8) {
    transaction.failed = LocalVerdict(
        "the message needs SMTPUTF8, and the remote does not offer it", SmtpStage::kMail, "5.6.7");
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
  if (pipelining()) AppendEnvelope(transaction, &commands);
  Say(commands);
}

void SmtpClientSession::AppendEnvelope(Transaction& transaction, std::string* commands) {
  const uint64_t id = transaction.given.id;
  size_t room = RoomForErrors(transaction);
  for (size_t& i = transaction.next_sent; i < transaction.recipients.size(); ++i) {
    if (transaction.recipients[i].verdict == Verdict::kPermanent) continue;
    if (room == 0) return;
    --room;
    AppendRcpt(transaction.given, i, commands);
    waiting_.push_back({Expect::kRcpt, id});
  }
  if (transaction.chunking) return;
  *commands += "DATA\r\n";
  waiting_.push_back({Expect::kData, id});
}

void SmtpClientSession::ContinueEnvelope(Transaction& transaction) {
  const size_t all = transaction.recipients.size();
  if (transaction.next_sent == all) return;
  std::string commands;
  if (!transaction.failed) AppendEnvelope(transaction, &commands);
  if (!commands.empty()) {
    Say(commands);
    return;
  }
  PassRefused(transaction);
  if (transaction.next_rcpt < transaction.next_sent) return;  // replies are to come
  if (!transaction.failed) transaction.cut_at = transaction.next_sent;
  transaction.next_sent = transaction.next_rcpt = all;
  if (transaction.chunking) return;  // AfterEnvelope follows
  if (transaction.failed || transaction.accepted == 0) {
    need_rset_ = true;
    Finish(transaction);
    return;
  }
  waiting_.push_back({Expect::kData, transaction.given.id});
  Say("DATA\r\n");
}

size_t SmtpClientSession::ErrorsAhead(const Transaction& transaction) const {
  // A refused MAIL was counted; what RCPT then says is its echo.
  if (!transaction.commands_sent || transaction.empty_body || transaction.failed) return 0;
  const auto awaited = [&](Expect what) {
    return static_cast<size_t>(std::count_if(
        waiting_.begin(), waiting_.end(),
        [&](const Waiting& each) { return each.what == what && each.id == transaction.given.id; }));
  };
  if (options_.lmtp && transaction.body_sent) return awaited(Expect::kFinal);
  const size_t of_text = options_.lmtp ? transaction.accepted : (transaction.accepted > 0 ? 1 : 0);
  return awaited(Expect::kRcpt) + of_text;
}

size_t SmtpClientSession::RoomForErrors(const Transaction& transaction) const {
  const uint64_t most = transaction.given.most_errors;
  if (most == 0) return transaction.recipients.size() + 1;
  uint64_t taken = errors_;
  for (const Transaction& each : transactions_) taken += ErrorsAhead(each);
  return most > taken ? static_cast<size_t>(most - taken) : 0;
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
    // May end it, but for one that is sent in chunks.
    const bool in_chunks = transaction.chunking;
    ContinueEnvelope(transaction);
    if (in_chunks) AfterEnvelope(transaction);
    return;
  }
  const uint64_t id = transaction.given.id;
  PassRefused(transaction);
  if (!transaction.failed && transaction.next_rcpt < transaction.recipients.size() &&
      RoomForErrors(transaction) == 0) {
    transaction.cut_at = transaction.next_rcpt;
    transaction.next_rcpt = transaction.recipients.size();
  }
  if (!transaction.failed && transaction.next_rcpt < transaction.recipients.size()) {
    waiting_.push_back({Expect::kRcpt, id});
    std::string command;
    AppendRcpt(transaction.given, transaction.next_rcpt, &command);
    Say(command);
    return;
  }
  if (transaction.failed || transaction.accepted == 0 || transaction.chunking) {
    transaction.next_rcpt = transaction.recipients.size();
    AfterEnvelope(transaction);
    return;
  }
  waiting_.push_back({Expect::kData, id});
  Say("DATA\r\n");
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
  if (!reply.positive()) {
    transaction.failed = VerdictOf(std::move(reply), SmtpStage::kMail);
    ++errors_;
  }
  SendNextStep(transaction);
}

void SmtpClientSession::OnRcptReply(Transaction& transaction, SmtpReply reply) {
  PassRefused(transaction);
  RecipientVerdict& recipient = transaction.recipients[transaction.next_rcpt++];
  recipient = VerdictOf(std::move(reply), SmtpStage::kRcpt);
  if (recipient.verdict == Verdict::kDelivered) {
    ++transaction.accepted;
  } else if (!transaction.failed) {
    ++errors_;
  }
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
    Say(".\r\n");
    StartWaiting();
    return;
  }
  if (wanted) {
    ++errors_;
    // A 2xx here would be nonsense: nothing was sent yet.
    transaction.failed = VerdictOf(std::move(reply), SmtpStage::kData);
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
  if (options_.trace) handler_.OnTrace(false, ".");
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
  if (size > 0 || last) Say(absl::StrCat("BDAT ", size, last ? " LAST\r\n" : "\r\n"));
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
  transaction.failed = VerdictOf(std::move(reply), SmtpStage::kBody);
  End(*transaction.failed);
}

void SmtpClientSession::AbortBody(std::string_view why) {
  if (ended_) return;
  RecipientVerdict verdict = LocalVerdict(why, SmtpStage::kBody, "4.4.2");
  End(std::move(verdict));
}

void SmtpClientSession::OnFinalReply(SmtpReply reply) {
  Transaction& transaction = transactions_.front();
  if (!transaction.empty_body) {
    const RecipientVerdict verdict = VerdictOf(std::move(reply), SmtpStage::kFinalDot);
    if (verdict.verdict == Verdict::kDelivered) {
      delivered_ = true;
    } else {
      ++errors_;
      need_rset_ |= transaction.chunking && transactions_.size() == 1;
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
  const size_t attempted = done.cut_at.value_or(done.recipients.size());
  for (size_t i = attempted; i < done.recipients.size(); ++i) {
    RecipientVerdict& recipient = done.recipients[i];
    if (recipient.verdict != Verdict::kPermanent) recipient = NoRoomForErrors(SmtpStage::kRcpt);
  }
  if (done.failed) {
    for (size_t i = 0; i < attempted; ++i) {
      RecipientVerdict& recipient = done.recipients[i];
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

}  // namespace sluice::mail
