// Proves that scripts can rely on the JSON: fields that are always there, ids and mail text
// readable, hostile text escaped.
#include "tools/ctl/json.h"

#include "gtest/gtest.h"
#include "sluice/admin/v1/admin_service.pb.h"

namespace sluice::ctl {
namespace {

TEST(JsonTest, ScalarsAndListsAreAlwaysThereSubMessagesOnlyWhereSet) {
  admin::v1::PauseResponse response;
  EXPECT_EQ(ToJson(response, 0), R"({"snapshot_version":0})");
  response.mutable_entry()->set_id("p1");
  response.mutable_entry()->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
  EXPECT_EQ(ToJson(response, 0),
            R"({"entry":{"id":"p1","kind":"pause","queue_pattern":"","job_id":"","reason":"",)"
            R"("author":"","since_us":0,"until_us":0},"snapshot_version":0})");
}

TEST(JsonTest, TextIsEscapedAndBytesAreTextWhereTheyCan) {
  queue::v1::MessageFilter filter;
  filter.set_message_id(std::string(16, '\0'));
  filter.set_queue_pattern("a\"b\\c\n\x1b");
  filter.set_sender("j\xc3\xb6rg@x");
  filter.set_rcpt("\xff\xfe");
  const std::string json = ToJson(filter, 0);
  EXPECT_NE(json.find(R"("message_id":"00000000000000000000000000")"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("queue_pattern":"a\"b\\c\n\u001b")"), std::string::npos) << json;
  EXPECT_NE(json.find("\"sender\":\"j\xc3\xb6rg@x\""), std::string::npos) << json;
  EXPECT_NE(json.find(R"("rcpt":{"base64":"//4="})"), std::string::npos) << json;
}

TEST(JsonTest, MapsAreSortedEnumsLowerCaseAndListsIndented) {
  common::v1::Event event;
  event.set_kind(common::v1::EVENT_KIND_QUEUE_TRANSIENT);
  event.set_stage(common::v1::STAGE_FINAL_DOT);
  (*event.mutable_metadata())["b"] = "2";
  (*event.mutable_metadata())["a"] = "1";
  const std::string json = ToJson(event, 0);
  EXPECT_NE(json.find(R"("kind":"queue_transient")"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("stage":"final_dot")"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("metadata":{"a":"1","b":"2"})"), std::string::npos) << json;

  admin::v1::CheckConfigRequest request;
  request.add_files("x");
  EXPECT_EQ(ToJson(request), "{\n  \"files\": [\n    \"x\"\n  ]\n}");
}

// Whatever its bytes, and also where it is as long as a message's id.
TEST(JsonTest, AnEventsIdIsAlwaysTheSameKindOfText) {
  common::v1::Event event;
  event.set_id(std::string("\0\0\1\0\0\0\5\xff\0\0\1\2", 12) + "shard-0");
  EXPECT_NE(ToJson(event, 0).find(R"({"id":"shard-0/1099511629311/258",)"), std::string::npos)
      << ToJson(event, 0);
  event.set_id(std::string("\0\0\1\0\0\0\5\0\0\0\0\0", 12) + "s-01");
  EXPECT_NE(ToJson(event, 0).find(R"({"id":"s-01/1099511629056/0",)"), std::string::npos)
      << ToJson(event, 0);
}

TEST(JsonTest, NewerServersEnumsAreNumbers) {
  common::v1::Event event;
  event.set_kind(static_cast<common::v1::EventKind>(99));
  EXPECT_NE(ToJson(event, 0).find(R"("kind":99)"), std::string::npos);
}

}  // namespace
}  // namespace sluice::ctl
