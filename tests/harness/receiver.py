"""A remote mail provider inside the test: an SMTP receiver that keeps every byte, and a DNS server that leads every domain to it.

It shares no code with Sluice, so that an error cannot hide on both sides. `sluice-sink` is the one for speed.
"""
import asyncio
import collections
import struct
import threading
import time

from tests.harness.processes import loopback, wait_until

TYPE_A, TYPE_CNAME, TYPE_MX, TYPE_AAAA = 1, 5, 15, 28
RCODE_SERVFAIL, RCODE_NXDOMAIN = 2, 3
TTL_S = 60
# The receiver's thread looks at its clock so often, where the machine lets it; what it does about one arrival takes it at most so many turns.
BEAT_S = 0.01
TURNS_MAX = 6

# Who said what, and what was answered. `content` is as the client meant it: without the dots that SMTP adds.
Transaction = collections.namedtuple("Transaction", "peer local ehlo mail_from recipients content reply connection")


class Session(asyncio.Protocol):
    """One connection. A state machine over whole lines, so that pipelined commands are answered in order."""

    def __init__(self, receiver, number):
        self._receiver = receiver
        self._number = number
        self._buffer = bytearray()
        self._in_data = False
        self._searched = 0
        self._ehlo = b""
        self._mail = None
        self._recipients = []

    def connection_made(self, transport):
        self._transport = transport
        self._peer = transport.get_extra_info("peername")[0]
        self._local = transport.get_extra_info("sockname")[0]
        self._receiver.opened(transport)
        self._receiver.open += 1
        self._receiver.open_max = max(self._receiver.open_max, self._receiver.open)
        self._reply(self._receiver.ask("connect", self) or "220 mx.receiver.test ESMTP")

    def connection_lost(self, error):
        self._receiver.closed(self._transport)
        self._receiver.open -= 1

    def _reply(self, text):
        if text == "close":
            self._transport.abort()
        elif text != "silence":
            self._transport.write(text.encode() + b"\r\n")
            if text.startswith(("421", "554 5.3.2")):
                self._transport.close()

    def data_received(self, data):
        self._buffer += data
        while not self._transport.is_closing():
            if self._in_data:
                end = 0 if self._buffer.startswith(b".\r\n") else self._buffer.find(b"\r\n.\r\n", max(0, self._searched - 4))
                if end == -1:
                    self._searched = len(self._buffer)
                    return
                lone = self._buffer.startswith(b".\r\n")
                content = b"" if lone else bytes(self._buffer[:end + 2])
                del self._buffer[:3 if lone else end + 5]
                self._in_data = False
                self._finish(content)
            else:
                end = self._buffer.find(b"\n")
                if end == -1:
                    return
                line = bytes(self._buffer[:end + 1])
                del self._buffer[:end + 1]
                self._command(line)

    def _finish(self, stuffed):
        content = stuffed.replace(b"\r\n..", b"\r\n.")
        if content.startswith(b".."):
            content = content[1:]
        reply = self._receiver.ask("end", self) or "250 2.0.0 taken"
        transaction = Transaction(self._peer, self._local, self._ehlo.decode(), self.mail_from, tuple(self.recipients), content, reply, self._number)
        self._mail, self._recipients = None, []
        if reply == "hold":
            self._receiver.held.append((self, transaction))
        else:
            self.finish(transaction)

    def finish(self, transaction):
        self._receiver.keep(transaction)
        self._reply(transaction.reply)

    @property
    def mail_from(self):
        return None if self._mail is None else self._mail.decode()

    @property
    def recipients(self):
        return [r.decode() for r in self._recipients]

    @property
    def peer(self):
        return self._peer

    @property
    def number(self):
        return self._number

    def _command(self, line):
        if not line.endswith(b"\r\n"):
            self._receiver.errors.append(f"bare line feed: {line!r}")
        line = line.rstrip(b"\r\n")
        verb = line.split(b" ")[0].upper()
        if verb == b"EHLO":
            self._ehlo = line[5:]
            self._reply(self._receiver.ask("ehlo", self) or "250-mx.receiver.test\r\n" + "".join(
                f"250-{e}\r\n" for e in self._receiver.extensions) + "250 HELP")
        elif verb == b"HELO":
            self._ehlo = line[5:]
            self._reply("250 mx.receiver.test")
        elif verb == b"MAIL":
            self._mail = line[line.find(b"<") + 1:line.find(b">")]
            self._recipients = []
            self._reply(self._receiver.ask("mail", self) or "250 2.1.0 ok")
        elif verb == b"RCPT":
            recipient = line[line.find(b"<") + 1:line.rfind(b">")]
            reply = self._receiver.ask("rcpt", self, recipient.decode()) or "250 2.1.5 ok"
            if reply.startswith("250"):
                self._recipients.append(recipient)
            self._reply(reply)
        elif verb == b"DATA":
            reply = self._receiver.ask("data", self)
            if reply is None and not self._recipients:
                reply = "554 5.5.1 no valid recipients"
            self._in_data = reply is None
            self._searched = 0
            self._reply(reply or "354 go on")
        elif verb in (b"RSET", b"NOOP"):
            if verb == b"RSET":
                self._mail, self._recipients = None, []
            self._reply("250 2.0.0 ok")
        elif verb == b"QUIT":
            self._receiver.quits += 1
            self._reply("221 2.0.0 bye")
            self._transport.close()
        else:
            self._receiver.errors.append(f"unknown command: {line!r}")
            self._reply("500 5.5.2 unknown")


