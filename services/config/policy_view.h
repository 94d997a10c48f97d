// A compiled configuration, ready to be asked: the effective settings of a queue, a client, a
// source. Built from the snapshot by every service; asked on the hot path.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// Thread-safety: immutable from outside, all functions from any thread (results are cached behind a
// lock inside). Lifetime: results are shared and stay valid after the view is gone.
class PolicyView {
 public:
  virtual ~PolicyView() = default;

  // INVALID_ARGUMENT names the section that cannot be used.
  static absl::StatusOr<std::shared_ptr<const PolicyView>> Build(
      const policy::v1::PolicySnapshot& snapshot);

  // Registry defaults alone: loopback may relay, one virtual MTA "default" with no source host.
  // version() is 0.
  static std::shared_ptr<const PolicyView> Defaults();

  virtual uint64_t version() const = 0;

  // Every field that has a default in the registry is set in what these return.
  virtual const policy::v1::GlobalSettings& global() const = 0;

  // vmta's <domain> sections over its pool's over the global ones; in each, the more particular
  // pattern wins. `domain` is the queue's, lower case. `pool` may be empty.
  virtual std::shared_ptr<const policy::v1::QueueSettings> ForQueue(
      std::string_view domain, std::string_view vmta, std::string_view pool) const = 0;

  // `ip` as text, IPv4 or IPv6; IPv4-mapped is IPv4. The more particular network wins.
  virtual std::shared_ptr<const policy::v1::ClientSettings> ForClient(
      std::string_view ip) const = 0;
  // The same with the named sources laid over it, in order: the listener's, "{auth}", the user's.
  // A name that is not there says nothing.
  virtual std::shared_ptr<const policy::v1::ClientSettings> ForClientOf(
      std::string_view ip, const std::vector<std::string>&) const {
    return ForClient(ip);
  }

  virtual std::shared_ptr<const policy::v1::SourceSettings> ForSource(
      std::string_view ip) const = 0;

  // nullptr where there is none. Names are case-insensitive.
  virtual const policy::v1::VirtualMtaSection* FindVirtualMta(std::string_view name) const = 0;
  virtual const policy::v1::PoolSection* FindPool(std::string_view name) const = 0;
  virtual const std::vector<const policy::v1::VirtualMtaSection*>& virtual_mtas() const = 0;
  virtual const std::vector<const policy::v1::PoolSection*>& pools() const = 0;

  // nullptr where there is none. `address` is ip:port of this end of a connection: a listener on
  // every address of the family holds for it where it has none of its own.
  virtual const policy::v1::ListenerSettings* FindListener(std::string_view) const {
    return nullptr;
  }
  virtual const policy::v1::PatternListSection* FindPatternList(std::string_view) const {
    return nullptr;
  }
  virtual const std::vector<const policy::v1::SourceGroupSection*>& source_groups() const {
    static const std::vector<const policy::v1::SourceGroupSection*> none;
    return none;
  }
  // nullptr where there is none. User names are compared as they are.
  virtual const policy::v1::SmtpUserSection* FindSmtpUser(std::string_view) const {
    return nullptr;
  }
  virtual std::vector<const policy::v1::SmtpUserSection*> smtp_users() const { return {}; }
  virtual const policy::v1::AuthFileSection* FindAuthFile(std::string_view) const {
    return nullptr;
  }

  // Of the cluster, the same for good, where a policy service has given it one; else empty.
  virtual const std::string& auth_secret() const {
    static const std::string none;
    return none;
  }

  // nullptr where there is none. Names are case-insensitive.
  virtual const policy::v1::SmtpPatternListSection* FindSmtpPatternList(std::string_view) const {
    return nullptr;
  }
  virtual const policy::v1::RewriteListSection* FindRewriteList(std::string_view) const {
    return nullptr;
  }
  virtual const policy::v1::BounceCategorySection& bounce_categories() const {
    return policy::v1::BounceCategorySection::default_instance();
  }
  virtual const policy::v1::MxRollupSection& mx_rollup() const {
    return policy::v1::MxRollupSection::default_instance();
  }

  // The operator's pause that holds longest for this queue ("domain/vmta") and job, or nullptr; it
  // may be over. job empty: whole-queue pauses only.
  virtual const policy::v1::ControlEntry* FindPause(std::string_view queue,
                                                    std::string_view job) const = 0;
  virtual const std::vector<const policy::v1::ControlEntry*>& controls() const = 0;
};

}  // namespace sluice::config
