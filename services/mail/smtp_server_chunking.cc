// BDAT (RFC 3030): whatever is refused, the chunk is read to its end first, and what follows it is
// the next command. Text of a chunk is never looked at as commands.
#include <algorithm>
#include <utility>

#include "services/mail/smtp_server_session.h"

namespace sluice::mail {

void SmtpServerSession::OnBdatCommand(std::string_view argument) {
  const std::optional<BdatCommand> bdat = ParseBdatCommand(argument);
  if (!bdat) {
    Fatal(501, {5, 5, 4}, "Write BDAT size [LAST]; the next command cannot be found");
    return;
  }
  if (bdat->size != 0 && stage_ >= Stage::kRcpt) idle_commands_ = idle_at_mail_;
  if (stage_ != Stage::kChunks) {
    data_begin_ = activity_;
    data_bytes_ = 0;
  }
  chunk_.emplace(Chunk{bdat->size, bdat->size, bdat->last, std::nullopt});
  if (merge_ != nullptr) {
    chunk_->refusal = ServerReply{503, {5, 5, 1}, "XPRT brings the text of a mail merge"};
  } else if (!options_->extensions.chunking) {
    chunk_->refusal = ServerReply{502, {5, 5, 1}, "Command not implemented"};
  } else if (stage_ == Stage::kChunks) {
    // The next one of a message that has begun.
  } else if (stage_ == Stage::kRcpt) {
    Ask(Question::kData, handler_.OnData());
    return;
  } else if (deferral_) {
    chunk_->refusal = deferral_;
  } else if (stage_ == Stage::kMail) {
    chunk_->refusal = ServerReply{554, {5, 5, 1}, "No valid recipients"};
  } else {
    chunk_->refusal = ServerReply{503, {5, 5, 1}, "RCPT comes before BDAT"};
  }
  if (chunk_->left == 0) EndChunk();
}

// The handler lets the message come.
void SmtpServerSession::BeginChunk() {
  stage_ = Stage::kChunks;
  body_paused_ = false;
  data_begin_ = activity_;
  const auto framing = mail_.body == BodyParam::kBinaryMime ? DataReader::Framing::kBinary
                                                            : DataReader::Framing::kCounted;
  reader_.emplace(DataReader::Limits{options_->max_message_bytes, options_->max_header_bytes},
                  framing);
  if (chunk_->left == 0) EndChunk();
}

void SmtpServerSession::ReadChunk(std::string_view& bytes) {
  const auto taken = static_cast<size_t>(std::min<uint64_t>(bytes.size(), chunk_->left));
  if (!chunk_->refusal) {
    reader_->Feed(bytes.substr(0, taken), [this](std::string_view text) { handler_.OnBody(text); });
  }
  bytes.remove_prefix(taken);
  data_bytes_ += taken;
  if (body_paused_) data_paused_ = activity_;
  chunk_->left -= taken;
  if (chunk_->left == 0) EndChunk();
}

void SmtpServerSession::EndChunk() {
  Chunk chunk = *std::exchange(chunk_, std::nullopt);
  if (chunk.refusal) {
    // RFC 3030 2: what a client sends behind a failed chunk belongs to no transaction.
    ResetTransaction();
    Reply(*chunk.refusal);
    if (shutting_down_) {
      Fatal(421, {4, 3, 2}, options_->host_name + " is shutting down");
    } else {
      CountRejection();
    }
    return;
  }
  if (chunk.last) {
    reader_->End([this](std::string_view text) { handler_.OnBody(text); });
    EndOfData();
    return;
  }
  const DataError error = reader_->error();
  if (error == DataError::kNone) {
    Reply(250, {2, 0, 0}, std::to_string(chunk.size) + " bytes taken");
    return;
  }
  // Told at once, so that the client need not send the rest.
  EndOfData();
}

}  // namespace sluice::mail
