"""Proves what backoff mode does between real processes: a reply puts a queue into it, in every shard that has the queue; its limits and its retry
times hold at the receiver; operators see since when, why and by whom; it survives kill -9 of shards and worker, and ends by a delivery, by its
time, or by an operator, who may also begin it, for a queue without mail too."""
import threading
import time
import unittest

from tests.harness.processes import loopback, wait_until
from tests.integration.scenario import ScenarioTest

SOURCES = {"v1": (loopback(13), "out1.sluice.test")}
WORKERS = {"worker-0": [loopback(13)]}
QUEUE = "d.test/v1"
PERIOD_S = 1
# What reaches the receiver's thread may be late, by so much more than what follows it.
JITTER_S = 0.3
# So fast in normal mode, and in backoff mode 2 a second.
COUNT = 16
RULES = "<smtp-pattern-list isp>\n  reply /too many/ mode=backoff\n</smtp-pattern-list>"
LIMITS = f"  smtp-pattern-list isp\n  backoff-max-msg-rate 2/{PERIOD_S}s\n  backoff-max-smtp-out 1\n  backoff-retry-after 3s\n"


class BackoffTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.lock = threading.Lock()
        self.attempts = []  # (when, recipient)
        self.refuse = False

        def behaviour(stage, _session, recipient=None):
            if stage == "rcpt":
                with self.lock:
                    self.attempts.append((time.monotonic(), recipient))
            return "451 4.7.1 too many of your messages" if stage == "end" and self.refuse else None
        self.receiver.behaviour = behaviour

    def inject(self, at, count, name="u"):
        done = at.ctl.run("inject", "--from", "a@client.test", "--to", f"{name}%n@d.test", "--vmta", "v1", "--count", count)
        self.assertEqual(done.returncode, 0, done.stderr)

    def inject_both(self, at):
        """Until both shards have the queue, while nothing leaves it: ingest may have found but one of them yet. How many it was."""
        count = COUNT
        self.inject(at, COUNT)
        while len(self.shown(at)) < 2:
            self.inject(at, 2, f"more{count}x")
            count += 2
        return count

    def shown(self, at):
        """The queue as each shard has it; nothing where none has."""
        done = at.ctl.run("queues", "show", QUEUE)
        if done.returncode == 4:
            return []
        return at.ctl.json("queues", "show", QUEUE)["per_shard"]

    def wait_mode(self, at, mode, shards, seconds=60):
        def all_are():
            parts = self.shown(at)
            return parts if len(parts) == shards and all(part["mode"] == mode for part in parts) else None
        return wait_until(all_are, f"{mode} mode in {shards} shards", seconds)

    def since(self, when):
        with self.lock:
            return [attempt for attempt in self.attempts if attempt[0] >= when]

    def assert_paced(self, attempts):
        """At most two in any window of the period, less what the measurement may be off."""
        times = [when for when, _ in attempts]
        for first, start in enumerate(times):
            self.assertLessEqual(sum(when - start < PERIOD_S - JITTER_S for when in times[first:]), 2, times)

    def assert_retried_late(self, attempts):
        """No recipient is tried again before backoff-retry-after."""
        last = {}
        for when, recipient in attempts:
            self.assertGreater(when - last.get(recipient, 0), 3 - JITTER_S, recipient)
            last[recipient] = when

    def test_from_a_reply_to_a_delivery_through_kills(self):
        at = self.cluster(RULES, LIMITS + "  backoff-to-normal-after-delivery yes\n", sources=SOURCES, workers=WORKERS, shards=2)
        self.refuse = True
        count = self.inject_both(at)
        parts = self.wait_mode(at, "backoff", 2)
        for part in parts:
            mode = part["backoff"]
            self.assertIn("451 4.7.1 too many of your messages (matches", mode["reason"])
            self.assertIn("too many of isp)", mode["reason"])
            self.assertEqual((mode["author"], mode["by_operator"], mode["until_us"]), ("worker-0", False, 0))
        self.assertEqual(len({part["backoff"]["since_us"] for part in parts}), 1, "both know of the same change")
        begun = time.monotonic()
        text = at.ctl.run("queues", "show", QUEUE).stdout
        self.assertIn("backoff since", text)
        self.assertIn("too many of isp", text)
        self.assertEqual([q["name"] for q in at.ctl.json("queues", "list", "--mode", "backoff")["queues"]], [QUEUE])
        wait_until(lambda: len(self.since(begun)) > len({recipient for _, recipient in self.since(begun)}), "a second attempt in backoff mode", 120)
        # Before the kills: what they interrupt is tried again at once.
        self.assert_retried_late(self.since(begun))
        for service in (*at.shards, *at.workers):
            service.kill()
            service.start()
            self.assertEqual({part["backoff"]["since_us"] for part in self.wait_mode(at, "backoff", 2)},
                             {parts[0]["backoff"]["since_us"]}, service.name)
        before = len(self.since(begun))
        wait_until(lambda: len(self.since(begun)) >= before + 3, "attempts after the kills")
        in_backoff = self.since(begun)
        self.refuse = False
        self.receiver.wait_for(count)
        self.assert_paced(in_backoff)
        for part in self.wait_mode(at, "normal", len(self.shown(at))):
            self.assertIn("a delivery (backoff-to-normal-after-delivery)", part["backoff"]["reason"])
        at.ctl.wait_empty()
        # Normal again: nothing paces it.
        begun = time.monotonic()
        self.inject(at, COUNT, "again")
        self.receiver.wait_for(count + COUNT)
        self.assertLess(time.monotonic() - begun, COUNT / 2 - 1)

    def test_ends_by_its_time(self):
        node = self.node(RULES, LIMITS + "  backoff-to-normal-after 6s\n", sources=SOURCES)
        self.refuse = True
        self.inject(node, 1)
        mode = self.wait_mode(node, "backoff", 1)[0]["backoff"]
        self.assertEqual(mode["until_us"] - mode["since_us"], 6_000_000)
        self.refuse = False
        node.service.kill()
        node.start()
        mode = self.wait_mode(node, "normal", 1, 30)[0]["backoff"] if self.shown(node) else None
        if mode is not None:
            self.assertEqual(mode["reason"], "the time of backoff mode is over")
        self.receiver.wait_for(1)

    def test_by_hand(self):
        at = self.cluster(RULES, LIMITS + "  backoff-to-normal-after-delivery yes\n", sources=SOURCES, workers=WORKERS, shards=2)
        done = at.ctl.run("queues", "backoff", "D.test/v1", "--reason", "the provider called", "--author", "ops")
        self.assertEqual((done.returncode, done.stdout), (0, f"1 queue in backoff mode\n  {QUEUE}\n"), done.stderr)
        self.assertEqual(len(self.wait_mode(at, "backoff", 2)), 2, "each shard has it, and there is no mail")
        self.assertEqual(at.ctl.run("queues", "backoff", "d.test/none").returncode, 4)
        self.assertEqual(at.ctl.run("queues", "normal", "other.test/v1").returncode, 4)
        self.inject(at, 6)
        self.receiver.wait_for(6)
        self.assert_paced(self.since(0))
        for service in at.services():
            service.kill()
        for service in at.services():
            service.start()
        for part in self.wait_mode(at, "backoff", 2):
            self.assertEqual((part["backoff"]["author"], part["backoff"]["reason"]), ("ops", "the provider called"))
            self.assertTrue(part["backoff"]["by_operator"], "no delivery ends it")
        at.shards[1].kill()
        done = at.ctl.run("queues", "normal", "*/v1", "--author", "ops")
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn("no answer from shard-1", done.stdout)
        at.shards[1].start()
        wait_until(lambda: at.ctl.run("queues", "normal", "*/v1", "--author", "ops").returncode == 0, "all shards")
        self.wait_mode(at, "normal", 2)
        begun = time.monotonic()
        self.inject(at, COUNT, "fast")
        self.receiver.wait_for(6 + COUNT)
        self.assertLess(time.monotonic() - begun, COUNT / 2 - 1)

    def test_a_source_by_hand(self):
        both = {"v1": (loopback(13), "out1.sluice.test")}
        node = self.node(f"<virtual-mta two>\n  smtp-source-host {loopback(13)} a.sluice.test\n  smtp-source-host {loopback(14)} b.sluice.test\n"
                         "</virtual-mta>", sources=both)
        done = node.ctl.run("queues", "disable-source", "d.test/two", "--source", loopback(13), "--author", "ops", "--reason", "listed")
        self.assertEqual(done.returncode, 0, done.stderr)

        def send(count, name):
            done = node.ctl.run("inject", "--from", "a@client.test", "--to", f"{name}%n@d.test", "--vmta", "two", "--count", count)
            self.assertEqual(done.returncode, 0, done.stderr)
        send(10, "u")
        self.assertEqual({t.peer for t in self.receiver.wait_for(10)}, {loopback(14)})
        text = node.ctl.run("queues", "show", "d.test/two").stdout
        self.assertIn("ops (operator)", text)
        self.assertIn("listed", text)
        self.assertEqual(node.ctl.run("queues", "enable-source", "d.test/two", "--source", loopback(13)).returncode, 0)
        self.assertEqual(node.ctl.run("queues", "disable-source", "d.test/two", "--source", loopback(14)).returncode, 0)
        send(10, "w")
        self.assertEqual({t.peer for t in self.receiver.wait_for(20)[10:]}, {loopback(13)})


if __name__ == "__main__":
    unittest.main()
