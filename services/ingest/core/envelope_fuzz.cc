// Any header section, under any settings: what is not a field to be taken out stays byte for byte,
// nothing is left of what is, what is captured fits on a line and into a protobuf, and what we put
// in is whole fields. The first three bytes choose the settings.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/ingest/core/envelope.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/mail/header_fields.h"

namespace {

using namespace sluice;          // NOLINT: a fuzzer is its own program
using namespace sluice::ingest;  // NOLINT

bool IsOneLine(std::string_view text) {
  return text.find_first_of("\r\n") == std::string_view::npos;
}

bool IsPlain(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 127; });
}

std::shared_ptr<const ClientProfile> ProfileOf(uint32_t flags) {
  auto policy = std::make_shared<sluice::ingest::testing::FakePolicy>();
  policy->AddVirtualMta("v");
  policy::v1::ClientSettings& client = *policy->loopback;
  const auto on = [&flags](unsigned bit) { return (flags >> bit & 1) != 0; };
  client.set_process_x_virtual_mta(on(0));
  client.set_retain_x_virtual_mta(on(1));
  client.set_process_x_job(on(2));
  client.set_retain_x_job(on(3));
  client.set_process_x_envid(on(4));
  client.set_retain_x_envid(on(5));
  client.set_process_x_schedule(on(6));
  client.set_retain_x_schedule(on(7));
  if (on(8)) client.mutable_remove_header()->add_values("X-Secret");
  if (on(9)) client.mutable_remove_header()->add_values("message-id");
  client.set_remove_received_headers(on(10));
  client.set_add_message_id_header(on(11));
  client.set_add_date_header(on(12) ? "override" : on(13) ? "yes" : "no");
  client.set_add_x_virtual_mta_header(on(14));
  if (on(15)) client.set_jobid_header("X-Campaign");
  if (on(16)) client.set_jobid_prefix("p-");
  client.set_allow_empty_x_virtual_mta(on(17));
  client.set_reject_invalid_virtual_mta(on(18));
  if (on(19)) client.set_date_header_time("delivery");
  client.set_verp_default(on(20));
  if (on(21)) client.set_bcc("bcc@b.test");
  if (on(22)) client.set_dsn_return_default("full");
  return ClientProfile::Make(policy, policy->loopback, {});
}

// What the settings take out, they take out for good: each field that stays is not one of those.
void CheckRemoved(const ClientProfile& profile, std::string_view header) {
  const policy::v1::ClientSettings& client = *profile.settings;
  mail::HeaderFieldReader reader(header);
  for (mail::HeaderField field; reader.Next(field);) {
    for (const std::string& name : client.remove_header().values()) {
      SLUICE_CHECK(!mail::HeaderNameEquals(field.name, name));
    }
    if (client.remove_received_headers()) {
      SLUICE_CHECK(!mail::HeaderNameEquals(field.name, "Received"));
    }
    if (client.add_x_virtual_mta_header()) {
      SLUICE_CHECK(!mail::HeaderNameEquals(field.name, "X-Virtual-MTA"));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const auto profile = ProfileOf(data[0] | data[1] << 8 | data[2] << 16);
  const std::string text(reinterpret_cast<const char*>(data) + 3, size - 3);
  const size_t blank = text.starts_with("\r\n") ? 0 : text.find("\r\n\r\n");
  const size_t header = blank == std::string::npos ? text.size() : blank + (blank == 0 ? 2 : 4);
  const std::string before = "Received: ours\r\n";
  const std::string body = text.substr(header);

  std::string buffer = before + text;
  queue::v1::NewMessage message;
  ControlFields control;
  const size_t removed = ReadHeader(*profile, before.size(), before.size() + header, buffer,
                                    *message.mutable_message(), control);
  SLUICE_CHECK(buffer.size() + removed == before.size() + text.size() && removed <= header);
  SLUICE_CHECK(buffer.starts_with(before) && buffer.ends_with(body));
  const size_t left = header - removed;
  CheckRemoved(*profile, std::string_view(buffer).substr(before.size(), left));
  if (!profile->edits_header) SLUICE_CHECK(removed == 0);
  // The second time there is nothing to take out.
  std::string again = buffer;
  common::v1::Message other;
  ControlFields none;
  SLUICE_CHECK(ReadHeader(*profile, before.size(), before.size() + left, again, other, none) == 0 &&
               again == buffer);

  SLUICE_CHECK(IsPlain(control.job_id) && IsPlain(control.envid) && IsOneLine(control.problem));
  SLUICE_CHECK(control.job_id.size() <= kMaxControlValueBytes + 2);
  SLUICE_CHECK(control.envid.size() <= kMaxControlValueBytes);
  SLUICE_CHECK(control.windows.size() <= kMaxDeliveryWindows);
  for (const auto& captured : message.message().captured_headers()) {
    SLUICE_CHECK(IsOneLine(captured.value()) && captured.value().size() <= kMaxCapturedBytes);
  }

  RouteChoice choice;
  if (const auto refusal = ChooseRoute(*profile, control, "s@s.test", "127.0.0.1", choice)) {
    SLUICE_CHECK(refusal->code >= 400);
    return 0;
  }
  SLUICE_CHECK(!AddRecipient(*profile, "r@r.test", 0, "", message));
  message.mutable_message()->set_mail_from("s@s.test");
  const std::string without = buffer;
  const size_t added = AddHeaderFields(*profile, control, choice, "01ARZ3NDEKTSV4RRFFQ69G5FAV",
                                       WallTime(), before.size(), buffer, message);
  SLUICE_CHECK(buffer.substr(0, before.size()) + buffer.substr(before.size() + added) == without);
  const std::string_view fields = std::string_view(buffer).substr(before.size(), added);
  mail::HeaderFieldReader reader(fields);
  for (mail::HeaderField field; reader.Next(field);) SLUICE_CHECK(!field.name.empty());
  SLUICE_CHECK(reader.position() == added);

  CompleteEnvelope(*profile, choice, control, message);
  // Text of clients in a protobuf's string could make the whole message unreadable.
  queue::v1::NewMessage read;
  SLUICE_CHECK(read.ParseFromString(message.SerializeAsString()));
  SLUICE_CHECK(read.SerializeAsString() == message.SerializeAsString());
  return 0;
}
