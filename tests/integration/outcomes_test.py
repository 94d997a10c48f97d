"""Proves what becomes of mail that is not taken at once: deferred and delivered later, bounced with a DSN, paused, deleted; each told by
sluicectl, by queue, by message and by event."""
import threading
import unittest

from tests.harness.processes import wait_until
from tests.integration.scenario import ScenarioTest

CONTENT = b"From: <sender@client.test>\r\nSubject: outcome\r\n\r\nbody\r\n"


class OutcomesTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.greylisted = set()
        self.lock = threading.Lock()
        self.receiver.behaviour = self.behave

    def behave(self, stage, session, recipient):
        if stage != "rcpt":
            return None
        if recipient.startswith("never"):
            return "550 5.1.1 no such user"
        if recipient.startswith("busy"):
            return "451 4.3.2 busy"
        if recipient.startswith("grey"):
            with self.lock:
                first = recipient not in self.greylisted
                self.greylisted.add(recipient)
            return "450 4.7.1 greylisted" if first else None
        return None

    def kinds(self, node, message_id):
        return [(e["kind"], e["rcpt"]) for e in node.ctl.events(message_id)]

    def test_deferred_then_delivered(self):
        node = self.node(flags=["--log-level", "debug"])
        message = self.send(node, [b"grey@example.test", b"at-once@example.test"], CONTENT)
        self.receiver.wait_for(2)
        node.ctl.wait_empty()
        kinds = self.kinds(node, message)
        self.assertIn(("transient", "grey@example.test"), kinds)
        self.assertIn(("delivered", "grey@example.test"), kinds)
        self.assertIn(("delivered", "at-once@example.test"), kinds)
        self.assertEqual([k for k, _ in kinds].count("received"), 1)
        transient = [e for e in node.ctl.events(message) if e["kind"] == "transient"][0]
        self.assertEqual((transient["reply"]["code"], transient["reply"]["enhanced"]), (450, "4.7.1"))
        self.assertEqual(node.ctl.totals()["transient_total"], 1)
        log = node.service.log_text()
        for event in ("received", "deferred", "delivered"):
            self.assertRegex(log, f"level=debug service=sluiced event=message_{event} msg_id={message} queue=example.test/v[12] ")
        self.assertRegex(log, "rcpt=grey@example.test source=127[0-9.]* peer=.* code=450 reply=")

    def test_bounced_with_a_dsn(self):
        node = self.node()
        message = self.send(node, [b"never@example.test", b"well@example.test"], CONTENT)
        dsn = [t for t in self.receiver.wait_for(2) if t.mail_from == ""][0]
        self.assertEqual(dsn.recipients, ("sender@client.test",))
        for part in (b"multipart/report", b"report-type=delivery-status", b"Final-Recipient: rfc822;", b"never@example.test",
                     b"Status: 5.1.1", b"Diagnostic-Code: smtp; 550 5.1.1 no such user", b"Subject: outcome"):
            self.assertIn(part.lower(), dsn.content.lower().replace(b"rfc822; ", b"rfc822;"))
        self.assertNotIn(b"\r\nbody\r\n", dsn.content, "headers only")
        self.assertIn(("failed", "never@example.test"), self.kinds(node, message))
        node.ctl.wait_empty()

    def test_no_dsn_for_the_null_sender_or_notify_never(self):
        node = self.node()
        self.send(node, [b"never@example.test"], CONTENT, sender=b"")
        done = node.ctl.run("inject", "--from", "sender@client.test", "--to", "never2@example.test", "--notify", "never")
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: node.ctl.totals()["failed_total"] == 2, "two failures")
        node.ctl.wait_empty()
        self.assertEqual(self.receiver.recipients(), [])

    def test_waiting_mail_is_listed_shown_and_deleted(self):
        node = self.node(domain_extra="  retry-recipients-after 1h\n  retry-after 1h")
        message = self.send(node, [b"busy@example.test", b"busy@other.test"], CONTENT)
        wait_until(lambda: node.ctl.totals()["transient_total"] == 2, "two deferrals")
        listed = node.ctl.json("messages", "list")["recipients"]
        self.assertEqual({r["delivery"]["rcpt"] for r in listed}, {"busy@example.test", "busy@other.test"})
        self.assertEqual({r["message_id"] for r in listed}, {message})
        self.assertEqual(listed[0]["delivery"]["last_reply"]["code"], 451)
        self.assertEqual(len(node.ctl.json("messages", "list", "--rcpt", "busy@other.test")["recipients"]), 1)
        self.assertEqual(len(node.ctl.json("messages", "list", "--sender", "nobody@client.test")["recipients"]), 0)
        shown = node.ctl.json("messages", "show", message, "--body")["message"]
        self.assertEqual(len(shown["recipients"]), 2)
        self.assertIn("Subject: outcome", shown["body"])
        queues = {q["name"]: q for q in node.ctl.json("queues", "list")["queues"]}
        self.assertEqual({name.split("/")[0] for name in queues}, {"example.test", "other.test"})
        name = next(iter(queues))
        one = node.ctl.json("queues", "show", name)["per_shard"][0]
        self.assertEqual((one["recipients"], one["last_replies"][0]["code"]), (1, 451))
        self.assertEqual(node.ctl.json("messages", "delete", "--rcpt", "busy@example.test", "--reason", "test")["recipients"], 1)
        self.assertEqual(node.ctl.json("messages", "delete", "--queue", "other.test/*")["recipients"], 1)
        node.ctl.wait_empty()
        self.assertEqual([k for k, _ in self.kinds(node, message)].count("deleted"), 2)
        self.assertEqual(node.ctl.run("messages", "show", message).returncode, 4)

    def test_paused_mail_waits_and_goes_when_resumed(self):
        node = self.node()
        pause = node.ctl.json("pause", "example.test/*", "--reason", "maintenance")["entry"]
        self.send(node, [b"waits@example.test"], CONTENT)
        self.send(node, [b"goes@other.test"], CONTENT)
        self.assertEqual(self.receiver.wait_for(1)[0].recipients, ("goes@other.test",))
        queue = node.ctl.json("queues", "list", "example.test/*")["queues"][0]
        self.assertEqual((queue["paused"], queue["recipients"]), (True, 1))
        self.assertIn("maintenance", queue["reason"])
        # The pause outlives the process.
        node.service.kill()
        node.start()
        wait_until(lambda: [q["paused"] for q in node.ctl.json("queues", "list", "example.test/*")["queues"]] == [True], "pause after restart")
        self.assertEqual(node.ctl.json("resume", "--id", pause["id"])["resumed"], 1)
        self.receiver.wait_for(2)
        node.ctl.wait_empty()

    def test_expiry_holds_in_every_state(self):
        self.receiver.zones.update({"broken.test": "servfail"})
        node = self.node(domain_extra="  bounce-after 3s")
        node.ctl.json("pause", "paused.test/*", "--reason", "expiry")
        # Deferred by the provider, in a queue that reaches nobody, and in one that an operator has stopped.
        waiting = [b"busy@example.test", b"u@broken.test", b"u@paused.test"]
        messages = {recipient: self.send(node, [recipient], CONTENT) for recipient in waiting}
        dsns = self.receiver.wait_for(3)
        self.assertEqual({(t.mail_from, t.recipients) for t in dsns}, {("", ("sender@client.test",))})
        for recipient, message in messages.items():
            self.assertIn(("expired", recipient.decode()), self.kinds(node, message))
            dsn = [t.content for t in dsns if recipient in t.content]
            self.assertEqual(len(dsn), 1, recipient)
            self.assertIn(b"Status: 4.4.7", dsn[0])
        node.ctl.wait_empty()

    def test_dns_failures(self):
        self.receiver.zones.update({"null.test": "nullmx", "gone.test": "nxdomain", "mx.gone.test": "nxdomain", "broken.test": "servfail"})
        node = self.node()
        for domain in ("null", "gone", "broken"):
            self.send(node, [f"u@{domain}.test".encode()], CONTENT, sender=b"")
        wait_until(lambda: node.ctl.totals()["failed_total"] == 2, "two failures", 60)
        queues = {q["name"].split("/")[0]: q for q in node.ctl.json("queues", "list")["queues"]}
        self.assertEqual(set(queues), {"broken.test"}, "SERVFAIL defers, never bounces")
        self.assertIn("SERVFAIL", queues["broken.test"]["reason"])


if __name__ == "__main__":
    unittest.main()
