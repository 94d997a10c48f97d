// The text of a message as DATA sends it (RFC 5321 4.5.2): finds its end and takes the doubled dots
// out, at the speed of memmem.
#pragma once

#include <cstddef>
#include <string_view>

namespace sluice::sink {

// Thread-safety: none.
class TextReader {
 public:
  void Reset() {
    state_ = State::kLineStart;
    size_ = 0;
  }

  // Reads from the front of `bytes`; hands the text, un-doubled, in pieces to `emit`. True when the
  // final dot has come; `*consumed` says how much belonged to this message.
  template <typename Emit>
  bool Read(std::string_view bytes, size_t* consumed, Emit emit);

  // Octets of text so far, un-doubled, with the final line end.
  size_t size() const { return size_; }

 private:
  // What the last bytes were. A dot at a line's start is held back until its successor is known.
  enum class State { kText, kCr, kLineStart, kDot, kDotCr };

  State state_ = State::kLineStart;
  size_t size_ = 0;
};

template <typename Emit>
bool TextReader::Read(std::string_view bytes, size_t* consumed, Emit emit) {
  size_t from = 0;  // first byte that was not handed out
  size_t at = 0;
  auto flush = [&](size_t to) {
    if (to > from) {
      emit(bytes.substr(from, to - from));
      size_ += to - from;
    }
  };
  while (at < bytes.size()) {
    if (state_ == State::kText) {
      size_t found = bytes.find("\r\n.", at);
      if (found != bytes.npos) {
        at = found + 3;
        flush(found + 2);
        from = at;
        state_ = State::kDot;
        continue;
      }
      if (bytes.back() == '\r') {
        state_ = State::kCr;
      } else if (bytes.size() - at >= 2 && bytes.ends_with("\r\n")) {
        state_ = State::kLineStart;
      }
      break;
    }
    char c = bytes[at++];
    switch (state_) {
      case State::kCr:
        state_ = c == '\n' ? State::kLineStart : c == '\r' ? State::kCr : State::kText;
        break;
      case State::kLineStart:
        if (c == '.') {
          flush(at - 1);
          from = at;
          state_ = State::kDot;
        } else {
          state_ = c == '\r' ? State::kCr : State::kText;
        }
        break;
      case State::kDot:
        state_ = c == '\r' ? State::kDotCr : State::kText;
        if (c == '\r') from = at;  // held back as well
        break;
      case State::kDotCr:
        if (c == '\n') {
          *consumed = at;
          return true;
        }
        emit(std::string_view("\r"));
        ++size_;
        from = at - 1;
        state_ = c == '\r' ? State::kCr : State::kText;
        break;
      case State::kText:
        break;
    }
  }
  flush(bytes.size());
  *consumed = bytes.size();
  return false;
}

}  // namespace sluice::sink
