"""Proves in real time that a queue's limits on connects and on bytes hold at the receiver, over a kill and over a restart in good order, which
goes on where it was, and that operators are told."""
import threading
import time
import unittest

from tests.harness.processes import loopback, wait_until
from tests.integration.scenario import ScenarioTest

ONE_SOURCE = {"v1": (loopback(13), "out1.sluice.test")}
PERIOD_S = 2
# What reaches the receiver's thread may be late, by so much more than what follows it.
JITTER_S = 0.4


class RatesTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.lock = threading.Lock()
        self.connects = []
        self.texts = []
        keep = self.receiver.keep

        def behaviour(stage, _session, _recipient=None):
            if stage == "connect":
                with self.lock:
                    self.connects.append((time.monotonic(), 1))

        def keep_and_count(transaction):
            with self.lock:
                self.texts.append((time.monotonic(), len(transaction.content)))
            keep(transaction)
        self.receiver.behaviour = behaviour
        self.receiver.keep = keep_and_count

    def assert_no_window_over(self, amounts, most):
        """Any window of the period, less what the measurement may be off."""
        for first, (start, _) in enumerate(amounts):
            total = sum(amount for when, amount in amounts[first:] if when - start < PERIOD_S - JITTER_S)
            self.assertLessEqual(total, most, amounts)

    def test_connects(self):
        node = self.node(sources=ONE_SOURCE, domain_extra=f"max-connect-rate 5/{PERIOD_S}s\nmax-msg-per-connection 1")
        for number in range(20):
            self.send(node, [b"u%d@d.test" % number], b"Subject: x\r\n\r\nbody\r\n")
        wait_until(lambda: f"max-connect-rate 5/{PERIOD_S}s" in node.ctl.run("queues", "show", "d.test/v1").stdout, "the limit in sluicectl queues", 10)
        self.receiver.wait_for(20)
        node.ctl.wait_empty()
        self.assertEqual(len(self.connects), 20)
        self.assert_no_window_over(self.connects, 5)

    def test_bytes_over_a_restart(self):
        node = self.node(sources=ONE_SOURCE, domain_extra=f"max-data-volume-rate 100k/{PERIOD_S}s")
        for number in range(15):
            self.send(node, [b"u%d@d.test" % number], b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 998 + b"\r\n") * 20)
        self.receiver.wait_for(5)
        node.service.kill()
        node.start()
        self.receiver.wait_for(15)
        node.ctl.wait_empty()
        self.assert_no_window_over(self.texts, 100 * 1024)
        self.assertGreater(sum(size for _, size in self.texts), 15 * 20_000)

    def test_bytes_go_on_after_a_restart_in_good_order(self):
        period_s = 12
        node = self.node(sources=ONE_SOURCE, domain_extra=f"max-data-volume-rate 400k/{period_s}s")
        for number in range(40):
            self.send(node, [b"u%d@d.test" % number], b"Subject: x\r\n\r\n" + (b"y" * 998 + b"\r\n") * 20)
        # It does not know what was sent before, and says so.
        wait_until(lambda: "not known" in node.ctl.run("queues", "show", "d.test/v1").stdout, "the reason in sluicectl queues", 10)
        self.receiver.wait_for(3)
        self.assertEqual(node.service.stop(), 0)
        taken = len(self.receiver.recipients())
        node.start()
        begun = time.monotonic()
        self.receiver.wait_for(taken + 2)
        self.assertLess(time.monotonic() - begun, period_s / 2, "it stood still for a period")
        self.assertNotIn("not known", node.ctl.run("queues", "show", "d.test/v1").stdout)
        self.receiver.wait_for(40)
        for first, (start, _) in enumerate(self.texts):
            self.assertLessEqual(sum(size for when, size in self.texts[first:] if when - start < period_s - JITTER_S), 400 * 1024)


if __name__ == "__main__":
    unittest.main()
