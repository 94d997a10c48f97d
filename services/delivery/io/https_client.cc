#include "services/delivery/io/https_client.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"

namespace sluice::delivery {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

}  // namespace

struct HttpsClient::Shared {
  Shared(Executor& executor, asio::io_context& io, DnsClient& dns, const HttpsOptions& options)
      : executor(executor),
        io(io),
        dns(dns),
        options(options),
        tls(asio::ssl::context::tls_client) {}

  Executor& executor;
  asio::io_context& io;
  DnsClient& dns;
  const HttpsOptions options;
  asio::ssl::context tls;
  absl::flat_hash_set<std::shared_ptr<Exchange>> exchanges;
  bool closed = false;
};

// Kept alive by its handlers and by Shared::exchanges; ends by Finish.
class HttpsClient::Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::shared_ptr<Shared> shared, HttpsRequest request, Done done)
      : shared_(std::move(shared)), request_(std::move(request)), done_(std::move(done)) {}

  void Start() {
    timer_ = shared_->executor.After(shared_->options.deadline, [self = shared_from_this()] {
      self->timer_ = 0;
      self->Finish(absl::DeadlineExceededError(absl::StrCat(
          "https://", self->request_.host, ": no answer in time (", self->where_, ")")));
    });
    missing_ = 2;
    for (DnsType type : {DnsType::kA, DnsType::kAaaa}) {
      shared_->dns.Query(request_.host, type, [self = shared_from_this()](DnsAnswer answer) {
        self->OnAddress(answer);
      });
    }
  }

  // Without a callback.
  void Drop() {
    done_ = nullptr;
    Close();
  }

 private:
  using Stream = asio::ssl::stream<asio::ip::tcp::socket>;

  void OnAddress(const DnsAnswer& answer) {
    if (done_ == nullptr) return;
    if (answer.status == DnsStatus::kFailed) error_ = answer.detail;
    for (const DnsRecord& record : answer.records) {
      const auto ip = IpAddress::Parse(record.data);
      if (!ip || addresses_.size() >= shared_->options.max_addresses) continue;
      if (!ip->IsPublic() && !request_.allow_private) {
        error_ = absl::StrCat("DNS gave the private address ", record.data);
        continue;
      }
      addresses_.push_back(*ip);
    }
    if (--missing_ > 0) return;
    if (addresses_.empty() && error_.empty()) error_ = "no such host";
    ConnectNext();
  }

  void ConnectNext() {
    if (next_address_ == addresses_.size()) {
      Fail(absl::StatusCode::kUnavailable, error_);
      return;
    }
    where_ = "connect";
    stream_ = std::make_unique<Stream>(shared_->io, shared_->tls);
    const auto ip = asio::ip::make_address(addresses_[next_address_++].ToString());
    stream_->next_layer().async_connect(
        asio::ip::tcp::endpoint(ip, shared_->options.port),
        [self = shared_from_this()](error_code error) { self->OnConnected(error); });
  }

  void OnConnected(error_code error) {
    if (done_ == nullptr) return;
    if (error) {
      error_ = error.message();
      ConnectNext();
      return;
    }
    where_ = "TLS handshake";
    SSL* ssl = stream_->native_handle();
    SSL_set_tlsext_host_name(ssl, request_.host.c_str());
    // RFC 8461 section 3.3: a name in subjectAltName, and nowhere else.
    SSL_set_hostflags(ssl,
                      X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (SSL_set1_host(ssl, request_.host.c_str()) != 1) {
      Fail(absl::StatusCode::kUnauthenticated, "the host name cannot be verified");
      return;
    }
    stream_->async_handshake(
        asio::ssl::stream_base::client,
        [self = shared_from_this()](error_code error) { self->OnHandshake(error); });
  }

  void OnHandshake(error_code error) {
    if (done_ == nullptr) return;
    if (error) {
      const long verdict = SSL_get_verify_result(stream_->native_handle());
      Fail(absl::StatusCode::kUnauthenticated,
           verdict == X509_V_OK ? error.message() : X509_verify_cert_error_string(verdict));
      return;
    }
    where_ = "request";
    message_.method(request_.content_type.empty() ? http::verb::get : http::verb::post);
    message_.target(request_.target);
    message_.version(11);
    message_.set(http::field::host, request_.host);
    message_.set(http::field::user_agent, "Sluice");
    message_.set(http::field::connection, "close");
    if (!request_.content_type.empty()) {
      message_.set(http::field::content_type, request_.content_type);
      message_.body() = std::move(request_.body);
    }
    message_.prepare_payload();
    http::async_write(*stream_, message_, [self = shared_from_this()](error_code error, size_t) {
      self->OnWritten(error);
    });
  }

  void OnWritten(error_code error) {
    if (done_ == nullptr) return;
    if (error) {
      Fail(absl::StatusCode::kUnavailable, error.message());
      return;
    }
    where_ = "response";
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(shared_->options.max_header_bytes));
    parser_->body_limit(shared_->options.max_response_bytes);
    http::async_read(
        *stream_, buffer_, *parser_,
        [self = shared_from_this()](error_code error, size_t) { self->OnRead(error); });
  }

  void OnRead(error_code error) {
    if (done_ == nullptr) return;
    if (error == http::error::body_limit || error == http::error::header_limit) {
      Fail(absl::StatusCode::kResourceExhausted, "the response is too large");
      return;
    }
    if (error) {
      Fail(absl::StatusCode::kUnavailable, error.message());
      return;
    }
    HttpsResponse response;
    response.status = parser_->get().result_int();
    response.content_type = std::string(parser_->get()[http::field::content_type]);
    response.body = std::move(parser_->get().body());
    Finish(std::move(response));
  }

  void Fail(absl::StatusCode code, const std::string& why) {
    Finish(absl::Status(code, absl::StrCat("https://", request_.host, ": ", why)));
  }

  void Finish(absl::StatusOr<HttpsResponse> result) {
    if (done_ == nullptr) return;
    const auto self = shared_from_this();  // what erase gives back may be the last one
    Done done = std::exchange(done_, nullptr);
    Close();
    shared_->exchanges.erase(self);
    done(std::move(result));
  }

  void Close() {
    if (timer_ != 0) shared_->executor.Cancel(std::exchange(timer_, 0));
    if (stream_ == nullptr) return;
    error_code ignored;
    // Handlers that wait still come, with an error; they keep the stream until then.
    stream_->next_layer().close(ignored);
  }

  const std::shared_ptr<Shared> shared_;
  HttpsRequest request_;
  Done done_;
  TimerId timer_ = 0;
  int missing_ = 0;
  std::vector<IpAddress> addresses_;
  size_t next_address_ = 0;
  std::string error_;
  const char* where_ = "DNS";
  std::unique_ptr<Stream> stream_;
  http::request<http::string_body> message_;
  boost::beast::flat_buffer buffer_{16 * 1024};
  std::optional<http::response_parser<http::string_body>> parser_;
};

