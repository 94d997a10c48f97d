// One transaction of SmtpServerSession: MAIL, RCPT and DATA, the handler's answers to them, and
// what a text is refused for (RFC 5321 3.3, 4.5.3.1).
#include <algorithm>
#include <utility>

#include "services/base/check.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::mail {

void SmtpServerSession::OnMailCommand(std::string_view argument, bool merge) {
  if (stage_ == Stage::kConnect) {
    Error(503, {5, 5, 1}, "Say EHLO first");
    return;
  }
  if (stage_ != Stage::kHello) {
    Error(503, {5, 5, 1}, "There is a transaction already");
    return;
  }
  if (shutting_down_) {
    Fatal(421, {4, 3, 2}, options_->host_name + " is shutting down");
    return;
  }
  if (auto refusal = merge ? ParseMergeMail(argument)
                           : ParseMailCommand(argument, options_->extensions, mail_)) {
    Error(refusal->code, refusal->enhanced, refusal->text);
    return;
  }
  if (mail_.require_tls && !secured_) {
    // RFC 8689 4.1: offered over TLS only.
    Error(555, {5, 5, 4}, "Parameter REQUIRETLS is not supported without TLS");
    return;
  }
  if (options_->max_message_bytes != 0 && mail_.size > options_->max_message_bytes) {
    handler_.OnRefusal(ClientRefusal::kDeclaredTooLarge);
    Reply(552, {5, 3, 4},
          "The message is larger than " + std::to_string(options_->max_message_bytes) + " bytes");
    return;
  }
  deferral_.reset();
  Ask(Question::kMail, handler_.OnMail(mail_));
}

void SmtpServerSession::OnRcptCommand(std::string_view argument) {
  if (RepeatDeferral()) return;
  if (stage_ != Stage::kMail && stage_ != Stage::kRcpt) {
    Error(503, {5, 5, 1},
          stage_ == Stage::kChunks ? "The text has begun" : "MAIL comes before RCPT");
    return;
  }
  if (auto refusal = ParseRcptCommand(argument, options_->extensions, mail_.smtp_utf8, rcpt_)) {
    Error(refusal->code, refusal->enhanced, refusal->text);
    return;
  }
  if (options_->max_recipients != 0 && recipients_ >= options_->max_recipients) {
    handler_.OnRefusal(ClientRefusal::kTooManyRecipients);
    Reply(452, {4, 5, 3}, "Too many recipients, send the rest in another transaction");
    return;
  }
  idle_commands_ = idle_at_mail_;
  rcpt_.merge = nullptr;
  if (merge_ != nullptr) {
    AskMergeRcpt();
    return;
  }
  Ask(Question::kRcpt, handler_.OnRcpt(rcpt_));
}

void SmtpServerSession::OnDataCommand(std::string_view argument) {
  if (!argument.empty()) {
    Error(501, {5, 5, 4}, "DATA takes no argument");
    return;
  }
  if (RepeatDeferral()) return;
  if (merge_ != nullptr) {
    Error(503, {5, 5, 1}, "XPRT brings the text of a mail merge");
    return;
  }
  if (stage_ == Stage::kChunks) {
    ResetTransaction();
    Error(503, {5, 5, 1}, "DATA cannot follow BDAT, the transaction is over");
    return;
  }
  if (stage_ == Stage::kRcpt && mail_.body == BodyParam::kBinaryMime) {
    Error(503, {5, 5, 1}, "BODY=BINARYMIME wants BDAT");
    return;
  }
  if (stage_ == Stage::kMail) {
    // Pipelined after refused recipients: no fault of the client (RFC 2920 3.1).
    Reply(554, {5, 5, 1}, "No valid recipients");
    return;
  }
  if (stage_ != Stage::kRcpt) {
    Error(503, {5, 5, 1}, "RCPT comes before DATA");
    return;
  }
  Ask(Question::kData, handler_.OnData());
}

// What a client pipelined behind a MAIL that is refused for now is refused for now, too: a 503
// there has been taken for a verdict on the recipient.
bool SmtpServerSession::RepeatDeferral() {
  if (!deferral_) return false;
  Reply(*deferral_);
  CountRejection();
  return true;
}

void SmtpServerSession::CountRejection() {
  if (++rejections_ > options_->max_rejections)
    Punish(ClientFault::kTooManyErrors, 421, {4, 7, 0}, "Too many refused commands");
}

void SmtpServerSession::Ask(Question question, std::optional<ServerReply> answer) {
  if (answer.has_value()) {
    Answer(question, *answer);
  } else {
    question_ = question;
  }
}

