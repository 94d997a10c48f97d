"""Proves that each service stops in good order on SIGTERM: it says that it is not ready first, finishes what is under way (a message that a client
is sending, a transaction with a remote host), takes nothing new, says QUIT, and ends with 0; nothing is lost and nothing comes twice."""
import signal
import unittest

from tests.harness.processes import wait_until
from tests.harness.smtp_client import Closed
from tests.integration.scenario import ScenarioTest

CONTENT = b"Subject: stop\r\n\r\n" + b"x" * 5000 + b"\r\n"


class SigtermTest(ScenarioTest):
    def not_ready(self, service):
        wait_until(lambda: not service.is_ready(), f"{service.name} to say that it is not ready")

    def take_new(self, at):
        """A reply's code, or None where nobody is there."""
        try:
            with self.connect(at) as connection:
                return connection.greeting.code
        except Closed:
            return None

    def test_ingest_finishes_the_message_that_it_is_taking(self):
        cluster = self.cluster()
        client = self.connect(cluster)
        self.addCleanup(client.close)
        for command in (b"MAIL FROM:<a@client.test>", b"RCPT TO:<u@example.test>"):
            self.assertEqual(client.command(command).code, 250)
        self.assertEqual(client.command(b"DATA").code, 354)
        client.send(CONTENT[:2000])
        cluster.ingest.signal(signal.SIGTERM)
        self.not_ready(cluster.ingest)
        wait_until(lambda: self.take_new(cluster) != 220, "end of new connections")
        self.assertTrue(cluster.ingest.alive(), "a client is in the middle of its message")
        client.send(CONTENT[2000:] + b".\r\n")
        self.assertEqual(client.reply().code, 250)
        self.assertEqual(client.reply().code, 421)
        self.assertTrue(client.at_end())
        self.assertEqual(cluster.ingest.wait(), 0)
        self.receiver.wait_for(1)
        self.assertEqual(self.receiver.recipients(), ["u@example.test"])

    def test_a_worker_waits_for_the_last_reply_and_says_quit(self):
        self.receiver.behaviour = lambda stage, _session, _recipient=None: "hold" if stage == "end" else None
        cluster = self.cluster()
        self.send(cluster, [b"u@example.test"], CONTENT)
        wait_until(lambda: self.receiver.held, "the transaction")
        worker = cluster.workers[0]
        worker.signal(signal.SIGTERM)
        self.not_ready(worker)
        self.send(cluster, [b"later@example.test"], CONTENT)
        self.assertTrue(worker.alive(), "the remote host has not answered")
        self.receiver.behaviour = None
        self.receiver.release("250 2.0.0 taken")
        self.assertEqual(worker.wait(), 0)
        wait_until(lambda: self.receiver.quits == 1, "QUIT")
        self.assertEqual(self.receiver.recipients(), ["u@example.test"], "nothing new was begun")
        worker.start()
        self.receiver.wait_for(2)
        cluster.ctl.wait_empty()
        self.assertEqual(sorted(self.receiver.recipients()), ["later@example.test", "u@example.test"])

    def test_a_shard_and_policy_stop_at_once_and_lose_nothing(self):
        cluster = self.cluster(shards=1)
        self.assertEqual(cluster.ctl.run("pause", "*/*").returncode, 0)
        message = self.send(cluster, [b"u@example.test"], CONTENT)
        for service in (cluster.shards[0], cluster.policy):
            self.assertEqual(service.stop(), 0)
            service.start()
        wait_until(lambda: [r["message_id"] for r in cluster.ctl.json("messages", "list", ok=(0, 5))["recipients"]] == [message], "the message")
        self.assertEqual(self.receiver.recipients(), [])
        self.assertEqual(cluster.ctl.run("resume", "*/*").returncode, 0)
        self.receiver.wait_for(1)
        cluster.ctl.wait_empty()


if __name__ == "__main__":
    unittest.main()
