// Proves that the reader decodes the same however the bytes are cut, hands out slices of its input,
// and knows one end of a message only.
#include "services/mail/data_reader.h"

#include <string>

#include "gtest/gtest.h"

namespace sluice::mail {
namespace {

struct Result {
  std::string text;
  size_t taken = 0;
  int slices = 0;
  DataReader reader{DataReader::Limits{}};
};

Result Read(std::string_view wire, size_t chunk, DataReader::Limits limits = {}) {
  Result r;
  r.reader = DataReader(limits);
  while (r.taken < wire.size() && !r.reader.done()) {
    const std::string_view piece = wire.substr(r.taken, chunk);
    const size_t taken = r.reader.Feed(piece, [&](std::string_view s) {
      EXPECT_FALSE(s.empty());
      EXPECT_GE(s.data(), wire.data());
      EXPECT_LE(s.data() + s.size(), wire.data() + wire.size());
      r.text += s;
      ++r.slices;
    });
    r.taken += taken;
    EXPECT_TRUE(r.reader.done() || taken == piece.size());
  }
  return r;
}

TEST(DataReader, DecodesTheSameAtEveryChunkSize) {
  struct Case {
    std::string wire;
    std::string text;
    size_t rest;
  };
  const Case kCases[] = {
      {".\r\n", "", 0},
      {".\r\nMAIL", "", 4},
      {"a\r\n.\r\nQUIT\r\n", "a\r\n", 6},
      {"..\r\n.\r\n", ".\r\n", 0},
      {"...\r\n..a\r\n.b\r\n.\r\n", "..\r\n.a\r\nb\r\n", 0},
      {"\r\n.\r\n", "\r\n", 0},
      {"\r\n\r\n\r\n.\r\n", "\r\n\r\n\r\n", 0},
      {"a.\r\n.\r\n", "a.\r\n", 0},
      {"a\r\n.\r\n.\r\n", "a\r\n", 3},
      {"\x80\xff\t\r\n.\r\n", "\x80\xff\t\r\n", 0},
  };
  for (const Case& c : kCases) {
    for (size_t chunk = 1; chunk <= c.wire.size(); ++chunk) {
      const Result r = Read(c.wire, chunk);
      EXPECT_TRUE(r.reader.done()) << c.wire;
      EXPECT_EQ(r.reader.error(), DataError::kNone) << c.wire;
      EXPECT_EQ(r.text, c.text) << c.wire << chunk;
      EXPECT_EQ(c.wire.size() - r.taken, c.rest) << c.wire;
      EXPECT_EQ(r.reader.size(), c.text.size());
    }
  }
}

TEST(DataReader, FalseEndsAreErrorsAndNoEnd) {
  struct Case {
    std::string wire;  // before the true end
    DataError error;
  };
  const Case kCases[] = {
      {"a\n.\r\n", DataError::kBareLf},
      {"a\n.\n", DataError::kBareLf},
      {"a\r\n.\n", DataError::kBareLf},
      {"a\r.\r\n", DataError::kBareCr},
      {"a\r\n.\r", DataError::kBareCr},
      {"a\r\r\n", DataError::kBareCr},
      {"a\n\r\n", DataError::kBareLf},
      {"\r\n.\r\r\n", DataError::kBareCr},
      {".\n", DataError::kBareLf},
      {".\rx\r\n", DataError::kBareCr},
      {"\n", DataError::kBareLf},
      {"\n\r\n", DataError::kBareLf},
      {std::string("\0\r\n", 3), DataError::kNul},
      {std::string(".\0\r\n", 4), DataError::kNul},
      {std::string("a\r\n.\r\0\n", 7), DataError::kBareCr},
  };
  for (const Case& c : kCases) {
    const std::string wire = c.wire + "evil\r\n.\r\nNEXT";
    for (size_t chunk = 1; chunk <= wire.size(); ++chunk) {
      const Result r = Read(wire, chunk);
      EXPECT_TRUE(r.reader.done()) << wire;
      EXPECT_EQ(r.reader.error(), c.error) << wire;
      EXPECT_EQ(wire.substr(r.taken), "NEXT") << wire;
      EXPECT_EQ(r.text.find("evil"), std::string::npos);
    }
  }
}

TEST(DataReader, FindsBadBytesAtEveryPosition) {
  for (size_t at = 0; at < 70; ++at) {
    std::string line(70, 'x');
    line[at] = '\0';
    const Result r = Read(line + "\r\n.\r\n", 1000);
    EXPECT_EQ(r.reader.error(), DataError::kNul) << at;
  }
}

TEST(DataReader, OneSlicePerChunkWithoutDots) {
  std::string wire;
  for (int i = 0; i < 100; ++i) wire += "A line of a message, as they are.\r\n";
  const Result r = Read(wire + ".\r\n", 1 << 20);
  EXPECT_EQ(r.slices, 1 + 0);
  EXPECT_EQ(r.text, wire);
}

TEST(DataReader, Limits) {
  const std::string wire = "H: 1\r\n\r\nbody\r\n.\r\n";
  for (size_t chunk = 1; chunk <= wire.size(); ++chunk) {
    EXPECT_EQ(Read(wire, chunk, {.max_bytes = 14}).reader.error(), DataError::kNone);
    EXPECT_EQ(Read(wire, chunk, {.max_bytes = 13}).reader.error(), DataError::kTooLarge);
    EXPECT_LE(Read(wire, chunk, {.max_bytes = 13}).text.size(), 13u);
    EXPECT_EQ(Read(wire, chunk, {.max_header_bytes = 8}).reader.error(), DataError::kNone);
    EXPECT_EQ(Read(wire, chunk, {.max_header_bytes = 7}).reader.error(),
              DataError::kHeaderTooLarge);
    EXPECT_EQ(Read(wire, chunk).reader.header_size(), 8u);
  }
}

struct Counted {
  std::string text;
  DataReader reader{DataReader::Limits{}};
};

Counted ReadCounted(std::string_view wire, size_t chunk, DataReader::Framing framing) {
  Counted r;
  r.reader = DataReader({}, framing);
  const auto sink = [&](std::string_view s) { r.text += s; };
  for (size_t at = 0; at < wire.size(); at += chunk) {
    const std::string_view piece = wire.substr(at, chunk);
    EXPECT_EQ(r.reader.Feed(piece, sink), piece.size());
    EXPECT_FALSE(r.reader.done());
  }
  r.reader.End(sink);
  EXPECT_TRUE(r.reader.done());
  return r;
}

TEST(DataReader, CountedTextHasNoDotsToTakeOut) {
  using Framing = DataReader::Framing;
  struct Case {
    Framing framing;
    std::string wire;
    std::string text;  // where there is no error
    DataError error = DataError::kNone;
    uint64_t header_size = 0;
  };
  const std::string binary = "A: 1\r\n\r\n" + std::string("\0\n\r.\n", 5);
  const Case kCases[] = {
      {Framing::kCounted, "", "", DataError::kNone, 0},
      {Framing::kCounted, "..\r\n.\r\nb\r\n", "..\r\n.\r\nb\r\n", DataError::kNone, 10},
      {Framing::kCounted, "A: 1\r\n\r\nb", "A: 1\r\n\r\nb\r\n", DataError::kNone, 8},
      {Framing::kCounted, "\r\n.", "\r\n.\r\n", DataError::kNone, 2},
      {Framing::kCounted, "a\r", "", DataError::kBareCr},
      {Framing::kCounted, "a\n.\r\n", "", DataError::kBareLf},
      {Framing::kCounted, std::string("a\0", 2), "", DataError::kNul},
      {Framing::kBinary, binary, binary, DataError::kNone, 8},
      {Framing::kBinary, binary + "\r", binary + "\r", DataError::kNone, 8},
      {Framing::kBinary, "A: 1", "A: 1\r\n", DataError::kNone, 6},
      {Framing::kBinary, "A: 1\n\r\n\r\n", "", DataError::kBareLf},
      {Framing::kBinary, "A: 1\r", "", DataError::kBareCr},
  };
  for (const Case& c : kCases) {
    for (size_t chunk = 1; chunk <= c.wire.size() + 1; ++chunk) {
      const Counted r = ReadCounted(c.wire, chunk, c.framing);
      ASSERT_EQ(r.reader.error(), c.error) << c.wire;
      if (c.error != DataError::kNone) continue;
      EXPECT_EQ(r.text, c.text) << c.wire;
      EXPECT_EQ(r.reader.size(), c.text.size());
      EXPECT_EQ(r.reader.header_size(), c.header_size) << c.wire;
    }
  }
}

}  // namespace
}  // namespace sluice::mail
