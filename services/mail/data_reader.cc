#include "services/mail/data_reader.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace sluice::mail {
namespace {

constexpr std::string_view kReceived = "received:";
constexpr uint8_t kNoMatch = 255;

// The first NUL, CR or LF at or after `p`, or `end`.
const char* FindSpecial(const char* p, const char* end) {
#ifdef __SSE2__
  const __m128i nul = _mm_setzero_si128();
  const __m128i cr = _mm_set1_epi8('\r');
  const __m128i lf = _mm_set1_epi8('\n');
  for (; end - p >= 16; p += 16) {
    const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i hit =
        _mm_or_si128(_mm_cmpeq_epi8(block, nul),
                     _mm_or_si128(_mm_cmpeq_epi8(block, cr), _mm_cmpeq_epi8(block, lf)));
    const int mask = _mm_movemask_epi8(hit);
    if (mask != 0) return p + __builtin_ctz(static_cast<unsigned>(mask));
  }
#endif
  while (p < end && *p != '\0' && *p != '\r' && *p != '\n') ++p;
  return p;
}

}  // namespace

void DataReader::Emit(const char* begin, const char* end, Sink sink) {
  if (begin == end || error_ != DataError::kNone) return;
  // What is past a limit is counted, so that the outcome does not depend on how the text was cut.
  const auto bytes = static_cast<size_t>(end - begin);
  size_ += bytes;
  if (error() == DataError::kNone) sink(std::string_view(begin, bytes));
}

void DataReader::EndLine() {
  if (in_header_ && line_empty_) {
    in_header_ = false;
    header_ended_ = true;
  }
  line_empty_ = true;
  received_matched_ = 0;
  state_ = State::kLineStart;
}

// Counts Received fields; a field name may be cut at any byte by the network.
const char* DataReader::MatchReceived(const char* p, const char* end) {
  while (p < end && received_matched_ < kReceived.size()) {
    const char c = *p >= 'A' && *p <= 'Z' ? static_cast<char>(*p + 32) : *p;
    if (c != kReceived[received_matched_]) {
      received_matched_ = kNoMatch;
      return p;
    }
    ++p;
    if (++received_matched_ == kReceived.size()) {
      ++hops_;
      received_matched_ = kNoMatch;
    }
  }
  return p;
}

size_t DataReader::Feed(std::string_view input, Sink sink) {
  const char* const begin = input.data();
  const char* const end = begin + input.size();
  const char* p = begin;
  const char* run = p;  // text from here to p waits to be given out
  if (framing_ == Framing::kBinary && !in_header_) p = end;
  while (p < end && state_ != State::kDone) {
    switch (state_) {
      case State::kLineStart:
        if (*p == '.' && framing_ == Framing::kDots) {
          Emit(run, p, sink);
          run = ++p;
          state_ = State::kDot;
          break;
        }
        state_ = State::kText;
        [[fallthrough]];
      case State::kText: {
        const char* const start = p;
        if (in_header_ && received_matched_ != kNoMatch) p = MatchReceived(p, end);
        p = FindSpecial(p, end);
        if (p != start) line_empty_ = false;
        if (p == end) break;
        if (*p == '\r') {
          ++p;
          if (p < end && *p == '\n') {
            ++p;
            EndLine();
          } else {
            state_ = State::kCr;
          }
        } else {
          Fail(*p == '\n' ? DataError::kBareLf : DataError::kNul);
          line_empty_ = false;
          ++p;
        }
        break;
      }
      case State::kCr:
        if (*p == '\n') {
          ++p;
          EndLine();
        } else {
          Fail(DataError::kBareCr);
          line_empty_ = false;
          state_ = State::kText;
        }
        break;
      case State::kDot:
        // The dot itself is gone: it was transparency, or the first byte of the end.
        received_matched_ = kNoMatch;
        if (*p == '\r') {
          run = ++p;
          state_ = State::kDotCr;
        } else {
          line_empty_ = false;
          state_ = State::kText;
        }
        break;
      case State::kDotCr:
        if (*p == '\n') {
          run = ++p;
          state_ = State::kDone;
        } else {
          Fail(DataError::kBareCr);
          line_empty_ = false;
          state_ = State::kText;
        }
        break;
      case State::kDone:
        break;
    }
    if (header_ended_) {
      Emit(run, p, sink);
      run = p;
      header_ended_ = false;
      header_size_ = size_;
      if (framing_ == Framing::kBinary) p = end;
    }
  }
  Emit(run, p, sink);
  return static_cast<size_t>(p - begin);
}

void DataReader::End(Sink sink) {
  const bool lines = framing_ == Framing::kCounted || in_header_;
  if (lines && state_ == State::kCr) Fail(DataError::kBareCr);
  if (lines && state_ == State::kText) {
    constexpr std::string_view kLineEnd = "\r\n";
    Emit(kLineEnd.data(), kLineEnd.data() + kLineEnd.size(), sink);
  }
  state_ = State::kDone;
}

}  // namespace sluice::mail
