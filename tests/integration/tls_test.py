"""Proves that TLS works with what others wrote: clients that use STARTTLS and TLS from the first byte, verify our certificate, and mail servers
that take and send nothing in clear; and that what was sent in clear before the handshake is thrown away."""
import shutil
import smtplib
import ssl
import subprocess
import unittest

from tests.harness import mta, sluice
from tests.harness.certificates import Authority
from tests.harness.processes import loopback, wait_until
from tests.harness.smtp_client import Closed, Connection
from tests.integration.scenario import ScenarioTest

TLS_PORT = 4650
CONTENT = b"From: <sender@client.test>\r\nTo: <u@example.test>\r\nDate: Sat, 21 Nov 2026 05:00:00 +0000\r\nMessage-ID: <1@client.test>\r\nSubject: tls\r\n\r\n.dot\r\n"
MESSAGES = 20


class TlsTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.needs(None if shutil.which("openssl") else "openssl is not installed")
        self.authority = Authority(self.scenario.path("tls"))
        self.ours = self.authority.issue("mx.sluice.test", loopback(1))[2]

    def tls_node(self, domain_extra="", users=""):
        """Offers STARTTLS on its SMTP port; TLS from the first byte on TLS_PORT."""
        address = loopback(1)
        extra = (f"smtp-server-tls-certificate {self.ours}\n<smtp-listener {address}:{TLS_PORT}>\n  immediate-tls yes\n</smtp-listener>\n")
        node = self.node(extra=extra, domain_extra=domain_extra, flags=["--smtp-listen", f"{address}:{TLS_PORT}"], start=False)
        text = node.config.read_text().replace("  always-allow-relaying yes", "  always-allow-relaying yes\n  allow-starttls yes")
        node.config.write_text(text + users)
        return node.start()

    def run_ok(self, argv, stdin=b""):
        self.needs(None if shutil.which(argv[0]) else f"{argv[0]} is not installed")
        done = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, (argv, done.stdout, done.stderr))
        return done.stdout

    def test_starttls_by_clients(self):
        node = self.tls_node()
        at = f"{node.address}:{sluice.SMTP_PORT}"
        self.run_ok(["swaks", "--server", at, "--from", "sender@client.test", "--to", "swaks@example.test", "--tls", "--tls-verify",
                     "--tls-ca-path", self.authority.ca, "--data", "-"], CONTENT)
        self.run_ok(["curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", self.authority.ca, f"smtp://{at}/curl.test", "--mail-from",
                     "sender@client.test", "--mail-rcpt", "curl@example.test", "--upload-file", "-"], CONTENT)
        self.run_ok(["msmtp", f"--host={node.address}", f"--port={sluice.SMTP_PORT}", "--tls=on", f"--tls-trust-file={self.authority.ca}",
                     "--auth=off", "--from=sender@client.test", "--file=/dev/null", "msmtp@example.test"], CONTENT)
        with smtplib.SMTP(node.address, sluice.SMTP_PORT, timeout=60) as client:
            client.starttls(context=ssl.create_default_context(cafile=self.authority.ca))
            client.sendmail("sender@client.test", ["smtplib@example.test"], CONTENT)
        wait_until(lambda: sorted(self.receiver.recipients()) == [f"{n}@example.test" for n in ("curl", "msmtp", "smtplib", "swaks")], "four mails")
        for transaction in self.receiver.taken():
            self.assertIn(CONTENT, transaction.content)
            self.assertRegex(transaction.content, rb"with ESMTPS")

    def test_tls_from_the_first_byte(self):
        node = self.tls_node()
        at = f"{node.address}:{TLS_PORT}"
        self.run_ok(["curl", "--silent", "--show-error", "--cacert", self.authority.ca, f"smtps://{at}/curl.test", "--mail-from",
                     "sender@client.test", "--mail-rcpt", "curl@example.test", "--upload-file", "-"], CONTENT)
        self.run_ok(["msmtp", f"--host={node.address}", f"--port={TLS_PORT}", "--tls=on", "--tls-starttls=off", "--auth=off",
                     f"--tls-trust-file={self.authority.ca}", "--from=sender@client.test", "--file=/dev/null", "msmtp@example.test"], CONTENT)
        with smtplib.SMTP_SSL(node.address, TLS_PORT, timeout=60, context=ssl.create_default_context(cafile=self.authority.ca)) as client:
            client.sendmail("sender@client.test", ["smtplib@example.test"], CONTENT)
        wait_until(lambda: sorted(self.receiver.recipients()) == [f"{n}@example.test" for n in ("curl", "msmtp", "smtplib")], "three mails")

    def test_scram_is_bound_to_the_connection(self):
        node = self.tls_node(users='\n<smtp-user "Zo\u00eb">\n  password "caf\u00e9 \u00aa"\n</smtp-user>\n')
        # Names and passwords in forms other than the configuration's (RFC 4013).
        for password, well in (("cafe\u0301 a", True), ("cafe a", False)):
            for mechanism in ("SCRAM-SHA-256-PLUS", "PLAIN"):
                self.needs(None if shutil.which("gsasl") else "gsasl is not installed")
                done = subprocess.run(["gsasl", "--smtp", f"--connect={node.address}:{sluice.SMTP_PORT}", f"--x509-ca-file={self.authority.ca}",
                                       f"--mechanism={mechanism}", "--authentication-id=Zoe\u0308", f"--password={password}"],
                                      stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
                                      env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
                self.assertEqual(b"235 2.7.0" in done.stdout, well, (mechanism, password, done.stdout, done.stderr))

    def test_openssl_sees_our_certificate_and_modern_protocols_only(self):
        node = self.tls_node()
        for port, options in ((sluice.SMTP_PORT, ["-starttls", "smtp"]), (TLS_PORT, [])):
            connect = ["openssl", "s_client", "-connect", f"{node.address}:{port}", *options, "-CAfile", self.authority.ca,
                       "-verify_return_error", "-verify_ip", node.address]
            for protocol in ("-tls1_2", "-tls1_3"):
                said = self.run_ok([*connect, protocol], b"QUIT\r\n")
                self.assertIn(b"Verify return code: 0 (ok)", said)
            old = subprocess.run([str(a) for a in connect] + ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], input=b"QUIT\r\n", capture_output=True,
                                 timeout=60, check=False)
            self.assertNotEqual(old.returncode, 0, old.stdout)

    def test_what_came_in_clear_behind_starttls_is_not_obeyed(self):
        node = self.tls_node()
        with Connection(node.address, sluice.SMTP_PORT) as connection:
            # As one write: the second line is in the server's buffer when the handshake begins.
            connection.send(b"STARTTLS\r\nMAIL FROM:<injected@client.test>\r\n")
            self.assertEqual(connection.reply().code, 220)
            try:
                connection.secure(ssl.create_default_context(cafile=self.authority.ca), node.address)
                self.assertEqual(connection.command(b"RCPT TO:<u@example.test>").code, 503)
            except Closed:
                pass  # to end the connection is as good
        self.send_over_tls(node)

    def send_over_tls(self, node):
        with smtplib.SMTP(node.address, sluice.SMTP_PORT, timeout=60) as client:
            client.starttls(context=ssl.create_default_context(cafile=self.authority.ca))
            client.sendmail("sender@client.test", ["well@example.test"], CONTENT)
        self.receiver.wait_for(1)

    def relays_into_sluice(self, kind):
        self.needs(mta.missing(kind))
        node = self.tls_node()
        peer = kind(self.scenario, loopback(8), relay=(node.address, sluice.SMTP_PORT), tls=True).start()
        with smtplib.SMTP(peer.address, peer.port, timeout=60) as client:
            for number in range(MESSAGES):
                client.sendmail("sender@client.test", [f"u{number}@example.test"], CONTENT)
        wanted = sorted(f"u{number}@example.test" for number in range(MESSAGES))
        wait_until(lambda: sorted(self.receiver.recipients()) == wanted, f"all from {kind.__name__}", 120)
        for transaction in self.receiver.taken():
            self.assertRegex(transaction.content, rb"with ESMTPS")

    def takes_what_sluice_sends(self, kind):
        self.needs(mta.missing(kind))
        certificate = self.authority.issue("mx.peer.test", self.receiver.address)
        peer = kind(self.scenario, self.receiver.address, tls=certificate[:2]).start()
        with self.assertRaises(smtplib.SMTPException):  # the peer means it
            with smtplib.SMTP(peer.address, peer.port, timeout=60) as client:
                client.sendmail("sender@client.test", ["clear@example.test"], CONTENT)
        self.receiver.port = peer.port
        node = self.node(domain_extra="  use-starttls yes\n  require-starttls yes")
        done = node.ctl.run("inject", "-", "--from", "sender@client.test", "--to", "u%n@example.test", "--count", MESSAGES, "--ids", stdin=CONTENT)
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: len(peer.mails()) == MESSAGES, f"mails in {kind.__name__}'s mailboxes", 120)
        node.ctl.wait_empty()
        for mail in peer.mails():
            self.assertTrue(mail.endswith(CONTENT.replace(b"\r\n", b"\n")), mail)

    def test_postfix_relays_into_sluice(self):
        self.relays_into_sluice(mta.Postfix)

    def test_postfix_takes_what_sluice_sends(self):
        self.takes_what_sluice_sends(mta.Postfix)

    def test_exim_relays_into_sluice(self):
        self.relays_into_sluice(mta.Exim)

    def test_exim_takes_what_sluice_sends(self):
        self.takes_what_sluice_sends(mta.Exim)

    def test_exim_takes_tls_from_the_first_byte(self):
        self.needs(mta.missing(mta.Exim))
        certificate = self.authority.issue("mx.peer.test", self.receiver.address)
        peer = mta.Exim(self.scenario, self.receiver.address, tls=certificate[:2], from_first_byte=True).start()
        # The port alone says so.
        node = self.node(domain_extra=f"  smtp-hosts {peer.address}:{peer.port}\n  use-starttls no")
        done = node.ctl.run("inject", "-", "--from", "sender@client.test", "--to", "u%n@example.test", "--count", MESSAGES, stdin=CONTENT)
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: len(peer.mails()) == MESSAGES, "mails in Exim's mailboxes", 120)
        node.ctl.wait_empty()
        for mail in peer.mails():
            self.assertIn(b"with esmtps", mail.lower())

    def test_opensmtpd_relays_into_sluice(self):
        self.relays_into_sluice(mta.OpenSmtpd)

    def test_opensmtpd_takes_what_sluice_sends(self):
        self.takes_what_sluice_sends(mta.OpenSmtpd)

    def test_without_starttls_nothing_is_sent_where_it_is_required(self):
        node = self.node(domain_extra="  use-starttls yes\n  require-starttls yes\n  retry-after 1h\n  retry-recipients-after 1h")
        self.send(node, [b"u@example.test"], CONTENT)
        wait_until(lambda: any(q["last_replies"] for q in node.ctl.json("queues", "list", "example.test/*")["queues"]), "the reason")
        self.assertEqual(self.receiver.recipients(), [])


if __name__ == "__main__":
    unittest.main()
