// Any bytes as configuration and as address: no crash, and no path is left, no word split.
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/config/command_line.h"
#include "services/delivery/local/destination.h"
#include "services/delivery/local/http_post.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t half = text.find('\n');
  const std::string_view pattern = text.substr(0, half);
  sluice::queue::v1::Lease lease;
  lease.mutable_message()->set_id(std::string(16, 'x'));
  lease.mutable_message()->set_mail_from(std::string(pattern.substr(0, 50)));
  lease.add_deliveries()->set_rcpt(
      std::string(half == text.npos ? std::string_view("a@b") : text.substr(half + 1)));
  sluice::delivery::Expand(pattern, lease, 0, false, true);
  const std::string path =
      "/in/" + sluice::delivery::Expand("${local}", lease, 0, true, false) + "/x";
  SLUICE_CHECK(path.find("/../") == std::string::npos && path.find("//") == std::string::npos);
  SLUICE_CHECK(path.find('\0') == std::string::npos);
  sluice::config::RunsVariables(sluice::config::SplitCommand(pattern));
  if (const auto url = sluice::delivery::ParseHttpUrl(pattern)) {
    SLUICE_CHECK(!url->host.empty() && url->path.starts_with('/'));
    SLUICE_CHECK(url->authority.find_first_of("\r\n ") == std::string::npos);
  }
  return 0;
}
