// Adds up what victims said across power cuts, and judges it.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::powercut {

// Rules: nothing accepted is lost; what the remote took is given to it again only where the power
// was cut between that and the acknowledgement of the result; who was told of a failure gets its
// DSN. Thread-safety: none.
class Ledger {
 public:
  // One line of victim.h. The power was cut between calls with different incarnations.
  void Add(uint64_t incarnation, std::string_view line);
  // Acceptances from here on are not held against the shard: its disk lies.
  void DoubtAcceptances() { doubting_ = true; }
  // After the last victim said that nothing is queued.
  void CheckComplete();

  const std::vector<std::string>& errors() const { return errors_; }
  bool drained() const { return drained_; }
  uint64_t opened() const { return opened_; }
  uint64_t lines() const { return lines_; }
  // Outcomes of messages that were not accepted.
  const std::set<std::string>& refusals() const { return refusals_; }
  std::string Summary() const;

 private:
  struct Recipient {
    bool accepted = false;
    bool acknowledged = false;  // the final result
    bool refused = false;       // the remote's last word
    bool dsn = false;
    uint32_t ends = 0;      // times that the remote took or refused it
    uint64_t last_end = 0;  // incarnation
  };
  void Error(std::string text);

  std::map<std::string, Recipient, std::less<>> recipients_;
  std::vector<std::string> errors_;
  std::set<std::string> refusals_;
  uint64_t opened_ = 0;
  uint64_t lines_ = 0;
  bool drained_ = false;
  bool doubting_ = false;
};

}  // namespace sluice::powercut
