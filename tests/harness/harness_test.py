"""Proves the harness itself: processes are waited for, killed and reported; the client sees what it is told; the balance finds a loss."""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
import unittest.mock

from tests.harness import processes
from tests.harness.processes import Failure, Process, Scenario
from tests.harness.reconcile import Balance
from tests.harness.smtp_client import Closed, Connection, Injector, dot_stuff


class ProcessTest(unittest.TestCase):
    def setUp(self):
        self.scenario = Scenario("harness")
        self.addCleanup(self.scenario.close)

    def python(self, name, code, **options):
        return self.scenario.add(Process(name, [sys.executable, "-c", code], self.scenario.folder, **options))

    def test_waits_for_the_ready_file_and_stops(self):
        ready = self.scenario.path("ready")
        process = self.python("p", f"import time; open({str(ready)!r}, 'w').write('{{\"rpc\": \"x\"}}'); time.sleep(600)", ready_file=ready)
        process.start()
        self.assertEqual(process.addresses(), {"rpc": "x"})
        self.assertTrue(process.alive())
        process.kill()
        self.assertFalse(process.alive())
        process.start()
        self.assertEqual(process.stop(), -signal.SIGTERM)
        self.assertEqual(process.starts, 2)

    def test_an_early_end_is_reported_with_its_log(self):
        process = self.python("p", "print('bad luck'); raise SystemExit(3)", ready_file=self.scenario.path("ready"))
        with self.assertRaisesRegex(Failure, "(?s)ended with 3 .*bad luck"):
            process.start()

    def test_waiting_has_an_end(self):
        with self.assertRaisesRegex(Failure, "no rain within 0 s"):
            processes.wait_until(lambda: False, "rain", seconds=0)

    def test_the_folder_goes_away(self):
        folder = self.scenario.folder
        self.assertTrue(folder.is_dir())
        self.scenario.close()
        self.assertFalse(folder.exists())

    def test_what_killed_tests_left_goes_away(self):
        """Their folders, and no others: of running tests, of somebody else, of tests that are just making theirs."""
        hour_ago = time.time() - 3600
        with unittest.mock.patch.dict(os.environ, {"TEST_TMPDIR": str(self.scenario.folder)}):
            code = "from tests.harness.processes import Scenario; import os, signal; s = Scenario('killed'); os.kill(os.getpid(), signal.SIGKILL)"
            self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, -signal.SIGKILL)
            left = next(self.scenario.folder.glob("sluice-test-killed-*"))
            os.utime(left, (hour_ago, hour_ago))
            young = self.scenario.folder / "sluice-test-young"
            young.mkdir()
            other = self.scenario.folder / "other"
            other.mkdir()
            os.utime(other, (hour_ago, hour_ago))
            with Scenario("running") as running:
                os.utime(running.folder, (hour_ago, hour_ago))
                Scenario("next").close()
                self.assertFalse(left.exists())
                for kept in (young, other, running.folder):
                    self.assertTrue(kept.exists(), kept)

    def test_blocks_of_addresses_differ(self):
        self.assertEqual(len({processes.loopback(n, pid) for n in range(15) for pid in range(100_000, 100_400)}), 6000)


class FakeServer(threading.Thread):
    """Speaks a script: reads until `expect` bytes were seen, then answers."""

    def __init__(self, steps):
        super().__init__(daemon=True)
        self._steps = steps
        self._listener = socket.create_server((processes.loopback(1), 0))
        self.port = self._listener.getsockname()[1]
        self.seen = b""
        self.start()

    def run(self):
        peer, _ = self._listener.accept()
        with peer:
            for expect, answer in self._steps:
                while not self.seen.endswith(expect):
                    chunk = peer.recv(65536)
                    if not chunk:
                        return
                    self.seen += chunk
                peer.sendall(answer)
        self._listener.close()


