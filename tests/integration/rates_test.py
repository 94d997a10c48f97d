"""Proves in real time that a queue's limits on connects and on bytes hold at the receiver, over a kill and over a restart in good order, which
goes on where it was, and that operators are told."""
import threading
import time
import unittest

from tests.harness.processes import loopback, wait_until
from tests.integration.scenario import ScenarioTest

ONE_SOURCE = {"v1": (loopback(13), "out1.sluice.test")}
PERIOD_S = 2


class RatesTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.lock = threading.Lock()
        # (not before, not after, how much): a receiver on a busy machine hears late of what was sent, and now and then much later than of what
        # came next. So each has the times between which it was sent, and only what was surely within a period counts.
        self.connects = []
        self.texts = []
        self.begun = {}  # by connection
        keep = self.receiver.keep

        def behaviour(stage, session, _recipient=None):
            with self.lock:
                if stage == "connect":
                    self.connects.append((self.receiver.no_earlier(), time.monotonic(), 1))
                elif stage == "data":
                    self.begun[session.number] = self.receiver.no_earlier()

        def keep_and_count(transaction):
            with self.lock:
                self.texts.append((self.begun[transaction.connection], time.monotonic(), len(transaction.content)))
            keep(transaction)
        self.receiver.behaviour = behaviour
        self.receiver.keep = keep_and_count

    def assert_no_window_over(self, amounts, most, period_s=PERIOD_S):
        for start, _, _ in amounts:
            surely = [amount for begin, end, amount in amounts if begin >= start and end < start + period_s]
            self.assertLessEqual(sum(surely), most, amounts)

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
        self.assertGreater(sum(size for _, _, size in self.texts), 15 * 20_000)

    def test_bytes_go_on_after_a_restart_in_good_order(self):
        period_s = 12
        node = self.node(sources=ONE_SOURCE, domain_extra=f"max-data-volume-rate 400k/{period_s}s")

        def shows_unknown():
            return "not known" in node.ctl.run("queues", "show", "d.test/v1").stdout

        def send(number):
            self.send(node, [b"u%d@d.test" % number], b"Subject: x\r\n\r\n" + (b"y" * 998 + b"\r\n") * 20)
        send(0)
        # It does not know what was sent before, and says so, for as long as that holds mail back.
        wait_until(lambda: shows_unknown() or self.receiver.taken(), "the reason in sluicectl queues", 10)
        for number in range(1, 40):
            send(number)
        self.receiver.wait_for(3)
        self.assertEqual(node.service.stop(), 0)
        taken = len(self.receiver.recipients())
        node.start()

        # It knows, from the first message on.
        def goes_on():
            self.assertFalse(shows_unknown())
            return len(self.receiver.recipients()) >= min(40, taken + 2)
        wait_until(goes_on, "mail after the restart")
        self.receiver.wait_for(40)
        self.assert_no_window_over(self.texts, 400 * 1024, period_s)


if __name__ == "__main__":
    unittest.main()
