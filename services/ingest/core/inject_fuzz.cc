// Any request by gRPC, of a caller with all rights and of one with its network's: it is refused in
// words that fit on a line, or one message reaches the shard as every message does, with nothing in
// its envelope that the request did not say. The first byte chooses the settings; what follows are
// lines, each a field's letter and its value, and behind a line "=" the content.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/base/testing/manual_executor.h"
#include "services/base/utf8.h"
#include "services/ingest/core/inject.h"
#include "services/ingest/testing/accepted_message.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"

namespace {

using namespace sluice;          // NOLINT: a fuzzer is its own program
using namespace sluice::ingest;  // NOLINT

// As they come over the wire, strings are UTF-8; control characters are for us to refuse. 0x1F
// stands for a line end within a value.
std::string Text(std::string_view value) {
  std::string text(value);
  std::replace(text.begin(), text.end(), '\x1f', '\n');
  return IsUtf8(text) ? text : ToUtf8(text);
}

int64_t Number(std::string_view value) {
  int64_t number = 0;
  for (const char c : value.substr(0, 8)) number = number << 8 | static_cast<unsigned char>(c);
  return number;
}

ingest::v1::InjectRequest RequestOf(std::string_view input) {
  ingest::v1::InjectRequest request;
  while (!input.empty()) {
    const size_t end = input.find('\n');
    const std::string_view line = input.substr(0, end);
    input.remove_prefix(end == input.npos ? input.size() : end + 1);
    if (line == "=") {
      request.set_content(std::string(input));
      break;
    }
    if (line.empty()) continue;
    const std::string_view value = line.substr(1);
    const int recipients = request.recipients_size();
    switch (line[0]) {
      case 'f':
        request.set_mail_from(Text(value));
        break;
      case 'r':
        request.add_recipients()->set_address(Text(value));
        break;
      case 'n':
        if (recipients > 0) {
          request.mutable_recipients(recipients - 1)
              ->set_notify(static_cast<uint32_t>(Number(value)));
        }
        break;
      case 'o':
        if (recipients > 0) request.mutable_recipients(recipients - 1)->set_orcpt(Text(value));
        break;
      case 'v':
        request.set_virtual_mta(Text(value));
        break;
      case 'j':
        request.set_job_id(Text(value));
        break;
      case 'e':
        request.set_envid(Text(value));
        break;
      case 'k':
        request.set_idempotency_key(Text(value));
        break;
      case 'm':
        (*request.mutable_metadata())[Text(value.substr(0, 1))] = Text(value);
        break;
      case 'd':
        request.set_dsn_return(static_cast<common::v1::DsnReturn>(Number(value) % 4));
        break;
      case 'p':
        request.set_priority(static_cast<uint32_t>(Number(value)));
        break;
      case 't':
        request.set_traceparent(Text(value));
        break;
      case 'a':
        request.set_not_before_us(Number(value));
        break;
      case 'b':
        request.set_deliver_by_us(Number(value));
        break;
      case 'c':
        request.set_tenant(Text(value));
        break;
      default:
        break;
    }
  }
  return request;
}

std::shared_ptr<ingest::testing::FakePolicy> PolicyOf(uint8_t flags) {
  auto policy = std::make_shared<ingest::testing::FakePolicy>();
  policy->AddVirtualMta("v");
  policy->others->set_allow_relay(true);
  for (policy::v1::ClientSettings* client : {policy->loopback.get(), policy->others.get()}) {
    const auto on = [&](unsigned bit) { return (flags >> bit & 1) != 0; };
    client->set_process_x_virtual_mta(on(1));
    client->set_process_x_job(on(2));
    client->set_process_x_envid(on(2));
    client->set_process_x_schedule(on(3));
    if (on(4)) client->mutable_remove_header()->add_values("X-Secret");
    client->set_add_message_id_header(on(5));
    client->set_add_date_header(on(5) ? "yes" : "no");
    client->set_add_x_virtual_mta_header(on(6));
    if (on(7)) client->set_bcc("bcc@b.test");
  }
  return policy;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const ingest::v1::InjectRequest request =
      RequestOf(std::string_view(reinterpret_cast<const char*>(data) + 1, size - 1));
  sluice::testing::ManualExecutor executor;
  ingest::testing::FakeShard shard;
  IngestOptions options;
  options.random = 42;
  Ingest ingest(executor, options, {{"shard", &shard.enqueue(), &shard.upload()}},
                PolicyOf(data[0]));
  ingest.Start();
  executor.RunPosted();
  InjectService service(ingest);
  std::optional<absl::StatusOr<ingest::v1::InjectResponse>> result;
  const bool by_network = (data[0] & 1) != 0;
  service.InjectFrom(service.OriginOf(by_network ? "ipv4:192.0.2.7:99" : ""), request,
                     [&](auto answer) { result = std::move(answer); });
  executor.RunPosted();
  SLUICE_CHECK(result.has_value());
  SLUICE_CHECK(result->ok() == (shard.taken.size() == 1));
  if (!result->ok()) {
    SLUICE_CHECK(shard.taken.empty());
    return 0;
  }
  const auto& [taken, body] = shard.taken[0];
  ingest::testing::CheckAccepted(taken, body);
  const common::v1::Message& message = taken.message();
  SLUICE_CHECK(message.tenant() == request.tenant());
  SLUICE_CHECK(message.deliver_by_us() >= 0 && message.not_before_us() >= 0);
  SLUICE_CHECK(taken.deliveries_size() == request.recipients_size() + ((data[0] & 128) != 0));
  // The text is what was said, line by line, but for what the settings put in and take out.
  if ((data[0] & ~1) != 0) return 0;
  std::string text;
  SLUICE_CHECK(NormalizeLineEnds(request.content(), text) && body.ends_with(text));
  return 0;
}
