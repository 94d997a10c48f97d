#include "services/ingest/pickup/pickup_file.h"

#include <algorithm>

#include "services/mail/header_fields.h"
#include "services/mail/xtext.h"

namespace sluice::ingest {
namespace {

constexpr size_t kMaxValueBytes = 1024;

std::string_view Trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view Address(std::string_view value) {
  if (value.starts_with('<') && value.ends_with('>')) value = value.substr(1, value.size() - 2);
  return value;
}

std::string WithoutDots(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end);
    if (line.front() == '.') line.remove_prefix(1);
    if (end != line.size() && (line.empty() || line == "\n" || line == "\r\n")) break;
    out += line;
  }
  return out;
}

absl::Status Wrong(const char* what) { return absl::InvalidArgumentError(what); }

}  // namespace

absl::StatusOr<v1::InjectRequest> ReadPickupFile(std::string_view text, bool remove_dot) {
  v1::InjectRequest request;
  bool has_sender = false;
  while (true) {
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    const size_t colon = line.find(':');
    const std::string_view name = colon == line.npos ? line : Trim(line.substr(0, colon));
    const auto is = [&](std::string_view wanted) { return mail::HeaderNameEquals(name, wanted); };
    const bool ours = colon != line.npos && (is("x-sender") || is("x-receiver") || is("x-envid") ||
                                             is("x-job") || is("x-virtual-mta"));
    if (!ours) break;
    if (newline == text.npos) return Wrong("the file ends in its envelope");
    const std::string_view value = Trim(line.substr(colon + 1));
    if (value.size() > kMaxValueBytes) return Wrong("a line of the envelope is too long");
    if (mail::HoldsControl(value)) return Wrong("a line of the envelope has a control character");
    if (is("x-sender")) {
      if (has_sender) return Wrong("there are two x-sender lines");
      has_sender = true;
      request.set_mail_from(std::string(Address(value)));
    } else if (is("x-receiver")) {
      request.add_recipients()->set_address(std::string(Address(value)));
    } else if (is("x-envid")) {
      request.set_envid(std::string(value));
    } else if (is("x-job")) {
      request.set_job_id(std::string(value));
    } else {
      request.set_virtual_mta(std::string(value));
    }
    text.remove_prefix(newline + 1);
  }
  if (!has_sender) return Wrong("there is no x-sender line in front");
  if (request.recipients().empty()) return Wrong("there is no x-receiver line in front");
  std::string content = remove_dot ? WithoutDots(text) : std::string(text);
  if (content.empty()) return Wrong("there is no message");
  request.set_content(std::move(content));
  return request;
}

}  // namespace sluice::ingest
