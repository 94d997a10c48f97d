#include "tools/sink/session.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

namespace sluice::sink {
namespace {

constexpr size_t kLineMaxBytes = 4096;
// How much of a text is looked at for X-Sent-Us when texts are not kept.
constexpr size_t kHeaderPeekBytes = 4096;
constexpr std::string_view kSentField = "X-Sent-Us: ";
constexpr std::string_view kTestIdField = "X-Test-Id: ";

bool StartsWithNoCase(std::string_view text, std::string_view upper) {
  if (text.size() < upper.size()) return false;
  for (size_t i = 0; i < upper.size(); ++i) {
    char c = text[i];
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
    if (c != upper[i]) return false;
  }
  return true;
}

// The address between the brackets of "MAIL FROM:<...>"; blanks before the bracket are borne with,
// as old clients send them.
std::optional<std::string_view> Path(std::string_view line, size_t after) {
  std::string_view rest = line.substr(after);
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  if (rest.empty() || rest.front() != '<') return std::nullopt;
  size_t end = rest.find('>');
  if (end == rest.npos) return std::nullopt;
  return rest.substr(1, end - 1);
}

// The value of a field of a generated header: no folding, one blank behind the colon.
std::string_view GeneratedField(std::string_view header, std::string_view field) {
  size_t at = header.find(field);
  if (at == header.npos || (at != 0 && header[at - 1] != '\n')) return {};
  header.remove_prefix(at + field.size());
  return header.substr(0, header.find('\r'));
}

}  // namespace

void SessionOptions::Finish() {
  std::vector<std::string> lines = {host_name, "SIZE " + std::to_string(size_max_bytes)};
  lines.insert(lines.end(), extensions.begin(), extensions.end());
  const auto reply = [&lines] {
    std::string text;
    for (size_t i = 0; i < lines.size(); ++i) {
      text += (i + 1 < lines.size() ? "250-" : "250 ") + lines[i] + "\r\n";
    }
    return text;
  };
  ehlo_reply_tls = reply();
  if (starttls) lines.push_back("STARTTLS");
  ehlo_reply = reply();
}

Session::Session(SinkState& state, const SessionOptions& options, SessionOutput& output,
                 MessageKeeper* keeper, const IpAddress& client, const IpAddress& local)
    : state_(state),
      options_(options),
      output_(output),
      keeper_(keeper),
      client_(client),
      local_(local),
      source_(state.Source(client)) {
  Counters& counters = state_.counters();
  ++counters.connections;
  counters.open_peak = std::max(counters.open_peak, ++counters.open);
  ++source_->connections;
  source_->open_peak = std::max(source_->open_peak, ++source_->open);
}

Session::~Session() {
  --state_.counters().open;
  --source_->open;
  for (DomainState* domain : counted_) {
    --domain->connections;
    auto it = domain->connections_by_client.find(client_);
    if (--it->second == 0) domain->connections_by_client.erase(it);
  }
}

void Session::Start() {
  const Rule& rule = state_.rules().ForAddress(local_);
  if (Act(rule, Stage::kConnect)) return;
  if (rule.connections_max != 0 && source_->open > rule.connections_max) {
    ++state_.counters().dropped;
    Reply("421 4.7.0 too many connections from you\r\n");
    Close();
    return;
  }
  Reply("220 " + options_.host_name + " ESMTP sluice-sink\r\n");
}

void Session::Close() {
  closed_ = true;
  output_.Close();
}

bool Session::Act(const Rule& rule, Stage stage) {
  if (rule.delay > Duration(0) && rule.delay_at == stage) output_.Delay(rule.delay);
  if (rule.close_at != stage || !state_.Chance(rule.close_share)) return false;
  ++state_.counters().dropped;
  Close();
  return true;
}

void Session::OnStartTls() {
  if (!options_.starttls || secured_) {
    ++state_.counters().protocol_errors;
    Reply("502 5.5.1 not offered\r\n");
    return;
  }
  Reply("220 2.0.0 go ahead\r\n");
  ResetTransaction();
  greeted_ = false;
  handshake_ = true;
  output_.StartTls();
}

void Session::OnTlsReady(bool resumed) {
  handshake_ = false;
  secured_ = true;
  ++state_.counters().tls_connections;
  if (resumed) ++state_.counters().tls_resumed;
}

void Session::OnBytes(std::string_view bytes) {
  while (!bytes.empty() && !closed_ && !handshake_) {
    if (in_text_) {
      size_t consumed = 0;
      bool done = reader_.Read(bytes, &consumed, [this](std::string_view piece) { OnText(piece); });
      bytes.remove_prefix(consumed);
      if (done) OnFinalDot();
      continue;
    }
    const char* end = static_cast<const char*>(std::memchr(bytes.data(), '\n', bytes.size()));
    size_t length = end == nullptr ? bytes.size() : static_cast<size_t>(end - bytes.data()) + 1;
    if (partial_line_.size() + length > kLineMaxBytes) line_too_long_ = true;
    if (end == nullptr || !partial_line_.empty()) {
      if (!line_too_long_) partial_line_.append(bytes.substr(0, length));
      bytes.remove_prefix(length);
      if (end == nullptr) return;
      std::string line = std::move(partial_line_);
      partial_line_.clear();
      OnLine(line);
    } else {
      std::string_view line = bytes.substr(0, length);
      bytes.remove_prefix(length);
      OnLine(line);
    }
  }
}

void Session::OnLine(std::string_view line) {
  if (line_too_long_) {
    line_too_long_ = false;
    ++state_.counters().protocol_errors;
    Reply("500 5.5.2 line too long\r\n");
    return;
  }
  if (!line.ends_with("\r\n")) {
    ++state_.counters().protocol_errors;
    Reply("500 5.5.2 lines end with CRLF\r\n");
    return;
  }
  line.remove_suffix(2);
  if (StartsWithNoCase(line, "RCPT TO:")) {
    OnRcpt(line);
  } else if (StartsWithNoCase(line, "MAIL FROM:")) {
    OnMail(line);
  } else if (StartsWithNoCase(line, "DATA") && line.size() == 4) {
    OnData();
  } else if (StartsWithNoCase(line, "EHLO ") || StartsWithNoCase(line, "HELO ")) {
    OnHello(line, line[0] == 'E' || line[0] == 'e');
  } else if (StartsWithNoCase(line, "RSET")) {
    ResetTransaction();
    Reply("250 2.0.0 reset\r\n");
  } else if (StartsWithNoCase(line, "NOOP")) {
    Reply("250 2.0.0 ok\r\n");
  } else if (StartsWithNoCase(line, "VRFY")) {
    Reply("252 2.1.5 try it\r\n");
  } else if (StartsWithNoCase(line, "STARTTLS") && line.size() == 8) {
    OnStartTls();
  } else if (StartsWithNoCase(line, "QUIT")) {
    Reply("221 2.0.0 bye\r\n");
    Close();
  } else {
    ++state_.counters().protocol_errors;
    Reply("500 5.5.1 command not known\r\n");
  }
}

void Session::OnHello(std::string_view line, bool extended) {
  ResetTransaction();
  if (Act(state_.rules().ForAddress(local_), Stage::kEhlo)) return;
  ehlo_ = std::string(line.substr(5));
  source_->ehlo = ehlo_;
  greeted_ = true;
  if (extended) {
    Reply(secured_ ? options_.ehlo_reply_tls : options_.ehlo_reply);
  } else {
    Reply("250 " + options_.host_name + "\r\n");
  }
}

void Session::OnMail(std::string_view line) {
  auto path = Path(line, 10);
  if (!greeted_ || have_sender_ || !path) {
    ++state_.counters().protocol_errors;
    Reply(!path ? "501 5.1.7 bad sender\r\n" : "503 5.5.1 not now\r\n");
    return;
  }
  if (Act(state_.rules().ForAddress(local_), Stage::kMail)) return;
  have_sender_ = true;
  from_.assign(*path);
  Reply("250 2.1.0 ok\r\n");
}

DomainState* Session::DomainOf(std::string_view address) {
  size_t at = address.rfind('@');
  std::string_view domain = at == address.npos ? "" : address.substr(at + 1);
  if (last_domain_ != nullptr && last_domain_->name == domain) return last_domain_;
  char lower[256];
  size_t size = std::min(domain.size(), sizeof(lower));
  for (size_t i = 0; i < size; ++i) {
    char c = domain[i];
    lower[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  return last_domain_ = state_.Domain(std::string_view(lower, size));
}

bool Session::CountConnection(DomainState* domain, const Rule& rule) {
  if (std::find(counted_.begin(), counted_.end(), domain) == counted_.end()) {
    counted_.push_back(domain);
    domain->connections_peak = std::max(domain->connections_peak, ++domain->connections);
    ++domain->connections_by_client[client_];
  }
  return rule.connections_max == 0 ||
         domain->connections_by_client[client_] <= rule.connections_max;
}

const std::string* Session::Failure(const Rule& rule, Stage stage, DomainState* domain) {
  if (rule.fail_at != stage) return nullptr;
  if (state_.Chance(rule.reject_share)) {
    ++state_.counters().rejected;
    ++domain->rejected;
    return &rule.reject_reply;
  }
  if (state_.Chance(rule.defer_share)) {
    ++state_.counters().deferred;
    ++domain->deferred;
    return &rule.defer_reply;
  }
  return nullptr;
}

void Session::OnRcpt(std::string_view line) {
  auto path = Path(line, 8);
  if (!have_sender_ || !path || path->empty()) {
    ++state_.counters().protocol_errors;
    Reply(!have_sender_ ? "503 5.5.1 MAIL first\r\n" : "501 5.1.3 bad recipient\r\n");
    return;
  }
  if (recipients_.size() >= options_.recipients_max) {
    Reply("452 4.5.3 too many recipients\r\n");
    return;
  }
  DomainState* domain = DomainOf(*path);
  const Rule& rule = state_.RuleOf(domain);
  if (!CountConnection(domain, rule)) {
    ++state_.counters().dropped;
    Reply("421 4.7.0 too many connections from you\r\n");
    Close();
    return;
  }
  if (Act(rule, Stage::kRcpt)) return;
  if (const std::string* failure = Failure(rule, Stage::kRcpt, domain)) {
    Reply(*failure + "\r\n");
    return;
  }
  const char* wait = nullptr;
  if (state_.Greylisted(rule, client_, from_, *path)) {
    wait = "451 4.7.1 greylisted, come back later\r\n";
  } else if (state_.OverRate(domain, rule)) {
    wait = "451 4.7.1 too many recipients in this time\r\n";
  }
  if (wait != nullptr) {
    ++state_.counters().deferred;
    ++domain->deferred;
    Reply(wait);
    return;
  }
  recipients_.emplace_back(*path);
  recipient_domains_.push_back(domain);
  Reply("250 2.1.5 ok\r\n");
}

void Session::OnData() {
  if (recipients_.empty()) {
    Reply(have_sender_ ? "554 5.5.1 no valid recipients\r\n" : "503 5.5.1 MAIL first\r\n");
    return;
  }
  const Rule& rule = state_.RuleOf(recipient_domains_.front());
  if (Act(rule, Stage::kData)) return;
  if (const std::string* failure = Failure(rule, Stage::kData, recipient_domains_.front())) {
    Reply(*failure + "\r\n");
    ResetTransaction();
    return;
  }
  in_text_ = true;
  text_too_long_ = false;
  text_.clear();
  reader_.Reset();
  Reply("354 go ahead\r\n");
}

void Session::OnText(std::string_view piece) {
  if (reader_.size() + piece.size() > options_.size_max_bytes) text_too_long_ = true;
  if (keeper_ != nullptr) {
    if (!text_too_long_) text_.append(piece);
  } else if (text_.size() < kHeaderPeekBytes) {
    text_.append(piece.substr(0, kHeaderPeekBytes - text_.size()));
  }
  const Rule& rule = state_.RuleOf(recipient_domains_.front());
  if (rule.close_at == Stage::kText && !closed_) Act(rule, Stage::kText);
}

void Session::OnFinalDot() {
  in_text_ = false;
  if (closed_) return;
  DomainState* first = recipient_domains_.front();
  const Rule& rule = state_.RuleOf(first);
  if (Act(rule, Stage::kDot)) return;
  if (text_too_long_) {
    Reply("552 5.3.4 message too big\r\n");
    ResetTransaction();
    return;
  }
  if (const std::string* failure = Failure(rule, Stage::kDot, first)) {
    Reply(*failure + "\r\n");
    ResetTransaction();
    return;
  }
  Counters& counters = state_.counters();
  WallTime now = state_.clock().WallNow();
  if (counters.messages == 0) counters.first_message = now;
  counters.last_message = now;
  ++counters.messages;
  counters.recipients += recipients_.size();
  counters.bytes += reader_.size();
  ++source_->messages;
  for (DomainState* domain : recipient_domains_) ++domain->accepted;
  NoteLatency(now);
  if (keeper_ != nullptr) {
    keeper_->OnMessage({.client = client_,
                        .local = local_,
                        .ehlo = ehlo_,
                        .from = from_,
                        .recipients = &recipients_,
                        .text = text_});
  }
  Reply("250 2.0.0 taken\r\n");
  ResetTransaction();
}

void Session::NoteLatency(WallTime now) {
  std::string_view text = text_;
  std::string_view header = text.substr(0, text.find("\r\n\r\n"));
  std::string_view sent = GeneratedField(header, kSentField);
  int64_t sent_us = 0;
  if (sent.empty() ||
      std::from_chars(sent.data(), sent.data() + sent.size(), sent_us).ec != std::errc()) {
    return;
  }
  state_.RecordLatency(ToUnixMicros(now) - sent_us, GeneratedField(header, kTestIdField));
}

void Session::ResetTransaction() {
  have_sender_ = false;
  recipients_.clear();
  recipient_domains_.clear();
}

}  // namespace sluice::sink
