"""Proves that mail leaves by the source IP and under the EHLO name of its virtual MTA: in one process, and with two workers that own
different IPs."""
import unittest

from tests.harness.processes import loopback
from tests.integration.scenario import ScenarioTest

SOURCES = {"v1": (loopback(13), "out1.sluice.test"), "v2": (loopback(14), "out2.sluice.test")}
MESSAGES = 40


class SourcesTest(ScenarioTest):
    def check(self, at):
        for number in range(MESSAGES):
            vmta = "v1" if number % 2 else "v2"
            self.send(at, [f"{vmta}.{number}@d{number % 5}.test".encode()],
                      b"X-Virtual-MTA: %s\r\nSubject: x\r\n\r\nbody\r\n" % vmta.encode())
        by_grpc = at.ctl.run("inject", "--from", "a@client.test", "--to", "v2.grpc%n@d9.test", "--vmta", "v2", "--count", MESSAGES)
        self.assertEqual(by_grpc.returncode, 0, by_grpc.stderr)
        for transaction in self.receiver.wait_for(2 * MESSAGES):
            for recipient in transaction.recipients:
                self.assertEqual((transaction.peer, transaction.ehlo), SOURCES[recipient.split(".")[0]], recipient)
        at.ctl.wait_empty()
        self.assertEqual(self.receiver.errors, [])

    def test_one_process(self):
        self.check(self.node(sources=SOURCES))

    def test_two_workers(self):
        cluster = self.cluster(sources=SOURCES, workers={"worker-0": [SOURCES["v1"][0]], "worker-1": [SOURCES["v2"][0]]})
        self.check(cluster)
        delivered = {w["worker"]: w["delivered_total"] for w in cluster.ctl.status()["workers"]}
        self.assertEqual(delivered, {"worker-0": MESSAGES // 2, "worker-1": MESSAGES // 2 + MESSAGES})

    def test_a_pool_uses_all_its_virtual_mtas(self):
        node = self.node(sources=SOURCES)
        done = node.ctl.run("inject", "--from", "a@client.test", "--to", "u%n@d%n.test", "--vmta", "all", "--count", 200)
        self.assertEqual(done.returncode, 0, done.stderr)
        peers = {(t.peer, t.ehlo) for t in self.receiver.wait_for(200)}
        self.assertEqual(peers, set(SOURCES.values()))

    def test_an_unknown_virtual_mta_is_refused(self):
        node = self.node(sources=SOURCES)
        done = node.ctl.run("inject", "--from", "a@client.test", "--to", "u@d.test", "--vmta", "nosuch")
        self.assertEqual(done.returncode, 1)
        self.assertIn("nosuch", done.stderr)
        with self.connect(node) as connection:
            end = connection.transact(b"a@client.test", [b"u@d.test"], b"X-Virtual-MTA: nosuch\r\n\r\nx\r\n")[-1]
        self.assertEqual(end.code // 100, 5, end)


if __name__ == "__main__":
    unittest.main()
