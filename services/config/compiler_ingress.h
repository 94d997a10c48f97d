// Lines about clients and their mail that are more than one field. Private to the compiler.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "services/config/draft.h"
#include "services/config/lexer.h"
#include "services/config/registry.h"

namespace sluice::config {

// What is wrong, and with which argument; an index beyond the last one: with the line.
struct LineError {
  std::string message;
  size_t argument = 0;
  bool warning = false;  // the line is in force
};

// "{auth}" or "partners", in lower case; nothing where `text` looks like a network or is no name.
std::optional<std::string> ParseSourceName(std::string_view text);

// `smtp-listener IP:PORT [source=NAME]`: adds the listener.
std::optional<LineError> AddListenerLine(const Statement& statement, Draft* draft);
// The draft of <smtp-listener ADDRESS>, whose address is made one to listen on; nullptr where it is
// no address.
ListenerDraft* EnterListener(std::string_view address, const Location& where, Draft* draft);

// mail-from, rcpt-to, header.
std::optional<LineError> AddPatternRule(const Statement& statement, Draft* draft,
                                        policy::v1::PatternListSection* list);

// alias, relay-address, pickup.
std::optional<LineError> AddAlias(const Statement& statement, Draft* draft);
std::optional<LineError> AddRelayAddress(const Statement& statement, Draft* draft);
std::optional<LineError> AddPickup(const Statement& statement, Draft* draft);

}  // namespace sluice::config
