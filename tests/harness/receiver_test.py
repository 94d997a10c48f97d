"""Proves that the receiver keeps what was sent, byte for byte, and that its DNS leads to it."""
import socket
import struct
import unittest

from tests.harness import receiver
from tests.harness.processes import loopback
from tests.harness.receiver import Receiver
from tests.harness.smtp_client import Closed, Connection


def query(address, name, kind):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(10)
        peer.sendto(b"\x12\x34\x01\x00" + struct.pack(">HHHH", 1, 0, 0, 0) + receiver.wire_name(name) + struct.pack(">HH", kind, 1), address)
        return peer.recv(512)


class ReceiverTest(unittest.TestCase):
    def receiver(self, **options):
        taken = Receiver(**options)
        self.addCleanup(taken.close)
        return taken

    def test_keeps_every_byte(self):
        remote = self.receiver()
        contents = [b"", b".\r\n", b"..\r\n.a\r\n\r\n.\r\n", b"bare\rreturn\nfeed\r\n\x00\xff\r\n", b"x" * 3_000_000 + b"\r\n.\r\n.y\r\n"]
        with Connection(remote.address, remote.port, source=loopback(3)) as connection:
            self.assertIn("PIPELINING", connection.extensions)
            for content in contents:
                end = connection.transact(b"a@x", [b"b@y", b"c@y"], content)[-1]
                self.assertEqual(end.code, 250)
            connection.quit()
        self.assertEqual([t.content for t in remote.taken()], contents)
        first = remote.transactions[0]
        self.assertEqual((first.peer, first.ehlo, first.mail_from, first.recipients), (loopback(3), "client.test", "a@x", ("b@y", "c@y")))
        self.assertEqual((remote.quits, remote.errors), (1, []))

    def test_behaves_as_told(self):
        def behaviour(stage, session, recipient):
            if stage == "rcpt" and recipient.startswith("no"):
                return "550 5.1.1 nobody"
            if stage == "end" and session.recipients == ["later@y"]:
                return "451 4.3.0 later"
            return "close" if stage == "mail" and session.mail_from == "bad@x" else None
        remote = self.receiver(behaviour=behaviour)
        with Connection(remote.address, remote.port) as connection:
            _, rcpts, data, end = connection.transact(b"a@x", [b"no@y"], b"x\r\n")
            self.assertEqual(([r.code for r in rcpts], data.code, end), ([550], 554, None))
            self.assertEqual(connection.transact(b"a@x", [b"later@y"], b"x\r\n")[-1].code, 451)
            with self.assertRaises(Closed):
                connection.transact(b"bad@x", [b"b@y"], b"x\r\n")
        self.assertEqual(remote.recipients(), [])

    def test_dns(self):
        remote = self.receiver(zones={"broken.test": "servfail", "gone.test": "nxdomain", "null.test": "nullmx", "two.test": ["127.9.9.9"]})
        address = (remote.address, int(remote.resolver.split(":")[1]))
        self.assertTrue(query(address, "a.test", receiver.TYPE_MX).endswith(receiver.wire_name("mx.a.test")))
        self.assertTrue(query(address, "mx.a.test", receiver.TYPE_A).endswith(socket.inet_aton(remote.address)))
        self.assertEqual(query(address, "broken.test", receiver.TYPE_MX)[3] & 15, 2)
        self.assertEqual(query(address, "gone.test", receiver.TYPE_A)[3] & 15, 3)
        self.assertTrue(query(address, "null.test", receiver.TYPE_MX).endswith(b"\0\0\0"))
        self.assertTrue(query(address, "two.test", receiver.TYPE_MX).endswith(receiver.wire_name("a127-9-9-9.mx.test")))
        self.assertTrue(query(address, "a127-9-9-9.mx.test", receiver.TYPE_A).endswith(b"\x7f\x09\x09\x09"))
        self.assertEqual(query(address, "a.test", receiver.TYPE_AAAA)[6:8], b"\0\0")


if __name__ == "__main__":
    unittest.main()
