// Any bytes as a snapshot, from a file or another process: a view that answers every question, or
// an error that names what cannot be used.
#include <cstddef>
#include <cstdint>
#include <string>

#include "services/base/check.h"
#include "services/config/policy_view.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using sluice::config::PolicyView;
  sluice::policy::v1::PolicySnapshot snapshot;
  if (!snapshot.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto view = PolicyView::Build(snapshot);
  if (!view.ok()) {
    SLUICE_CHECK(!view.status().message().empty());
    return 0;
  }
  const PolicyView& v = **view;
  SLUICE_CHECK(v.version() == snapshot.version());
  v.global();
  for (const char* domain : {"example.com", "a.b.test", ""}) {
    SLUICE_CHECK(v.ForQueue(domain, "v", "p") != nullptr);
    SLUICE_CHECK(v.ForQueue(domain, "", "") != nullptr);
  }
  for (const char* ip : {"127.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "nonsense"}) {
    SLUICE_CHECK(v.ForClient(ip) != nullptr);
    SLUICE_CHECK(v.ForClientOf(ip, {"{auth}", "s"}) != nullptr);
    SLUICE_CHECK(v.ForSource(ip) != nullptr);
  }
  for (const auto* vmta : v.virtual_mtas()) {
    SLUICE_CHECK(v.FindVirtualMta(vmta->name()) != nullptr);
    SLUICE_CHECK(v.ForQueue("example.com", vmta->name(), "") != nullptr);
  }
  for (const auto* pool : v.pools()) SLUICE_CHECK(v.FindPool(pool->name()) != nullptr);
  v.FindListener("127.0.0.1:25");
  v.FindPatternList("p");
  v.FindSmtpUser("u");
  v.FindAuthFile("f");
  v.FindSmtpPatternList("p");
  v.FindPause("example.com/v", "j");
  v.FindPause("example.com/v", "");
  return 0;
}
