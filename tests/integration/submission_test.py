"""Proves what clients may do beyond plain SMTP, in a real process: authenticate by every mechanism, send in chunks, merge mail, and come
through proxies; and that what they may not do is refused."""
import base64
import hashlib
import hmac
import smtplib
import time
import unittest

from tests.harness import sluice
from tests.harness.processes import loopback
from tests.harness.smtp_client import Closed, Connection, dot_stuff
from tests.integration.scenario import ScenarioTest

MESSAGE = b"Subject: x\r\n\r\nbody\r\n"
# "sesame", sha512crypt.
HASH = "$6$rounds=1000$abcdefgh$1WhD5NSPfUW3vvjZt0oAl77wZvqZB/nJcOoNyFB4UHH98F.JCFg5bmMLyU4dXf5WU9tCX9pTKt8vIYOpqoRCm0"
PROXY_PORT = 2527


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other))


class SubmissionTest(ScenarioTest):
    def started(self, rules, extra=""):
        return self.node(f"<source 127.0.0.0/8>\n{rules}\n</source>\n{extra}")

    def client(self, node):
        client = smtplib.SMTP(node.address, sluice.SMTP_PORT, local_hostname="client.test", timeout=60)
        self.addCleanup(client.close)
        client.ehlo()
        return client

    def with_users(self):
        users = self.scenario.path("users")
        with open(users, "w", encoding="ascii") as file:
            file.write(f"# of this client network\nhash:{HASH}\n")
        return self.started(
            f"require-auth yes\nauth-plain {users}\nallow-unencrypted-plain-auth yes",
            "<smtp-user clear>\n  password \"open sesame\"\n  source {bulk}\n</smtp-user>\n<source {bulk}>\n  default-virtual-mta v2\n</source>\n")

    def scram(self, client, user, password):
        """RFC 5802 by the book; the last reply."""
        bare = f"n={user},r=client-nonce"
        code, first = client.docmd("AUTH", "SCRAM-SHA-256 " + base64.b64encode(b"n,," + bare.encode()).decode())
        self.assertEqual(code, 334)
        first = base64.b64decode(first).decode()
        values = dict(part.split("=", 1) for part in first.split(","))
        self.assertTrue(values["r"].startswith("client-nonce"))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(values["s"]), int(values["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        final = f"c=biws,r={values['r']}"
        whole = f"{bare},{first},{final}".encode()
        proof = xor(client_key, hmac.digest(hashlib.sha256(client_key).digest(), whole, "sha256"))
        code, answer = client.docmd(base64.b64encode(f"{final},p={base64.b64encode(proof).decode()}".encode()).decode())
        if code != 334:
            return code
        signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), whole, "sha256")
        self.assertEqual(base64.b64decode(answer), b"v=" + base64.b64encode(signature))
        return client.docmd("")[0]

    def test_every_mechanism(self):
        node = self.with_users()
        client = self.client(node)
        self.assertEqual(client.esmtp_features["auth"].split(), ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"])
        self.assertEqual(client.docmd("MAIL", "FROM:<a@client.test>")[0], 530)
        for number, (mechanism, user, password) in enumerate([("PLAIN", "hash", "sesame"), ("LOGIN", "hash", "sesame"),
                                                              ("PLAIN", "clear", "open sesame"), ("CRAM-MD5", "clear", "open sesame")]):
            client = self.client(node)
            client.user, client.password = user, password
            method = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login, "CRAM-MD5": client.auth_cram_md5}[mechanism]
            self.assertEqual(client.auth(mechanism, method, initial_response_ok=mechanism == "PLAIN")[0], 235, mechanism)
            client.sendmail("a@client.test", f"m{number}@example.test", MESSAGE)
            client.quit()
        client = self.client(node)
        self.assertEqual(self.scram(client, "clear", "open sesame"), 235)
        client.sendmail("a@client.test", "m4@example.test", MESSAGE)
        self.receiver.wait_for(5)
        for transaction in self.receiver.taken():
            self.assertIn(b" with ESMTPA id ", transaction.content)
            # The user's named source chooses the virtual MTA.
            if transaction.recipients[0].startswith(("m2", "m3", "m4")):
                self.assertEqual(transaction.peer, loopback(14))

    def test_a_user_that_is_not_there_looks_the_same_after_a_restart(self):
        salt, rounds = b"0123456789abcdef", 5000
        salted = hashlib.pbkdf2_hmac("sha256", b"sesame", salt, rounds)
        stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
        encoded = [base64.b64encode(each).decode() for each in (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))]
        node = self.node(f'<smtp-user ann>\n  password "SCRAM-SHA-256${rounds}:{encoded[0]}${encoded[1]}:{encoded[2]}"\n</smtp-user>\n',
                         flags=["--ingest-threads", "4"])

        def shown(user):
            code, first = self.client(node).docmd("AUTH", "SCRAM-SHA-256 " + base64.b64encode(f"n,,n={user},r=nonce".encode()).decode())
            self.assertEqual(code, 334)
            nonce, salt_and_rounds = base64.b64decode(first).decode().split(",s=")
            nonces.append(nonce)
            return salt_and_rounds

        nonces = []
        # More connections than loops: whichever answers.
        before = {shown("nobody") for _ in range(12)}
        self.assertEqual(len(before), 1)
        self.assertEqual(shown("ann"), f"{encoded[0]},i={rounds}")
        node.service.kill()
        node.start()
        self.assertEqual({shown("nobody") for _ in range(4)}, before)
        self.assertEqual(shown("ann"), f"{encoded[0]},i={rounds}")
        self.assertEqual(len(set(nonces)), len(nonces))

    def test_who_guesses_waits_and_runs_into_the_limit(self):
        users = self.scenario.path("users")
        with open(users, "w", encoding="ascii") as file:
            file.write(f"hash:{HASH}\n")
        node = self.started(f"auth-plain {users}\nallow-unencrypted-plain-auth yes\nsmtp-max-auth-failure-rate 3/h")
        codes = []
        for number in range(5):
            client = self.client(node)
            begin = time.monotonic()
            codes.append(client.docmd("AUTH", "PLAIN " + base64.b64encode(f"\0hash\0wrong{number}".encode()).decode())[0])
            if codes[-1] == 535:
                self.assertGreater(time.monotonic() - begin, 0.9)
        self.assertEqual(codes, [535, 535, 535, 454, 454])
        # Mail of others is not held up by it.
        self.send(node, [b"u@example.test"], MESSAGE)
        self.receiver.wait_for(1)

    def test_chunks_and_what_cannot_be_passed_on(self):
        node = self.started("allow-chunking yes")
        with self.connect(node) as connection:
            self.assertIn("CHUNKING", connection.extensions)
            self.assertIn("BINARYMIME", connection.extensions)
            text = b"Subject: dots\r\n\r\n.\r\n..\r\nlast"
            wire = b"MAIL FROM:<a@client.test> RET=HDRS ENVID=e1\r\nRCPT TO:<c@example.test> NOTIFY=FAILURE ORCPT=rfc822;o@example.test\r\n"
            wire += b"BDAT 10\r\n" + text[:10] + b"BDAT %d LAST\r\n" % (len(text) - 10) + text[10:]
            connection.send(wire)
            self.assertEqual([connection.reply().code for _ in range(4)], [250] * 4)
            # The receiver has no BINARYMIME: it comes back, never converted.
            binary = b"Subject: b\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\n\r\xff"
            connection.send(b"MAIL FROM:<back@client.test> BODY=BINARYMIME\r\nRCPT TO:<b@example.test>\r\nBDAT %d LAST\r\n" % len(binary) + binary)
            self.assertEqual([connection.reply().code for _ in range(3)], [250] * 3)
            connection.quit()
        self.receiver.wait_for(2)
        by_recipient = {t.recipients[0]: t for t in self.receiver.taken()}
        self.assert_content(by_recipient["c@example.test"].content, text + b"\r\n")
        report = by_recipient["back@client.test"].content
        self.assertIn(b"5.6.3", report)
        self.assertNotIn(b"\0", report)
        self.assertNotIn("b@example.test", by_recipient)

    def test_a_mail_merge(self):
        node = self.started("allow-mailmerge yes")
        people = 200
        with self.connect(node) as connection:
            self.assertEqual(connection.command(b"XACK OFF").code, 250)
            wire = b"XMRG FROM:<bounce@client.test> VERP\r\n"
            for n in range(people):
                wire += b'XDFN name="Person ""%d""" *parts=1,%d *vmta=v%d *jobid=job%d\r\nRCPT TO:<p%d@example.test>\r\n' % (n, 2 + n % 2, 1 + n % 2, n % 3, n)
            connection.send(wire)
            for part in (b"1", b"2", b"3 LAST"):
                self.assertEqual(connection.command(b"XPRT " + part).code, 354)
                text = {b"1": b"Subject: for [name]\r\nTo: <[*to]>\r\n\r\n", b"2": b"even [[] [*jobid]\r\n", b"3 LAST": b".odd [nothing]\r\n"}[part]
                connection.send(dot_stuff(text))
                self.assertEqual(connection.reply().code, 250)
            connection.quit()
        self.receiver.wait_for(people)
        for transaction in self.receiver.taken():
            self.assertEqual(len(transaction.recipients), 1)
            n = int(transaction.recipients[0][1:].split("@")[0])
            self.assertEqual(transaction.mail_from, f"bounce-p{n}=example.test@client.test")
            self.assertEqual(transaction.peer, loopback(13 + n % 2))
            end = b".odd \r\n" if n % 2 else b"even [ job%d\r\n" % (n % 3)
            self.assert_content(transaction.content, b'Subject: for Person "%d"\r\nTo: <p%d@example.test>\r\n\r\n' % (n, n) + end)

    def test_a_variable_without_a_value_stands_for_itself_where_that_is_said(self):
        node = self.started("allow-mailmerge yes", "mailmerge-expands-undefined-variables no\n")
        with self.connect(node) as connection:
            for command in (b"XMRG FROM:<a@client.test>", b"RCPT TO:<u@example.test>"):
                self.assertEqual(connection.command(command).code, 250)
            self.assertEqual(connection.command(b"XPRT 1 LAST").code, 354)
            connection.send(b"Subject: [name] [*to]\r\n\r\nx\r\n.\r\n")
            self.assertEqual(connection.reply().code, 250)
        self.receiver.wait_for(1)
        self.assert_content(self.receiver.taken()[0].content, b"Subject: [name] u@example.test\r\n\r\nx\r\n")

    def test_nothing_gets_in_by_a_merge_field(self):
        node = self.started("allow-mailmerge yes")
        for value in (b'"x\rBcc: evil@example.test"', b'"x\x00"', b'"x\x0b"'):
            with self.connect(node) as connection:
                connection.command(b"XMRG FROM:<a@client.test>")
                try:
                    self.assertIn(connection.command(b"XDFN name=" + value).code, (501, 554))
                except Closed:
                    pass
        with self.connect(node) as connection:
            connection.command(b"XMRG FROM:<a@client.test>")
            connection.command(b'XDFN name="[*to] [name]"')
            connection.command(b"RCPT TO:<u@example.test>")
            connection.command(b"XPRT 1 LAST")
            connection.send(b"Subject: [name]\r\n\r\nx\r\n.\r\n")
            self.assertEqual(connection.reply().code, 250)
        self.receiver.wait_for(1)
        self.assert_content(self.receiver.taken()[0].content, b"Subject: [*to] [name]\r\n\r\nx\r\n")

    def test_proxies_speak_for_their_clients(self):
        node = self.started("allow-xclient yes\nallow-proxy-protocol yes",
                            f"smtp-proxy-listener {loopback(1)}:{PROXY_PORT}\n<source 192.0.2.0/24>\nallow-relay yes\n</source>\n")
        with self.connect(node) as connection:
            self.assertEqual(connection.command(b"XCLIENT ADDR=198.51.100.1 HELO=stranger.test").code, 220)
            self.assertEqual([connection.command(c).code for c in (b"EHLO p", b"MAIL FROM:<a@client.test>", b"RCPT TO:<u@example.test>")], [250, 250, 550])
        with self.connect(node) as connection:
            self.assertEqual(connection.command(b"XCLIENT ADDR=192.0.2.7 HELO=known.test LOGIN=bob").code, 220)
            connection.command(b"EHLO p")
            self.assertEqual(connection.transact(b"a@client.test", [b"x@example.test"], MESSAGE)[3].code, 250)
        proxied = Connection(node.address, PROXY_PORT, greet=None)
        proxied.send(b"PROXY TCP4 192.0.2.8 192.0.2.25 4711 25\r\n")
        self.assertEqual(proxied.reply().code, 220)
        proxied.command(b"EHLO c.test")
        self.assertEqual(proxied.transact(b"a@client.test", [b"p@example.test"], MESSAGE)[3].code, 250)
        proxied.quit()
        with self.assertRaises(Closed):
            silent = Connection(node.address, PROXY_PORT, greet=None)
            silent.command(b"EHLO c.test")
        self.receiver.wait_for(2)
        content = {t.recipients[0]: t.content for t in self.receiver.taken()}
        self.assertIn(b"from known.test ([192.0.2.7])", content["x@example.test"])
        self.assertIn(b"([192.0.2.8])", content["p@example.test"])


if __name__ == "__main__":
    unittest.main()
