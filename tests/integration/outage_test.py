"""Proves what holds while a service is away: injection goes on by the other shard, delivery goes on without policy, mail is refused with a
4xx and never lost without a shard, and waits without a worker; and each comes back by itself."""
import re
import signal
import unittest

from tests.harness import sluice
from tests.harness.processes import wait_until
from tests.harness.reconcile import Balance
from tests.harness.smtp_client import Injector
from tests.integration.scenario import ScenarioTest

CONTENT = b"From: <sender@client.test>\r\nSubject: outage\r\n\r\nbody\r\n"
MESSAGES = 1500


class OutageTest(ScenarioTest):
    def test_one_of_two_shards_dies_during_injection(self):
        cluster = self.cluster(shards=2)

        def says(event):
            return re.search(f"event={event} .*shard=shard-1", cluster.ingest.log_text())
        wait_until(lambda: says("shard_connected"), "a link to each shard")
        injector = Injector(cluster.address, sluice.SMTP_PORT, MESSAGES, lambda n, t: f"m{n}-{t}@d{n % 5}.test".encode(), lambda token: CONTENT,
                            stop_after_s=120).start()
        wait_until(lambda: injector.done() > MESSAGES // 4, "a quarter of the messages")
        cluster.shards[1].kill()
        wait_until(lambda: says("shard_lost"), "the loss in the log")
        # It stays dead: all the rest must be taken by the other one.
        injector.join()
        self.assertEqual(len(injector.accepted), MESSAGES)
        cluster.shards[1].start()
        cluster.ctl.wait_empty()
        balance = Balance(injector.accepted, injector.refused, injector.unknown, self.receiver.recipients())
        balance.check(doubled_max=80)
        self.assertRegex(cluster.ingest.log_text(), "event=policy_applied .*ingest")

    def test_frozen_processes_cost_nobody_else_a_message_and_nothing_twice(self):
        cluster = self.cluster(shards=2)

        def both_take_mail():
            self.send(cluster, [f"first{len(first)}@example.test".encode()], CONTENT)
            first.append(f"first{len(first)}@example.test")
            return all(shard["accepted_total"] > 0 for shard in cluster.ctl.status()["shards"])
        first = []
        wait_until(both_take_mail, "mail in both shards")
        injector = Injector(cluster.address, sluice.SMTP_PORT, MESSAGES, lambda n, t: f"m{n}-{t}@d{n % 5}.test".encode(), lambda token: CONTENT,
                            connections=24, stop_after_s=120)

        def progress(what):
            # A share of its own for each stretch: a slow machine has none left for the last one otherwise.
            stretches.append(what)
            injector.allow(len(stretches) * MESSAGES // 6)
            goal = injector.done() + MESSAGES // 8
            wait_until(lambda: injector.done() >= goal, what)
        stretches = []
        injector.allow(0)
        injector.start()
        for victim in (cluster.shards[1], cluster.workers[0], cluster.policy):
            progress(f"progress before {victim.name} freezes")
            victim.signal(signal.SIGSTOP)
            try:
                # Injection goes on by who is awake.
                progress(f"progress without {victim.name}")
            finally:
                victim.signal(signal.SIGCONT)
        injector.join()
        self.assertEqual(injector.unknown, set(), "nobody waited until the frozen one was given up")
        cluster.ctl.wait_empty()
        Balance([*injector.accepted, *first], injector.refused, injector.unknown, self.receiver.recipients()).check(doubled_max=0)

    def test_the_admin_api_names_the_dead(self):
        cluster = self.cluster(shards=2)
        cluster.shards[1].kill()
        done = cluster.ctl.run("-o", "json", "status")
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn("shard-1", done.stdout)

    def test_without_any_shard_mail_is_refused_for_now(self):
        cluster = self.cluster()
        cluster.shards[0].kill()

        def refused():
            with self.connect(cluster) as connection:
                if connection.greeting.code // 100 == 4:
                    return connection.greeting
                mail, rcpts, data, end = connection.transact(b"a@client.test", [b"u@example.test"], CONTENT)
                worst = max([mail, *rcpts, data] + ([end] if end else []), key=lambda reply: reply.code if reply.code != 354 else 0)
                return worst if worst.code >= 400 else None
        self.assertEqual(wait_until(refused, "refusal").code // 100, 4)
        self.assertRegex(cluster.ingest.log_text(), "level=warn .*event=injection_deferred .*client=127.0.0.1 code=451")
        done = cluster.ctl.run("inject", "--from", "a@client.test", "--to", "u@example.test")
        self.assertNotEqual(done.returncode, 0)
        cluster.shards[0].start()
        done = cluster.ctl.run("inject", "--from", "a@client.test", "--to", "later@example.test", "--retry", "60s", seconds=90)
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: "later@example.test" in self.receiver.recipients(), "delivery")
        cluster.ctl.wait_empty()

    def test_without_a_worker_mail_waits(self):
        cluster = self.cluster()
        cluster.workers[0].kill()
        message = self.send(cluster, [b"u@example.test"], CONTENT)
        listed = cluster.ctl.json("messages", "list", ok=(0, 5))["recipients"]
        self.assertEqual([r["message_id"] for r in listed], [message])
        self.assertEqual(self.receiver.recipients(), [])
        cluster.workers[0].start()
        self.receiver.wait_for(1)
        cluster.ctl.wait_empty()

    def test_without_policy_everything_goes_on_also_after_a_restart(self):
        cluster = self.cluster()
        self.send(cluster, [b"before@example.test"], CONTENT)
        self.receiver.wait_for(1)
        followers = {"queue": cluster.shards[0], "delivery": cluster.workers[0], "ingest": cluster.ingest}

        def all_say(connected):
            return all(f"\nsluice_{name}_policy_connected {connected}\n" in sluice.metrics(service.address) for name, service in followers.items())
        wait_until(lambda: all_say(1), "metrics that show the policy service")
        cluster.policy.kill()
        wait_until(lambda: all_say(0), "metrics that show that it is away")
        self.send(cluster, [b"during@example.test"], CONTENT)
        self.receiver.wait_for(2)
        # From their own last snapshots on disk.
        for service in (cluster.shards[0], cluster.workers[0], cluster.ingest):
            service.kill()
            service.start()
        self.send(cluster, [b"after@example.test"], CONTENT)
        self.receiver.wait_for(3)
        done = cluster.ctl.run("status")
        self.assertEqual(done.returncode, 3)
        cluster.policy.start()
        wait_until(lambda: all_say(1), "metrics that show that it is back")
        cluster.ctl.wait_empty()

    def test_sigterm_finishes_what_is_under_way(self):
        node = self.node()
        injector = Injector(node.address, sluice.SMTP_PORT, MESSAGES, lambda n, t: f"m{n}-{t}@d{n % 5}.test".encode(), lambda token: CONTENT,
                            stop_after_s=120).start()
        wait_until(lambda: injector.done() > MESSAGES // 4, "a quarter of the messages")
        self.assertEqual(node.service.stop(), 0)
        node.start()
        injector.join()
        node.ctl.wait_empty()
        Balance(injector.accepted, injector.refused, injector.unknown, self.receiver.recipients()).check(doubled_max=0)


if __name__ == "__main__":
    unittest.main()
