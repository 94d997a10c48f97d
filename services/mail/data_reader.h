// Reads message text as DATA carries it (RFC 5321 4.5.2): takes the transparency dots out, finds
// the one end that counts (CRLF "." CRLF), and refuses everything that another server could read as
// a different end: bare LF, bare CR, NUL. Text of BDAT (RFC 3030) is read by the same rules, less
// the dots: it leaves by DATA as a rule.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace sluice::mail {

// What is wrong with the message. Of several, the one that comes first here is told: of the first
// three the first in the text.
enum class DataError {
  kNone,
  kBareLf,
  kBareCr,
  kNul,
  kHeaderTooLarge,
  kTooLarge,
};

// After an error nothing more is given to the sink, but the reader goes on to the end, so that
// client and server agree on where the next command begins. Thread-safety: none. Lifetime: one
// message; make a new one for the next.
class DataReader {
 public:
  struct Limits {
    uint64_t max_bytes = 0;         // of decoded text; 0: no limit
    uint64_t max_header_bytes = 0;  // with the empty line; 0: no limit
  };

  enum class Framing : uint8_t {
    kDots,     // DATA
    kCounted,  // BDAT: the owner knows where the text ends, and calls End()
    // BDAT with BODY=BINARYMIME: any bytes behind the header section, which is lines as ever, since
    // we and all others read it line by line.
    kBinary,
  };

  // What the reader knows of a text.
  struct Totals {
    uint64_t size = 0;
    uint64_t header_size = 0;
    uint32_t hops = 0;
  };

  using Sink = absl::FunctionRef<void(std::string_view)>;

  explicit DataReader(const Limits& limits, Framing framing = Framing::kDots)
      : limits_(limits), framing_(framing) {}

  // Reads from `input` up to the end of the message, and returns how much it took: all of it unless
  // done(), which only kDots knows by itself. `sink` gets the decoded text as pieces of `input`, in
  // order, as few as can be.
  size_t Feed(std::string_view input, Sink sink);

  // Not with kDots: the text is complete. A last line without an end gets one, but in a binary
  // body.
  void End(Sink sink);

  bool done() const { return state_ == State::kDone; }
  DataError error() const {
    if (error_ != DataError::kNone) return error_;
    if (limits_.max_header_bytes != 0 && header_size() > limits_.max_header_bytes) {
      return DataError::kHeaderTooLarge;
    }
    if (limits_.max_bytes != 0 && size_ > limits_.max_bytes) return DataError::kTooLarge;
    return DataError::kNone;
  }
  // Decoded bytes; without an error all of them were given to the sink.
  uint64_t size() const { return size_; }
  // Bytes of the header section with the empty line that ends it; the whole size where no empty
  // line has come.
  uint64_t header_size() const { return in_header_ ? size_ : header_size_; }
  // Received header fields so far.
  uint32_t hops() const { return hops_; }
  Totals totals() const { return {size_, header_size(), hops_}; }

 private:
  enum class State : uint8_t { kLineStart, kText, kCr, kDot, kDotCr, kDone };

  void Emit(const char* begin, const char* end, Sink sink);
  void Fail(DataError error) {
    if (error_ == DataError::kNone) error_ = error;
  }
  void EndLine();
  const char* MatchReceived(const char* p, const char* end);

  Limits limits_;
  Framing framing_;
  State state_ = State::kLineStart;
  DataError error_ = DataError::kNone;  // bare LF, bare CR or NUL
  bool in_header_ = true;
  bool header_ended_ = false;  // the line that ends here closed the header
  bool line_empty_ = true;
  uint8_t received_matched_ =
      0;  // characters of "received:" at the start of this line; 255: no match
  uint32_t hops_ = 0;
  uint64_t size_ = 0;
  uint64_t header_size_ = 0;
};

}  // namespace sluice::mail
