"""Proves <mx-rollup-list> with real DNS and processes: limits of a rollup hold at the receiver for all the domains on those MX hosts together, on
two workers and two shards, over a kill of the one that has them; domains on other hosts, and those with disable-mx-rollup, are apart; operators see it;
and a reply to one domain's mail bounces all of it, on every shard. Proves, too, which category a failure has.

The MX of every domain is mx.DOMAIN here, so domains in big.test have hosts in big.test.
"""
import threading
import time
import unittest

from tests.harness.processes import loopback, wait_until
from tests.integration.scenario import ScenarioTest

CONTENT = b"From: <sender@client.test>\r\nSubject: rollup\r\n\r\nbody\r\n"
ONE_SOURCE = {"v1": (loopback(13), "out1.sluice.test")}
FIRST, SECOND = loopback(13), loopback(14)
# What reaches the receiver's thread may be late, by so much more than what follows it.
JITTER_S = 0.25


def rollup(limits):
    return f"<mx-rollup-list>\n  mx *.big.test big.rollup\n</mx-rollup-list>\n<domain big.rollup>\n  {limits}\n</domain>\n"


class RollupTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.lock = threading.Lock()
        self.times = []  # (when, domain) of each recipient taken
        keep = self.receiver.keep

        def keep_and_note(transaction):
            with self.lock:
                self.times += [(time.monotonic(), r.split("@")[1]) for r in transaction.recipients]
            keep(transaction)
        self.receiver.keep = keep_and_note

    def of(self, suffix):
        return [when for when, domain in self.times if domain.endswith(suffix)]

    def assert_no_window_over(self, times, most, period_s):
        self.assertGreater(len(times), 2 * most)
        for first, start in enumerate(times):
            self.assertLessEqual(sum(1 for when in times[first:] if when - start < period_s - JITTER_S), most, times)

    def test_limits_are_of_all_domains_on_those_hosts(self):
        node = self.node(sources=ONE_SOURCE, domain_extra="max-smtp-out 4",
                         extra=rollup("max-smtp-out 1\n  max-msg-rate 2/s") + "<domain own.big.test>\n  disable-mx-rollup yes\n</domain>")
        domains = ["a.big.test", "b.big.test", "c.big.test", "own.big.test", "x.small.test"]
        for domain in domains:
            self.send(node, [b"u%d@%s" % (n, domain.encode()) for n in range(8)], CONTENT)
        rolled = {"a.big.test/v1", "b.big.test/v1", "c.big.test/v1"}

        def shown():
            queues = {q["name"]: q for q in node.ctl.json("queues", "list")["queues"]}
            return {name for name in rolled if queues.get(name, {}).get("rollup") == "big.rollup"} == rolled
        wait_until(shown, "the rollup in sluicectl queues", 10)
        text = node.ctl.run("queues").stdout
        self.assertIn("ROLLUP", text)
        self.assertRegex(text, r"big\.rollup/v1 +3 +\d+")
        names = {q["name"] for q in node.ctl.json("queues", "list", "big.rollup/*")["queues"]}
        self.assertLessEqual(names, rolled)
        self.assertIn("big.rollup/v1 (its settings", node.ctl.run("queues", "show", "c.big.test/v1").stdout)
        wait_until(lambda: any("all of big.rollup" in q.get("reason", "") for q in node.ctl.json("queues", "list")["queues"]), "the reason", 10)
        self.receiver.wait_for(8 * len(domains))
        node.ctl.wait_empty()
        together = [when for when, domain in self.times if domain in ("a.big.test", "b.big.test", "c.big.test")]
        self.assert_no_window_over(together, 2, 1)
        self.assertGreater(together[-1] - together[0], 10)
        for apart in ("own.big.test", "x.small.test"):
            self.assertLess(self.of(apart)[-1] - self.of(apart)[0], 2)

    def test_pause_and_settings_of_the_rollup(self):
        node = self.node(sources=ONE_SOURCE, extra=rollup("max-smtp-out 4\n  retry-after 2h"))
        self.receiver.behaviour = lambda stage, *_: "451 4.7.1 later" if stage == "rcpt" else None
        self.send(node, [b"u@a.big.test"], CONTENT)
        self.send(node, [b"u@x.small.test"], CONTENT)

        def waits(name):
            queue = node.ctl.json("queues", "show", name)["per_shard"][0]
            return (queue["next_time_us"] - time.time() * 1e6) / 1e6 if queue.get("last_replies") else 0
        wait_until(lambda: waits("a.big.test/v1") > 7000, "retry-after of the rollup", 10)
        self.assertLess(waits("x.small.test/v1"), 60)
        self.receiver.behaviour = None
        paused = node.ctl.run("pause", "big.rollup/*", "--reason", "maintenance")
        self.assertEqual(paused.returncode, 0, paused.stderr)
        self.send(node, [b"v@b.big.test"], CONTENT)
        self.receiver.wait_for(1)
        for name in ("a.big.test/v1", "b.big.test/v1"):
            wait_until(lambda name=name: "maintenance" in node.ctl.run("queues", "show", name).stdout, f"the pause of {name}", 10)
        explained = node.ctl.run("config", "explain", "--running", "a.big.test", "--vmta", "v1", "--mx", "mx.a.big.test").stdout
        self.assertIn("big.rollup/v1 (mx *.big.test big.rollup)", explained)
        self.assertRegex(explained, r"retry-after +2h")


