#include "services/base/metrics/http_status.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/metrics/http_request.h"
#include "services/base/net/tcp_connection.h"
#include "services/base/net/timer_wheel.h"

namespace sluice {
namespace {
constexpr size_t kMaxClients = 64;
constexpr Duration kTimeout = std::chrono::seconds(10);

std::string Response(int code, std::string_view reason, std::string_view body) {
  return absl::StrCat("HTTP/1.1 ", code, " ", absl::string_view(reason.data(), reason.size()),
                      "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
                      "Content-Length: ", body.size(), "\r\nConnection: close\r\n\r\n",
                      absl::string_view(body.data(), body.size()));
}
}  // namespace

class HttpStatus::Client final : private TcpHandler {
 public:
  Client(HttpStatus& owner, UniqueFd fd)
      : owner_(owner),
        tcp_(owner.loop_, std::move(fd)),
        deadline_(owner.loop_.wheel(), [this] { Remove(); }) {
    deadline_.SetAfter(kTimeout);
    tcp_.Start(this);
  }

 private:
  void OnBytes(std::string_view bytes) override {
    if (answered_) return;
    const auto state = request_.OnBytes(bytes);
    if (state == HttpRequestReader::State::kMore) return;
    answered_ = true;
    tcp_.Write(state == HttpRequestReader::State::kWhole
                   ? owner_.Answer(request_)
                   : Response(431, "Request Header Fields Too Large", ""));
    tcp_.CloseAfterFlush();
  }
  void OnClosed(const absl::Status&) override { Remove(); }
  void Remove() {
    owner_.clients_.remove_if([this](const auto& each) { return each.get() == this; });
  }

  HttpStatus& owner_;
  TcpConnection tcp_;
  Deadline deadline_;
  HttpRequestReader request_;
  bool answered_ = false;
};

HttpStatus::HttpStatus(EventLoop& loop, HttpStatusHandlers handlers)
    : loop_(loop), handlers_(std::move(handlers)) {}

HttpStatus::~HttpStatus() = default;

absl::StatusOr<std::unique_ptr<HttpStatus>> HttpStatus::Open(EventLoop& loop,
                                                             const std::string& address,
                                                             HttpStatusHandlers handlers) {
  const auto endpoint = Endpoint::Parse(address);
  if (!endpoint) {
    return absl::InvalidArgumentError(
        absl::StrCat("HTTP address \"", address, "\" is not understood: give IP:PORT"));
  }
  std::unique_ptr<HttpStatus> status(new HttpStatus(loop, std::move(handlers)));
  HttpStatus* raw = status.get();
  auto listener =
      Listener::Open(loop, {{*endpoint}}, [raw](UniqueFd fd, const Endpoint&, const Endpoint&) {
        if (raw->clients_.size() >= kMaxClients) return;
        raw->clients_.push_back(std::make_unique<Client>(*raw, std::move(fd)));
      });
  if (!listener.ok()) return listener.status();
  status->listener_ = *std::move(listener);
  return status;
}

std::string HttpStatus::Answer(const HttpRequestReader& request) const {
  if (request.method() != "GET") return Response(405, "Method Not Allowed", "GET only\n");
  const std::string_view path = request.path();
  if (path == "/healthz") return Response(200, "OK", "ok\n");
  if (path == "/readyz") {
    const std::string reason = handlers_.not_ready_reason();
    return reason.empty() ? Response(200, "OK", "ready\n")
                          : Response(503, "Service Unavailable", reason + "\n");
  }
  if (path == "/metrics") return Response(200, "OK", handlers_.metrics());
  return Response(404, "Not Found", "there are /metrics, /healthz and /readyz\n");
}

}  // namespace sluice
