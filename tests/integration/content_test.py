"""Proves that what goes in by SMTP and by gRPC comes out byte for byte, below our one Received field: dots, 8-bit, long headers, 50 MB."""
import random
import unittest

from tests.integration.scenario import ScenarioTest

HEADERS = b"From: <sender@client.test>\r\nTo: <user@example.test>\r\nSubject: bytes\r\nMessage-ID: <1@client.test>\r\n"


def text(size, seed):
    """8-bit lines of all lengths up to 998, many of them beginning with dots."""
    dice = random.Random(seed)
    lines, left = [], size
    while left > 0:
        length = min(dice.choice((0, 1, 2, 70, 998)), left)
        line = bytes(dice.choice(b".abc \x80\xff\t") for _ in range(min(length, 16)))
        line += b"x" * (length - len(line))
        lines.append(line)
        left -= length + 2
    return b"\r\n".join(lines) + b"\r\n"


CONTENTS = {
    "plain": HEADERS + b"\r\nhello\r\n",
    "no body": HEADERS + b"\r\n",
    "dots": HEADERS + b"\r\n.\r\n..\r\n.x\r\n...\r\nx.\r\n.\r\n",
    "8-bit": HEADERS + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
             + bytes(b for b in range(1, 256) if b not in (10, 13)) + b"\r\n",
    "long header lines": HEADERS + b"X-Long: " + b"l" * 990 + b"\r\nX-Folded: a\r\n" + b" folded\r\n" * 2000 + b"\r\nbody\r\n",
    "many headers": HEADERS + b"".join(b"X-%d: v\r\n" % i for i in range(2000)) + b"\r\nbody\r\n",
    "trailing blanks and empty lines": HEADERS + b"\r\nblank \t \r\n\r\n\r\n\r\n",
    "300 kB": HEADERS + b"\r\n" + text(300_000, 1),
    "boundaries of the reader": HEADERS + b"\r\n" + (b"." * 65534 + b"\r\n")[-998:] * 140,
}


class ContentTest(ScenarioTest):
    def test_byte_exact_by_smtp_and_grpc(self):
        node = self.node()
        ids = {}
        for i, (name, content) in enumerate(CONTENTS.items()):
            by_smtp, by_grpc = f"smtp{i}@example.test", f"grpc{i}@example.test"
            ids[by_smtp] = self.send(node, [by_smtp.encode()], content, mail_options=b" BODY=8BITMIME")
            done = node.ctl.run("inject", "-", "--from", "sender@client.test", "--to", by_grpc, "--ids", stdin=content)
            self.assertEqual(done.returncode, 0, (name, done.stderr))
        arrived = {t.recipients[0]: t for t in self.receiver.wait_for(2 * len(CONTENTS))}
        self.assertEqual(self.receiver.errors, [])
        for i, (name, content) in enumerate(CONTENTS.items()):
            for recipient in (f"smtp{i}@example.test", f"grpc{i}@example.test"):
                with self.subTest(name, recipient=recipient):
                    self.assert_content(arrived[recipient].content, content)
                    self.assertEqual(arrived[recipient].mail_from, "sender@client.test")
            self.assertIn(ids[f"smtp{i}@example.test"].encode(), arrived[f"smtp{i}@example.test"].content.split(b"From:")[0],
                          "the Received field holds the id of the 250")
        node.ctl.wait_empty()

    def test_50_megabytes(self):
        node = self.node()
        content = HEADERS + b"\r\n" + (b".0123456789abcdef" * 58 + b"\r\n") * 52_000
        self.assertGreater(len(content), 50_000_000)
        self.send(node, [b"large@example.test", b"large@other.test"], content)
        taken = self.receiver.wait_for(2)
        for transaction in taken:
            self.assert_content(transaction.content, content)
        node.ctl.wait_empty()

    def test_lf_from_grpc_becomes_crlf_and_control_headers_go(self):
        node = self.node()
        done = node.ctl.run("inject", "-", "--from", "<>", "--to", "a@example.test", stdin="Subject: lf\n\none\n.two\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_content(self.receiver.wait_for(1)[0].content, b"Subject: lf\r\n\r\none\r\n.two\r\n")
        self.assertEqual(self.receiver.taken()[0].mail_from, "")
        self.send(node, [b"b@example.test"], b"X-Virtual-MTA: v2\r\nSubject: x\r\nX-Job: j1\r\nX-Envid: e1\r\n\r\nbody\r\n")
        second = self.receiver.wait_for(2)[1]
        self.assert_content(second.content, b"Subject: x\r\n\r\nbody\r\n")
        self.assertEqual(second.ehlo, "out2.sluice.test")


class InternationalTest(ScenarioTest):
    RECEIVER = {"extensions": ("PIPELINING", "8BITMIME", "SMTPUTF8")}

    def test_a_domain_beyond_ascii_is_looked_up_as_dns_has_it(self):
        node = self.node()
        recipient = "u@b\u00fccher.test".encode()
        self.send(node, [recipient], HEADERS + "X: \u00e4\r\n\r\nbody\r\n".encode(), mail_options=b" SMTPUTF8")
        self.assertEqual(self.receiver.wait_for(1)[0].recipients, (recipient.decode(),))
        self.assertIn("xn--bcher-kva.test", {name for name, _ in self.receiver.queries})
        node.ctl.wait_empty()
        self.assertEqual(self.receiver.errors, [])


if __name__ == "__main__":
    unittest.main()
