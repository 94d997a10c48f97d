// Proves what operators read: states and reasons are shown, parts that did not answer are named,
// and text from the network cannot drive the terminal.
#include "tools/ctl/render.h"

#include "gtest/gtest.h"

namespace sluice::ctl {
namespace {

constexpr int64_t kNowUs = int64_t{1'795'235'638} * 1'000'000;
constexpr int64_t kMinuteUs = 60'000'000;

testing::AssertionResult Has(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "\"" << part << "\" is not in:\n" << text;
}

TEST(RenderTest, RollupsAreShownWithTheirSums) {
  admin::v1::ListQueuesResponse queues;
  for (const char* domain : {"a.example", "b.example", "c.example"}) {
    auto* queue = queues.add_queues();
    queue->set_name(std::string(domain) + "/v1");
    queue->set_vmta("v1");
    queue->set_recipients(1200);
    queue->set_mode("normal");
    if (*domain != 'c') queue->set_rollup("big.rollup");
  }
  const std::string text = RenderQueues(queues, kNowUs);
  EXPECT_TRUE(Has(text, "QUEUE         ROLLUP      RCPT"));
  EXPECT_TRUE(Has(text, "b.example/v1  big.rollup  1200"));
  EXPECT_TRUE(Has(text, "c.example/v1  -           1200"));
  EXPECT_TRUE(Has(text, "big.rollup/v1       2  2400       0"));
  admin::v1::GetQueueResponse one;
  *one.add_per_shard() = queues.queues(0);
  EXPECT_TRUE(Has(RenderQueue(one, kNowUs), "big.rollup/v1 (its settings"));
}

TEST(RenderTest, QueuesSayWhyTheyWaitAndUntilWhen) {
  admin::v1::ListQueuesResponse queues;
  auto* queue = queues.add_queues();
  queue->set_name("example.com/v1");
  queue->set_recipients(12);
  queue->set_counting(true);
  queue->set_mode("retry");
  queue->set_reason("no MX answers\x1b[2J");
  queue->set_next_time_us(kNowUs + 5 * kMinuteUs);
  queue->set_oldest_queued_us(kNowUs - 3 * kMinuteUs);
  EXPECT_FALSE(Has(RenderQueues(queues, kNowUs), "OLDEST: "));
  queue->set_oldest_at_least(true);
  EXPECT_TRUE(Has(RenderQueues(queues, kNowUs), "retry  >3m00s"));
  EXPECT_TRUE(Has(RenderQueues(queues, kNowUs), "OLDEST: how long ago"));
  queue->set_oldest_at_least(false);
  queues.add_unreachable("shard-1");
  const std::string text = RenderQueues(queues, kNowUs);
  EXPECT_TRUE(
      Has(text, "example.com/v1   12+       0  retry   3m00s  in 5m00s  no MX answers?[2J"));
  EXPECT_TRUE(Has(text, "lower bound"));
  EXPECT_TRUE(Has(text, "no answer from shard-1"));
}

TEST(RenderTest, AQueueSaysWhoPutItIntoItsModeAndWhy) {
  admin::v1::GetQueueResponse response;
  auto* queue = response.add_per_shard();
  queue->set_name("gmail.com/v1");
  queue->set_mode("backoff");
  auto* mode = queue->mutable_backoff();
  mode->set_backoff(true);
  mode->set_since_us(kNowUs - 5 * kMinuteUs);
  mode->set_until_us(kNowUs + 60 * kMinuteUs);
  mode->set_author("worker-0");
  mode->set_reason("421 Too many (matches ^421 of isp)\x1b[2J");
  auto* source = queue->add_sources();
  source->set_ip("192.0.2.7");
  source->set_author("olive");
  source->set_by_operator(true);
  std::string text = RenderQueue(response, kNowUs);
  EXPECT_TRUE(Has(text, "UTC, 5m00s ago"));
  EXPECT_TRUE(Has(text, "in 1h00m, or earlier by a reply or delivery"));
  EXPECT_TRUE(Has(text, "backoff by     worker-0\n"));
  EXPECT_TRUE(Has(text, "backoff why    421 Too many (matches ^421 of isp)?[2J"));
  EXPECT_TRUE(Has(text, "olive (operator)"));
  mode->set_by_operator(true);
  mode->set_until_us(0);
  text = RenderQueue(response, kNowUs);
  EXPECT_TRUE(Has(text, "an operator says normal"));
  queue->set_mode("normal");
  mode->set_backoff(false);
  text = RenderQueue(response, kNowUs);
  EXPECT_TRUE(Has(text, "normal why"));
  EXPECT_FALSE(Has(text, "backoff"));
  admin::v1::ListQueuesResponse list;
  *list.add_queues() = *queue;
  list.mutable_queues(0)->set_mode("backoff");
  EXPECT_TRUE(Has(RenderQueues(list, kNowUs), "backoff: 421 Too many"));
}

TEST(RenderTest, StatusNamesWhatNeedsAttention) {
  admin::v1::GetStatusResponse status;
  status.set_version("Sluice 1.0");
  status.set_snapshot_version(7);
  auto* shard = status.add_shards();
  shard->set_shard("0");
  shard->set_not_accepting_reason("spool is full");
  auto* source = status.add_workers()->add_sources();
  source->set_ip("127.0.0.9");
  auto* watcher = status.add_watchers();
  watcher->set_service("delivery");
  watcher->set_instance("w1");
  watcher->set_connected(true);
  watcher->set_acked_version(6);
  status.add_controls()->set_job_id("j5");
  const std::string text = RenderStatus(status, kNowUs);
  EXPECT_TRUE(text.starts_with("Sluice 1.0, configuration 7 of "));
  EXPECT_TRUE(Has(text, "shard 0 takes no mail: spool is full"));
  EXPECT_TRUE(Has(text, "source 127.0.0.9 of worker"));
  EXPECT_TRUE(Has(text, "not on this machine"));
  EXPECT_TRUE(Has(text, "delivery/w1 is at configuration 6"));
  EXPECT_TRUE(Has(text, "*/* job j5"));
}

TEST(RenderTest, TopTakesRatesBetweenTwoReadings) {
  admin::v1::GetStatusResponse before, after;
  before.add_shards()->set_delivered_total(100);
  auto* shard = after.add_shards();
  shard->set_delivered_total(400);
  shard->set_recipients(9);
  const std::string text = RenderTop(before, after, 2'000'000, {}, kNowUs);
  EXPECT_TRUE(Has(text, "delivered 150/s"));
  EXPECT_TRUE(Has(text, "queued 9"));
  EXPECT_TRUE(Has(text, "no queue has mail"));
  EXPECT_TRUE(Has(RenderTop(after, before, 2'000'000, {}, kNowUs), "delivered -"))
      << "a restarted shard counts from zero";
}

TEST(RenderTest, MessageShowsRecipientsRepliesAndBody) {
  admin::v1::GetMessageResponse response;
  auto& message = *response.mutable_message();
  message.mutable_message()->set_id(std::string(16, '\0'));
  message.mutable_message()->set_time_queued_us(kNowUs - kMinuteUs);
  auto* recipient = message.add_recipients();
  recipient->set_state("retry");
  recipient->mutable_delivery()->set_rcpt("bob@example.com");
  recipient->mutable_delivery()->set_attempts(3);
  auto* reply = recipient->mutable_delivery()->mutable_last_reply();
  reply->set_code(451);
  reply->set_enhanced("4.7.1");
  reply->set_text("try later");
  message.set_body("Subject: x\r\n\r\nhi\x07\r\n");
  const std::string text = RenderMessage(response, kNowUs);
  EXPECT_TRUE(Has(text, "sender   <>"));
  EXPECT_TRUE(Has(text, "451 4.7.1 try later"));
  EXPECT_TRUE(Has(text, "Subject: x"));
  EXPECT_TRUE(Has(text, "hi?"));
}

TEST(RenderTest, EventsInOneLineEach) {
  admin::v1::ListEventsResponse events;
  auto* event = events.add_events();
  event->set_kind(common::v1::EVENT_KIND_QUEUE_TRANSIENT);
  event->set_time_us(kNowUs);
  event->set_reason("connection refused");
  event->set_author("delivery");
  const std::string text = RenderEvents(events);
  EXPECT_TRUE(Has(text, "2026-11-21 04:33:58"));
  EXPECT_TRUE(Has(text, "queue-transient"));
  EXPECT_TRUE(Has(text, "connection refused (delivery)"));
  EXPECT_TRUE(Has(RenderEvents({}), "no event"));
}

TEST(RenderTest, ReloadAndCheckAndPauses) {
  admin::v1::ReloadConfigResponse reload;
  reload.set_version(9);
  reload.set_changed(true);
  reload.set_sections_changed(2);
  auto* watcher = reload.add_watchers();
  watcher->set_service("ingest");
  watcher->set_connected(true);
  watcher->set_error("too old");
  EXPECT_TRUE(Has(RenderReload(reload), "configuration 9: 2 sections changed"));
  EXPECT_TRUE(Has(RenderReload(reload), "ingest/ refuses it: too old"));
  auto* done = reload.add_watchers();
  done->set_service("queue");
  done->set_instance("shard-0");
  done->set_acked_version(9);
  done->set_connected(true);
  EXPECT_TRUE(Has(RenderReload(reload), "acknowledged by queue/shard-0\n"));
  done->set_acked_version(10);  // somebody paused a queue meanwhile
  EXPECT_TRUE(Has(RenderReload(reload), "acknowledged by queue/shard-0\n"));
  auto* gone = reload.add_watchers();
  gone->set_service("delivery");
  gone->set_instance("w1");
  gone->set_acked_version(8);
  EXPECT_TRUE(Has(RenderReload(reload), "delivery/w1 is not connected (at 8): it has this once"))
      << RenderReload(reload);

  admin::v1::CheckConfigResponse check;
  check.add_diagnostics("main.cfg:3: no such directive");
  check.set_effective(7);
  EXPECT_EQ(
      RenderCheck(check),
      "main.cfg:3: no such directive\n"
      "7 lines effective, 0 effective by another name, 0 planned, 0 without a meaning here, 0 "
      "unsupported\n"
      "the configuration does not load\n");

  admin::v1::ListPausesResponse pauses;
  pauses.add_entries()->set_id("p1");
  EXPECT_TRUE(Has(RenderPauses(pauses, kNowUs), "*/*"));
  EXPECT_EQ(RenderPauses({}, kNowUs), "nothing is paused\n");
}

TEST(Render, Owners) {
  EXPECT_EQ(RenderOwners({}), "no virtual MTA is configured\n");
  admin::v1::ListOwnersResponse owners;
  owners.set_epoch(7);
  const auto add = [&](const std::string& vmta, const std::string& ip, const std::string& worker) {
    auto* source = owners.add_sources();
    source->set_vmta(vmta);
    source->set_source_ip(ip);
    source->set_worker(worker);
    source->set_connected(!worker.empty());
    return source;
  };
  add("own", "192.0.2.1", "w1");
  auto* shared = add("both", "192.0.2.2", "w2");
  shared->set_leased(true);
  shared->set_lease_age_us(3'000'000);
  shared->set_changing(true);
  shared->set_next_worker("w1");
  shared->set_waits_for("worker w2 finishes what it has under way");
  add("both", "192.0.2.3", "")->set_waits_for("no worker that is connected has this address");
  auto* witness = owners.add_witnesses();
  witness->set_shard("s0");
  witness->set_epoch(6);
  owners.add_witnesses()->set_epoch(7);
  EXPECT_EQ(
      RenderOwners(owners),
      "VIRTUAL MTA  SOURCE IP  WORKER  STATE            LEASE  WAITS FOR\n"
      "own          192.0.2.1  w1      used        not needed\n"
      "both         192.0.2.2  w2      goes to w1         3 s  worker w2 finishes what it has "
      "under way\n"
      "both         192.0.2.3  -       nobody's             -  no worker that is connected has "
      "this address\n"
      "shard s0 keeps to table 6, not yet to 7\n");
  owners.mutable_witnesses(0)->set_old_release(true);
  EXPECT_TRUE(Has(RenderOwners(owners), "shard s0 is of a release that cannot stand in"));
}

TEST(Render, WhatNeedsAttentionIsWorthALine) {
  admin::v1::GetStatusResponse status;
  status.add_shards()->set_shard("s0");
  status.mutable_shards(0)->set_accepting(true);
  EXPECT_FALSE(Has(RenderStatus(status, kNowUs), "--held"));
  status.mutable_shards(0)->set_held_recipients(2);
  EXPECT_TRUE(Has(RenderStatus(status, kNowUs),
                  "2 recipients are held in shard s0: sluicectl messages list --held\n"));
  status.mutable_shards(0)->set_expiry_frozen_us(90'000'000);
  EXPECT_TRUE(Has(RenderStatus(status, kNowUs),
                  "the wall clock was set: nothing expires in shard s0 for another 1m30s; if "
                  "it is right: sluicectl clock confirm\n"));
}

}  // namespace
}  // namespace sluice::ctl
