"""Proves what a process takes from the configuration where no flag says it: listeners and name servers; and that queue-to, reroute-to-virtual-mta,
rewrite-list and include-headers-from do what they say from the file to the wire."""
import os
import unittest

from tests.harness.processes import loopback, wait_until
from tests.harness.receiver import TYPE_A, TYPE_MX
from tests.harness.smtp_client import Closed, Connection
from tests.integration.scenario import ScenarioTest

CONTENT = b"From: <sender@client.test>\r\nSubject: directives\r\n\r\nbody\r\n"


class StartTest(ScenarioTest):
    def test_listeners_and_name_server(self):
        extra = "\n".join([f"smtp-listener {loopback(1)}:2526", f"smtp-ip {loopback(2)}", "smtp-port 2527",
                           f"name-server {self.receiver.resolver}"])
        node = self.node(extra=extra, start=False)
        argv = node.service.argv
        for flag in ("--smtp-listen", "--resolver"):
            at = argv.index(flag)
            del argv[at:at + 2]
        node.start()
        for address, port in ((loopback(1), 2526), (loopback(2), 2527)):
            with Connection(address, port) as connection:
                self.assertEqual(connection.transact(b"a@client.test", [b"u@example.test"], CONTENT)[3].code, 250)
                connection.quit()
        self.receiver.wait_for(2)
        # One address is not another.
        with self.assertRaises(Closed):
            Connection(loopback(2), 2526).quit()


    def test_edns_udp_length(self):
        node = self.node(extra="edns-udp-length 1400")
        self.send(node, [b"u@example.test"], CONTENT)
        self.receiver.wait_for(1)
        self.assertEqual(self.receiver.edns_sizes, {1400})

    def test_lookups_ahead_of_mail(self):
        self.scenario.path("ahead.txt").write_text("one.test  # the largest\ntwo.test\nthree.test\n")
        node = self.node(extra="<dns>\n  precached-domains-file ahead.txt\n  precached-max-domains 2\n  precached-refresh-interval 10s\n</dns>")
        wait_until(lambda: {("mx.one.test", TYPE_A), ("mx.two.test", TYPE_A)} <= set(self.receiver.queries), "lookups without mail", 20)
        self.send(node, [b"u@one.test"], CONTENT)
        self.receiver.wait_for(1)
        self.assertEqual(self.receiver.queries.count(("one.test", TYPE_MX)), 1)
        self.assertNotIn(("three.test", TYPE_MX), self.receiver.queries)

    def test_deliver_only(self):
        folder = self.scenario.path("spool")
        node = self.node(extra=f"<spool {folder}>\n  deliver-only yes\n</spool>")
        with self.connect(node) as connection:
            mail, _, _, end = connection.transact(b"a@client.test", [b"u@example.test"], CONTENT)
            self.assertEqual((end or mail).code // 100, 4, (mail, end))
        self.assertIn("deliver-only", node.ctl.run("status").stdout)
        node.config.write_text(node.config.read_text().replace("deliver-only yes", "deliver-only no"))
        self.assertEqual(node.ctl.run("reload").returncode, 0)

        def taken():
            with self.connect(node) as connection:
                end = connection.transact(b"a@client.test", [b"u@example.test"], CONTENT)[3]
                return end is not None and end.code == 250
        wait_until(taken, "mail that is taken again", 20)
        self.receiver.wait_for(1)


class LogTest(ScenarioTest):
    def test_log_file(self):
        log, later = self.scenario.path("log/s.log"), self.scenario.path("later.log")
        log.parent.mkdir(exist_ok=True)
        for old in (log, later):
            old.write_text("of another day\n")
            os.utime(old, (1_600_000_000, 1_600_000_000))
        node = self.node(extra=f"log-file {log}\nlog-file-world-readable yes\nlog-rotate 2")
        self.assertIn(" event=ready ", log.read_text())
        self.assertEqual(log.stat().st_mode & 0o777, 0o644)
        self.assertEqual(log.with_name("s.log.1").read_text(), "of another day\n")
        text = node.config.read_text().replace(str(log), str(later))
        node.config.write_text(text + "log-auto-rotation no\n")
        node.ctl.json("reload")
        wait_until(lambda: " event=policy_applied " in later.read_text(), "the log in its new file")
        self.assertTrue(later.read_text().startswith("of another day\n"))
        self.assertEqual(later.stat().st_mode & 0o777, 0o644)
        # The flag goes before; a folder that is not there is told, and keeps nobody from starting.
        node.service.stop()
        missing = self.scenario.path("none/s.log")
        node.service.argv += ["--log-file", str(missing)]
        node.start()
        self.assertIn(f"cannot write {missing}", node.service.log_text())


class RouteTest(ScenarioTest):
    def test_queue_to(self):
        node = self.node(extra="<domain one.test>\n  queue-to shared.test\n</domain>\n<domain two.test>\n  queue-to shared.test/v2\n</domain>")
        one = self.send(node, [b"u@one.test"], CONTENT)
        two = self.send(node, [b"u@two.test"], CONTENT)
        node.ctl.wait_empty()
        queues = [{event["queue"] for event in node.ctl.events(message)} for message in (one, two)]
        self.assertEqual({name.split("/")[0] for name in queues[0]}, {"shared.test"})
        self.assertEqual(queues[1], {"shared.test/v2"})

    def test_reroute_to_virtual_mta(self):
        node = self.node(extra="<domain moved.test>\n  reroute-to-virtual-mta v2\n</domain>\n<source 127.0.0.0/8>\n"
                         "  default-virtual-mta v1\n</source>")
        moved = self.send(node, [b"u@moved.test"], CONTENT)
        stays = self.send(node, [b"u@stays.test"], CONTENT)
        node.ctl.wait_empty()
        delivered = [next(e for e in node.ctl.events(m) if e["kind"] == "delivered") for m in (moved, stays)]
        self.assertEqual([e["queue"] for e in delivered], ["moved.test/v2", "stays.test/v1"])


class TextTest(ScenarioTest):
    def test_sender_and_header_on_the_way_out(self):
        (self.scenario.path("headers.txt")).write_text("X-Mailer: fleet\nX-Abuse: abuse@client.test\n")
        node = self.node(extra="include-headers-from headers.txt\n<rewrite-list partners>\n  mail-from sender@client.test info@brand.test\n"
                         "  from-domain client.test brand.test\n</rewrite-list>\n"
                         "<virtual-mta v1>\n  rewrite-list partners\n</virtual-mta>\n"
                         "<source 127.0.0.0/8>\n  default-virtual-mta v1\n</source>")
        self.send(node, [b"u@example.test"], CONTENT)
        self.receiver.wait_for(1)
        self.send(node, [b"u@example.test"], CONTENT, sender=b"other@client.test")
        self.receiver.wait_for(2)
        first, second = self.receiver.taken()[:2]
        self.assertEqual([first.mail_from, second.mail_from], ["info@brand.test", "other@brand.test"])
        self.assertTrue(first.content.startswith(b"X-Mailer: fleet\r\nX-Abuse: abuse@client.test\r\nReceived: "), first.content[:200])


if __name__ == "__main__":
    unittest.main()
