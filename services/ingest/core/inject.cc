#include "services/ingest/core/inject.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/latest_time.h"
#include "services/base/net/ip_address.h"
#include "services/base/rpc/peer.h"
#include "services/ingest/core/envelope.h"
#include "services/ingest/core/submission.h"
#include "services/ingest/core/submit_reply.h"
#include "services/mail/address.h"
#include "services/mail/header_start.h"
#include "services/mail/message_id.h"
#include "services/mail/xtext.h"

namespace sluice::ingest {
namespace {

constexpr int kMaxRecipients = 50'000;
constexpr size_t kMaxIdempotencyKeyBytes = 128;
constexpr size_t kMaxMetadataBytes = 16 * 1024;
constexpr uint32_t kMaxPriority = 100;
constexpr uint32_t kAllNotifyBits = 15;

absl::Status Invalid(const std::string& what) {
  return absl::InvalidArgumentError(absl::string_view(what.data(), what.size()));
}

bool IsHighByte(char c) { return static_cast<unsigned char>(c) >= 0x80; }

uint32_t CountHops(std::string_view header) {
  uint32_t hops = 0;
  size_t at = 0;
  while (at < header.size()) {
    const std::string_view line = header.substr(at);
    if (line.size() >= 9 && (line[0] == 'R' || line[0] == 'r')) {
      static constexpr std::string_view kName = "received:";
      hops += std::equal(kName.begin(), kName.end(), line.begin(),
                         [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b + 32 : b); });
    }
    const size_t newline = line.find('\n');
    if (newline == std::string_view::npos) break;
    at += newline + 1;
  }
  return hops;
}

}  // namespace

bool NormalizeLineEnds(std::string_view text, std::string& out) {
  if (text.find('\0') != std::string_view::npos) return false;
  size_t at = 0;
  while (at < text.size()) {
    const size_t newline = text.find('\n', at);
    std::string_view line =
        text.substr(at, newline == std::string_view::npos ? newline : newline - at);
    at = newline == std::string_view::npos ? text.size() : newline + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find('\r') != std::string_view::npos) return false;
    out.append(line);
    out.append("\r\n");
  }
  return true;
}

// One message on its way.
class InjectService::Call final : private Submission::Owner, private Drainable {
 public:
  Call(InjectService& service, InjectOrigin origin, v1::InjectRequest request,
       Done<v1::InjectResponse> done)
      : service_(service),
        ingest_(service.ingest_),
        origin_(std::move(origin)),
        request_(std::move(request)),
        done_(std::move(done)) {
    ingest_.Add(this);
  }
  ~Call() {
    if (charged_ != 0) ingest_.RemoveBodyBytes(charged_);
    ingest_.Remove(this);
  }

  void Run() {
    const absl::Status status = Prepare();
    if (status.ok()) {
      SendMore();
      return;
    }
    IngestCounters& counters = ingest_.mutable_counters();
    const bool transient = status.code() == absl::StatusCode::kResourceExhausted ||
                           status.code() == absl::StatusCode::kUnavailable;
    (transient ? counters.messages_deferred : counters.messages_refused)
        .fetch_add(1, std::memory_order_relaxed);
    ingest_.NoteRefusal("Inject", origin_.protocol, transient ? 451 : 554,
                        std::string(status.message()));
    Finish(status);
  }

