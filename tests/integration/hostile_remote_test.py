"""Proves that no remote host holds mail of others, memory or connections of ours, or gets mail called delivered that was not: replies without an
end, of 2^16 lines, that nobody asked for, clear text behind STARTTLS, a byte now and then, hosts that do not read, and that close their half. Each
is counted, and honest mail goes on beside them all."""
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest

from tests.harness import sluice
from tests.harness.processes import loopback, wait_until
from tests.integration.scenario import ScenarioTest

CONTENT = b"From: <sender@client.test>\r\nSubject: x\r\n\r\nbody\r\n"
LARGE = b"From: <sender@client.test>\r\nSubject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 8000
GROWTH_MIB_MAX = 150
GIGABYTE = 1 << 30
PORT = 2530
SENT_MAX = 32 << 20  # of a gigabyte, what the kernels may hold


class Remote:
    """A host whose `behave(socket)` runs for each connection; what it sent is counted in `sent`."""

    def __init__(self, address, port, behave):
        self.address, self.port, self.behave = address, port, behave
        self.connections = 0
        self.sent = 0
        self.stopping = threading.Event()
        self.sockets = []
        self.listener = socket.create_server((address, port))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            client.settimeout(60)
            self.sockets.append(client)
            threading.Thread(target=self.run, args=(client,), daemon=True).start()

    def run(self, client):
        try:
            self.behave(self, client)
        except OSError:
            pass  # Sluice has hung up

    def say(self, client, text):
        client.sendall(text)
        self.sent += len(text)

    def until(self, client, word):
        heard = b""
        while word not in heard:
            more = client.recv(65536)
            if not more:
                raise OSError("gone")
            heard += more
        return heard

    def close(self):
        self.stopping.set()
        self.listener.close()
        for client in self.sockets:
            client.close()


def gigabyte(remote, client):
    while remote.sent < GIGABYTE:
        remote.say(client, b"220-" + b"x" * 65532)


def lines(remote, client):
    remote.say(client, b"220 mx\r\n")
    remote.until(client, b"EHLO")
    remote.say(client, b"250-x\r\n" * 65536 + b"250 x\r\n")
    remote.until(client, b"\0")


def unasked(remote, client):
    remote.say(client, b"220 mx\r\n" + b"250 more\r\n" * 20)
    remote.until(client, b"\0")


def injects(remote, client):
    remote.say(client, b"220 mx\r\n")
    remote.until(client, b"EHLO")
    remote.say(client, b"250-mx\r\n250 STARTTLS\r\n")
    remote.until(client, b"STARTTLS")
    remote.say(client, b"220 go\r\n250 injected\r\n")
    remote.until(client, b"\0")


def drips(remote, client):
    for _ in range(6000):
        remote.say(client, b"220-still here\r\n")
        if remote.stopping.wait(0.02):
            return


