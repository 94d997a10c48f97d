// Proves which events an operator sees at which level, and that a record has what it takes to find
// the message, and nothing without end.
#include "services/queue/core/event_log.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice::queue {
namespace {

using common::v1::Event;
using common::v1::EventKind;

std::vector<std::string> Lines(LogLevel level, const Event& event) {
  std::vector<std::string> lines;
  LogOptions options;
  options.service = "queue";
  options.level = level;
  options.sink = [&lines](std::string_view line) { lines.emplace_back(line); };
  Log log(options, Clock::Real());
  LogEvent(log, event);
  return lines;
}

Event Deferred(EventKind kind) {
  Event event;
  event.set_kind(kind);
  event.set_message_id(std::string(16, '\1'));
  event.set_queue("example.test/v1");
  event.set_rcpt("u@example.test");
  event.mutable_attempt()->set_source_ip("192.0.2.1");
  event.mutable_reply()->set_code(451);
  event.mutable_reply()->set_host("mx.example.test");
  event.mutable_reply()->set_text("busy\nlevel=error " + std::string(3000, 'x'));
  return event;
}

TEST(EventLog, NamesTheMessageItsQueueAndThePeer) {
  const auto lines = Lines(LogLevel::kDebug, Deferred(EventKind::EVENT_KIND_TRANSIENT));
  ASSERT_EQ(lines.size(), 1U);
  for (const char* part :
       {" level=debug ", " event=message_deferred ", " msg_id=01040G2081040G2081040G2081 ",
        " queue=example.test/v1 ", " rcpt=u@example.test ", " source=192.0.2.1 ",
        " peer=mx.example.test ", " code=451 ", " reply=\"busy\\u000alevel=error "}) {
    EXPECT_NE(lines[0].find(part), std::string::npos) << part << " in " << lines[0];
  }
  EXPECT_LT(lines[0].size(), 600U);
  EXPECT_EQ(lines[0].find("author"), std::string::npos) << "nobody did it";
}

TEST(EventLog, AFailureTellsItsClass) {
  Event event = Deferred(EventKind::EVENT_KIND_FAILED);
  event.set_bounce_category("spam-related");
  EXPECT_NE(Lines(LogLevel::kInfo, event).at(0).find(" category=spam-related"), std::string::npos);
}

TEST(EventLog, AtTheUsualLevelOnlyWhatAnOperatorActsOn) {
  for (const EventKind kind : {EventKind::EVENT_KIND_RECEIVED, EventKind::EVENT_KIND_TRANSIENT,
                               EventKind::EVENT_KIND_DELIVERED}) {
    EXPECT_TRUE(Lines(LogLevel::kInfo, Deferred(kind)).empty()) << kind;
  }
  for (const EventKind kind : {EventKind::EVENT_KIND_FAILED, EventKind::EVENT_KIND_EXPIRED}) {
    EXPECT_EQ(Lines(LogLevel::kInfo, Deferred(kind)).size(), 1U) << kind;
    EXPECT_TRUE(Lines(LogLevel::kWarn, Deferred(kind)).empty()) << kind;
  }
  for (const EventKind kind : {EventKind::EVENT_KIND_QUEUE_TRANSIENT, EventKind::EVENT_KIND_HELD}) {
    EXPECT_EQ(Lines(LogLevel::kWarn, Deferred(kind)).size(), 1U) << kind;
  }
}

}  // namespace
}  // namespace sluice::queue