void SmtpServerSession::Answer(Question question, const ServerReply& reply) {
  if (reply.delay > Duration::zero()) {
    held_ = std::make_unique<Held>(Held{question, reply, activity_ + reply.delay});
    held_->reply.delay = Duration::zero();
    if (question == Question::kEnd) stage_ = Stage::kHello;  // for the handler it is over
    return;
  }
  if (question == Question::kAuth) {
    AnswerAuth(reply);
    return;
  }
  if (question == Question::kData && chunk_ && reply.code != 421) {
    if (reply.positive()) {
      BeginChunk();
    } else {
      chunk_->refusal = reply;
      if (chunk_->left == 0) EndChunk();
    }
    return;
  }
  Reply(reply);
  const bool accepted = reply.positive();
  switch (question) {
    case Question::kNone:
    case Question::kAuth:
      return;
    case Question::kMail:
      if (accepted) {
        stage_ = Stage::kMail;
        idle_at_mail_ = idle_commands_;
        recipients_ = 0;
        if (mail_.merge) merge_ = std::make_unique<Merge>();
      } else if (reply.code < 500 && reply.code != 421) {
        deferral_ = reply;
      }
      break;
    case Question::kRcpt:
      if (accepted) {
        stage_ = Stage::kRcpt;
        ++recipients_;
        if (merge_ != nullptr) merge_->wanted = std::max(merge_->wanted, merge_->next_wanted);
      }
      break;
    case Question::kData:
      if (accepted) {
        SLUICE_CHECK(reply.code == 354);
        stage_ = Stage::kData;
        body_paused_ = false;
        data_begin_ = activity_;
        data_bytes_ = 0;
        reader_.emplace(
            DataReader::Limits{options_->max_message_bytes, options_->max_header_bytes});
        return;
      }
      break;
    case Question::kEnd:
      stage_ = Stage::kHello;
      merge_.reset();
      idle_commands_ = 0;
      passed_over_ = 0;
      if (accepted) errors_ = 0;
      if (shutting_down_ && !closing_) {
        Fatal(421, {4, 3, 2}, options_->host_name + " is shutting down");
      }
      break;
  }
  if (reply.code == 421) {
    closing_ = true;
  } else if (accepted) {
    rejections_ = 0;
  } else {
    CountRejection();
  }
}

void SmtpServerSession::EndOfData() {
  stage_ = Stage::kEnd;
  const DataReader reader = *reader_;
  reader_.reset();
  DataError error = reader.error();
  ServerReply refusal;
  switch (error) {
    case DataError::kNone:
      if (options_->max_hops != 0 && reader.hops() > options_->max_hops) {
        refusal = {554, {5, 4, 6}, "Too many Received fields: a mail loop"};
      }
      break;
    case DataError::kBareLf:
      refusal = {554, {5, 6, 0}, "The message has a line feed without a carriage return"};
      break;
    case DataError::kBareCr:
      refusal = {554, {5, 6, 0}, "The message has a carriage return without a line feed"};
      break;
    case DataError::kNul:
      refusal = {554, {5, 6, 0}, "The message has a NUL byte"};
      break;
    case DataError::kTooLarge:
      refusal = {
          552,
          {5, 3, 4},
          "The message is larger than " + std::to_string(options_->max_message_bytes) + " bytes"};
      break;
    case DataError::kHeaderTooLarge:
      refusal = {
          552,
          {5, 3, 4},
          "The header is larger than " + std::to_string(options_->max_header_bytes) + " bytes"};
      break;
  }
  if (refusal.code != 0) {
    handler_.OnDataRefused(error);
    handler_.OnReset();
    Answer(Question::kEnd, refusal);
    return;
  }
  DataReader::Totals totals = reader.totals();
  if (merge_ != nullptr && EndPart(totals)) return;
  Ask(Question::kEnd, handler_.OnMessageEnd({totals.size, totals.header_size, totals.hops}));
}

void SmtpServerSession::ResetTransaction() {
  deferral_.reset();
  const bool open =
      in_transaction() || (question_ != Question::kNone && !in_auth_) ||
      (held_ != nullptr && held_->question == Question::kMail && held_->reply.positive());
  held_.reset();
  if (std::exchange(in_auth_, false)) handler_.OnAuthCancel();
  if (stage_ > Stage::kHello) stage_ = Stage::kHello;
  question_ = Question::kNone;
  recipients_ = 0;
  body_paused_ = false;
  reader_.reset();
  chunk_.reset();
  merge_.reset();
  merge_error_.reset();
  quiet_ = false;
  if (open) handler_.OnReset();
}

}  // namespace sluice::mail