def deaf(remote, client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    remote.say(client, b"220 mx\r\n")
    remote.until(client, b"EHLO")
    remote.say(client, b"250 mx\r\n")
    remote.until(client, b"MAIL")
    remote.say(client, b"250 ok\r\n")
    remote.until(client, b"RCPT")
    remote.say(client, b"250 ok\r\n")
    remote.until(client, b"DATA")
    remote.say(client, b"354 go\r\n")
    remote.stopping.wait(120)


def half_closed(remote, client):
    remote.say(client, b"220 mx\r\n")
    client.shutdown(socket.SHUT_WR)
    remote.until(client, b"\0")


def chain(remote, client):
    """Ten megabytes of certificates."""
    remote.say(client, b"220 mx\r\n")
    remote.until(client, b"EHLO")
    remote.say(client, b"250-mx\r\n250 STARTTLS\r\n")
    remote.until(client, b"STARTTLS")
    remote.say(client, b"220 go\r\n")
    with LARGE_CHAIN.get().wrap_socket(client, server_side=True) as encrypted:
        encrypted.recv(1)


class LargeChain:
    """Made once, when it is first wanted."""

    def __init__(self):
        self.context = None

    def get(self):
        if self.context is None:
            with tempfile.TemporaryDirectory() as folder:
                both = os.path.join(folder, "both.pem")
                with open(os.path.join(folder, "conf"), "w", encoding="ascii") as file:
                    file.write("[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\nsubjectAltName=@names\n[names]\n")
                    file.writelines(f"DNS.{n}=host{n:06}.{'x' * 40}.chain.test\n" for n in range(15_000))
                subprocess.run([shutil.which("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                                "/CN=chain.test", "-days", "2", "-config", file.name, "-keyout", both, "-out", both + ".crt"], check=True,
                               capture_output=True)
                with open(both + ".crt", encoding="ascii") as file:
                    certificate = file.read()
                with open(both, "a", encoding="ascii") as file:
                    file.write(certificate * 10)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(both)
            self.context = context
        return self.context


LARGE_CHAIN = LargeChain()
# Who, and the metric that shows it.
REMOTES = {"gigabyte": (gigabyte, "remote_no_smtp"), "lines": (lines, "remote_no_smtp"), "unasked": (unasked, "remote_unasked_replies"),
           "injects": (injects, "remote_starttls_injections"), "drips": (drips, "remote_timeouts"), "deaf": (deaf, "remote_timeouts"),
           "half": (half_closed, "remote_hang_ups"), "chain": (chain, "tls_failures")}


class HostileRemoteTest(ScenarioTest):
    def metric(self, name):
        return int(float(re.search(rf"^sluice_delivery_{name}_total(?:{{[^}}]*}})? (\S+)$", sluice.metrics(self.under_test.address), re.M)[1]))

    def rss_mib(self):
        with open(f"/proc/{self.under_test.service.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) >> 10

    def test_all_of_them_beside_honest_mail(self):
        LARGE_CHAIN.get()
        address = loopback(8)
        remotes, extra = {}, ""
        for number, (name, (behave, _)) in enumerate(REMOTES.items()):
            encrypted = "  require-starttls yes\n" if name == "chain" else ""
            remotes[name] = Remote(address, PORT + number, behave)
            self.addCleanup(remotes[name].close)
            # One try within the test.
            extra += (f"<domain {name}.test>\n  smtp-hosts {address}:{PORT + number}\n  retry-after 1h\n  retry-recipients-after 1h\n"
                      "  max-smtp-out 1\n  use-starttls yes\n  smtp-greeting-timeout 2s\n  data-send-timeout 2s\n"
                      f"  smtp-data-termination-timeout 2s\n{encrypted}</domain>\n")
        self.under_test = self.node(extra=extra)
        self.send(self.under_test, [b"first@example.test"], CONTENT)
        self.receiver.wait_for(1)
        before = self.rss_mib()
        for name in REMOTES:
            self.send(self.under_test, [f"u@{name}.test".encode()], LARGE if name == "deaf" else CONTENT)
        for number in range(20):
            self.send(self.under_test, [f"honest{number}@example.test".encode()], CONTENT)
        self.receiver.wait_for(21)

        def deferred():
            queues = self.under_test.ctl.json("queues", "list")["queues"]
            return sum(1 for queue in queues if queue["last_replies"]) == len(REMOTES)
        wait_until(deferred, "a verdict on each of them")
        wanted = {}
        for _, metric in REMOTES.values():
            wanted[metric] = wanted.get(metric, 0) + 1
        for metric, count in wanted.items():
            self.assertGreaterEqual(self.metric(metric), count, metric)
        totals = self.under_test.ctl.totals()
        self.assertEqual((totals["delivered_total"], totals["failed_total"]), (21, 0))
        self.assertLess(remotes["gigabyte"].sent, SENT_MAX)
        self.assertLess(self.rss_mib() - before, GROWTH_MIB_MAX)
        self.assertEqual(self.under_test.service.starts, 1)
        wait_until(lambda: re.search(r"^sluice_delivery_connections(?:{[^}]*})? 0$", sluice.metrics(self.under_test.address), re.M),
                   "the end of all connections")

    def test_dns_that_lies(self):
        """Loops, far too many hosts, and addresses of our own inside: none holds up honest mail, and each is counted."""
        self.receiver.zones = {"loop.test": "loop", "dead.test": "servfail", "many.test": [f"192.0.2.{i}" for i in range(1, 31)]}
        later = "  retry-after 1h\n  retry-recipients-after 1h\n  retry-after-dns-error 1h\n"
        extra = "".join(f"<domain {name}.test>\n{later}  allow-private-destinations no\n  connect-timeout 1s\n  mx-connection-attempts 1\n</domain>\n"
                        for name in ("loop", "dead", "many", "inside"))
        self.under_test = self.node(extra=extra)
        for name in ("loop", "dead", "many", "inside", "example"):
            self.send(self.under_test, [f"u@{name}.test".encode()], CONTENT)
        self.receiver.wait_for(1)
        wait_until(lambda: self.metric("dns_failures") >= 2, "the loop and the dead server in the metrics")
        wait_until(lambda: self.metric("dns_cut_answers") >= 1, "the many hosts in the metrics")
        wait_until(lambda: self.metric("private_destinations_refused") >= 1, "the private address in the metrics")
        self.assertEqual(self.receiver.recipients(), ["u@example.test"])
        self.assertEqual(self.under_test.ctl.totals()["failed_total"], 0)


if __name__ == "__main__":
    unittest.main()
