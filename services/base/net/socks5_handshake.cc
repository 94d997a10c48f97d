#include "services/base/net/socks5_handshake.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr char kVersion = 5;
constexpr char kPasswordVersion = 1;
constexpr char kNoAuthentication = 0;
constexpr char kUsernamePassword = 2;
constexpr char kConnect = 1;
constexpr char kIpv4 = 1;
constexpr char kDomain = 3;
constexpr char kIpv6 = 4;
constexpr size_t kReplyHeadBytes = 4;
constexpr size_t kPortBytes = 2;

unsigned Byte(std::string_view text, size_t i) { return static_cast<unsigned char>(text[i]); }

absl::Status ReplyError(unsigned code) {
  switch (code) {
    case 1:
      return absl::UnavailableError("SOCKS5 proxy: general failure");
    case 2:
      // Of this remote: a receiver that it may not be connected to must not cost the others theirs.
      return absl::UnavailableError("SOCKS5 proxy: its rules do not allow the connection");
    case 3:
      return absl::UnavailableError("SOCKS5 proxy: network unreachable");
    case 4:
      return absl::UnavailableError("SOCKS5 proxy: host unreachable");
    case 5:
      return absl::UnavailableError("SOCKS5 proxy: connection refused");
    case 6:
      return absl::UnavailableError("SOCKS5 proxy: TTL expired");
    case 7:
      return absl::FailedPreconditionError("SOCKS5 proxy: it does not know CONNECT");
    case 8:
      return absl::UnavailableError("SOCKS5 proxy: it does not know this kind of address");
    default:
      return absl::UnavailableError(absl::StrCat("SOCKS5 proxy: failure code ", code));
  }
}

}  // namespace

std::string Socks5Handshake::Begin() {
  // One method: with a password the proxy must not choose to do without.
  return {kVersion, 1, credentials_ ? kUsernamePassword : kNoAuthentication};
}

std::string Socks5Handshake::ConnectRequest() const {
  std::string request{kVersion, kConnect, 0, remote_.ip.is_v4() ? kIpv4 : kIpv6};
  request.append(remote_.ip.bytes());
  request.push_back(static_cast<char>(remote_.port >> 8));
  request.push_back(static_cast<char>(remote_.port & 0xff));
  return request;
}

size_t Socks5Handshake::Wanted() const {
  if (state_ != State::kReply) return 2;
  if (message_.size() < kReplyHeadBytes) return kReplyHeadBytes;
  switch (message_[3]) {
    case kIpv4:
      return kReplyHeadBytes + 4 + kPortBytes;
    case kIpv6:
      return kReplyHeadBytes + 16 + kPortBytes;
    case kDomain:
      if (message_.size() == kReplyHeadBytes) return kReplyHeadBytes + 1;
      return kReplyHeadBytes + 1 + Byte(message_, kReplyHeadBytes) + kPortBytes;
    default:
      return kReplyHeadBytes;  // refused by OnMessage
  }
}

absl::StatusOr<size_t> Socks5Handshake::OnBytes(std::string_view bytes, std::string* out) {
  size_t used = 0;
  while (used < bytes.size() && state_ != State::kDone) {
    if (state_ == State::kFailed) return absl::InvalidArgumentError("SOCKS5 proxy: failed before");
    const size_t take = std::min(Wanted() - message_.size(), bytes.size() - used);
    message_.append(bytes.substr(used, take));
    used += take;
    if (message_.size() < Wanted()) continue;
    absl::Status status = OnMessage(out);
    message_.clear();
    if (!status.ok()) {
      state_ = State::kFailed;
      return status;
    }
  }
  return used;
}

absl::Status Socks5Handshake::OnMessage(std::string* out) {
  switch (state_) {
    case State::kMethod:
      if (message_[0] != kVersion) return absl::InvalidArgumentError("not a SOCKS5 proxy");
      if (Byte(message_, 1) == 0xff) {
        return absl::FailedPreconditionError(
            credentials_ ? "SOCKS5 proxy: it takes no user name and password"
                         : "SOCKS5 proxy: it wants authentication");
      }
      if (message_[1] != (credentials_ ? kUsernamePassword : kNoAuthentication)) {
        return absl::InvalidArgumentError("SOCKS5 proxy: it chose a method that was not offered");
      }
      if (!credentials_) {
        state_ = State::kReply;
        *out += ConnectRequest();
        return absl::OkStatus();
      }
      if (credentials_->username.empty() || credentials_->username.size() > 255 ||
          credentials_->password.empty() || credentials_->password.size() > 255) {
        return absl::FailedPreconditionError(
            "SOCKS5: user name and password have 1 to 255 bytes each");
      }
      state_ = State::kPassword;
      out->push_back(kPasswordVersion);
      out->push_back(static_cast<char>(credentials_->username.size()));
      *out += credentials_->username;
      out->push_back(static_cast<char>(credentials_->password.size()));
      *out += credentials_->password;
      return absl::OkStatus();
    case State::kPassword:
      if (message_[0] != kPasswordVersion) return absl::InvalidArgumentError("not a SOCKS5 proxy");
      if (message_[1] != 0) {
        return absl::FailedPreconditionError("SOCKS5 proxy: user name or password is wrong");
      }
      state_ = State::kReply;
      *out += ConnectRequest();
      return absl::OkStatus();
    case State::kReply:
      if (message_[0] != kVersion) return absl::InvalidArgumentError("not a SOCKS5 proxy");
      if (message_[1] != 0) return ReplyError(Byte(message_, 1));
      if (message_[3] != kIpv4 && message_[3] != kDomain && message_[3] != kIpv6) {
        return absl::InvalidArgumentError("SOCKS5 proxy: an address of no known kind");
      }
      state_ = State::kDone;
      return absl::OkStatus();
    case State::kDone:
    case State::kFailed:
      break;
  }
  return absl::InternalError("SOCKS5: no message is awaited");
}

}  // namespace sluice