 private:
  absl::Status Prepare() {
    const std::shared_ptr<const ClientProfile> profile = ingest_.ProfileFor(
        origin_.by_network ? origin_.client_ip : "127.0.0.1", "", origin_.sources);
    if (auto full = ingest_.Admit(request_.content().size())) return StatusFor(*full);
    if (absl::Status status = CheckRequest(*profile); !status.ok()) return status;
    if (absl::Status status = CheckRights(*profile); !status.ok()) return status;
    common::v1::Message& message = *message_.mutable_message();
    if (absl::Status status = ReadAddresses(*profile); !status.ok()) return status;

    message.set_id(ingest_.NextMessageId());
    content_.reserve(request_.content().size() + 1024);
    if (!profile->settings->has_add_received_header() || profile->settings->add_received_header()) {
      const std::string id = mail::FormatMessageId(message.id());
      ReceivedFacts facts;
      facts.host_name = profile->smtp.host_name;
      facts.protocol = origin_.protocol;
      facts.id = id;
      if (request_.recipients_size() == 1)
        facts.recipient = message_.deliveries(0).delivery().rcpt();
      ingest_.received().Append(facts, ingest_.wall_now(), content_);
    }
    const size_t text_begin = content_.size();
    if (!NormalizeLineEnds(request_.content(), content_)) {
      return Invalid("content: has a NUL, or a carriage return without a line feed");
    }
    request_.clear_content();
    charged_ = content_.capacity();
    ingest_.AddBodyBytes(charged_);
    const std::string_view text = std::string_view(content_).substr(text_begin);
    const size_t header_end = text_begin + mail::HeaderSize(text);
    if (profile->smtp.max_header_bytes != 0 &&
        header_end - text_begin > profile->smtp.max_header_bytes) {
      return Invalid("content: the header is larger than " +
                     std::to_string(profile->smtp.max_header_bytes) + " bytes");
    }
    message.set_hops(CountHops(text.substr(0, header_end - text_begin)));
    if (profile->smtp.max_hops != 0 && message.hops() > profile->smtp.max_hops) {
      return Invalid("content: too many Received fields, a mail loop");
    }
    if (std::any_of(text.begin(), text.end(), IsHighByte)) {
      message.set_body_type(common::v1::BODY_TYPE_8BITMIME);
    }
    ControlFields control;
    const size_t cut = ReadHeader(*profile, text_begin, header_end, content_, message, control);
    if (!request_.virtual_mta().empty()) control.virtual_mta = request_.virtual_mta();
    if (!request_.job_id().empty()) control.job_id = request_.job_id();
    if (!request_.envid().empty()) control.envid = request_.envid();
    if (request_.not_before_us() != 0 || request_.deliver_by_us() != 0) {
      DeliveryWindow window;
      if (!control.windows.empty()) {
        window = {control.windows.front().begin_us, control.windows.back().end_us};
      }
      if (request_.not_before_us() != 0) window.begin_us = request_.not_before_us();
      if (request_.deliver_by_us() != 0) window.end_us = request_.deliver_by_us();
      control.windows = {window};
    }
    RouteChoice choice;
    if (auto refusal = ChooseRoute(*profile, control, message.mail_from(), "", choice)) {
      return StatusFor(*refusal);
    }
    const size_t added =
        AddHeaderFields(*profile, control, choice, mail::FormatMessageId(message.id()),
                        ingest_.wall_now(), text_begin, content_, message_);
    message.set_header_size(header_end - cut + added);
    const size_t begin = text_begin + added;
    if (const size_t line = mail::SeparateFromFields(begin, content_); line > 0) {
      message.set_header_size(begin + line);
    }
    message.set_source_type(origin_.type);
    message.set_client_ip(origin_.client_ip);
    message.set_time_queued_us(ToUnixMicros(ingest_.wall_now()));
    message.set_dsn_return(request_.dsn_return());
    message.set_priority(request_.priority());
    message.set_traceparent(request_.traceparent());
    message.set_tenant(request_.tenant());
    message.set_idempotency_key(request_.idempotency_key());
    message.mutable_metadata()->swap(*request_.mutable_metadata());
    message.set_body_size(content_.size());
    CompleteEnvelope(*profile, choice, control, message_);
    recipients_ = static_cast<size_t>(message_.deliveries_size());
    body_size_ = content_.size();

    ShardClient* const shard = request_.idempotency_key().empty()
                                   ? ingest_.shards().Choose()
                                   : ingest_.shards().ForKey(request_.idempotency_key());
    if (shard == nullptr || !shard->healthy()) {
      const std::string reason =
          shard == nullptr ? ingest_.shards().unhealthy_reason() : shard->unhealthy_reason();
      return absl::UnavailableError("not accepted: " + reason);
    }
    submission_.emplace(*shard, static_cast<Submission::Owner&>(*this));
    return absl::OkStatus();
  }

  absl::Status CheckRequest(const ClientProfile& profile) {
    const uint64_t max_bytes = profile.smtp.max_message_bytes;
    if (max_bytes != 0 && request_.content().size() > max_bytes) {
      return Invalid("content: larger than " + std::to_string(max_bytes) + " bytes");
    }
    if (request_.recipients_size() == 0) return Invalid("recipients: none");
    if (request_.recipients_size() > kMaxRecipients) {
      return Invalid("recipients: more than " + std::to_string(kMaxRecipients));
    }
    if (request_.idempotency_key().size() > kMaxIdempotencyKeyBytes) {
      return Invalid("idempotency_key: longer than " + std::to_string(kMaxIdempotencyKeyBytes) +
                     " bytes");
    }
    if (request_.priority() > kMaxPriority) return Invalid("priority: above 100");
    for (const auto& [field, value] :
         {std::pair<const char*, const std::string*>{"virtual_mta", &request_.virtual_mta()},
          {"job_id", &request_.job_id()},
          {"envid", &request_.envid()},
          {"traceparent", &request_.traceparent()},
          {"tenant", &request_.tenant()}}) {
      if (value->size() > kMaxControlValueBytes) {
        return Invalid(std::string(field) + ": longer than " +
                       std::to_string(kMaxControlValueBytes) + " bytes");
      }
      // They come to stand in lines: of commands, of files, of merged text.
      if (mail::HoldsControl(*value)) return Invalid(std::string(field) + ": a control character");
    }
    const int64_t begin_us = request_.not_before_us();
    const int64_t end_us = request_.deliver_by_us();
    if (begin_us < 0 || end_us < 0) return Invalid("not_before_us, deliver_by_us: before 1970");
    if (begin_us > kLatestUnixUs || end_us > kLatestUnixUs) {
      return Invalid("not_before_us, deliver_by_us: after the year 9999");
    }
    if (end_us != 0 && end_us <= ToUnixMicros(ingest_.wall_now())) {
      return Invalid("deliver_by_us: has passed");
    }
    if (end_us != 0 && end_us <= begin_us) return Invalid("deliver_by_us: not after not_before_us");
    size_t metadata_bytes = 0;
    for (const auto& [key, value] : request_.metadata())
      metadata_bytes += key.size() + value.size();
    if (metadata_bytes > kMaxMetadataBytes) {
      return Invalid("metadata: larger than " + std::to_string(kMaxMetadataBytes) + " bytes");
    }
    return absl::OkStatus();
  }

