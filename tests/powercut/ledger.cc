#include "tests/powercut/ledger.h"

#include <utility>

namespace sluice::powercut {
namespace {

constexpr size_t kMaxErrors = 20;

}  // namespace

void Ledger::Error(std::string text) {
  if (errors_.size() < kMaxErrors) errors_.push_back(std::move(text));
}

void Ledger::Add(uint64_t incarnation, std::string_view line) {
  ++lines_;
  if (line.empty()) return;
  const std::string rest(line.size() > 2 ? line.substr(2) : "");
  switch (line[0]) {
    case 'O':
      ++opened_;
      break;
    case 'A': {
      const size_t space = rest.find(' ');
      const int count = std::stoi(rest.substr(space + 1));
      for (int i = 0; i < count; ++i) {
        recipients_[rest.substr(0, space) + "." + std::to_string(i)].accepted = !doubting_;
      }
      break;
    }
    case 'D':
    case 'P':
    case 'T': {
      Recipient& recipient = recipients_[rest];
      if (recipient.acknowledged) Error(rest + " came again after its result was acknowledged");
      if (recipient.ends > 0 && recipient.last_end == incarnation) {
        Error(rest + " came twice without a power cut in between");
      }
      if (line[0] == 'T') break;
      ++recipient.ends;
      recipient.last_end = incarnation;
      recipient.refused = line[0] == 'P';
      break;
    }
    case 'R':
      recipients_[rest].acknowledged = true;
      break;
    case 'N':
      recipients_[rest].dsn = true;
      break;
    case 'B':
      refusals_.insert(rest.substr(0, rest.find(' ')));
      break;
    case 'Z':
      drained_ = true;
      break;
    default:
      Error("incarnation " + std::to_string(incarnation) + ": " + std::string(line));
  }
}

void Ledger::CheckComplete() {
  if (!drained_) Error("the spool did not become empty");
  for (const auto& [name, recipient] : recipients_) {
    if (recipient.accepted && recipient.ends == 0) Error(name + " was accepted and is lost");
    if (recipient.refused && recipient.acknowledged && !recipient.dsn) {
      Error(name + " failed and nobody was told");
    }
  }
}

std::string Ledger::Summary() const {
  uint64_t accepted = 0;
  uint64_t unpromised = 0;
  uint64_t doubled = 0;
  uint64_t refused = 0;
  for (const auto& [name, recipient] : recipients_) {
    accepted += recipient.accepted;
    unpromised += !recipient.accepted && recipient.ends > 0;
    doubled += recipient.ends > 1;
    refused += recipient.refused;
  }
  return std::to_string(accepted) + " recipients accepted, " + std::to_string(unpromised) +
         " delivered whose acceptance the cut swallowed, " + std::to_string(doubled) +
         " doubled by a cut before their result was durable, " + std::to_string(refused) +
         " refused with a DSN";
}

}  // namespace sluice::powercut
