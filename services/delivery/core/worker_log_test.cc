// log-resolution, log-transfer-failures, log-tls, log-connections and log-commands of a queue: what
// stands in the log, and that nothing does where nobody asked.
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using testing::FakeSites;
using testing::World;

policy::v1::PolicySnapshot Snapshot(bool log) {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(1);
  auto* section = snapshot.add_sections();
  section->set_name("global");
  auto& settings = *section->mutable_content()->mutable_global()->mutable_queue_defaults();
  settings.set_log_resolution(log);
  settings.set_log_transfer_failures(log);
  settings.set_log_tls(log);
  settings.set_log_connections(log);
  section = snapshot.add_sections();
  section->set_name("vmta/v");
  section->mutable_content()->mutable_virtual_mta()->set_name("v");
  return snapshot;
}

// A message that breaks off in its text, over TLS, then a handshake that fails.
std::string LogOf(bool log) {
  World world(Snapshot(log));
  FakeSites::Remote& remote = world.Connected();
  world.shard().Lease(11, 1);
  queue::v1::GroupResult result;
  result.set_lease_id(remote.under_way[0].lease->lease_id());
  remote.under_way.clear();
  result.set_outcome(queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
  result.mutable_reply()->set_local(true);
  result.mutable_reply()->set_stage(common::v1::STAGE_BODY);
  result.mutable_reply()->set_text("the connection was lost");
  result.mutable_attempt()->mutable_tls()->set_version("TLSv1.3");
  result.mutable_attempt()->set_size(4711);
  remote.handler->OnResult(std::move(result));
  remote.Close(true);
  world.shard().Ready(1, 1);
  world.executor.RunPosted();
  ConnectionEnd end;
  end.reply.set_local(true);
  end.reply.set_stage(common::v1::STAGE_STARTTLS);
  end.reply.set_text("certificate verify failed");
  EXPECT_FALSE(world.sites.open.empty());
  if (!world.sites.open.empty()) world.sites.open.front()->handler->OnClosed(std::move(end));
  return world.logged;
}

TEST(WorkerLog, SaysWhatTheQueuesSettingsWant) {
  const std::string logged = LogOf(true);
  for (const char* part :
       {"event=resolved", "outcome=found", "mx1(192.0.2.1) mx2(192.0.2.2)", "event=transfer_failed",
        "the connection was lost", "stage=STAGE_BODY", "bytes=4711", "event=tls ",
        "version=TLSv1.3", "event=tls_failed", "certificate verify failed", "queue=example.org/v",
        "event=remote_connected", "event=remote_gone", "event=remote_failed", "host=mx1",
        "address=192.0.2.1", "messages=1"}) {
    EXPECT_NE(logged.find(part), std::string::npos) << part << "\n" << logged;
  }
}

TEST(WorkerLog, ShowsWhatAConnectionTraces) {
  for (const bool asked : {true, false}) {
    policy::v1::PolicySnapshot snapshot = Snapshot(false);
    snapshot.mutable_sections(0)
        ->mutable_content()
        ->mutable_global()
        ->mutable_queue_defaults()
        ->set_log_commands(asked);
    World world(snapshot);
    FakeSites::Remote& remote = world.Connected();
    EXPECT_EQ(remote.target.settings->log_commands(), asked) << "what the session goes by";
    remote.handler->OnTrace(false, "RCPT TO:<a@b>");
    remote.handler->OnTrace(true, "550 5.1.1 no\nevent=forged \x1b[2J" + std::string(10'000, 'x'));
    for (const char* part : {"event=remote_command", "\"RCPT TO:<a@b>\"", "event=remote_reply",
                             "no\\u000aevent=forged \\u001b[2Jx"}) {
      EXPECT_EQ(world.logged.find(part) != std::string::npos, asked) << part << world.logged;
    }
    EXPECT_LT(world.logged.size(), 3'000u) << "no reply fills the log";
  }
}

// The remote may say again what it was told.
TEST(WorkerLog, AFailedAuthIsSaidWithoutItsText) {
  World world(Snapshot(true));
  world.shard().Ready(1, 1);
  world.executor.RunPosted();
  ASSERT_FALSE(world.sites.open.empty());
  ConnectionEnd end;
  end.reply.set_stage(common::v1::STAGE_AUTH);
  end.reply.set_code(535);
  end.reply.set_text("no such user: AHRpbQBwdw==");
  world.sites.open.front()->handler->OnClosed(std::move(end));
  EXPECT_NE(world.logged.find("event=remote_failed"), std::string::npos) << world.logged;
  EXPECT_NE(world.logged.find("code=535"), std::string::npos) << world.logged;
  EXPECT_EQ(world.logged.find("AHRpb"), std::string::npos) << world.logged;
}

TEST(WorkerLog, IsSilentOtherwise) {
  const std::string logged = LogOf(false);
  for (const char* event :
       {"event=resolved", "event=transfer_failed", "event=tls", "event=remote"}) {
    EXPECT_EQ(logged.find(event), std::string::npos) << logged;
  }
}

}  // namespace
}  // namespace sluice::delivery