HELLO = [(b"", b"220 x\r\n"), (b"EHLO client.test\r\n", b"250-x\r\n250 PIPELINING\r\n")]


class SmtpClientTest(unittest.TestCase):
    def connect(self, steps):
        self.server = FakeServer(HELLO + steps)
        return Connection(processes.loopback(1), self.server.port)

    def test_dot_stuffing(self):
        self.assertEqual(dot_stuff(b".a\r\n..b\r\n"), b"..a\r\n...b\r\n.\r\n")
        self.assertEqual(dot_stuff(b"no end"), b"no end\r\n.\r\n")
        self.assertEqual(dot_stuff(b""), b".\r\n")

    def test_a_transaction(self):
        with self.connect([
                (b"DATA\r\n", b"250 ok\r\n250-ok\r\n250 rcpt\r\n354 go\r\n"),
                (b"\r\n.\r\n", b"250 2.0.0 id 01HZZZZZZZZZZZZZZZZZZZZZZZ\r\n")]) as connection:
            self.assertEqual(connection.extensions, ["PIPELINING"])
            mail, rcpts, data, end = connection.transact(b"a@x", [b"b@y"], b"hi\r\n")
            self.assertEqual((mail.code, rcpts[0].lines, data.code, end.code), (250, ["ok", "rcpt"], 354, 250))
            self.assertEqual(end.message_id, "01HZZZZZZZZZZZZZZZZZZZZZZZ")
        self.assertIn(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nhi\r\n.\r\n", self.server.seen)

    def test_bare_line_feeds_and_ends_are_errors(self):
        with self.connect([(b"NOOP\r\n", b"250 ok\n")]) as connection:
            with self.assertRaisesRegex(Closed, "CRLF"):
                connection.command(b"NOOP")
        with self.connect([]) as connection:
            with self.assertRaises(Closed):
                connection.command(b"NOOP")

    def test_nobody_listens(self):
        with self.assertRaises(Closed):
            Connection(processes.loopback(2), 9)

    def test_the_injector_keeps_the_outcome_of_every_try(self):
        server = FakeServer(HELLO + [
            (b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), (b"\r\n.\r\n", b"451 later\r\n"),
            (b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), (b"\r\n.\r\n", b"250 ok 01HZZZZZZZZZZZZZZZZZZZZZZZ\r\n"),
            (b"DATA\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"), (b"\r\n.\r\n", b"")])
        injector = Injector(processes.loopback(1), server.port, 2, lambda n, t: f"r{n}-{t}@x".encode(), lambda token: b"x\r\n", connections=1)
        injector.start()
        processes.wait_until(lambda: injector.unknown, "broken connection")
        injector.stop()
        with self.assertRaises(TimeoutError):
            injector.join()
        self.assertEqual(injector.accepted, {"r0-1@x": "01HZZZZZZZZZZZZZZZZZZZZZZZ"})
        self.assertIn("r0-0@x", injector.refused)
        self.assertEqual(injector.unknown, {"r1-0@x"})


class BalanceTest(unittest.TestCase):
    def test_all_well(self):
        Balance({"a", "b"}, {"c"}, {"d"}, ["a", "b", "d"]).check()
        Balance({"a"}, set(), {"d"}, ["a"]).check()

    def test_what_is_wrong_is_named(self):
        with self.assertRaisesRegex(AssertionError, "1 accepted recipients were lost: .'b'"):
            Balance({"a", "b"}, set(), set(), ["a"]).check()
        with self.assertRaisesRegex(AssertionError, "nobody accepted: .'c'"):
            Balance({"a"}, {"c"}, set(), ["a", "c"]).check()
        with self.assertRaisesRegex(AssertionError, "2 surplus copies, at most 1"):
            Balance({"a"}, set(), set(), ["a"] * 3).check(doubled_max=1)
        Balance({"a"}, set(), set(), ["a"] * 3).check(doubled_max=2)


if __name__ == "__main__":
    unittest.main()
