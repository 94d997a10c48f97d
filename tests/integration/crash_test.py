"""Proves that kill -9 of anything at any moment loses nothing accepted, and doubles only what was under way: each service is killed again
and again while messages flow, then what was accepted is reconciled with what the provider took.

In CI 2,000 messages a scenario; SLUICE_CRASH_MESSAGES=20000 is the long form (tests/integration/README.md).
"""
import os
import random
import unittest

from tests.harness.processes import SLOWER, wait_until
from tests.harness.reconcile import Balance
from tests.harness.smtp_client import Injector
from tests.harness import sluice
from tests.integration.scenario import ScenarioTest

MESSAGES = int(os.environ.get("SLUICE_CRASH_MESSAGES", "2000"))
CONNECTIONS = 12
# What may be with the provider, unanswered or answered and not yet recorded, when a process dies: two messages on each of its connections, more
# of them where it takes longer to record a result.
UNDER_WAY_MAX = 2 * 20 * 2 * SLOWER
DOMAINS = 7


def content(token):
    return b"From: <sender@client.test>\r\nSubject: %s\r\n\r\n%s\r\n" % (token.encode(), b"x" * 2000)


class CrashTest(ScenarioTest):
    RECEIVER = {"keep_content": False}

    def flow(self, at, victims, kills_max=1000):
        """Injects all messages while `victims` (a list of lists of processes) are killed in turn; the balance once all is quiet."""
        dice = random.Random(MESSAGES)
        injector = Injector(at.address, sluice.SMTP_PORT, MESSAGES, lambda n, t: f"m{n}-{t}@d{n % DOMAINS}.test".encode(), content,
                            connections=CONNECTIONS).start()
        kills = 0
        step = max(2, MESSAGES // 60)
        while injector.running() and kills < kills_max:
            # The next kill comes after some more messages were taken, at an instant that nothing is aligned with.
            goal = min(MESSAGES, injector.done() + dice.randrange(step // 2, step + 1))
            # However fast the machine is, mail is left for the next kill, and flows while this one is made.
            injector.allow(goal + 2 * step + CONNECTIONS)
            wait_until(lambda: injector.done() >= goal or not injector.running(), "progress of the injection", 240)
            for process in victims[kills % len(victims)]:
                process.kill()
            for process in victims[kills % len(victims)]:
                process.start(wait=False)
            for process in victims[kills % len(victims)]:
                process.wait_ready()
            kills += 1
        injector.allow(MESSAGES)
        injector.join()
        # Those that were with a worker at five kills are held for an operator.
        wait_until(lambda: at.ctl.run("messages", "release", "--all").returncode == 0 and self.empty(at), "empty queues", 120)
        balance = Balance(injector.accepted, injector.refused, injector.unknown, self.receiver.recipients())
        print(f"{kills} kills, {len(injector.accepted)} accepted, {len(injector.unknown)} without an answer: {balance}")
        self.assertGreaterEqual(kills, 3)
        balance.check(doubled_max=kills * UNDER_WAY_MAX)
        self.assertEqual(self.receiver.errors, [])

    def empty(self, at):
        status = at.ctl.status()
        return (status["shards"] and not status["unreachable"]
                and all(s["recipients"] == 0 and not s["counting"] for s in status["shards"]))

    def test_one_process(self):
        node = self.node()
        self.flow(node, [[node.service]])

    def test_each_service(self):
        cluster = self.cluster(shards=2)
        self.flow(cluster, [[service] for service in cluster.services()])

    def test_all_at_once(self):
        cluster = self.cluster(shards=2)
        self.flow(cluster, [cluster.services()])


if __name__ == "__main__":
    unittest.main()
