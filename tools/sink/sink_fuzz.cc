// Any bytes of a client, by SMTP or as a DNS query: the sink answers in whole lines, takes the same
// messages however the bytes are cut, and answers a query with no more than fits. The first byte
// chooses.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/base/testing/manual_executor.h"
#include "tools/sink/dns_answer.h"
#include "tools/sink/session.h"

namespace {

using namespace sluice::sink;  // NOLINT: a fuzzer is its own program
using sluice::IpAddress;

const IpAddress kClient = IpAddress::V4(0x7f000002);
const IpAddress kLocal = IpAddress::V4(0x7f000001);

class Listener final : public SessionOutput, public MessageKeeper {
 public:
  void Reply(std::string_view lines) override {
    SLUICE_CHECK(!closed && !handshake);
    SLUICE_CHECK(lines.size() >= 6 && lines.ends_with("\r\n"));
    log += lines;
  }
  void Delay(sluice::Duration) override {}
  void Close() override { closed = true; }
  void StartTls() override { handshake = true; }
  void OnMessage(const ReceivedMessage& message) override {
    log += "message " + std::string(message.from) + "\n" + std::string(message.text);
    SLUICE_CHECK(!message.recipients->empty());
  }
  std::string log;
  bool closed = false;
  bool handshake = false;
};

std::string Run(std::string_view wire, size_t step) {
  sluice::testing::ManualExecutor executor;
  SinkState state(executor.clock(), 42);
  SessionOptions options;
  options.size_max_bytes = 1000;
  options.recipients_max = 5;
  options.starttls = true;
  options.Finish();
  Listener listener;
  Session session(state, options, listener, &listener, kClient, kLocal);
  session.Start();
  while (!wire.empty() && !listener.closed && !listener.handshake) {
    session.OnBytes(wire.substr(0, step));
    wire.remove_prefix(std::min(step, wire.size()));
  }
  return listener.log;
}

void Dns(std::string_view query, bool udp) {
  RuleTable rules;
  const std::string answer = AnswerDns(rules, {{kLocal}, 300}, query, udp);
  if (answer.empty()) return;
  SLUICE_CHECK(query.size() >= 12 && answer.size() >= 12);
  SLUICE_CHECK(answer.substr(0, 2) == query.substr(0, 2));
  SLUICE_CHECK((answer[2] & 0x80) != 0);
  SLUICE_CHECK(answer.size() <= 65535);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'D' || data[0] == 'd') {
    Dns(rest, data[0] == 'd');
    return 0;
  }
  const std::string whole = Run(rest, size);
  SLUICE_CHECK(whole == Run(rest, data[0] % 31 + 1));
  return 0;
}