class Dns(asyncio.DatagramProtocol):
    """MX of every domain is mx.DOMAIN, whose address is the receiver's; `zones` says otherwise for some."""

    def __init__(self, receiver):
        self._receiver = receiver

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, peer):
        if len(data) < 17:
            return
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]])
            at += 1 + data[at]
        question = data[12:at + 5]
        kind = struct.unpack(">H", data[at + 1:at + 3])[0]
        name = b".".join(labels).decode().lower()
        self._receiver.queries.append((name, kind))
        if struct.unpack(">H", data[10:12])[0] and len(data) >= at + 10:  # OPT, whose class is a size
            self._receiver.edns_sizes.add(struct.unpack(">H", data[at + 8:at + 10])[0])
        rcode, records = self._receiver.resolve(name, kind)
        answer = data[:2] + struct.pack(">HHHHH", 0x8580 | rcode, 1, len(records), 0, 0) + question
        for record_kind, value in records:
            answer += b"\xc0\x0c" + struct.pack(">HHIH", record_kind, 1, TTL_S, len(value)) + value
        self._transport.sendto(answer, peer)


def wire_name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


class Receiver:
    """Runs in a thread of its own until close(). `behaviour(stage, session, recipient)` may return a reply, "close", "silence" or None for
    the usual; stages: connect, ehlo, mail, rcpt, data, end. At the end also "hold": the reply comes when release() gives it.
    `zones`: {name: "servfail" | "nxdomain" | "nullmx" | "loop" | [MX addresses]}.
    """

    def __init__(self, address=None, port=2526, dns_port=5353, behaviour=None, zones=None, keep_content=True,
                 extensions=("PIPELINING", "8BITMIME", "SIZE 104857600", "ENHANCEDSTATUSCODES", "DSN")):
        self.address = address or loopback(9)
        self.port = port
        self.resolver = f"{self.address}:{dns_port}"
        self.behaviour = behaviour
        self.zones = zones or {}
        self.extensions = extensions
        self.transactions = []
        self.errors = []
        self.queries = []
        self.edns_sizes = set()
        self.connections = 0
        self.open = 0
        self.open_max = 0
        self.quits = 0
        self.held = []
        self._beats = collections.deque([time.monotonic()], maxlen=TURNS_MAX)
        self._keep_content = keep_content
        self._transports = set()
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(dns_port, started), daemon=True)
        self._failure = None
        self._thread.start()
        started.wait()
        if self._failure is not None:
            raise self._failure

    def no_earlier(self):
        """For a behaviour: what it is told of left its sender after this time, however late a slow machine tells it."""
        return self._beats[0]

    def _beat(self):
        self._beats.append(time.monotonic())
        self._loop.call_later(BEAT_S, self._beat)

    def _run(self, dns_port, started):
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._beat)
        try:
            self._server = self._loop.run_until_complete(self._loop.create_server(self._session, self.address, self.port, backlog=1024))
            dns, _ = self._loop.run_until_complete(self._loop.create_datagram_endpoint(lambda: Dns(self), local_addr=(self.address, dns_port)))
        except OSError as error:
            self._failure = error
            return
        finally:
            started.set()
        self._loop.run_forever()
        # Aborted transports tell their sessions in a turn of the loop.
        for transport in [dns, *self._transports]:
            transport.abort()
        self._server.close()
        self._loop.run_until_complete(self._server.wait_closed())
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def _session(self):
        self.connections += 1
        return Session(self, self.connections)

    def opened(self, transport):
        self._transports.add(transport)

    def closed(self, transport):
        self._transports.discard(transport)

    def ask(self, stage, session, recipient=None):
        return self.behaviour(stage, session, recipient) if self.behaviour else None

    def release(self, reply):
        """Answers what was held."""
        def answer():
            for session, transaction in self.held:
                session.finish(transaction._replace(reply=reply))
            self.held = []
        self._loop.call_soon_threadsafe(answer)

    def keep(self, transaction):
        self.transactions.append(transaction if self._keep_content else transaction._replace(content=b""))

    def resolve(self, name, kind):
        zone = self.zones.get(name)
        if zone == "servfail":
            return RCODE_SERVFAIL, []
        if zone == "nxdomain":
            return RCODE_NXDOMAIN, []
        if zone == "loop":
            return 0, [(TYPE_CNAME, wire_name(name))]
        if kind == TYPE_MX:
            if zone == "nullmx":
                return 0, [(TYPE_MX, struct.pack(">H", 0) + b"\0")]
            if isinstance(zone, list):
                return 0, [(TYPE_MX, struct.pack(">H", 10 * i) + wire_name(f"a{a.replace('.', '-')}.mx.test")) for i, a in enumerate(zone)]
            return 0, [(TYPE_MX, struct.pack(">H", 10) + wire_name("mx." + name))]
        if kind == TYPE_A:
            address = self.address
            if name.endswith(".mx.test") and name.startswith("a"):
                address = name[1:-len(".mx.test")].replace("-", ".")
            return 0, [(TYPE_A, bytes(int(part) for part in address.split(".")))]
        return 0, []

    def taken(self):
        """Transactions that ended with a 250."""
        return [t for t in list(self.transactions) if t.reply.startswith("250")]

    def recipients(self):
        """Every recipient taken, as often as it was."""
        return [r for t in self.taken() for r in t.recipients]

    def wait_for(self, count, seconds=120):
        """Until `count` recipients were taken; all the transactions taken."""
        wait_until(lambda: len(self.recipients()) >= count, f"{count} recipients at the receiver", seconds)
        return self.taken()
