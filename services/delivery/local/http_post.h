// One HTTP/1.1 POST on a connection of its own, blocking. Private to the local ends.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/body.h"
#include "services/base/clock.h"
#include "services/delivery/local/http_answer.h"

namespace sluice::delivery {

struct HttpUrl {
  bool tls = false;
  std::string host;  // without brackets
  std::string port;
  std::string authority;  // as in Host
  std::string path;       // with its query; begins with "/"
};

// "http://host[:port][/path]" and https; no user, no fragment.
std::optional<HttpUrl> ParseHttpUrl(std::string_view url);

struct HttpPostOptions {
  Duration connect_timeout{};  // for each address
  Duration timeout{};          // for everything
  const std::atomic<bool>* cancelled = nullptr;
};

// `fields`: lines with CR LF. With TLS the certificate must be the host's, by the system's
// authorities. An error says in words what failed. Thread-safety: any thread.
absl::StatusOr<HttpAnswer> HttpPost(const HttpUrl& url, const std::string& fields,
                                    const std::vector<Body>& body, const HttpPostOptions& options);

}  // namespace sluice::delivery
