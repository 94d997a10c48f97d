"""Proves that nobody who can reach a port brings the process down or makes it hold much memory: noise and broken dialogues on the SMTP, gRPC
and HTTP ports, clients that never finish, never read, or open far too many connections; and that honest mail goes through meanwhile."""
import base64
import os
import random
import re
import resource
import socket
import ssl
import threading
import unittest

from tests.harness import sluice
from tests.harness.certificates import Authority
from tests.harness.processes import loopback, wait_until
from tests.harness.smtp_client import Closed, Connection
from tests.integration.scenario import ScenarioTest

CONTENT = b"From: <sender@client.test>\r\nSubject: honest\r\n\r\nbody\r\n"
SEED = 20261121
ROUNDS = 150
GROWTH_MIB_MAX = 150
# Connections that wait, beside honest mail, and what one of them may cost the process beyond the kernel's buffers.
IDLE = int(os.environ.get("SLUICE_IDLE_CONNECTIONS", "10000"))
IDLE_TLS = int(os.environ.get("SLUICE_IDLE_TLS_CONNECTIONS", "2000" if os.environ.get("SLUICE_SANITIZER") else "10000"))
IDLE_KIB_MAX, IDLE_TLS_KIB_MAX = 8, 48
ROOM = "total-max-smtp-in 20000\n"
# What a session is made of, to be cut, doubled and mixed.
PIECES = [b"EHLO client.test\r\n", b"HELO x\r\n", b"MAIL FROM:<a@client.test>\r\n", b"MAIL FROM:<>" + b" SIZE=9" * 300 + b"\r\n", b"RCPT TO:<u@example.test>\r\n",
          b"RCPT TO:<" + b"x" * 2000 + b"@example.test>\r\n", b"DATA\r\n", b"Subject: x\r\n\r\nbody\r\n.\r\n", b"\n.\n", b"\r\n.\n", b".\r\n", b"\r", b"\n", b"\0",
          b"RSET\r\n", b"NOOP " + b"n" * 5000 + b"\r\n", b"QUIT\r\n", b"BDAT 99999999999 LAST\r\n", b"STARTTLS\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"\x16\x03\x01\x02\x00\x01",
          b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\xff" * 300, b"VRFY \x80\r\n", b"HELP\r\n" * 50]


class HostileCase(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.start()
        self.honest = 0
        self.send_honest()
        self.rss_before = self.rss_mib()

    def start(self):
        self.under_test = self.node(extra=ROOM)

    def rss_kib(self):
        with open(f"/proc/{self.under_test.service.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def rss_mib(self):
        return self.rss_kib() >> 10

    def metric(self, name):
        return int(float(re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", sluice.metrics(self.under_test.address), re.M)[1]))

    def send_honest(self):
        self.honest += 1
        self.send(self.under_test, [f"honest{self.honest}@example.test".encode()], CONTENT)

    def still_well(self, idle_kib=0):
        self.assertTrue(self.under_test.service.alive(), self.under_test.service.log_tail())
        self.assertEqual(self.under_test.service.starts, 1)
        self.send_honest()
        self.under_test.ctl.wait_empty()
        honest = [r for r in self.receiver.recipients() if r.startswith("honest")]
        self.assertEqual(len(honest), self.honest)
        self.assertEqual(self.receiver.errors, [])
        self.assertLess(self.rss_mib() - self.rss_before, GROWTH_MIB_MAX + (idle_kib >> 10))

    def idle(self, count, kib_max, connect):
        """`count` connections that have said EHLO and wait; each of them small and counted, and honest mail goes on."""
        if os.environ.get("SLUICE_SANITIZER"):
            kib_max *= 4  # red zones
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.needs(None if most > count + 200 else f"{count} files cannot be open at once")
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        # What is made once is there before.
        warm = [connect() for _ in range(10)]
        before = self.rss_kib()
        idle = [connect() for _ in range(count)]
        each = (self.rss_kib() - before) / count
        self.assertGreaterEqual(self.metric("sluice_ingest_connections"), count)
        self.assertLess(each, kib_max, f"{each:.2f} KiB each")
        print(f"{count} idle connections: {each:.2f} KiB each", flush=True)
        self.still_well(count * kib_max)
        for client in warm + idle:
            client.close()
        wait_until(lambda: self.metric("sluice_ingest_connections") == 0, "their end")
        self.still_well(count * kib_max)

    def connect_idle(self):
        client = socket.create_connection((self.under_test.address, sluice.SMTP_PORT), timeout=60)
        client.sendall(b"EHLO idle.test\r\n")
        heard = b""
        while not heard.endswith(b"250 HELP\r\n"):
            heard += client.recv(4096)
        return client

    def throw(self, port, data):
        """Sends what the other end takes; what it says is not read, or only at the end."""
        with socket.create_connection((self.under_test.address, port), timeout=10) as client:
            client.settimeout(0.2)
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except OSError:
                pass  # closed or reset: its right


class HostileTest(HostileCase):
    def test_idle_connections_are_small(self):
        self.idle(IDLE, IDLE_KIB_MAX, self.connect_idle)

    def test_what_was_done_is_counted(self):
        before = {}
        for name, data in {"bare_line_ends": b"EHLO x\nMAIL FROM:<a@b.test>\r\n", "lines_too_long": b"x" * 10_000,
                           "foreign_protocols": b"GET / HTTP/1.1\r\n\r\n", "too_many_errors": b"WHAT\r\n" * 50,
                           "cut_off": b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u@example.test>\r\nDATA\r\nx\r\n",
                           "smuggling_refused": b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u@example.test>\r\nDATA\r\nx\n.\r\n\r\n.\r\n"}.items():
            before[name] = self.metric(f"sluice_ingest_{name}_total")
            self.throw(sluice.SMTP_PORT, data)
        for name, count in before.items():
            wait_until(lambda name=name, count=count: self.metric(f"sluice_ingest_{name}_total") == count + 1, f"{name} in the metrics")

    def test_noise_on_every_port(self):
        dice = random.Random(SEED)
        for number in range(ROUNDS):
            pieces = [dice.choice(PIECES) for _ in range(dice.randrange(1, 12))]
            data = b"".join(piece[:dice.randrange(1, len(piece) + 1)] if dice.random() < 0.3 else piece for piece in pieces)
            if dice.random() < 0.2:
                data = dice.randbytes(dice.randrange(1, 3000))
            for port in (sluice.SMTP_PORT, sluice.RPC_PORT, sluice.METRICS_PORT):
                if port == sluice.SMTP_PORT or number % 5 == 0:
                    self.throw(port, data)
        self.still_well()
        # Nothing came out of it that was glued together from two messages.
        for transaction in self.receiver.taken():
            self.assertNotIn(b"MAIL FROM:", transaction.content)

    def test_a_client_that_never_reads(self):
        sockets = []
        most = 32 << 20  # more than the kernel buffers at both ends
        for _ in range(20):
            client = socket.create_connection((self.under_test.address, sluice.SMTP_PORT), timeout=10)
            self.addCleanup(client.close)
            sockets.append(client)
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sent = 0
            try:
                while sent < most:
                    sent += client.send(b"HELP\r\n" * 1000)
            except OSError:
                pass  # its buffers are full: it has stopped reading us
            self.assertLess(sent, most)
        self.still_well()

    def test_many_that_never_finish(self):
        clients = []
        for number in range(300):
            try:
                client = Connection(self.under_test.address, sluice.SMTP_PORT)
                self.addCleanup(client.close)
                clients.append(client)
                client.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<never@example.test>\r\nDATA\r\n" if number % 2 else b"MAIL FROM:<a@cl")
                if number % 2:
                    client.send(b"Subject: never\r\n\r\n" + os.urandom(1).hex().encode() * 40_000 + b"\r\n")
            except Closed:
                pass  # a limit on connections is an answer
        self.assertGreater(len(clients), 50)
        self.still_well()
        self.assertNotIn("never@example.test", self.receiver.recipients())


class HostileSlowTest(HostileCase):
    """What takes time is bounded, and what is refused for its reason is counted by it."""

    def start(self):
        self.under_test = self.node(extra=f"{ROOM}smtp-command-timeout 3s\nsmtp-data-timeout 3s\nmax-message-hops 2\n"
                                          "<smtp-user ann>\npassword sesame\n</smtp-user>\n<smtp-user bob>\npassword open\n</smtp-user>\n",
                                    start=False)
        ours = "  always-allow-relaying yes\n  allow-mailmerge yes\n  allow-unencrypted-plain-auth yes\n  max-message-size 100k\n" \
               "  smtp-max-auth-failure-rate 5/h"
        config = self.under_test.config
        config.write_text(config.read_text().replace("  always-allow-relaying yes", ours))
        self.under_test.start()

    def counts(self, name):
        return self.metric(f"sluice_ingest_{name}_total")

    def test_the_slow_are_cut_off(self):
        slow, noisy = self.counts("too_slow"), self.counts("too_many_errors")
        address = (self.under_test.address, sluice.SMTP_PORT)
        deaf, idle, writer = (socket.create_connection(address, timeout=30) for _ in range(3))
        for client in (deaf, idle, writer):
            self.addCleanup(client.close)
        # Reads nothing of all that it asks for: it has asked for too much before the buffers are full.
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        try:
            for _ in range(4000):
                deaf.send(b"HELP\r\n" * 1000)
        except OSError:
            pass
        writer.sendall(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<never@example.test>\r\nDATA\r\nSubject: x\r\n")
        wait_until(lambda: (self.counts("too_slow"), self.counts("too_many_errors")) == (slow + 2, noisy + 1), "all three in the metrics")
        for client in (idle, writer):
            heard = b""
            while more := client.recv(65536):
                heard += more
            self.assertIn(b"\r\n421 4.4.2", b"\r\n" + heard)
        wait_until(lambda: self.metric("sluice_ingest_connections") == 0, "their end")
        self.still_well()

    def test_half_closed(self):
        """Who has said all that it will is heard out, and not kept."""
        with socket.create_connection((self.under_test.address, sluice.SMTP_PORT), timeout=30) as client:
            client.sendall(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<honest0@example.test>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n")
            client.shutdown(socket.SHUT_WR)
            heard = b""
            while more := client.recv(65536):
                heard += more
        self.assertRegex(heard.decode(), r"\r\n250 2\.\S+ ")
        self.honest += 1
        self.still_well()

    def test_guessed_passwords(self):
        """Each failure waits longer; then the network waits, other networks' users do not, and all of it is counted."""
        def attempt(user, password, source="127.0.0.1"):
            token = base64.b64encode(f"\0{user}\0{password}".encode())
            with socket.create_connection((self.under_test.address, sluice.SMTP_PORT), timeout=60, source_address=(source, 0)) as client:
                client.sendall(b"EHLO x\r\nAUTH PLAIN " + token + b"\r\nQUIT\r\n")
                heard = b""
                while more := client.recv(65536):
                    heard += more
            return heard.decode().rstrip().split("\r\n")[-2][:3]
        guessers = [threading.Thread(target=lambda n=n: answers.append(attempt("ann" if n % 2 else "nobody", f"guess{n}"))) for n in range(8)]
        answers = []
        for thread in guessers:
            thread.start()
        self.send_honest()
        for thread in guessers:
            thread.join()
        self.assertEqual(sorted(answers), 3 * ["454"] + 5 * ["535"])
        self.assertEqual((self.counts("auth_failed"), self.counts("auth_throttled")), (5, 3))
        self.assertEqual(attempt("ann", "sesame"), "454")
        self.assertEqual(attempt("bob", "open", "127.0.77.1"), "235")
        self.assertEqual(self.counts("auth_succeeded"), 1)
        self.still_well()

    def test_what_was_refused_is_counted(self):
        letter = b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u@example.test>\r\nDATA\r\n"
        for name, data in {"header_injections_refused": b"EHLO x\r\nXMRG FROM:<a@b.test>\r\nXDFN name=\"x\x01Bcc: y\"\r\n",
                           "xclient_refused": b"EHLO x\r\nXCLIENT ADDR=192.0.2.1\r\n",
                           "too_large_refused": letter + b"x" * 200_000 + b"\r\n.\r\n",
                           "mail_loops_refused": letter + b"Received: x\r\n" * 3 + b"\r\n.\r\n"}.items():
            before = self.counts(name)
            self.throw(sluice.SMTP_PORT, data)
            wait_until(lambda name=name, before=before: self.counts(name) == before + 1, f"{name} in the metrics")
        self.still_well()


class HostileTlsTest(HostileCase):
    def start(self):
        authority = Authority(self.scenario.path("tls"))
        ours = authority.issue("mx.sluice.test", loopback(1))[2]
        self.context = ssl.create_default_context(cafile=authority.ca)
        self.under_test = self.node(extra=f"{ROOM}smtp-server-tls-certificate {ours}\n", start=False)
        text = self.under_test.config.read_text().replace("  always-allow-relaying yes", "  always-allow-relaying yes\n  allow-starttls yes")
        self.under_test.config.write_text(text)
        self.under_test.start()

    def connect_encrypted(self):
        client = self.connect_idle()
        client.sendall(b"STARTTLS\r\n")
        self.assertRegex(client.recv(4096), rb"^220 ")
        secure = self.context.wrap_socket(client, server_hostname=self.under_test.address)
        secure.sendall(b"EHLO idle.test\r\n")
        self.assertRegex(secure.recv(4096), rb"^250-")
        return secure

    def test_idle_connections_are_small(self):
        self.idle(IDLE_TLS, IDLE_TLS_KIB_MAX, self.connect_encrypted)


if __name__ == "__main__":
    unittest.main()
