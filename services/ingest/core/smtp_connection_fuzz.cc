// Any bytes of an SMTP client, from the first to what a shard gets: each message is one, with whole
// lines and an envelope that can be stored, for each recipient of a mail merge too; and it is the
// same however the bytes are cut. The first two bytes choose the settings and the cut.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/check.h"
#include "services/base/testing/manual_executor.h"
#include "services/ingest/testing/accepted_message.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"
#include "services/ingest/testing/smtp_client.h"

namespace {

using namespace sluice;          // NOLINT: a fuzzer is its own program
using namespace sluice::ingest;  // NOLINT

std::shared_ptr<ingest::testing::FakePolicy> PolicyOf(uint8_t flags) {
  auto policy = std::make_shared<ingest::testing::FakePolicy>();
  policy->AddVirtualMta("v");
  policy::v1::SmtpUserSection user;
  user.set_name("u");
  user.set_password("p");
  policy->users.push_back(user);
  for (policy::v1::ClientSettings* client : {policy->loopback.get(), policy->others.get()}) {
    client->set_allow_relay(true);
    client->set_allow_mailmerge(true);
    client->set_allow_unencrypted_plain_auth(true);
    client->set_allow_xclient(true);
    client->set_smtp_tarpit_after(1000);
    client->set_max_message_size(100'000);
    const auto on = [&](unsigned bit) { return (flags >> bit & 1) != 0; };
    client->set_process_x_virtual_mta(on(0));
    client->set_process_x_job(on(0));
    client->set_process_x_envid(on(0));
    client->set_process_x_schedule(on(1));
    client->set_remove_received_headers(on(1));
    if (on(2)) client->mutable_remove_header()->add_values("X-Secret");
    client->set_add_message_id_header(on(3));
    client->set_add_date_header(on(3) ? "yes" : "no");
    client->set_add_x_virtual_mta_header(on(4));
    if (on(5)) client->set_bcc("bcc@b.test");
    client->set_accept_invalid_recipients(on(6));
    client->set_hide_message_source(on(7));
  }
  return policy;
}

std::vector<ingest::testing::FakeShard::Taken> TakenFrom(std::string_view wire, size_t chunk,
                                                         uint8_t flags) {
  sluice::testing::ManualExecutor executor;
  ingest::testing::FakeShard shard;
  IngestOptions options;
  options.random = 42;
  Ingest ingest(executor, options, {{"shard", &shard.enqueue(), &shard.upload()}}, PolicyOf(flags));
  ingest.Start();
  executor.RunPosted();
  {
    ingest::testing::SmtpClient client(ingest, executor, "127.0.0.1", "127.0.0.1:25");
    while (!wire.empty() && client.session().wants_read()) {
      client.Say(wire.substr(0, chunk));
      wire.remove_prefix(std::min(chunk, wire.size()));
      // A refusal may be held back, by the session or by ingest.
      for (int waits = 0; !client.session().closing() && !client.session().wants_read(); ++waits) {
        SLUICE_CHECK(waits < 1000);
        client.HearAfter(std::chrono::seconds(1));
        client.session().OnTimer(executor.clock().Now());
        client.Drain();
      }
    }
    if (!client.session().closing()) client.session().OnEof(executor.clock().Now());
  }
  executor.RunPosted();
  return std::move(shard.taken);
}

// What does not tell when it was written.
std::string Lasting(queue::v1::NewMessage message) {
  message.mutable_message()->clear_id();
  message.mutable_message()->clear_time_queued_us();
  return ingest::testing::Canonical(message);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 8000) return 0;
  const size_t chunk = data[1] % 61 + 1;
  const std::string wire =
      "EHLO c.test\r\n" + std::string(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto taken = TakenFrom(wire, wire.size(), data[0]);
  for (const auto& [message, body] : taken) ingest::testing::CheckAccepted(message, body);
  if (size % 2 == 0) return 0;  // of every other input: it costs more than the rest
  const auto other = TakenFrom(wire, chunk, data[0]);
  SLUICE_CHECK(other.size() == taken.size());
  for (size_t i = 0; i < taken.size(); ++i) {
    SLUICE_CHECK(Lasting(other[i].message) == Lasting(taken[i].message));
    SLUICE_CHECK(other[i].body.size() == taken[i].body.size());
  }
  return 0;
}
