"""Proves that a queue whose virtual MTA has sources on two machines is sent by one of them, whichever shard it is on, that both have
their part, and that mail goes on while the policy service is away: what is one worker's own, and what several share, as shards then stand in."""
import time
import unittest

from tests.harness import sluice
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
# A lease of the policy service lasts 20 s, and what is open then is cut 40 s later.
WITHOUT_POLICY_S = 30


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

    def test_what_several_share_goes_on_without_policy(self):
        for domain in range(DOMAINS):
            self.inject("both", f"before%n@d{domain}.test", 1)
        self.receiver.wait_for(DOMAINS)
        sources = {each["source_ip"]: each for each in self.at.ctl.json("owners")["sources"] if each["vmta"] == "both"}
        self.assertEqual({ip: each["worker"] for ip, each in sources.items()}, {FIRST: "worker-0", SECOND: "worker-1"})
        self.assertTrue(all(each["leased"] and each["connected"] for each in sources.values()), sources)
        self.at.policy.kill()
        count = DOMAINS
        end = time.monotonic() + WITHOUT_POLICY_S
        killed = False
        while time.monotonic() < end:
            for domain in range(4):
                self.inject("both", f"r{count}x%n@d{domain}.test", 1)
                count += 1
            self.receiver.wait_for(count)
            if not killed and time.monotonic() > end - WITHOUT_POLICY_S / 3:
                killed = True
                self.at.workers[0].kill()
                self.at.workers[0].start()
        peers = {}
        for transaction in self.receiver.taken():
            for recipient in transaction.recipients:
                peers.setdefault(recipient.split("@")[1], set()).add(transaction.peer)
        self.assertEqual({len(each) for each in peers.values()}, {1}, peers)
        self.assertEqual(set().union(*peers.values()), {FIRST, SECOND})
        # A shard still tells what it holds, and why.
        for shard in self.at.shards:
            ctl = sluice.Ctl(f"{shard.address}:{sluice.RPC_PORT}")
            self.assertEqual(ctl.status()["shards"][0]["shard"], shard.name)


if __name__ == "__main__":
    unittest.main()
