#include "services/delivery/local/http_post.h"

#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <memory>

#include "services/delivery/local/file_writer.h"

namespace sluice::delivery {
namespace {

using std::chrono::steady_clock;

constexpr int kPollMs = 100;

absl::Status Failed(const std::string& what) { return absl::UnavailableError(what); }

// A connection that gives up when the time is over.
class Wire {
 public:
  explicit Wire(const HttpPostOptions& options)
      : options_(options), deadline_(steady_clock::now() + options.timeout) {}
  ~Wire() {
    ssl_.reset();
    if (fd_ >= 0) close(fd_);
  }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  absl::Status Connect(const HttpUrl& url) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int error = getaddrinfo(url.host.c_str(), url.port.c_str(), &hints, &found);
    if (error != 0) return Failed(url.host + ": " + gai_strerror(error));
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(found, freeaddrinfo);
    absl::Status status = Failed(url.host + " has no address");
    for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
      status = ConnectTo(*each);
      if (status.ok()) return url.tls ? Handshake(url) : status;
    }
    return status;
  }

  absl::Status Write(std::string_view text) {
    while (!text.empty()) {
      if (absl::Status status = InTime(deadline_); !status.ok()) return status;
      const ssize_t sent = ssl_ != nullptr
                               ? SSL_write(ssl_.get(), text.data(),
                                           static_cast<int>(std::min<size_t>(text.size(), 16384)))
                               : send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        text.remove_prefix(static_cast<size_t>(sent));
      } else if (absl::Status status = Retry(static_cast<int>(sent), POLLOUT); !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }
  // Appends what there is; false at the end.
  absl::StatusOr<bool> Read(std::string& out) {
    char buffer[8192];
    while (true) {
      // A receiver that never pauses has no more time than one that does.
      if (absl::Status status = InTime(deadline_); !status.ok()) return status;
      const ssize_t got = ssl_ != nullptr ? SSL_read(ssl_.get(), buffer, sizeof buffer)
                                          : recv(fd_, buffer, sizeof buffer, 0);
      if (got > 0) {
        out.append(buffer, static_cast<size_t>(got));
        return true;
      }
      if (got == 0 && ssl_ == nullptr) return false;
      if (ssl_ != nullptr &&
          SSL_get_error(ssl_.get(), static_cast<int>(got)) == SSL_ERROR_ZERO_RETURN) {
        return false;
      }
      if (absl::Status status = Retry(static_cast<int>(got), POLLIN); !status.ok()) return status;
    }
  }

 private:
  absl::Status InTime(steady_clock::time_point until) const {
    if (options_.cancelled != nullptr && options_.cancelled->load()) {
      return Failed("given up: shutting down");
    }
    if (steady_clock::now() >= until) return Failed("the receiver took too long");
    return absl::OkStatus();
  }
  absl::Status Wait(short events, steady_clock::time_point until) {
    while (true) {
      if (absl::Status status = InTime(until); !status.ok()) return status;
      pollfd fd{fd_, events, 0};
      const int ready = poll(&fd, 1, kPollMs);
      if (ready > 0) return absl::OkStatus();
      if (ready < 0 && errno != EINTR) return Failed(ErrorText(errno));
    }
  }
  absl::Status Retry(int result, short events) {
    if (ssl_ == nullptr) {
      if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        return Failed(ErrorText(errno));
      return Wait(events, deadline_);
    }
    switch (SSL_get_error(ssl_.get(), result)) {
      case SSL_ERROR_WANT_READ:
        return Wait(POLLIN, deadline_);
      case SSL_ERROR_WANT_WRITE:
        return Wait(POLLOUT, deadline_);
      default: {
        const long verified = SSL_get_verify_result(ssl_.get());
        const unsigned long error = ERR_get_error();
        ERR_clear_error();
        if (verified != X509_V_OK) {
          return Failed(std::string("TLS: ") + X509_verify_cert_error_string(verified));
        }
        const char* const reason = error == 0 ? nullptr : ERR_reason_error_string(error);
        return Failed(std::string("TLS: ") + (reason == nullptr ? "the connection broke" : reason));
      }
    }
  }

  absl::Status ConnectTo(const addrinfo& address) {
    if (fd_ >= 0) close(fd_);
    fd_ = socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0) return Failed(ErrorText(errno));
    if (connect(fd_, address.ai_addr, address.ai_addrlen) != 0 && errno != EINPROGRESS) {
      return Failed(ErrorText(errno));
    }
    const auto until = std::min(deadline_, steady_clock::now() + options_.connect_timeout);
    if (absl::Status status = Wait(POLLOUT, until); !status.ok()) return status;
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    return error == 0 ? absl::OkStatus() : Failed(ErrorText(error));
  }

