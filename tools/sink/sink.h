// The sink put together: SMTP on its addresses, DNS, and HTTP for counters and rules.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/net/event_loop.h"
#include "services/base/net/listener.h"
#include "services/base/net/tls_server_context.h"
#include "tools/sink/dns_server.h"
#include "tools/sink/message_log.h"
#include "tools/sink/session.h"
#include "tools/sink/sink_state.h"

namespace sluice::sink {

struct SinkOptions {
  std::vector<Endpoint> listen;
  std::vector<Endpoint> listen_tls;  // TLS from the first byte
  // PEM of key and certificate; with it STARTTLS is offered on `listen`. "self-signed": one is made
  // up.
  std::string tls_certificate;
  TlsProtocols tls_protocols;
  std::optional<Endpoint> dns;
  DnsOptions dns_options;  // without addresses: those of `listen`
  std::optional<Endpoint> http;
  SessionOptions session;
  MessageLog::Options log;
  Duration round_trip{0};  // added to every reply
  Duration idle_timeout = std::chrono::minutes(5);
  size_t json_domains_max = 1000;
};

// Thread-safety: none; lives on its loop. Lifetime: loop and state outlive it.
class Sink {
 public:
  static absl::StatusOr<std::unique_ptr<Sink>> Open(EventLoop& loop, SinkState& state,
                                                    const SinkOptions& options);
  ~Sink();

  const std::vector<Endpoint>& smtp_addresses() const { return smtp_->addresses(); }
  // Empty where there are none.
  std::vector<Endpoint> tls_addresses() const;
  std::optional<Endpoint> dns_address() const;
  std::optional<Endpoint> http_address() const;
  std::string CountersJson() const;

 private:
  class Connection;
  class HttpClient;

  absl::Status OpenTls();
  absl::StatusOr<std::unique_ptr<Listener>> ListenSmtp(const std::vector<Endpoint>& addresses,
                                                       bool immediate_tls);

  Sink(EventLoop& loop, SinkState& state, const SinkOptions& options);
  absl::Status Start();

  EventLoop& loop_;
  SinkState& state_;
  SinkOptions options_;
  std::unique_ptr<MessageLog> log_;
  std::unique_ptr<TlsServerContext> tls_;
  std::unique_ptr<Listener> smtp_;
  std::unique_ptr<Listener> smtp_tls_;
  std::unique_ptr<Listener> http_;
  std::unique_ptr<DnsServer> dns_;
  std::list<std::unique_ptr<Connection>> connections_;
  std::list<std::unique_ptr<HttpClient>> http_clients_;
};

}  // namespace sluice::sink
