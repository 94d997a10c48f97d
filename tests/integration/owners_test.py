"""Proves that a queue whose virtual MTA has sources on two machines is sent by one of them, whichever shard it is on, that both have
their part, and that a worker goes on alone with what is its own while the policy service is away."""
import unittest

from tests.harness.processes import loopback
from tests.integration.scenario import ScenarioTest

FIRST, SECOND = loopback(13), loopback(14)
SOURCES = {"v1": (loopback(12), "out1.sluice.test")}
BOTH = f"""
<virtual-mta both>
  smtp-source-host {FIRST} both1.sluice.test
  smtp-source-host {SECOND} both2.sluice.test
</virtual-mta>
"""
DOMAINS = 16
ROUNDS = 6


class OwnersTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.at = self.cluster(sources=SOURCES, extra=BOTH, shards=2, domain_extra="  max-smtp-out 1",
                               workers={"worker-0": [FIRST, SOURCES["v1"][0]], "worker-1": [SECOND]})

    def inject(self, vmta, name, count):
        done = self.at.ctl.run("inject", "--from", "a@client.test", "--to", name, "--vmta", vmta, "--count", count)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_each_queue_has_one_worker(self):
        for _ in range(ROUNDS):
            for domain in range(DOMAINS):
                self.inject("both", f"u%n@d{domain}.test", 4)
        peers = {}
        for transaction in self.receiver.wait_for(4 * ROUNDS * DOMAINS):
            for recipient in transaction.recipients:
                peers.setdefault(recipient.split("@")[1], set()).add(transaction.peer)
        self.assertEqual(len(peers), DOMAINS)
        self.assertEqual({len(each) for each in peers.values()}, {1}, peers)
        self.assertEqual(set().union(*peers.values()), {FIRST, SECOND}, "each has its part")

    def test_what_is_one_workers_own_goes_on_without_policy(self):
        self.inject("v1", "before%n@d.test", 5)
        self.receiver.wait_for(5)
        self.at.policy.kill()
        self.at.workers[0].kill()
        self.at.workers[0].start()
        self.inject("v1", "after%n@d.test", 5)
        self.assertEqual({t.peer for t in self.receiver.wait_for(10)}, {SOURCES["v1"][0]})


if __name__ == "__main__":
    unittest.main()
