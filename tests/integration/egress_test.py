"""Proves that mail leaves through the proxies of its virtual MTA, haproxy by both versions of the PROXY protocol, microsocks and Dante by
SOCKS5, and by no other way where the proxy is gone."""
import os
import re
import shutil
import socket
import subprocess
import threading
import unittest

from tests.harness import sluice
from tests.harness.processes import loopback, wait_until
from tests.harness.sluice import wait_port
from tests.integration.scenario import ScenarioTest

PROXY = loopback(11)
PROXY_PORT = 5128
PUBLIC = "198.51.100.7"  # what the proxy is said to connect from


def program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")


class EgressTest(ScenarioTest):
    def start_proxy(self, name, arguments):
        path = program(name)
        self.needs(None if path else f"{name} is not installed")
        process = subprocess.Popen([path, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_port(PROXY, PROXY_PORT, name)

    def config_file(self, name, text):
        path = os.path.join(str(self.scenario.folder), name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def check(self, lines, peer=None):
        self.check_node(f"""
            <proxy p>
              server {PROXY}:{PROXY_PORT}
              client {PUBLIC} out.proxy.test
              {lines}
            </proxy>
            <virtual-mta proxied>
              use-proxy p
            </virtual-mta>
            """, peer)

    def check_node(self, extra, peer=None):
        node = self.node(extra=extra)
        for number in range(5):
            self.send(node, [f"u{number}@d{number}.test".encode()], b"X-Virtual-MTA: proxied\r\nSubject: x\r\n\r\nbody\r\n")
        for transaction in self.receiver.wait_for(5):
            self.assertEqual(transaction.ehlo, "out.proxy.test")
            self.assertEqual(transaction.peer, peer or "127.0.0.1")
        node.ctl.wait_empty()
        self.assertEqual(self.receiver.errors, [])

    def haproxy(self):
        self.start_proxy("haproxy", ["-db", "-f", self.config_file(
            "haproxy.cfg", "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\nlisten egress\n"
            f"  bind {PROXY}:{PROXY_PORT} accept-proxy\n  server remote 0.0.0.0\n")])

    def test_proxy_protocol_1(self):
        self.haproxy()
        self.check("protocol-version 1")

    def test_proxy_protocol_2(self):
        self.haproxy()
        self.check("protocol-version 2")

    def test_in_one_line(self):
        self.haproxy()
        self.check_node(f"""
            <virtual-mta proxied>
              smtp-proxy-source-host 127.0.0.0/8 {PROXY}:{PROXY_PORT} {PUBLIC} out.proxy.test
              proxy-protocol 2
            </virtual-mta>
            """)

    def test_socks5_with_password(self):
        self.start_proxy("microsocks", ["-i", PROXY, "-p", str(PROXY_PORT), "-u", "me", "-P", "secret", "-b", loopback(12)])
        self.check("type socks5\n username me\n password secret", loopback(12))

    def test_dante(self):
        self.start_proxy("danted", ["-f", self.config_file(
            "danted.conf", f"logoutput: /dev/null\ninternal: {PROXY} port = {PROXY_PORT}\nexternal: 127.0.0.1\nclientmethod: none\n"
            "socksmethod: none\nclient pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\nsocks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n")])
        self.check("type socks5")

    def test_socks5_with_a_wrong_password_nothing_leaves(self):
        self.start_proxy("microsocks", ["-i", PROXY, "-p", str(PROXY_PORT), "-u", "me", "-P", "secret"])
        node = self.node(extra=f"<proxy p>\nserver {PROXY}:{PROXY_PORT}\nclient {PUBLIC} out.proxy.test\ntype socks5\nusername me\n"
                               "password wr0ng\n</proxy>\n<virtual-mta proxied>\nuse-proxy p\n</virtual-mta>\n")
        self.send(node, [b"u@d.test"], b"X-Virtual-MTA: proxied\r\nSubject: x\r\n\r\nbody\r\n")
        wait_until(lambda: "user name or password is wrong" in str(node.ctl.status()), "the reason in the status")
        self.assertNotIn("wr0ng", str(node.ctl.status()))
        self.assertEqual((self.receiver.taken(), node.ctl.totals()["failed_total"]), ([], 0))

    def test_a_remote_that_the_proxy_refuses_costs_the_others_nothing(self):
        refused = loopback(7)
        self.start_proxy("danted", ["-f", self.config_file(
            "danted.conf", f"logoutput: /dev/null\ninternal: {PROXY} port = {PROXY_PORT}\nexternal: 127.0.0.1\nclientmethod: none\n"
            "socksmethod: none\nclient pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n"
            f"socks block {{ from: 0.0.0.0/0 to: {refused}/32 }}\nsocks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n")])
        node = self.node(extra=f"<proxy p>\nserver {PROXY}:{PROXY_PORT}\nclient {PUBLIC} out.proxy.test\ntype socks5\n</proxy>\n"
                               f"<virtual-mta proxied>\nuse-proxy p\n</virtual-mta>\n<domain refused.test>\nsmtp-hosts {refused}\n</domain>\n")
        for domain, done in (("refused.test", lambda: "rules do not allow" in str(node.ctl.json("queues", "list"))),
                             ("d.test", lambda: self.receiver.recipients() == ["u@d.test"])):
            self.send(node, [f"u@{domain}".encode()], b"X-Virtual-MTA: proxied\r\nSubject: x\r\n\r\nbody\r\n")
            # A source that is suspended stays so for a minute.
            wait_until(done, f"the outcome of {domain}", 20)

    def silent(self, *answers):
        """A proxy that takes connections, says `answers`, one for each thing it hears, and no more."""
        listener = socket.create_server((PROXY, PROXY_PORT))
        self.addCleanup(listener.close)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)  # wakes who waits for a client
        kept = []

        def serve():
            while True:
                try:
                    client, _ = listener.accept()
                    kept.append(client)
                    for answer in answers:
                        client.recv(512)
                        client.sendall(answer)
                except OSError:
                    return
        threading.Thread(target=serve, daemon=True).start()
        node = self.node(extra=f"<proxy p>\nserver {PROXY}:{PROXY_PORT}\nclient {PUBLIC} out.proxy.test\ntype socks5\n</proxy>\n"
                               "<virtual-mta proxied>\nuse-proxy p\n</virtual-mta>\n", domain_extra="connect-timeout 2s")
        self.send(node, [b"u@d.test"], b"X-Virtual-MTA: proxied\r\nSubject: x\r\n\r\nbody\r\n")
        return node

    def suspended(self, node):
        return float(re.search(r"^sluice_delivery_sources_suspended(?:{[^}]*})? (\S+)$", sluice.metrics(node.address), re.M)[1])

    def test_a_proxy_that_hangs_is_told_from_a_remote_that_does(self):
        node = self.silent()
        wait_until(lambda: "the proxy does not answer" in str(node.ctl.status()), "the reason in the status")
        self.assertEqual(self.suspended(node), 1)
        wait_until(lambda: "every source of the virtual MTA is suspended: " in str(node.ctl.json("queues", "list")), "the reason of the queue")

    def test_a_remote_that_the_proxy_does_not_reach_suspends_nothing(self):
        node = self.silent(b"\5\0")
        wait_until(lambda: "the proxy has not reached the remote in time" in str(node.ctl.json("queues", "list")), "the reason of the queue")
        self.assertEqual(self.suspended(node), 0)

    def test_without_the_proxy_nothing_leaves(self):
        node = self.node(extra=f"<proxy p>\nserver {PROXY}:{PROXY_PORT + 1}\nclient {PUBLIC} out.proxy.test\n</proxy>\n"
                               "<virtual-mta proxied>\nuse-proxy p\n</virtual-mta>\n")
        self.send(node, [b"u@d.test"], b"X-Virtual-MTA: proxied\r\nSubject: x\r\n\r\nbody\r\n")
        wait_until(lambda: "through proxy" in str(node.ctl.status()), "the reason in the status")
        self.assertEqual(self.receiver.taken(), [])
        self.assertEqual(node.ctl.totals()["failed_total"], 0)
        self.assertEqual(node.ctl.totals()["recipients"], 1)


if __name__ == "__main__":
    unittest.main()