class ClusterTest(RollupTest):
    test_limits_are_of_all_domains_on_those_hosts = None
    test_pause_and_settings_of_the_rollup = None

    def test_one_worker_has_all_of_it(self):
        both = f"<virtual-mta both>\n  smtp-source-host {FIRST} both1.sluice.test\n  smtp-source-host {SECOND} both2.sluice.test\n</virtual-mta>\n"
        at = self.cluster(sources={"v1": (loopback(12), "out1.sluice.test")}, extra=both + rollup("max-msg-rate 8/s"), shards=2,
                          workers={"worker-0": [FIRST, loopback(12)], "worker-1": [SECOND]})
        domains = 10
        for domain in range(domains):
            done = at.ctl.run("inject", "--from", "a@client.test", "--to", f"u%n@d{domain}.big.test", "--vmta", "both", "--count", 6)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.receiver.wait_for(12)
        peers = {t.peer for t in self.receiver.taken()}
        self.assertEqual(len(peers), 1, "a source of the owner's, whichever shard the mail is on")
        owner = at.workers[0 if peers == {FIRST} else 1]
        owner.kill()
        owner.start()
        self.receiver.wait_for(6 * domains)
        at.ctl.wait_empty()
        self.assert_no_window_over([when for when, _ in self.times], 8, 1)
        self.assertEqual({t.peer for t in self.receiver.taken()}, peers)


    def test_a_reply_bounces_all_of_it(self):
        both = f"<virtual-mta both>\n  smtp-source-host {FIRST} both1.sluice.test\n  smtp-source-host {SECOND} both2.sluice.test\n</virtual-mta>\n"
        blocked = "<smtp-pattern-list replies>\n  reply /network is blocked/ bounce-queue\n</smtp-pattern-list>\n"
        at = self.cluster(sources={"v1": (loopback(12), "out1.sluice.test")}, shards=2, domain_extra="smtp-pattern-list replies\nretry-after 2h",
                          extra=both + blocked + rollup("max-smtp-out 20"), workers={"worker-0": [FIRST, loopback(12)], "worker-1": [SECOND]})

        def inject(recipient, count=1):
            done = at.ctl.run("inject", "--from", "a@client.test", "--to", recipient, "--vmta", "both", "--count", count)
            self.assertEqual(done.returncode, 0, done.stderr)

        def answer(stage, _, recipient=None):
            if stage != "rcpt" or recipient.endswith("@client.test"):
                return None
            return "550 5.7.1 your network is blocked" if recipient.startswith("last@") else "451 4.7.1 later"
        self.receiver.behaviour = answer
        domains = [f"d{n}.big.test" for n in range(10)] + ["x.small.test"]
        for domain in domains:
            inject(f"u%n@{domain}", 4)
        waiting = 4 * len(domains)
        wait_until(lambda: at.ctl.totals()["transient_total"] >= waiting, "the first try of each", 60)
        self.assertEqual(at.ctl.totals()["failed_total"], 0)
        inject("last@d0.big.test")
        wait_until(lambda: at.ctl.totals()["failed_total"] >= 41, "the end of all that waited two hours", 30)
        left = {q["name"] for q in at.ctl.json("queues", "list")["queues"] if q.get("recipients")}
        self.assertEqual(left - {"client.test/both"}, {"x.small.test/both"})
        self.assertEqual(at.ctl.totals()["failed_total"], 41)


class CategoryTest(ScenarioTest):
    def test_of_replies_and_of_patterns(self):
        replies = {"full": "552 5.2.2 mailbox full", "spam": "550 5.7.1 blocked as spam", "gone": "550 5.1.1 who is that?"}
        self.receiver.behaviour = lambda stage, _, recipient=None: replies.get(recipient.split("@")[0]) if stage == "rcpt" else None
        node = self.node(sources=ONE_SOURCE, domain_extra="smtp-pattern-list replies", extra="<smtp-pattern-list replies>\n"
                         "  reply /blocked as/ category=spam-related\n</smtp-pattern-list>\n<bounce-category-patterns>\n"
                         "  /spam/ content-related\n  /^5\\.2\\.2/ quota-issues\n  /^5\\.1\\.1 550/ bad-mailbox\n</bounce-category-patterns>")
        found = {}
        for name in replies:
            message = self.send(node, [name.encode() + b"@d.test"], CONTENT)

            def failed(message=message):
                return [e for e in node.ctl.events(message) if e["kind"] == "failed"]
            wait_until(failed, "the failure's event", 20)
            found[name] = failed()[0]["bounce_category"]
            self.assertIn(f"[{found[name]}]", node.ctl.run("events", "--message", message).stdout)
        self.assertEqual(found, {"full": "quota-issues", "spam": "spam-related", "gone": "bad-mailbox"})


if __name__ == "__main__":
    unittest.main()
