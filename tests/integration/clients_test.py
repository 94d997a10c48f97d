"""Proves that Sluice takes mail from programs that others wrote, swaks, curl, msmtp, Postfix's smtp-source, Python's smtplib, and that
aiosmtpd takes what it sends."""
import concurrent.futures
import email.message
import os
import shutil
import smtplib
import subprocess
import unittest

from tests.harness import aiosmtpd_server, sluice
from tests.harness.processes import wait_until
from tests.integration.scenario import ScenarioTest

CONTENT = b"From: <sender@client.test>\r\nSubject: by a program\r\n\r\n.dot\r\n\r\n..two\r\n"


class ClientsTest(ScenarioTest):
    def program(self, name):
        # Postfix's are where only an administrator looks.
        found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
        self.needs(None if found else f"{name} is not installed")
        return found

    def run_ok(self, argv, stdin=b""):
        done = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, (argv, done.stdout, done.stderr))

    def took(self, *recipients):
        """Both recipients have CONTENT as it was given."""
        wait_until(lambda: sorted(self.receiver.recipients()) == sorted(recipients), "delivery")
        for transaction in self.receiver.taken():
            self.assert_content(transaction.content, CONTENT)
            self.assertEqual(transaction.mail_from, "sender@client.test")

    def test_curl(self):
        node = self.node()
        self.run_ok([self.program("curl"), "--silent", "--show-error", f"smtp://{node.address}:{sluice.SMTP_PORT}/curl.test", "--mail-from",
                     "sender@client.test", "--mail-rcpt", "one@example.test", "--mail-rcpt", "two@example.test", "--upload-file", "-"],
                    CONTENT)
        self.took("one@example.test", "two@example.test")

    def test_msmtp(self):
        node = self.node()
        # Mail from a pipe has line feeds alone.
        self.run_ok([self.program("msmtp"), f"--host={node.address}", f"--port={sluice.SMTP_PORT}", "--tls=off", "--auth=off",
                     "--domain=msmtp.test", "--from=sender@client.test", "--file=/dev/null", "--set-date-header=off", "--set-msgid-header=off",
                     "one@example.test", "two@example.test"], CONTENT.replace(b"\r\n", b"\n"))
        self.took("one@example.test", "two@example.test")

    def test_smtp_source(self):
        node = self.node()
        self.run_ok([self.program("smtp-source"), "-s", 10, "-m", 200, "-r", 2, "-l", 4000, "-f", "sender@client.test", "-t", "u@example.test",
                     f"inet:{node.address}:{sluice.SMTP_PORT}"])
        wait_until(lambda: len(self.receiver.recipients()) == 400, "400 recipients")
        node.ctl.wait_empty()

    def test_swaks(self):
        self.program("swaks")
        node = self.node()
        done = subprocess.run(["swaks", "--server", f"{node.address}:{sluice.SMTP_PORT}", "--from", "sender@client.test",
                               "--to", "one@example.test,two@example.test", "--header", "Subject: by swaks", "--body", ".dot\n",
                               "--pipeline", "--helo", "swaks.test"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        taken = self.receiver.wait_for(2)
        self.assertEqual({r for t in taken for r in t.recipients}, {"one@example.test", "two@example.test"})
        self.assertIn(b"Subject: by swaks\r\n", taken[0].content)
        self.assertIn(b"\r\n.dot\r\n", taken[0].content)

    def test_smtplib(self):
        node = self.node()
        message = email.message.EmailMessage()
        message["From"], message["To"], message["Subject"] = "sender@client.test", "u@example.test", "Grüße"
        message.set_content("Zeile\n.dot\n")
        with smtplib.SMTP(node.address, sluice.SMTP_PORT, timeout=60) as client:
            client.ehlo("smtplib.test")
            for keyword in ("pipelining", "8bitmime", "enhancedstatuscodes", "size"):
                self.assertTrue(client.has_extn(keyword), client.esmtp_features)
            self.assertEqual(client.send_message(message), {})
            self.assertEqual(client.noop()[0], 250)
            self.assertEqual(client.vrfy("u")[0], 252)
            self.assertEqual(client.docmd("HELP")[0], 214)
            self.assertEqual(client.docmd("WHAT")[0], 500)
            with self.assertRaises(smtplib.SMTPSenderRefused):
                client.sendmail("sender@client.test", ["u@example.test"], "x", mail_options=["SIZE=99999999999"])
        transaction = self.receiver.wait_for(1)[0]
        self.assertEqual(transaction.recipients, ("u@example.test",))
        self.assertIn("Subject: =?utf-8?".encode(), transaction.content)

    def auth_node(self):
        """Takes mail only from tim, who has a password, also where the network could read it."""
        config = sluice.configuration(sluice.default_sources(), self.receiver.port)
        config = config.replace("  always-allow-relaying yes", "  always-allow-relaying yes\n  require-auth yes\n  allow-unencrypted-plain-auth yes")
        config += '\n<smtp-user tim>\n  password "open sesame"\n</smtp-user>\n'
        return sluice.Node(self.scenario, config, self.receiver.resolver).start()

    def test_auth_by_swaks_curl_and_msmtp(self):
        for name in ("swaks", "curl", "msmtp"):
            self.program(name)
        node = self.auth_node()
        at = f"{node.address}:{sluice.SMTP_PORT}"
        wanted = []

        def attempt(name, argv):
            recipient = f"{name}@example.test"
            wanted.append(recipient)
            argv = [a.replace("RCPT", recipient) for a in argv]
            for password, well in (("open sesame", True), ("wrong", False)):
                tries.append((well, pool.submit(subprocess.run, [a.replace("PASSWORD", password) for a in argv], input=CONTENT,
                                                capture_output=True, timeout=60, check=False)))
        tries = []
        # Side by side: who gives a wrong password has to wait.
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
                attempt(f"swaks-{mechanism.lower()}", ["swaks", "--server", at, "--from", "sender@client.test", "--to", "RCPT", "--data", "-",
                                                       "--auth", mechanism, "--auth-user", "tim", "--auth-password", "PASSWORD"])
                attempt(f"curl-{mechanism.lower()}", ["curl", "--silent", "--show-error", f"smtp://{at}/curl.test", "--mail-from",
                                                      "sender@client.test", "--mail-rcpt", "RCPT", "--upload-file", "-", "--user", "tim:PASSWORD",
                                                      "--login-options", f"AUTH={mechanism}"])
            for mechanism in ("plain", "cram-md5", "scram-sha-256"):
                attempt(f"msmtp-{mechanism}", ["msmtp", f"--host={node.address}", f"--port={sluice.SMTP_PORT}", "--tls=off", f"--auth={mechanism}",
                                               "--user=tim", "--passwordeval=echo PASSWORD", "--from=sender@client.test", "--file=/dev/null",
                                               "RCPT"])
        for well, tried in tries:
            done = tried.result()
            self.assertEqual(done.returncode == 0, well, (done.args, done.stdout, done.stderr))
        self.assertEqual(len(wanted), 9)
        wait_until(lambda: sorted(self.receiver.recipients()) == sorted(wanted), "mail of those with the password, and no other")

    def test_auth_by_smtplib(self):
        node = self.auth_node()
        with smtplib.SMTP(node.address, sluice.SMTP_PORT, timeout=60) as client:
            with self.assertRaises(smtplib.SMTPSenderRefused) as refused:
                client.sendmail("sender@client.test", ["u@example.test"], CONTENT)
            self.assertEqual(refused.exception.smtp_code, 530)
            with self.assertRaises(smtplib.SMTPAuthenticationError) as refused:
                client.login("tim", "wrong")
            self.assertEqual(refused.exception.smtp_code, 535)
            self.assertEqual(client.login("tim", "open sesame")[0], 235)
            self.assertEqual(client.sendmail("sender@client.test", ["u@example.test"], CONTENT), {})
        self.assertEqual(self.receiver.wait_for(1)[0].recipients, ("u@example.test",))

    def test_aiosmtpd(self):
        self.needs(aiosmtpd_server.missing())
        server = aiosmtpd_server.Server(self.receiver.address, 2528)
        self.addCleanup(server.close)
        self.receiver.port = server.port
        node = self.node()
        done = node.ctl.run("inject", "-", "--from", "sender@client.test", "--to", "a@example.test", "--to", "b@example.test",
                            stdin=b"Subject: x\r\n\r\n.dot\r\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: len(server.recipients()) == 2, "delivery to aiosmtpd")
        for taken in server.taken:
            self.assertIn((taken.peer, taken.host_name), sluice.default_sources().values())
            self.assertEqual(taken.mail_from, "sender@client.test")
            self.assertTrue(taken.content.endswith(b"Subject: x\r\n\r\n.dot\r\n"), taken.content)
        node.ctl.wait_empty()


if __name__ == "__main__":
    unittest.main()
