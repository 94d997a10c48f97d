"""Proves where and how connections are made: one for all domains of a site, none above the limits that queues share, the next host after a
421, and LMTP with a reply for each recipient."""
import socketserver
import threading
import unittest

from tests.harness.processes import loopback, wait_until
from tests.harness.receiver import Receiver
from tests.integration.scenario import ScenarioTest

ONE_SOURCE = {"v1": (loopback(13), "out1.sluice.test")}


class SitesTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        # Ten domains with one MX.
        for number in range(10):
            self.receiver.zones[f"d{number}.test"] = [self.receiver.address]

    def send_to_all(self, node):
        for number in range(10):
            self.send(node, [f"u{number}@d{number}.test".encode()], b"Subject: x\r\n\r\nbody\r\n")
            self.receiver.wait_for(number + 1)

    def test_domains_of_a_site_share_a_connection(self):
        node = self.node(sources=ONE_SOURCE, extra="<virtual-mta v1>\n  max-smtp-out 1\n</virtual-mta>")
        self.send_to_all(node)
        node.ctl.wait_empty()
        self.assertEqual(self.receiver.connections, 1)

    def test_another_setting_parts_them(self):
        node = self.node(sources=ONE_SOURCE, extra="<domain d5.test>\n  ignore-8bitmime yes\n</domain>\n"
                         "<virtual-mta v1>\n  max-smtp-out 1\n</virtual-mta>")
        self.send_to_all(node)
        node.ctl.wait_empty()
        self.assertEqual(self.receiver.connections, 3, "one before, one for d5.test, one behind")
        self.assertEqual(self.receiver.open_max, 1)


class SharedLimitsTest(ScenarioTest):
    def flood(self, extra, most):
        node = self.node(extra=extra)
        done = node.ctl.run("inject", "--from", "a@client.test", "--to", "u%n@d%n.test", "--vmta", "all", "--count", 60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.receiver.wait_for(60)
        node.ctl.wait_empty()
        self.assertLessEqual(self.receiver.open_max, most)
        self.assertGreaterEqual(self.receiver.open_max, 2)

    def test_total_max_smtp_out(self):
        self.flood("total-max-smtp-out 3", 3)

    def test_pool(self):
        self.flood("<virtual-mta-pool all>\n  max-smtp-out 3\n</virtual-mta-pool>", 3)

    def test_two_workers_divide_a_pools_limit(self):
        sources = {"v1": (loopback(13), "out1.sluice.test"), "v2": (loopback(14), "out2.sluice.test")}
        cluster = self.cluster(extra="<virtual-mta-pool all>\n  max-smtp-out 4\n</virtual-mta-pool>", sources=sources,
                               workers={"worker-0": [sources["v1"][0]], "worker-1": [sources["v2"][0]]})
        done = cluster.ctl.run("inject", "--from", "a@client.test", "--to", "u%n@d%n.test", "--vmta", "all", "--count", 80)
        self.assertEqual(done.returncode, 0, done.stderr)
        peers = {transaction.peer for transaction in self.receiver.wait_for(80)}
        cluster.ctl.wait_empty()
        self.assertEqual(peers, {address for address, _ in sources.values()})
        self.assertLessEqual(self.receiver.open_max, 4)


class UnavailableTest(ScenarioTest):
    def test_421_goes_to_the_next_host(self):
        busy = Receiver(address=loopback(10), dns_port=5354,
                        behaviour=lambda stage, session, recipient: "421 4.3.2 busy" if stage == "mail" else None)
        self.addCleanup(busy.close)
        self.receiver.zones["d.test"] = [busy.address, self.receiver.address]
        node = self.node(domain_extra="  smtp-421-means-mx-unavailable yes\n  retry-recipients-after 1h\n  retry-after 1h")
        for number in range(3):
            self.send(node, [f"u{number}@d.test".encode()], b"Subject: x\r\n\r\nbody\r\n")
            self.receiver.wait_for(number + 1)
        self.assertEqual(busy.transactions, [])
        self.assertGreaterEqual(busy.connections, 1)
        self.assertEqual(node.ctl.totals()["transient_total"], 0)


class Lmtp(socketserver.StreamRequestHandler):
    """RFC 2033: mailboxes "full" and "gone" refuse behind the message, "nobody" at RCPT."""

    def reply(self, text):
        self.wfile.write(text + b"\r\n")

    def handle(self):
        recipients = []
        self.reply(b"220 lmtp.test LMTP")
        for line in self.rfile:
            self.server.lines.append(line.rstrip(b"\r\n"))
            verb = line.split()[0].upper()
            if verb == b"LHLO":
                self.wfile.write(b"250-lmtp.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif verb == b"RCPT":
                name = line[line.index(b"<") + 1:line.index(b"@")]
                if name == b"nobody":
                    self.reply(b"550 5.1.1 no such mailbox")
                else:
                    recipients.append(name)
                    self.reply(b"250 2.1.5 ok")
            elif verb == b"DATA":
                self.reply(b"354 go on")
                while self.rfile.readline() != b".\r\n":
                    pass
                for name in recipients:
                    if name == b"full":
                        self.reply(b"452 4.2.2 mailbox is full")
                    elif name == b"gone":
                        self.reply(b"550 5.2.1 mailbox is gone")
                    else:
                        self.server.delivered.append(name)
                        self.reply(b"250 2.0.0 %s has it" % name)
                recipients = []
            elif verb == b"QUIT":
                self.reply(b"221 bye")
                return
            elif verb in (b"MAIL", b"RSET"):
                recipients = []
                self.reply(b"250 ok")
            else:
                self.reply(b"500 5.5.1 what")


class LmtpTest(ScenarioTest):
    def test_each_recipient_has_a_reply_of_its_own(self):
        server = socketserver.ThreadingTCPServer((loopback(10), 2424), Lmtp)
        server.daemon_threads = True
        server.lines, server.delivered = [], []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        node = self.node(sources=ONE_SOURCE, extra=f"<domain boxes.test>\n  type lmtp\n  smtp-hosts {server.server_address[0]}:2424\n"
                         "  retry-recipients-after 1h\n  suppress-local-dsn yes\n</domain>")
        names = [b"a", b"full", b"gone", b"nobody", b"z"]
        self.send(node, [name + b"@boxes.test" for name in names], b"Subject: x\r\n\r\n.dot\r\n")

        def totals():
            return node.ctl.totals()
        wait_until(lambda: totals()["recipients"] == 1 and totals()["delivered_total"] == 2, "two of five delivered, one deferred")
        self.assertEqual(sorted(server.delivered), [b"a", b"z"])
        self.assertEqual([totals()[key] for key in ("transient_total", "failed_total")], [1, 2])
        self.assertTrue(server.lines[0].startswith(b"LHLO "), server.lines)
        self.assertEqual(sum(line == b"DATA" for line in server.lines), 1)


if __name__ == "__main__":
    unittest.main()
