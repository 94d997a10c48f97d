// Which settings hold, and which line of which file says so.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/config/compiler.h"

namespace sluice::config {

struct ExplainedSetting {
  std::string directive;
  std::string value;    // as in a directive file; "(secret)" for secrets
  std::string section;  // "<virtual-mta news> <domain gmail.com>"; empty: outside of sections
  std::string where;    // "file:line"; empty: the default
  bool is_default = false;
  // Of a secret: differs where the value does. Of this process only, and not to be shown: it would
  // help to guess the value.
  size_t secret_mark = 0;
};

// `compiled` was made with keep_origins. All functions are pure; results are in the registry's
// order. Names are case-insensitive.

// The queue domain/vmta of mail that was submitted to `pool`, or to the virtual MTA where empty.
// As PolicyView::ForQueue.
std::vector<ExplainedSetting> ExplainQueue(const Compiled& compiled, std::string_view domain,
                                           std::string_view vmta, std::string_view pool);
// The same for many queues of one configuration, in a time that does not grow with its sections.
// Thread-safety: any. Lifetime: `compiled` outlives it, and stays as it is.
class QueueExplainer {
 public:
  explicit QueueExplainer(const Compiled& compiled);
  std::vector<ExplainedSetting> Explain(std::string_view domain, std::string_view vmta,
                                        std::string_view pool) const;

 private:
  // Those that match `domain`, and some others; in order of the snapshot.
  std::vector<const policy::v1::DomainSection*> DomainsOf(std::string_view domain) const;

  const Compiled& compiled_;
  const policy::v1::QueueSettings* queue_defaults_ = nullptr;
  absl::flat_hash_map<std::string, const policy::v1::SectionContent*> named_;  // "vmta/v", "pool/p"
  // Global <domain> sections with their places in the snapshot, by the name that their pattern ends
  // in.
  absl::flat_hash_map<std::string, std::vector<std::pair<size_t, const policy::v1::DomainSection*>>>
      by_base_;
};

// Of the virtual MTA as a whole, its addresses too. Empty where there is none of that name.
std::vector<ExplainedSetting> ExplainVirtualMta(const Compiled& compiled, std::string_view vmta);
// An outbound address, with the virtual MTAs that have it.
std::vector<ExplainedSetting> ExplainSource(const Compiled& compiled, std::string_view ip);
// A client's address. As PolicyView::ForClient.
std::vector<ExplainedSetting> ExplainClient(const Compiled& compiled, std::string_view ip);
std::vector<ExplainedSetting> ExplainGlobal(const Compiled& compiled);
// What a section says by itself, by its name in the snapshot: "pool/NAME", "listener/IP:PORT",
// "named-source/NAME", "source-group/NAME", "smtp-user/NAME". Empty for others.
std::vector<ExplainedSetting> ExplainSection(const Compiled& compiled, const std::string& name);

// Pools that have this virtual MTA, in order of name.
std::vector<std::string> PoolsOf(const policy::v1::PolicySnapshot& snapshot, std::string_view vmta);

// Each may be left out; nothing at all asks for what stands outside of sections.
struct ExplainQuestion {
  std::string domain;
  std::string vmta;  // or a pool: each of its virtual MTAs
  std::string pool;  // that mail was for
  std::string source;
  std::string client;
  std::string mx;  // the domain's best one, for <mx-rollup-list>
};
struct Explanation {
  std::vector<std::pair<std::string, std::vector<ExplainedSetting>>> subjects;
  std::vector<std::string> notes;
};
// NOT_FOUND where there is no virtual MTA or pool of that name, INVALID_ARGUMENT for what is no
// domain or no address.
absl::StatusOr<Explanation> Explain(const Compiled& compiled, const ExplainQuestion& question);

// A table for people: name, value, place; defaults only with `all`.
std::string RenderExplained(const std::vector<ExplainedSetting>& settings, bool all);

}  // namespace sluice::config
