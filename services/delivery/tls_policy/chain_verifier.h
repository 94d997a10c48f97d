// Judges the certificates that a server showed: by the public authorities and a name (MTA-STS, RFC
// 8461 section 4.2), or by TLSA records (DANE, RFC 7672).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "services/delivery/tls_policy/dane_record.h"

namespace sluice::delivery {

// More certificates than this are no chain.
inline constexpr size_t kMaxChainCertificates = 20;

struct ChainResult {
  bool good = false;
  std::string reason;       // for people, where it is not good
  std::string result_type;  // RFC 8460 section 4.3: "certificate-expired", ...
};

// Thread-safety: immutable, any thread.
class ChainVerifier {
 public:
  // `ca_file`: PEM, empty: the system's authorities. FAILED_PRECONDITION: they cannot be read.
  static absl::StatusOr<std::unique_ptr<ChainVerifier>> Create(const std::string& ca_file);
  ~ChainVerifier();

  // `chain`: DER, the server's own certificate first. Good where a trusted authority vouches for
  // it, it is in its time, and it is for one of `names` (wildcards for a whole first label).
  ChainResult VerifyPkix(std::span<const std::string> chain,
                         std::span<const std::string> names) const;
  // Good where a record matches; no authority counts that is not in the records.
  ChainResult VerifyDane(std::span<const std::string> chain, const DaneTlsa& dane) const;

 private:
  struct State;
  explicit ChainVerifier(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace sluice::delivery
