"""Proves that Sluice works with mail servers that others wrote, both ways: Postfix, Exim and OpenSMTPD relay into it, and take what it sends."""
import smtplib
import unittest

from tests.harness import mta, sluice
from tests.harness.processes import loopback, wait_until
from tests.integration.scenario import ScenarioTest

MESSAGES = 40
# Complete, so that no server adds a field that is missing.
HEADERS = (b"From: <sender@client.test>\r\nTo: <all@example.test>\r\nDate: Sat, 21 Nov 2026 05:00:00 +0000\r\n"
           b"Message-ID: <1@client.test>\r\nSubject: peers\r\n\r\n")
BODY = b".dot\r\n..two\r\n.\r\n\xe9 and a long line " + b"x" * 900 + b"\r\n\r\nend\r\n"


class MtaTest(ScenarioTest):
    def peer(self, kind, **options):
        self.needs(mta.missing(kind))
        return kind(self.scenario, **options)

    def relays_into_sluice(self, kind):
        node = self.node()
        peer = self.peer(kind, address=loopback(8), relay=(node.address, sluice.SMTP_PORT)).start()
        with smtplib.SMTP(peer.address, peer.port, timeout=60) as client:
            for number in range(MESSAGES):
                client.sendmail("sender@client.test", [f"u{number}@example.test", f"v{number}@other.test"], HEADERS + BODY,
                                mail_options=["BODY=8BITMIME"])
        wanted = {f"u{n}@example.test" for n in range(MESSAGES)} | {f"v{n}@other.test" for n in range(MESSAGES)}
        wait_until(lambda: set(self.receiver.recipients()) == wanted, f"all recipients from {kind.__name__}", 120)
        for transaction in self.receiver.taken():
            self.assertTrue(transaction.content.endswith(HEADERS + BODY), transaction.content)
            self.assertEqual(transaction.mail_from, "sender@client.test")
        node.ctl.wait_empty()
        self.assertEqual(len(self.receiver.recipients()), len(wanted), "nothing twice")

    def takes_what_sluice_sends(self, kind):
        peer = self.peer(kind, address=self.receiver.address).start()
        self.receiver.port = peer.port
        node = self.node()
        done = node.ctl.run("inject", "-", "--from", "sender@client.test", "--to", "u%n@example.test", "--to", "v%n@example.test",
                            "--count", MESSAGES, stdin=HEADERS + BODY)
        self.assertEqual(done.returncode, 0, done.stderr)
        # One copy for each recipient.
        wait_until(lambda: len(peer.mails()) == 2 * MESSAGES, f"mails in {kind.__name__}'s mailboxes", 120)
        node.ctl.wait_empty()
        for mail in peer.mails():
            self.assertTrue(mail.endswith((HEADERS + BODY).replace(b"\r\n", b"\n")), mail)
        self.assertEqual(node.ctl.totals()["delivered_total"], 2 * MESSAGES)

    def test_addresses_in_utf8_from_postfix_to_postfix(self):
        """RFC 6531 and RFC 3461: SMTPUTF8 and delivery reports, as Postfix says them and as it takes them."""

        class Boxes(mta.Postfix):
            """Each has a port of its own, as those of the other tests may not be free again yet."""
            port = 2531

        class Relay(mta.Postfix):
            port = 2532
        boxes = self.peer(Boxes, address=self.receiver.address).start()
        self.receiver.port = boxes.port
        node = self.node(extra="allow-smtputf8 yes\n")
        relay = self.peer(Relay, address=loopback(8), relay=(node.address, sluice.SMTP_PORT)).start()
        text = "From: <j\u00f6rg@client.test>\r\nTo: <m\u00e4x@example.test>\r\nDate: Sat, 21 Nov 2026 05:00:00 +0000\r\n" \
               "Message-ID: <1@client.test>\r\nSubject: gr\u00fc\u00dfe\r\n\r\nh\u00e4\r\n"
        with smtplib.SMTP(relay.address, relay.port, timeout=60) as client:
            client.ehlo()
            self.assertTrue(client.has_extn("smtputf8"))
            client.command_encoding = "utf-8"
            self.assertEqual(client.mail("j\u00f6rg@client.test", ["SMTPUTF8", "BODY=8BITMIME"])[0], 250)
            self.assertEqual(client.rcpt("m\u00e4x@example.test", ["NOTIFY=FAILURE"])[0], 250)
            self.assertEqual(client.data(text.encode())[0], 250)
        wait_until(boxes.mails, "the mail in Postfix's mailbox")
        node.ctl.wait_empty()
        mail = boxes.mails()[0].decode()
        self.assertTrue(mail.endswith(text.replace("\r\n", "\n")), mail)
        self.assertIn("Return-Path: <j\u00f6rg@client.test>\n", mail)
        self.assertEqual(mail.count("with UTF8SMTP"), 3, mail)

    def test_postfix_relays_into_sluice(self):
        self.relays_into_sluice(mta.Postfix)

    def test_postfix_takes_what_sluice_sends(self):
        self.takes_what_sluice_sends(mta.Postfix)

    def test_exim_relays_into_sluice(self):
        self.relays_into_sluice(mta.Exim)

    def test_exim_takes_what_sluice_sends(self):
        self.takes_what_sluice_sends(mta.Exim)

    def test_opensmtpd_relays_into_sluice(self):
        self.relays_into_sluice(mta.OpenSmtpd)

    def test_opensmtpd_takes_what_sluice_sends(self):
        self.takes_what_sluice_sends(mta.OpenSmtpd)


if __name__ == "__main__":
    unittest.main()