  // What a client by SMTP may say in X-Virtual-MTA and its like, or only after AUTH.
  absl::Status CheckRights(const ClientProfile& profile) {
    if (!origin_.by_network) return absl::OkStatus();
    if (const auto refusal = profile.RefuseSender(false)) {
      return absl::PermissionDeniedError(absl::string_view(refusal->text));
    }
    const policy::v1::ClientSettings& client = *profile.settings;
    for (const auto& [field, value, may] :
         {std::tuple{"virtual_mta", &request_.virtual_mta(), client.process_x_virtual_mta()},
          std::tuple{"job_id", &request_.job_id(), client.process_x_job()},
          std::tuple{"envid", &request_.envid(), client.process_x_envid()}}) {
      if (value->empty() || may) continue;
      return absl::PermissionDeniedError(
          absl::StrCat(field, ": clients of ", origin_.client_ip, " may not choose it"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadAddresses(const ClientProfile& profile) {
    common::v1::Message& message = *message_.mutable_message();
    mail::MailboxView mailbox;
    bool utf8 = false;
    if (!request_.mail_from().empty()) {
      if (mail::ParseMailbox(request_.mail_from(), true, mail::DomainRule::kRequired, mailbox) !=
          mail::AddressError::kNone) {
        return Invalid("mail_from: the address has wrong syntax or is too long");
      }
      utf8 |= mailbox.is_utf8;
      message.set_mail_from(mailbox.Canonical());
    }
    for (int i = 0; i < request_.recipients_size(); ++i) {
      const v1::InjectRecipient& recipient = request_.recipients(i);
      const auto where = [i](const char* what) {
        return Invalid("recipients[" + std::to_string(i) + "]." + what);
      };
      if (mail::ParseMailbox(recipient.address(), true, mail::DomainRule::kRequired, mailbox) !=
          mail::AddressError::kNone) {
        return where("address: wrong syntax or too long");
      }
      const bool never = (recipient.notify() & mail::kNotifyNever) != 0;
      if (recipient.notify() > kAllNotifyBits ||
          (never && recipient.notify() != mail::kNotifyNever)) {
        return where("notify: not a valid set of bits");
      }
      const std::string& orcpt = recipient.orcpt();
      if (!orcpt.empty() && (orcpt.find(';') == std::string::npos || mail::HoldsControl(orcpt) ||
                             orcpt.size() > mail::kMaxOrcptBytes)) {
        return where("orcpt: not type;address of at most 500 bytes");
      }
      utf8 |= mailbox.is_utf8;
      const std::string address = mailbox.Canonical();
      auto refusal = profile.RefuseRecipient(address);
      if (!refusal) {
        refusal = AddRecipient(profile, address, recipient.notify(), recipient.orcpt(), message_);
      }
      if (refusal) {
        return absl::PermissionDeniedError("recipients[" + std::to_string(i) +
                                           "].address: " + refusal->text);
      }
    }
    if (utf8) message.set_smtputf8(true);
    return absl::OkStatus();
  }

  // Gives the submission what it takes; may be called again when it takes more.
  void SendMore() {
    while (content_.size() - sent_ > kMaxInlineBodyBytes) {
      if (submission_->congested()) return;
      submission_->AddChunk(content_.substr(sent_, kMaxInlineBodyBytes));
      sent_ += kMaxInlineBodyBytes;
    }
    submission_->Finish(std::move(message_),
                        sent_ == 0 ? std::move(content_) : content_.substr(sent_));
    content_ = std::string();
    sent_ = 0;
  }

  void OnSubmissionWritable() override { SendMore(); }

  void OnSubmissionDone(const SubmitResult& result) override {
    ingest_.Count(result, recipients_, body_size_);
    const absl::Status status = StatusFor(result);
    if (!status.ok()) {
      ingest_.NoteRefusal("Inject", origin_.protocol, ReplyFor(result).code,
                          std::string(status.message()));
      Finish(status);
      return;
    }
    v1::InjectResponse response;
    response.set_message_id(mail::FormatMessageId(result.message_id));
    response.set_duplicate(result.outcome == SubmitOutcome::kDuplicate);
    Finish(std::move(response));
  }

  void OnDrain() override {}  // ends by itself: the shard answers, or its timeout does

  void Finish(absl::StatusOr<v1::InjectResponse> result) {
    Done<v1::InjectResponse> done = std::move(done_);
    service_.Remove(this);  // destroys this
    done(std::move(result));
  }

  InjectService& service_;
  Ingest& ingest_;
  const InjectOrigin origin_;
  v1::InjectRequest request_;
  Done<v1::InjectResponse> done_;
  queue::v1::NewMessage message_;
  std::string content_;
  size_t sent_ = 0;
  size_t recipients_ = 0;
  uint64_t body_size_ = 0;
  uint64_t charged_ = 0;
  std::optional<Submission> submission_;
};

// One InjectStream: messages are answered by token, in any order.
class InjectService::StreamSession final : public ServerStream::Handler, private Drainable {
 public:
  StreamSession(InjectService& service, std::shared_ptr<ServerStream> stream)
      : service_(service), stream_(std::move(stream)), origin_(service.OriginOf(stream_->peer())) {
    service_.ingest_.Add(this);
    stream_->Start(this);
    if (service_.ingest_.draining()) OnDrain();
  }
  ~StreamSession() override {
    *alive_ = false;
    service_.ingest_.Remove(this);
  }

  void OnFrame(Frame<v1::InjectStreamRequest> frame) override {
    ++unanswered_;
    const uint64_t token = frame.header.token();
    service_.InjectFrom(origin_, std::move(*frame.header.mutable_message()),
                        [this, token, alive = alive_](absl::StatusOr<v1::InjectResponse> result) {
                          if (*alive) Answer(token, std::move(result));
                        });
  }
  bool OnClientDone() override {
    client_done_ = true;
    return unanswered_ != 0;
  }
  void OnClosed(absl::Status) override { service_.Remove(this); }

 private:
  void Answer(uint64_t token, absl::StatusOr<v1::InjectResponse> result) {
    --unanswered_;
    Frame<v1::InjectStreamResponse> frame;
    frame.header.set_token(token);
    if (result.ok()) {
      frame.header.set_message_id(result->message_id());
      frame.header.set_duplicate(result->duplicate());
    } else {
      frame.header.set_code(static_cast<uint32_t>(result.status().code()));
      frame.header.set_detail(std::string(result.status().message()));
    }
    stream_->Send(std::move(frame));
    if (unanswered_ != 0) return;
    if (client_done_) {
      stream_->Close(absl::OkStatus());
    } else if (draining_) {
      stream_->Close(absl::UnavailableError("shutting down"));
    }
  }

  void OnDrain() override {
    draining_ = true;
    if (unanswered_ == 0) stream_->Close(absl::UnavailableError("shutting down"));
  }

  InjectService& service_;
  std::shared_ptr<ServerStream> stream_;
  const InjectOrigin origin_;
  uint64_t unanswered_ = 0;
  bool client_done_ = false;
  bool draining_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

InjectService::InjectService(Ingest& ingest, bool authenticated)
    : ingest_(ingest), authenticated_(authenticated) {}

InjectService::~InjectService() { *alive_ = false; }

InjectOrigin InjectService::OriginOf(std::string_view peer) const {
  InjectOrigin origin;
  origin.client_ip = PeerIp(peer);
  // Without an address it is in this process, or came by a Unix socket.
  if (authenticated_ || origin.client_ip.empty()) return origin;
  const auto ip = IpAddress::Parse(origin.client_ip);
  origin.by_network = !ip || !ip->IsLoopback();
  return origin;
}

void InjectService::InjectFrom(InjectOrigin origin, v1::InjectRequest request,
                               Done<v1::InjectResponse> done) {
  auto call = std::make_unique<Call>(*this, std::move(origin), std::move(request), std::move(done));
  Call* const raw = call.get();
  calls_.emplace(raw, std::move(call));
  ingest_.executor().Post([this, raw, alive = alive_] {
    if (*alive && calls_.contains(raw)) raw->Run();
  });
}

void InjectService::OnStream(std::shared_ptr<ServerStream> stream) {
  auto session = std::make_unique<StreamSession>(*this, std::move(stream));
  StreamSession* const raw = session.get();
  sessions_.emplace(raw, std::move(session));
}

void InjectService::Remove(Call* call) { calls_.erase(call); }

void InjectService::Remove(StreamSession* session) { sessions_.erase(session); }

}  // namespace sluice::ingest
