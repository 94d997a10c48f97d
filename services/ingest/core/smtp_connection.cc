#include "services/ingest/core/smtp_connection.h"

#include <algorithm>
#include <utility>

#include "services/ingest/core/submit_reply.h"
#include "services/mail/header_start.h"

namespace sluice::ingest {
namespace {

// Room for a message whose size the client did not say, where it is the connection's first.
constexpr size_t kFirstBufferBytes = 16 * 1024;
// Room for our own Received field, and others that we may add.
constexpr size_t kReceivedBytes = 768;
// What the record of a recipient takes beside its texts.
constexpr size_t kRecipientBytes = 256;
// What a large message holds at most: the piece that is being filled, one that is held back, and
// those that the shard has not acknowledged.
constexpr uint64_t kLargeMessageBytes = (2 + kUploadWindowChunks) * kMaxInlineBodyBytes;

// The "with" of Received (RFC 3848, RFC 6531 4.3).
std::string_view WithProtocol(bool utf8, bool extended, bool encrypted, bool authenticated) {
  static constexpr std::string_view kNames[2][4] = {
      {"ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"},
      {"UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"},
  };
  if (!utf8 && !extended) return "SMTP";
  return kNames[utf8 ? 1 : 0][(encrypted ? 2 : 0) + (authenticated ? 1 : 0)];
}

}  // namespace

SmtpConnection::SmtpConnection(Ingest& ingest, SmtpPeer peer, Driver& driver)
    : ingest_(ingest),
      driver_(driver),
      peer_(std::move(peer)),
      connected_ip_(peer_.client_ip),
      profile_(ingest.ProfileFor(connected_ip_, peer_.listener)),
      policy_generation_(ingest.policy_generation()),
      session_(*this, profile_->smtp) {
  ingest_.Add(this);
  ingest_.mutable_counters().connections.fetch_add(1, std::memory_order_relaxed);
  ingest_.mutable_counters().connections_open.fetch_add(1, std::memory_order_relaxed);
}

SmtpConnection::~SmtpConnection() {
  ingest_.mutable_counters().connections_open.fetch_sub(1, std::memory_order_relaxed);
  Forget();
  if (began_) {
    ingest_.NoteConnectionEnd(connected_ip_, peer_.listener, ingest_.now() - *began_, messages_);
  }
  ingest_.Remove(this);
}

void SmtpConnection::Start(const mail::ServerReply* refusal) {
  const policy::v1::ClientSettings& client = *profile_->settings;
  mail::ServerReply reply;
  if (refusal == nullptr && ingest_.draining()) {
    reply = {421, {4, 3, 2}, profile_->smtp.host_name + " is shutting down"};
    refusal = &reply;
  } else if (refusal == nullptr && client.has_smtp_service() && !client.smtp_service()) {
    reply = {554, {5, 7, 1}, "No SMTP service for you"};
    refusal = &reply;
  }
  if (client.log_connections()) {
    began_ = ingest_.now();
    ingest_.NoteConnection(connected_ip_, peer_.listener);
  }
  if (refusal != nullptr) {
    ingest_.mutable_counters().connections_refused.fetch_add(1, std::memory_order_relaxed);
  }
  session_.Start(ingest_.now(), refusal);
}

mail::ServerReply SmtpConnection::Noted(std::string_view step, mail::ServerReply refusal) {
  ingest_.NoteRefusal(step, peer_.client_ip, refusal.code, refusal.text);
  return refusal;
}

void SmtpConnection::OnHello(std::string_view name, bool extended) {
  hello_ = claimed_hello_.empty() ? name : std::string_view(claimed_hello_);
  extended_ = extended;
}

std::optional<mail::ServerReply> SmtpConnection::OnMail(const mail::MailCommand& mail) {
  FollowPolicy();
  if (full_) {
    ingest_.mutable_counters().connections_refused.fetch_add(1, std::memory_order_relaxed);
    return Noted("MAIL", *full_);
  }
  if (auto refusal = profile_->RefuseSender(!user_.empty())) {
    ingest_.mutable_counters().senders_refused.fetch_add(1, std::memory_order_relaxed);
    return HoldBack(Noted("MAIL", *std::move(refusal)));
  }
  declared_size_ = std::min<uint64_t>(mail.size, kMaxInlineBodyBytes);
  if (auto full = ingest_.Admit(declared_size_)) return Final(Noted("MAIL", *std::move(full)));
  message_.Clear();
  too_many_recipients_ = false;
  common::v1::Message& message = *message_.mutable_message();
  message.set_mail_from(mail.from);
  if (mail.body == mail::BodyParam::k8BitMime)
    message.set_body_type(common::v1::BODY_TYPE_8BITMIME);
  if (mail.body == mail::BodyParam::kBinaryMime) {
    message.set_body_type(common::v1::BODY_TYPE_BINARYMIME);
  }
  if (mail.ret == mail::RetParam::kFull) message.set_dsn_return(common::v1::DSN_RETURN_FULL);
  if (mail.ret == mail::RetParam::kHeaders) message.set_dsn_return(common::v1::DSN_RETURN_HEADERS);
  if (mail.smtp_utf8) message.set_smtputf8(true);
  // Ours go from 0 to 100, and 50 is what is not said.
  if (mail.mt_priority) message.set_priority(static_cast<uint32_t>(50 + 5 * *mail.mt_priority));
  if (mail.merge) {
    message.set_is_template(true);
    merge_ = std::make_unique<MergeTemplate>();
  }
  if (mail.verp) message.set_verp(true);
  if (mail.require_tls) message.set_require_tls(true);
  if (!mail.envid.empty()) message.set_envid(mail.envid);
  // RFC 4954 5: only of a client that is trusted with it.
  if (mail.auth && !user_.empty()) message.set_auth_param(*mail.auth);
  return mail::ServerReply{250, {2, 1, 0}, "Sender OK"};
}

std::optional<mail::ServerReply> SmtpConnection::OnRcpt(const mail::RcptCommand& rcpt) {
  if (auto refusal = CheckRcpt(rcpt)) {
    ingest_.mutable_counters().recipients_refused.fetch_add(1, std::memory_order_relaxed);
    return HoldBack(Noted("RCPT", *std::move(refusal)));
  }
  return mail::ServerReply{250, {2, 1, 5}, "Recipient OK"};
}

std::optional<mail::ServerReply> SmtpConnection::CheckRcpt(const mail::RcptCommand& rcpt) {
  if (auto refusal = profile_->RefuseRecipient(rcpt.to)) {
    if (profile_->policy->global().relay_debug()) {
      ingest_.NoteRelayRefused(peer_.client_ip, peer_.listener, user_, rcpt.to);
    }
    return refusal;
  }
  if (profile_->max_recipients != 0 &&
      static_cast<uint32_t>(message_.deliveries_size()) >= profile_->max_recipients) {
    too_many_recipients_ = true;
    OnRefusal(mail::ClientRefusal::kTooManyRecipients);
    return mail::ServerReply{452, {4, 5, 3}, "Too many recipients, the message will be refused"};
  }
  if (merge_ != nullptr) {
    if (auto refusal = merge_->Check(*profile_, *rcpt.merge)) return refusal;
  }
  if (auto full = ChargeRecipient(rcpt)) return full;
  if (rcpt.invalid) {
    AddInvalidRecipient(rcpt.to, rcpt.notify, rcpt.orcpt, ingest_.wall_now(), message_);
    return std::nullopt;
  }
  auto refusal = AddRecipient(*profile_, rcpt.to, rcpt.notify, rcpt.orcpt, message_);
  if (merge_ != nullptr && !refusal) {
    const int added = message_.deliveries_size() - 1;
    merge_->Fill(*profile_, *rcpt.merge, *message_.mutable_deliveries(added)->mutable_delivery());
  }
  return refusal;
}

std::optional<mail::ServerReply> SmtpConnection::HoldBack(mail::ServerReply refusal) {
  const policy::v1::ClientSettings& client = *profile_->settings;
  if (++refusals_ <= client.smtp_tarpit_after() || client.smtp_tarpit_delay_us() <= 0) {
    return refusal;
  }
  ingest_.mutable_counters().tarpitted.fetch_add(1, std::memory_order_relaxed);
  held_back_ = std::move(refusal);
  held_back_timer_ = ingest_.executor().After(Duration(client.smtp_tarpit_delay_us()), [this] {
    held_back_timer_ = 0;
    session_.OnVerdict(ingest_.now(), *std::exchange(held_back_, std::nullopt));
  });
  return std::nullopt;
}

mail::ServerReply SmtpConnection::Final(mail::ServerReply reply) const {
  if (reply.code / 100 == 4 && profile_->settings->disconnect_on_transient_error()) {
    reply.code = 421;
  }
  return reply;
}

std::optional<mail::ServerReply> SmtpConnection::OnData() {
  if (too_many_recipients_) return mail::ServerReply{554, {5, 5, 3}, "Too many recipients"};
  if (auto full = ingest_.Admit(declared_size_, envelope_charged_)) {
    return Final(Noted("DATA", *std::move(full)));
  }
  common::v1::Message& message = *message_.mutable_message();
  message.set_id(ingest_.NextMessageId());
  recipients_ = static_cast<size_t>(message_.deliveries_size());
  const uint64_t expected = declared_size_ != 0 ? declared_size_ : expected_size_;
  const uint64_t room = kReceivedBytes + (expected == 0 ? kFirstBufferBytes : expected);
  if (!Charge(room)) return *std::exchange(refusal_, std::nullopt);
  buffer_.reserve(room);
  const policy::v1::ClientSettings& client = *profile_->settings;
  if (!client.has_add_received_header() || client.add_received_header()) {
    const std::string id = mail::FormatMessageId(message.id());
    ReceivedFacts facts;
    facts.client_name = hello_;
    if (!client.hide_message_source()) facts.client_ip = peer_.client_ip;
    facts.host_name = profile_->smtp.host_name;
    facts.protocol = WithProtocol(message.smtputf8(), extended_, tls_.has_value(), !user_.empty());
    facts.tls = tls_text_;
    facts.id = id;
    if (recipients_ == 1) facts.recipient = message_.deliveries(0).delivery().rcpt();
    ingest_.received().Append(facts, ingest_.wall_now(), buffer_);
  }
  text_begin_ = buffer_.size();
  header_searched_ = text_begin_;
  return mail::ServerReply{354, {}, "End data with <CR><LF>.<CR><LF>"};
}

std::optional<mail::ServerReply> SmtpConnection::ChargeRecipient(const mail::RcptCommand& rcpt) {
  const uint64_t bytes = kRecipientBytes + 2 * rcpt.to.size() + rcpt.orcpt.size() +
                         (merge_ == nullptr ? 0 : 2 * rcpt.merge->bytes());
  if (!ingest_.MayGrow(bytes)) {
    return mail::ServerReply{451, {4, 3, 1}, "Too much mail at once, try again later"};
  }
  ingest_.AddBodyBytes(bytes);
  charged_ += bytes;
  envelope_charged_ += bytes;
  return std::nullopt;
}

bool SmtpConnection::Charge(uint64_t bytes) {
  bytes += envelope_charged_;
  if (bytes <= charged_) return true;
  if (!ingest_.MayGrow(bytes - charged_)) {
    refusal_ = mail::ServerReply{451, {4, 3, 1}, "Too much mail at once, try again later"};
    buffer_ = std::string();
    submission_.reset();
    ingest_.RemoveBodyBytes(charged_ - envelope_charged_);
    charged_ = envelope_charged_;
    return false;
  }
  ingest_.AddBodyBytes(bytes - charged_);
  charged_ = bytes;
  return true;
}

void SmtpConnection::OnPartEnd(uint32_t) { merge_->EndPart(body_size_); }

void SmtpConnection::OnBody(std::string_view text) {
  body_size_ += text.size();
  if (refusal_) return;
  // It is expanded in memory, for one recipient after the other.
  if (merge_ != nullptr && buffer_.size() + text.size() > kMaxInlineBodyBytes) {
    refusal_ = mail::ServerReply{552, {5, 3, 4}, "A mail merge has at most 256 KiB"};
    buffer_ = std::string();
    return;
  }
  if (submission_) {
    AppendLarge(text);
    return;
  }
  const size_t size = buffer_.size() + text.size();
  if (size > buffer_.capacity()) {
    const size_t capacity = std::max(size, 2 * buffer_.capacity());
    if (!Charge(capacity)) return;
    buffer_.reserve(capacity);
  }
  buffer_.append(text);
  if (size <= kMaxInlineBodyBytes) return;
  if (!header_done_) TryHeader();
  if (header_done_ && !refusal_ && buffer_.size() > kMaxInlineBodyBytes) BeginLarge();
}

// The end of the header in what has come so far; most messages never ask.
void SmtpConnection::TryHeader() {
  const std::string_view text = std::string_view(buffer_).substr(text_begin_);
  size_t end = std::string_view::npos;
  if (text.starts_with("\r\n")) {
    end = 2;
  } else {
    const size_t from = header_searched_ - text_begin_;
    const size_t empty_line = text.find("\r\n\r\n", from < 3 ? 0 : from - 3);
    if (empty_line != std::string_view::npos) end = empty_line + 4;
  }
  header_searched_ = buffer_.size();
  if (end == std::string_view::npos) return;
  refusal_ = FinishHeader(text_begin_ + end);
  if (refusal_) {
    buffer_ = std::string();
    return;
  }
  // Clients say SMTPUTF8 for plain ASCII, too. Of a small message the worker sees the header, and
  // knows; of this one it has nothing yet when it says MAIL, and would bounce what a host without
  // SMTPUTF8 could take. Addresses are looked at there.
  if (std::all_of(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(header_size_),
                  [](char c) { return c >= 0; })) {
    message_.mutable_message()->clear_smtputf8();
  }
}

std::optional<mail::ServerReply> SmtpConnection::FinishHeader(size_t header_end) {
  header_done_ = true;
  cut_bytes_ = ReadHeader(*profile_, text_begin_, header_end, buffer_, *message_.mutable_message(),
                          control_);
  if (auto refusal = ChooseRoute(*profile_, control_, message_.message().mail_from(),
                                 peer_.local_ip, route_)) {
    return refusal;
  }
  if (profile_->tables->VirtualMtaOfSender(message_.message().mail_from()) != nullptr) {
    // Also over the virtual MTAs of a mail merge.
    for (queue::v1::NewDelivery& each : *message_.mutable_deliveries()) {
      each.mutable_delivery()->clear_vmta();
      each.mutable_delivery()->clear_pool();
    }
  }
  added_bytes_ =
      AddHeaderFields(*profile_, control_, route_, mail::FormatMessageId(message_.message().id()),
                      ingest_.wall_now(), text_begin_, buffer_, message_);
  header_size_ = header_end - cut_bytes_ + added_bytes_;
  if (merge_ != nullptr) return std::nullopt;  // the text of a recipient may begin with any part
  const size_t begin = text_begin_ + added_bytes_;
  if (const size_t line = mail::SeparateFromFields(begin, buffer_); line > 0) {
    added_bytes_ += line;
    header_size_ = begin + line;
  }
  return std::nullopt;
}

void SmtpConnection::BeginLarge() {
  ShardClient* const shard = ingest_.shards().Choose();
  if (shard == nullptr) {
    refusal_ = mail::ServerReply{451, {4, 3, 2}, "No queue takes mail now, try again later"};
    buffer_ = std::string();
    return;
  }
  if (!Charge(kLargeMessageBytes)) return;
  submission_.emplace(*shard, static_cast<Submission::Owner&>(*this));
  const std::string begun = std::exchange(buffer_, std::string());
  AppendLarge(begun);
}

void SmtpConnection::AppendLarge(std::string_view text) {
  while (!text.empty()) {
    if (buffer_.capacity() < kMaxInlineBodyBytes) buffer_.reserve(kMaxInlineBodyBytes);
    const size_t taken = std::min(text.size(), kMaxInlineBodyBytes - buffer_.size());
    buffer_.append(text.substr(0, taken));
    text.remove_prefix(taken);
    if (buffer_.size() == kMaxInlineBodyBytes) {
      submission_->AddChunk(std::exchange(buffer_, std::string()));
    }
  }
  if (submission_->congested()) session_.PauseBody();
}

void SmtpConnection::FillMessage(const MessageFacts& facts) {
  common::v1::Message& message = *message_.mutable_message();
  message.set_time_queued_us(ToUnixMicros(ingest_.wall_now()));
  message.set_source_type(common::v1::SOURCE_TYPE_SMTP);
  message.set_client_name(hello_);
  message.set_client_ip(peer_.client_ip);
  message.set_local_ip(peer_.local_ip);
  message.set_listener(peer_.listener);
  if (!user_.empty()) message.set_user(user_);
  if (tls_) {
    common::v1::TlsInfo& tls = *message.mutable_client_tls();
    tls.set_version(tls_->version);
    tls.set_cipher(tls_->cipher);
    tls.set_verdict(tls_->verified ? "verified" : "opportunistic");
    tls.set_peer_subject(tls_->peer_subject);
  }
  message.set_hops(facts.hops);
  message.set_header_size(header_size_);
  message.set_body_size(text_begin_ + facts.size - cut_bytes_ + added_bytes_);
  if (merge_ != nullptr) merge_->WriteParts(text_begin_ + added_bytes_, cut_bytes_, message);
  CompleteEnvelope(*profile_, route_, control_, message_);
}

std::optional<mail::ServerReply> SmtpConnection::OnMessageEnd(const MessageFacts& facts) {
  if (!refusal_ && !header_done_) {
    refusal_ = FinishHeader(text_begin_ + facts.header_size);
    if (!refusal_ && merge_ != nullptr) refusal_ = merge_->CheckText(buffer_);
    // A header so large that its end had not come before the text's.
    if (!refusal_ && buffer_.size() > kMaxInlineBodyBytes) BeginLarge();
  }
  if (!refusal_ && !submission_) {
    if (ShardClient* const shard = ingest_.shards().Choose()) {
      submission_.emplace(*shard, static_cast<Submission::Owner&>(*this));
    } else {
      refusal_ = ReplyFor(SubmitResult{SubmitOutcome::kUnreachable, "", ""});
    }
  }
  if (refusal_) {
    const mail::ServerReply refusal = *std::move(refusal_);
    IngestCounters& counters = ingest_.mutable_counters();
    (refusal.code < 500 ? counters.messages_deferred : counters.messages_refused)
        .fetch_add(1, std::memory_order_relaxed);
    Forget();
    return Final(Noted("end of data", refusal));
  }
  FillMessage(facts);
  ended_ = true;
  // The shard keeps it for the worker, and counts what it holds and not what it could hold.
  if (buffer_.capacity() > buffer_.size() + buffer_.size() / 4 + 512) buffer_.shrink_to_fit();
  // Messages of one client are often alike: with the right room the next one is not copied here.
  expected_size_ = std::min<uint64_t>(body_size_ + body_size_ / 8, kMaxInlineBodyBytes);
  submission_->Finish(std::move(message_), std::exchange(buffer_, std::string()));
  return std::nullopt;
}

void SmtpConnection::OnSubmissionWritable() { session_.ResumeBody(ingest_.now()); }

void SmtpConnection::OnSubmissionDone(const SubmitResult& result) {
  if (!ended_) {
    // The upload broke; the rest of the text is read and dropped, then the client hears of it.
    refusal_ = ReplyFor(result);
    submission_.reset();
    buffer_ = std::string();
    session_.ResumeBody(ingest_.now());
    return;
  }
  ingest_.Count(result, recipients_, body_size_);
  messages_ += result.outcome == SubmitOutcome::kQueued;
  Forget();
  mail::ServerReply reply = ReplyFor(result);
  if (!reply.positive()) reply = Final(Noted("end of data", std::move(reply)));
  session_.OnVerdict(ingest_.now(), reply);
}

void SmtpConnection::OnReset() { Forget(); }

void SmtpConnection::OnDataRefused(mail::DataError error) {
  IngestCounters& counters = ingest_.mutable_counters();
  counters.messages_refused.fetch_add(1, std::memory_order_relaxed);
  using mail::DataError;
  std::atomic<uint64_t>& why =
      error == DataError::kNone ? counters.mail_loops_refused
      : error == DataError::kTooLarge || error == DataError::kHeaderTooLarge
          ? counters.too_large_refused
          : counters.smuggling_refused;
  why.fetch_add(1, std::memory_order_relaxed);
}

void SmtpConnection::OnRefusal(mail::ClientRefusal refusal) {
  static constexpr std::atomic<uint64_t> IngestCounters::*kCounters[] = {
      &IngestCounters::too_many_recipients, &IngestCounters::too_large_refused,
      &IngestCounters::header_injections_refused, &IngestCounters::xclient_refused};
  (ingest_.mutable_counters().*kCounters[static_cast<size_t>(refusal)])
      .fetch_add(1, std::memory_order_relaxed);
}

void SmtpConnection::OnFault(mail::ClientFault fault) {
  static constexpr std::atomic<uint64_t> IngestCounters::*kCounters[] = {
      &IngestCounters::fault_bare_line_end,    &IngestCounters::fault_line_too_long,
      &IngestCounters::fault_foreign_protocol, &IngestCounters::fault_too_many_errors,
      &IngestCounters::fault_too_slow,         &IngestCounters::fault_cut_off};
  (ingest_.mutable_counters().*kCounters[static_cast<size_t>(fault)])
      .fetch_add(1, std::memory_order_relaxed);
}

void SmtpConnection::Forget() {
  merge_.reset();
  if (held_back_timer_ != 0) ingest_.executor().Cancel(std::exchange(held_back_timer_, 0));
  held_back_.reset();
  submission_.reset();
  message_.Clear();
  if (buffer_.capacity() > 0) buffer_ = std::string();
  declared_size_ = 0;
  text_begin_ = 0;
  header_searched_ = 0;
  header_done_ = false;
  header_size_ = 0;
  cut_bytes_ = 0;
  added_bytes_ = 0;
  too_many_recipients_ = false;
  route_ = RouteChoice();
  control_ = ControlFields();
  refusal_.reset();
  ended_ = false;
  body_size_ = 0;
  if (charged_ != 0) ingest_.RemoveBodyBytes(std::exchange(charged_, 0));
  envelope_charged_ = 0;
}

void SmtpConnection::OnDrain() { session_.Shutdown(ingest_.now()); }

}  // namespace sluice::ingest