  absl::Status Handshake(const HttpUrl& url) {
    // SSL_write has no MSG_NOSIGNAL.
    sigset_t broken_pipe;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
    context_.reset(SSL_CTX_new(TLS_client_method()));
    if (context_ == nullptr) return Failed("TLS: no context");
    SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
    SSL_CTX_set_default_verify_paths(context_.get());
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    ssl_.reset(SSL_new(context_.get()));
    if (ssl_ == nullptr || SSL_set_fd(ssl_.get(), fd_) != 1 ||
        SSL_set_tlsext_host_name(ssl_.get(), url.host.c_str()) != 1 ||
        SSL_set1_host(ssl_.get(), url.host.c_str()) != 1) {
      return Failed("TLS: cannot be set up");
    }
    SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    while (true) {
      const int done = SSL_connect(ssl_.get());
      if (done == 1) return absl::OkStatus();
      if (absl::Status status = Retry(done, POLLIN); !status.ok()) return status;
    }
  }

  const HttpPostOptions& options_;
  const steady_clock::time_point deadline_;
  int fd_ = -1;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_{nullptr, SSL_CTX_free};
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl_{nullptr, SSL_free};
};

}  // namespace

std::optional<HttpUrl> ParseHttpUrl(std::string_view url) {
  HttpUrl parsed;
  if (url.starts_with("https://")) {
    parsed.tls = true;
    url.remove_prefix(8);
  } else if (url.starts_with("http://")) {
    url.remove_prefix(7);
  } else {
    return std::nullopt;
  }
  const bool clean = std::all_of(url.begin(), url.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != '#' && c != '"' && c != '<' && c != '>' && c != '\\';
  });
  const size_t slash = std::min(url.find('/'), url.size());
  std::string_view authority = url.substr(0, slash);
  if (!clean || authority.empty() || authority.find_first_of("@?") != authority.npos) {
    return std::nullopt;
  }
  parsed.authority = authority;
  parsed.path = slash == url.size() ? "/" : std::string(url.substr(slash));
  parsed.port = parsed.tls ? "443" : "80";
  const size_t bracket = authority.rfind(']');
  const size_t colon = authority.rfind(':');
  if (colon != authority.npos && (bracket == authority.npos || colon > bracket)) {
    parsed.port = authority.substr(colon + 1);
    int port = 0;
    const auto end = parsed.port.data() + parsed.port.size();
    const auto number = std::from_chars(parsed.port.data(), end, port);
    if (number.ec != std::errc() || number.ptr != end || port < 1 || port > 65535) {
      return std::nullopt;
    }
    authority = authority.substr(0, colon);
  }
  if (authority.starts_with('[') && authority.ends_with(']')) {
    authority = authority.substr(1, authority.size() - 2);
  }
  if (authority.empty() || authority.find_first_of("[]") != authority.npos) return std::nullopt;
  parsed.host = authority;
  return parsed;
}

absl::StatusOr<HttpAnswer> HttpPost(const HttpUrl& url, const std::string& fields,
                                    const std::vector<Body>& body, const HttpPostOptions& options) {
  size_t size = 0;
  for (const Body& piece : body) size += piece.size();
  Wire wire(options);
  if (absl::Status status = wire.Connect(url); !status.ok()) return status;
  std::string head = "POST " + url.path + " HTTP/1.1\r\nHost: " + url.authority +
                     "\r\nConnection: close\r\nContent-Length: " + std::to_string(size) + "\r\n" +
                     fields + "\r\n";
  absl::Status written = wire.Write(head);
  for (const Body& piece : body) {
    if (written.ok()) written = wire.Write(piece.view());
  }
  // Also where writing failed: a receiver that refuses may have said why and closed.
  HttpAnswerReader reader;
  std::string piece;
  for (bool done = false; !done; piece.clear()) {
    const absl::StatusOr<bool> more = wire.Read(piece);
    if (!more.ok()) {
      if (reader.empty() || !written.ok()) return written.ok() ? more.status() : written;
      break;
    }
    if (!*more) break;
    done = reader.OnBytes(piece);
  }
  std::string problem;
  std::optional<HttpAnswer> answer = reader.Finish(&problem);
  if (!answer) return Failed(problem);
  return *std::move(answer);
}

}  // namespace sluice::delivery
