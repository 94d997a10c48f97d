// Any bytes of a SOCKS5 proxy: it is done, failed or waiting in the same way however they are cut,
// and never takes a byte of the remote's.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/base/net/socks5_handshake.h"

namespace {

std::string Run(std::string_view wire, bool password, size_t step) {
  sluice::Socks5Handshake socks(
      *sluice::Endpoint::Parse("192.0.2.7:25"),
      password ? std::optional(sluice::Socks5Credentials{"u", "p"}) : std::nullopt);
  std::string out = socks.Begin();
  size_t taken = 0;
  while (!wire.empty() && !socks.done()) {
    const auto used = socks.OnBytes(wire.substr(0, step), &out);
    if (!used.ok()) return out + std::string(used.status().message());
    taken += *used;
    SLUICE_CHECK(*used == std::min(step, wire.size()) || socks.done());
    wire.remove_prefix(*used);
  }
  return out + std::to_string(taken) + (socks.done() ? " done" : "");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view wire(reinterpret_cast<const char*>(data), size);
  for (bool password : {false, true}) {
    const std::string whole = Run(wire, password, size + 1);
    SLUICE_CHECK(whole == Run(wire, password, 1));
    SLUICE_CHECK(whole == Run(wire, password, 3));
  }
  return 0;
}
