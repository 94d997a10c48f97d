// What is said to a proxy, on a connection to it, before the bytes of the connection proper: bytes
// in, bytes out, no IO.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice {

// Thread-safety: none.
class EgressHandshake {
 public:
  virtual ~EgressHandshake() = default;
  // What goes out first.
  virtual std::string Begin() = 0;
  // Takes what the proxy sent; returns how much of it was the handshake's. What follows once done()
  // is the remote's. `out` gets what is to be sent. kUnavailable: the proxy could not reach the
  // remote; kFailedPrecondition: the proxy itself refuses us, whatever the remote;
  // kInvalidArgument: it is no such proxy.
  virtual absl::StatusOr<size_t> OnBytes(std::string_view bytes, std::string* out) = 0;
  virtual bool done() const = 0;
  // The proxy knows of the remote: where it says nothing from here on, that may be the remote's
  // doing; before, it is its own.
  virtual bool asked() const = 0;
  // How many bytes can be read without taking any of the remote's; 0 once it is done.
  virtual size_t wanted() const = 0;
};

}  // namespace sluice
