// <source> directives without effect yet.
#include <utility>

#include "services/config/registry_tables.h"

namespace sluice::config {

std::vector<Directive> PlannedClientDirectives() {
  constexpr uint32_t kClients = kSource | kGlobal;
  std::vector<Directive> all;
  const auto add = [&](std::string_view name, Grammar grammar, std::string_view help,
                       Status status = Status::kNotYet) -> Directive& {
    return all.emplace_back(Planned(name, kClients, grammar, help, status));
  };
  const auto boolean = [&](std::string_view name, std::string_view help,
                           Status status = Status::kNotYet) {
    add(name, Grammar::kBool, help, status);
  };
  boolean("broken-auth-clients", "Nothing: the old AUTH= form is not offered.", Status::kNoEffect);
  boolean("check-dkim-inbound", "Check DKIM signatures and say so in a header field.");
  boolean("trace-dkim-check", "Log the steps of DKIM checks.");
  boolean("trace-spf-check", "Log the steps of SPF checks.");
  boolean("check-spf-inbound", "Check SPF and say so in a header field.", Status::kRefused);
  boolean("check-spf-inbound-best-guess", "Nothing: a guess is no policy of the domain.",
          Status::kNoEffect);
  add("check-spf-inbound-max-void-lookups", Grammar::kCount,
      "Lookups without an answer after which SPF is an error.");
  boolean("check-iprev-inbound", "Check that the client's name leads back to its address.");
  boolean("trace-iprev-check", "Log the steps of that check.");
  for (const std::string_view name : {"reject-iprev-check-temperror",
                                      "reject-iprev-check-permerror", "reject-iprev-check-fail"}) {
    boolean(name, "Refuse clients whose name does not lead back.", Status::kRefused);
  }
  for (const std::string_view name :
       {"reject-spf-check-temperror", "reject-spf-check-permerror", "reject-spf-check-fail"}) {
    boolean(name, "Refuse mail that SPF says no to; of use with check-spf-inbound.");
  }
  add("suppression-lists", Grammar::kWords, "Lists of addresses that get no mail.",
      Status::kRefused)
      .reason = kBounces;
  boolean("process-x-dkim-options", "The header X-DKIM-Options changes signing.");
  boolean("process-x-dkim-key", "The header X-DKIM-Key names the key.");
  boolean("retain-x-dkim-key", "Leave X-DKIM-Key in the message.");
  boolean("retain-x-dkim-options", "Leave X-DKIM-Options in the message.");
  all.push_back(
      Planned("log-data", kSource, Grammar::kBool, "Log message texts.", Status::kUnsupported));
  all.back().reason = "the text of a message never stands in a log; log-commands shows the rest";
  boolean("always-allow-api-submission", "Clients may inject by HTTP.");
  all.back().reason = kManagement;
  ComesWith(kDkim, &all, 0);
  return all;
}

}  // namespace sluice::config
