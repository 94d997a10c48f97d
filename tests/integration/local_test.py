"""Proves mail that ends on this machine: files, programs, HTTP and nothing, for one message with recipients of each kind; and the rules
by which a client's mail is taken and sent on its way."""
import http.server
import pathlib
import threading
import unittest

from tests.harness.processes import wait_until
from tests.integration.scenario import ScenarioTest

MESSAGE = b"Subject: local\r\n\r\nFrom here\r\n"


class Posts(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.headers.get_all("X-Envelope-To"), self.headers["X-Key"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


class LocalTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Posts)
        self.http.taken = []
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def tearDown(self):
        self.http.shutdown()
        self.http.server_close()
        super().tearDown()

    def test_each_end_gets_its_mail(self):
        folder = pathlib.Path(self.scenario.folder) / "local"
        folder.mkdir()
        extra = f"""
alias team@alias.test "big@maildir.test"
<domain maildir.test>
  type file
  file-format maildir
  file-destination {folder}/${{local}}
</domain>
<domain mbox.test>
  type file
  file-format append-mbox
  file-destination {folder}/mbox
</domain>
<domain pipe.test>
  type pipe
  command "/bin/sh -c \\"cat > {folder}/piped\\""
</domain>
<domain refuses.test>
  type pipe
  command /bin/false
  suppress-local-dsn yes
</domain>
<domain post.test>
  type http-delivery
  http-delivery-url http://127.0.0.1:{self.http.server_port}/in
  http-delivery-header "X-Key: secret"
</domain>
<domain gone.test>
  type discard
</domain>
"""
        node = self.node(extra)
        names = ["team@alias.test", "anna@maildir.test", "x@mbox.test", "x@pipe.test", "x@refuses.test", "x@post.test", "y@post.test",
                 "x@gone.test", "far@remote.test"]
        message_id = self.send(node, [n.encode() for n in names], MESSAGE)
        large = b"Subject: large\r\n\r\n" + b"0123456789" * 100_000 + b"\r\n"
        self.send(node, [b"big@maildir.test"], large)
        self.assertEqual(len(self.receiver.wait_for(1)), 1)
        node.ctl.wait_empty()

        sizes = sorted(len(f.read_bytes()) for f in (folder / "big" / "new").iterdir())
        self.assertEqual(len(sizes), 2)
        self.assertGreater(sizes[1], 1_000_000)
        anna = [f.read_text() for f in (folder / "anna" / "new").iterdir()]
        self.assertEqual(len(anna), 1)
        self.assertTrue(anna[0].startswith("Return-Path: <sender@client.test>\nDelivered-To: anna@maildir.test\nReceived: "), anna)
        self.assertTrue(anna[0].endswith("\nSubject: local\n\nFrom here\n"), anna)
        mbox = (folder / "mbox").read_text()
        self.assertTrue(mbox.startswith("From sender@client.test "), mbox)
        self.assertTrue(mbox.endswith("\n\n>From here\n\n"), mbox)
        self.assertTrue((folder / "piped").read_text().endswith("\n\nFrom here\n"))
        # One post for each group; a pool may send its recipients different ways.
        self.assertEqual(sorted(each for to, _, _ in self.http.taken for each in to), ["<x@post.test>", "<y@post.test>"])
        self.assertEqual({key for _, key, _ in self.http.taken}, {"secret"})
        self.assertTrue(self.http.taken[0][2].endswith(MESSAGE))
        events = node.ctl.events(message_id)
        kinds = {e["rcpt"]: e["kind"] for e in events if e["kind"] in ("delivered", "failed")}
        self.assertEqual(kinds.pop("x@refuses.test", None), "failed", events)
        self.assertEqual((len(kinds), set(kinds.values())), (8, {"delivered"}), events)
        self.assertEqual(self.receiver.errors, [])

    def test_patterns_choose_and_copies_are_made(self):
        node = self.node("""
<pattern-list choose>
  mail-from /^first@/ virtual-mta=v1
  rcpt-to /@second\\.test$/ virtual-mta=v2
  header Subject /third/ virtual-mta=v1
</pattern-list>
<source 127.0.0.0/8>
  pattern-list choose
  default-virtual-mta v2
  bcc archive@copies.test
  add-message-id-header yes
  add-date-header yes
  remove-received-headers yes
</source>
""")
        content = b"Received: from somewhere\r\nSubject: %s\r\n\r\nx\r\n"
        self.send(node, [b"a@one.test"], content % b"1", sender=b"first@client.test")
        self.send(node, [b"b@second.test", b"c@other.test"], content % b"third")
        self.send(node, [b"d@other.test"], content % b"4")
        by_recipient = {}
        for transaction in self.receiver.wait_for(7):
            for recipient in transaction.recipients:
                by_recipient.setdefault(recipient, []).append(transaction)
        ehlo = {recipient: sorted(t.ehlo for t in all_of) for recipient, all_of in by_recipient.items()}
        one, two = "out1.sluice.test", "out2.sluice.test"
        self.assertEqual(ehlo, {"a@one.test": [one], "b@second.test": [two], "c@other.test": [one], "d@other.test": [two],
                                "archive@copies.test": [one, one, two]})
        text = by_recipient["d@other.test"][0].content
        self.assertEqual(text.count(b"Received:"), 1)
        self.assertIn(b"\r\nMessage-ID: <", text)
        self.assertIn(b"\r\nDate: ", text)

    def test_what_was_delivered_is_copied(self):
        node = self.node("<domain watched.test>\n  bcc-upon-delivery archive@copies.test\n</domain>\n")
        small, large = b"Subject: s\r\n\r\nx\r\n", b"Subject: l\r\n\r\n" + b"0123456789" * 100_000 + b"\r\n"
        self.send(node, [b"a@watched.test"], small)
        self.send(node, [b"b@watched.test"], large)
        self.send(node, [b"c@other.test"], small)
        got = self.receiver.wait_for(5)
        text = {t.recipients[0]: t.content for t in got if t.recipients[0] != "archive@copies.test"}
        copies = [t.content for t in got if t.recipients[0] == "archive@copies.test"]
        self.assertEqual(sorted(copies), sorted([text["a@watched.test"], text["b@watched.test"]]))
        node.ctl.wait_empty()

    def test_pickup_folders_are_emptied(self):
        folder, bad = pathlib.Path(self.scenario.folder) / "in", pathlib.Path(self.scenario.folder) / "bad"
        folder.mkdir()
        bad.mkdir()
        node = self.node(f"pickup {folder} {bad}\n<source {{pickup}}>\n  jobid-prefix p-\n  add-message-id-header yes\n</source>\n")
        (bad / "good").write_bytes(b"x-sender: <from@client.test>\nx-receiver: <a@one.test>\nx-receiver: b@two.test\n"
                                   b"x-virtual-mta: v2\nSubject: picked up\n\nbody\n")
        (bad / "good").rename(folder / "good")
        (folder / "broken").write_bytes(b"Subject: nothing\n\n")
        (folder / "refused").write_bytes(b"x-sender: from@client.test\nx-receiver: nobody\n\nx\n")
        got = self.receiver.wait_for(2)
        self.assertEqual(sorted((t.mail_from, t.ehlo, *t.recipients) for t in got),
                         [("from@client.test", "out2.sluice.test", "a@one.test"), ("from@client.test", "out2.sluice.test", "b@two.test")])
        self.assertIn(b" with pickup id ", got[0].content)
        self.assertTrue(got[0].content.endswith(b"Subject: picked up\r\n\r\nbody\r\n"), got[0].content)
        wait_until(lambda: not list(folder.iterdir()), "an empty pickup folder", 30)
        self.assertEqual((bad / "broken.reason").read_text(), "there is no x-sender line in front\n")
        self.assertIn("recipients[0]", (bad / "refused.reason").read_text())
        node.ctl.wait_empty()


if __name__ == "__main__":
    unittest.main()
