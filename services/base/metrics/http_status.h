// A small HTTP server for machines that look after a process: /metrics, /healthz and /readyz.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/base/net/event_loop.h"
#include "services/base/net/listener.h"

namespace sluice {

class HttpRequestReader;

struct HttpStatusHandlers {
  // The text exposition format of Prometheus.
  std::function<std::string()> metrics;
  // Empty: ready. Otherwise why not.
  std::function<std::string()> not_ready_reason;
};

// GET only, one request a connection, at most 64 connections of 10 s and 8 KiB each.
// Thread-safety: the loop's thread; the handlers run there. Lifetime: the loop outlives it.
class HttpStatus {
 public:
  static absl::StatusOr<std::unique_ptr<HttpStatus>> Open(EventLoop& loop,
                                                          const std::string& address,
                                                          HttpStatusHandlers handlers);
  ~HttpStatus();
  std::string address() const { return listener_->addresses()[0].ToString(); }

 private:
  class Client;
  HttpStatus(EventLoop& loop, HttpStatusHandlers handlers);
  std::string Answer(const HttpRequestReader& request) const;

  EventLoop& loop_;
  const HttpStatusHandlers handlers_;
  std::unique_ptr<Listener> listener_;
  std::list<std::unique_ptr<Client>> clients_;
};

}  // namespace sluice
