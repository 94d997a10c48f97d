// Proves that DNS answers are read within bounds, and that lies and cuts invent nothing.
#include "services/delivery/dns/dns_answer.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

namespace sluice::delivery {
namespace {

// Writes DNS messages by hand, without compression unless asked.
class MessageWriter {
 public:
  MessageWriter(int rcode, int answers, int authorities) {
    U16(0x1234);
    U16(0x8180 | rcode);
    U16(1);
    U16(answers);
    U16(authorities);
    U16(0);
  }
  MessageWriter& U16(int value) {
    text_.push_back(static_cast<char>(value >> 8));
    text_.push_back(static_cast<char>(value));
    return *this;
  }
  MessageWriter& U32(uint32_t value) {
    return U16(static_cast<int>(value >> 16)).U16(static_cast<int>(value & 0xffff));
  }
  MessageWriter& Name(const std::string& name) {
    text_ += Encode(name);
    return *this;
  }
  MessageWriter& Question(const std::string& name, DnsType type) {
    return Name(name).U16(static_cast<int>(type)).U16(1);
  }
  MessageWriter& Record(const std::string& name, DnsType type, uint32_t ttl_s,
                        const std::string& data) {
    Name(name).U16(static_cast<int>(type)).U16(1).U32(ttl_s).U16(static_cast<int>(data.size()));
    text_ += data;
    return *this;
  }
  MessageWriter& Mx(const std::string& name, uint32_t ttl_s, int preference,
                    const std::string& host) {
    std::string data{static_cast<char>(preference >> 8), static_cast<char>(preference)};
    return Record(name, DnsType::kMx, ttl_s, data + Encode(host));
  }
  static std::string Encode(const std::string& name) {
    std::string out;
    size_t start = 0;
    while (start < name.size()) {
      size_t end = name.find('.', start);
      if (end == std::string::npos) end = name.size();
      out.push_back(static_cast<char>(end - start));
      out += name.substr(start, end - start);
      start = end + 1;
    }
    out.push_back('\0');
    return out;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string Soa(uint32_t minimum_s) {
  MessageWriter soa(0, 0, 0);
  std::string data =
      MessageWriter::Encode("ns.example.com") + MessageWriter::Encode("h.example.com");
  for (uint32_t field : {1U, 2U, 3U, 4U, minimum_s}) {
    for (int shift : {24, 16, 8, 0}) data.push_back(static_cast<char>(field >> shift));
  }
  return data;
}

TEST(DnsAnswer, ReadsMxInOrderWithTheLeastTtl) {
  MessageWriter message(0, 2, 0);
  message.Question("Example.COM", DnsType::kMx)
      .Mx("example.com", 300, 10, "MX1.Example.net")
      .Mx("EXAMPLE.com", 200, 20, "mx2.example.net");
  const DnsAnswer answer = ParseDnsAnswer(message.text(), "Example.com", DnsType::kMx);
  ASSERT_EQ(answer.status, DnsStatus::kAnswer);
  ASSERT_EQ(answer.records.size(), 2U);
  EXPECT_EQ(answer.records[0].data, "mx1.example.net");
  EXPECT_EQ(answer.records[0].preference, 10);
  EXPECT_EQ(answer.records[1].data, "mx2.example.net");
  EXPECT_EQ(answer.ttl_s, 200U);
}

TEST(DnsAnswer, FollowsCnamesAndIgnoresStrangersRecords) {
  MessageWriter message(0, 3, 0);
  message.Question("a.example", DnsType::kA)
      .Record("a.example", DnsType::kCname, 50, MessageWriter::Encode("b.example"))
      .Record("evil.example", DnsType::kA, 5, std::string("\x7f\0\0\1", 4))
      .Record("b.example", DnsType::kA, 500, std::string("\xc0\0\2\7", 4));
  const DnsAnswer answer = ParseDnsAnswer(message.text(), "a.example", DnsType::kA);
  ASSERT_EQ(answer.status, DnsStatus::kAnswer);
  ASSERT_EQ(answer.records.size(), 1U);
  EXPECT_EQ(answer.records[0].data, "192.0.2.7");
  EXPECT_EQ(answer.ttl_s, 50U);
}

TEST(DnsAnswer, ACnameLoopFails) {
  MessageWriter message(0, 2, 0);
  message.Question("a.example", DnsType::kA)
      .Record("a.example", DnsType::kCname, 50, MessageWriter::Encode("b.example"))
      .Record("b.example", DnsType::kCname, 50, MessageWriter::Encode("a.example"));
  const DnsAnswer answer = ParseDnsAnswer(message.text(), "a.example", DnsType::kA);
  EXPECT_EQ(answer.status, DnsStatus::kFailed);
  EXPECT_NE(answer.detail.find("CNAME"), std::string::npos);
}

TEST(DnsAnswer, NullMxIsARecordWithoutHost) {
  MessageWriter message(0, 1, 0);
  message.Question("null.example", DnsType::kMx).Mx("null.example", 60, 0, "");
  const DnsAnswer answer = ParseDnsAnswer(message.text(), "null.example", DnsType::kMx);
  ASSERT_EQ(answer.records.size(), 1U);
  EXPECT_EQ(answer.records[0].data, "");
}

TEST(DnsAnswer, NegativeAnswersTakeTheZonesTtl) {
  MessageWriter nxdomain(3, 0, 1);
  nxdomain.Question("no.example", DnsType::kMx).Record("example", DnsType::kSoa, 900, Soa(30));
  DnsAnswer answer = ParseDnsAnswer(nxdomain.text(), "no.example", DnsType::kMx);
  EXPECT_EQ(answer.status, DnsStatus::kNxDomain);
  EXPECT_EQ(answer.ttl_s, 30U);

  MessageWriter nodata(0, 0, 0);
  nodata.Question("no.example", DnsType::kMx);
  answer = ParseDnsAnswer(nodata.text(), "no.example", DnsType::kMx);
  EXPECT_EQ(answer.status, DnsStatus::kNoData);
  EXPECT_EQ(answer.ttl_s, kDefaultNegativeTtlSeconds);
}

TEST(DnsAnswer, ServerFailureIsNeverANegativeAnswer) {
  for (int rcode : {1, 2, 4, 5, 9}) {
    MessageWriter message(rcode, 0, 0);
    message.Question("x.example", DnsType::kMx);
    EXPECT_EQ(ParseDnsAnswer(message.text(), "x.example", DnsType::kMx).status, DnsStatus::kFailed);
  }
}

TEST(DnsAnswer, EveryTruncationFailsOrIsNegativeNeverInventsARecord) {
  MessageWriter message(0, 1, 0);
  message.Question("t.example", DnsType::kMx).Mx("t.example", 60, 5, "mx.t.example");
  for (size_t size = 0; size < message.text().size(); ++size) {
    const DnsAnswer answer =
        ParseDnsAnswer(message.text().substr(0, size), "t.example", DnsType::kMx);
    EXPECT_EQ(answer.status, DnsStatus::kFailed) << size;
    EXPECT_TRUE(answer.records.empty());
  }
}

TEST(DnsAnswer, KeepsAtMostTheBound) {
  MessageWriter message(0, 1000, 0);
  message.Question("m.example", DnsType::kMx);
  for (int i = 0; i < 1000; ++i) message.Mx("m.example", 60, i, "mx.m.example");
  const DnsAnswer answer = ParseDnsAnswer(message.text(), "m.example", DnsType::kMx);
  EXPECT_EQ(answer.records.size(), static_cast<size_t>(kMaxDnsRecords));
}

// Counts that promise more than there is, and a message as long as DNS allows.
TEST(DnsAnswer, CountsThatLie) {
  MessageWriter lies(0, 65535, 65535);
  lies.Question("m.example", DnsType::kMx);
  for (int i = 0; i < 3; ++i) lies.Mx("m.example", 60, i, "mx.m.example");
  EXPECT_EQ(ParseDnsAnswer(lies.text(), "m.example", DnsType::kMx).status, DnsStatus::kFailed);
  MessageWriter full(0, 3000, 0);
  full.Question("m.example", DnsType::kMx);
  for (int i = 0; i < 3000; ++i) full.Mx("m.example", 60, i, "x");
  const DnsAnswer answer = ParseDnsAnswer(full.text().substr(0, 65535), "m.example", DnsType::kMx);
  EXPECT_LE(answer.records.size(), static_cast<size_t>(kMaxDnsRecords));
}

std::string Labels(std::initializer_list<size_t> lengths) {
  std::string name;
  for (size_t length : lengths) {
    if (!name.empty()) name += '.';
    name.append(length, 'x');
  }
  return name;
}

// RFC 1035 section 3.1: 255 octets with the lengths of the labels and the root.
TEST(DnsAnswer, NamesAreAsLongAsDnsAllows) {
  for (size_t last : {61U, 62U}) {
    const std::string host = Labels({63, 63, 63, last});
    MessageWriter message(0, 1, 0);
    message.Question("m.example", DnsType::kMx).Mx("m.example", 60, 0, host);
    const DnsAnswer answer = ParseDnsAnswer(message.text(), "m.example", DnsType::kMx);
    EXPECT_EQ(answer.status == DnsStatus::kAnswer, last == 61) << answer.detail;
    EXPECT_EQ(answer.records.empty() ? "" : answer.records[0].data, last == 61 ? host : "");
  }
}

// Thousands of pointers to one name that fills half of the message would be hundreds of MiB.
TEST(DnsAnswer, APointerDoesNotMakeANameLonger) {
  constexpr int kRecords = 2000;
  MessageWriter message(0, kRecords, 0);
  message.Question("m.example", DnsType::kMx);
  const std::string start = message.text();
  for (size_t lengths : {3U, 4U, 500U}) {
    std::string text = start;
    const size_t name_at = text.size();
    for (size_t i = 0; i < lengths; ++i) text += MessageWriter::Encode(Labels({63})).substr(0, 64);
    text.push_back('\0');
    const std::string pointer{static_cast<char>(0xc0 | name_at >> 8), static_cast<char>(name_at)};
    text += std::string{0, 15, 0, 1, 0, 0, 0, 60, 0, 4, 0, 0} + pointer;
    for (int i = 1; i < kRecords; ++i) {
      text += pointer + std::string{0, 15, 0, 1, 0, 0, 0, 60, 0, 4, 0, 0} + pointer;
    }
    const DnsAnswer answer = ParseDnsAnswer(text, Labels({63, 63, 63}), DnsType::kMx);
    EXPECT_EQ(answer.status, lengths == 3 ? DnsStatus::kAnswer : DnsStatus::kFailed) << lengths;
  }
}

// Records of other names, whatever they claim.
TEST(DnsAnswer, StrangersRecordsAreNoAnswer) {
  MessageWriter message(0, 3, 0);
  message.Question("m.example", DnsType::kMx);
  message.Mx("evil.example", 60, 0, "mx.evil.example");
  message.Mx("example", 60, 0, "mx.evil.example");
  message.Mx("a.m.example", 60, 0, "mx.evil.example");
  EXPECT_EQ(ParseDnsAnswer(message.text(), "m.example", DnsType::kMx).status, DnsStatus::kNoData);
}

// The AD bit is told on, and the name at the end of the aliases.
TEST(DnsAnswer, AuthenticDataAndCanonicalName) {
  MessageWriter message(0, 2, 0);
  message.Question("m.example", DnsType::kMx);
  message.Record("m.example", DnsType::kCname, 60, MessageWriter::Encode("real.example"));
  message.Mx("real.example", 60, 0, "mx.m.example");
  std::string text = message.text();
  DnsAnswer answer = ParseDnsAnswer(text, "M.example.", DnsType::kMx);
  EXPECT_FALSE(answer.authenticated);
  EXPECT_EQ(answer.canonical, "real.example");
  text[3] = static_cast<char>(text[3] | 0x20);
  answer = ParseDnsAnswer(text, "m.example", DnsType::kMx);
  EXPECT_TRUE(answer.authenticated);
}

}  // namespace
}  // namespace sluice::delivery
