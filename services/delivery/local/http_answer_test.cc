// Proves what an answer says, that it says so however it is cut, and that nobody who answers takes
// more memory than the bound.
#include "services/delivery/local/http_answer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace sluice::delivery {
namespace {

struct Case {
  const char* wire;
  int status;  // 0: there is none
  const char* reason;
  const char* body;  // or the problem
};

constexpr Case kCases[] = {
    {"HTTP/1.1 200 OK\r\n\r\n", 200, "OK", ""},
    {"HTTP/1.0 204\r\n\r\nbehind", 204, "", ""},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstored", 200, "OK", "store"},
    {"HTTP/1.1 422 No\r\nX: 1\r\n\r\nbad\x01header\r\nX: 2\r\n", 422, "No", "bad header  X: 2"},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 202 \r\n\r\n", 202,
     "", ""},
    {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx", 200, "OK", "x"},
    {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx", 200, "OK", "x"},
    {"", 0, "", "the receiver's answer is no HTTP"},
    {"SSH-2.0\r\n\r\n", 0, "", "the receiver's answer is no HTTP"},
    {"HTTP/1.1 20\r\n\r\n", 0, "", "the receiver's answer is no HTTP"},
    {"HTTP/1.1 2000 OK\r\n\r\n", 0, "", "the receiver's answer is no HTTP"},
    {"HTTP/1.1 +20 OK\r\n\r\n", 0, "", "the receiver's answer is no HTTP"},
    {"HTTP/1.1 100 Continue\r\n\r\n", 0, "", "the receiver's answer is no HTTP"},
    {"HTTP/1.1 200 OK\r\nX: ", 0, "", "the receiver's answer is cut off"},
};

TEST(HttpAnswer, SaysTheSameHoweverItIsCut) {
  for (const Case& each : kCases) {
    const std::string_view wire(each.wire);
    for (size_t step = 1; step <= wire.size() + 1; ++step) {
      HttpAnswerReader reader;
      for (std::string_view rest = wire; !rest.empty();) {
        if (reader.OnBytes(rest.substr(0, step))) break;
        rest.remove_prefix(std::min(step, rest.size()));
      }
      std::string problem;
      const auto answer = reader.Finish(&problem);
      ASSERT_EQ(answer.has_value(), each.status != 0) << wire << step;
      if (answer) {
        EXPECT_EQ(*answer, (HttpAnswer{each.status, each.reason, each.body})) << wire << step;
      } else {
        EXPECT_EQ(problem, each.body) << wire << step;
      }
    }
  }
}

// One that never ends its header, one that never comes to the point, one whose body has no end.
TEST(HttpAnswer, AGigabyteIsReadToTheBound) {
  const std::string line = "X: " + std::string(1000, 'x') + "\r\n";
  const std::string interim = "HTTP/1.1 100 Continue\r\n\r\n";
  for (const std::string& piece : {line, interim, std::string(1000, '\n')}) {
    HttpAnswerReader reader;
    reader.OnBytes("HTTP/1.1 ");
    reader.OnBytes(piece == interim ? "100 x\r\n\r\n" : "200 OK\r\n");
    size_t poured = 0;
    while (poured < (size_t{1} << 30) && !reader.OnBytes(piece)) poured += piece.size();
    EXPECT_LE(poured, kMaxHttpHeadBytes);
    std::string problem;
    EXPECT_FALSE(reader.Finish(&problem));
    EXPECT_EQ(problem, "the receiver's answer is too long");
  }
  HttpAnswerReader reader;
  EXPECT_FALSE(reader.OnBytes("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"));
  EXPECT_TRUE(reader.OnBytes(std::string(501, 'x')));
  EXPECT_TRUE(reader.OnBytes(std::string(501, 'x')));
}

}  // namespace
}  // namespace sluice::delivery