absl::StatusOr<std::unique_ptr<HttpsClient>> HttpsClient::Create(Executor& executor,
                                                                 asio::io_context& io,
                                                                 DnsClient& dns,
                                                                 const HttpsOptions& options) {
  auto shared = std::make_shared<Shared>(executor, io, dns, options);
  error_code error;
  if (options.ca_file.empty()) {
    shared->tls.set_default_verify_paths(error);
  } else {
    shared->tls.load_verify_file(options.ca_file, error);
  }
  if (error) {
    return absl::FailedPreconditionError(absl::StrCat("authorities for HTTPS",
                                                      options.ca_file.empty() ? "" : " in ",
                                                      options.ca_file, ": ", error.message()));
  }
  shared->tls.set_verify_mode(asio::ssl::verify_peer);
  SSL_CTX_set_min_proto_version(shared->tls.native_handle(), TLS1_2_VERSION);
  return std::unique_ptr<HttpsClient>(new HttpsClient(std::move(shared)));
}

HttpsClient::HttpsClient(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

HttpsClient::~HttpsClient() {
  shared_->closed = true;
  const auto exchanges = std::exchange(shared_->exchanges, {});
  for (const auto& each : exchanges) each->Drop();
}

void HttpsClient::Send(HttpsRequest request, Done done) {
  auto exchange = std::make_shared<Exchange>(shared_, std::move(request), std::move(done));
  shared_->exchanges.insert(exchange);
  shared_->executor.Post([exchange = std::move(exchange), shared = shared_] {
    if (!shared->closed) exchange->Start();
  });
}

size_t HttpsClient::under_way() const { return shared_->exchanges.size(); }

void HttpsPolicyFetcher::Fetch(const std::string& domain, Done done) {
  HttpsRequest request;
  request.host = absl::StrCat("mta-sts.", domain);
  request.target = "/.well-known/mta-sts.txt";
  request.allow_private = may_be_private_(domain);
  const std::string host = request.host;
  client_.Send(std::move(request), [host, done = std::move(done)](
                                       absl::StatusOr<HttpsResponse> response) mutable {
    if (!response.ok()) {
      done(response.status());
      return;
    }
    // RFC 8461 section 3.3: redirects are not followed, only 200 counts; section 3.2: text/plain.
    if (response->status != 200) {
      done(absl::UnavailableError(absl::StrCat("https://", host, ": status ", response->status)));
      return;
    }
    const absl::string_view type(response->content_type);
    const absl::string_view media =
        absl::StripAsciiWhitespace(type.substr(0, std::min(type.find(';'), type.size())));
    if (!absl::EqualsIgnoreCase(media, "text/plain")) {
      done(absl::UnavailableError(absl::StrCat("https://", host, ": it is no text/plain")));
      return;
    }
    done(std::move(response->body));
  });
}

}  // namespace sluice::delivery
