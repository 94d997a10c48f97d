"""An SMTP client that hides nothing: every byte sent is the caller's, every reply is returned as it came."""
import re
import socket
import threading

REPLY_LINE_MAX = 4096
MESSAGE_ID = re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")


class Closed(Exception):
    """The server closed the connection, or it broke."""


class Reply:
    def __init__(self, code, lines):
        self.code = code
        self.lines = lines

    @property
    def text(self):
        return "\n".join(self.lines)

    @property
    def message_id(self):
        """The 26 characters of the id in a 250, or None."""
        found = MESSAGE_ID.search(self.text)
        return found.group(0) if found else None

    def __repr__(self):
        return f"{self.code} {self.text!r}"


def dot_stuff(content):
    """Content as DATA wants it: lines that begin with a dot get another, then the lone dot."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + (b"" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n") + b".\r\n"


class Connection:
    """Thread-safety: one thread at a time. Closed where the server went away or was silent for too long."""

    def __init__(self, address, port, source=None, timeout_s=60, greet=b"client.test"):
        try:
            self._socket = socket.create_connection((address, port), timeout=timeout_s, source_address=(source, 0) if source else None)
        except OSError as error:
            raise Closed(f"connect to {address}:{port}: {error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.extensions = []
        if greet is not None:
            self.greeting = self.reply()
            if self.greeting.code == 220:
                hello = self.command(b"EHLO " + greet)
                self.extensions = [line.upper() for line in hello.lines[1:]]

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self._socket.close()

    def send(self, data):
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from None

    def secure(self, context, server_hostname):
        """The TLS handshake that follows the reply to STARTTLS."""
        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=server_hostname)
        except OSError as error:
            raise Closed(str(error)) from None
        self._buffer = b""

    def _line(self):
        while b"\n" not in self._buffer:
            if len(self._buffer) > REPLY_LINE_MAX:
                raise Closed("the server sent a line without end")
            try:
                chunk = self._socket.recv(65536)
            except OSError as error:
                raise Closed(str(error)) from None
            if not chunk:
                raise Closed("end of the connection")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        if not line.endswith(b"\r"):
            raise Closed(f"a line of the server does not end in CRLF: {line!r}")
        return line[:-1].decode("utf-8", "replace")

    def reply(self):
        lines = []
        while True:
            line = self._line()
            if not re.match(r"[2-5]\d\d[ -]", line + " "):
                raise Closed(f"no SMTP reply: {line!r}")
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(line[:3]), lines)

    def command(self, line):
        self.send(line + b"\r\n")
        return self.reply()

    def at_end(self):
        """True once the server has closed its side, with nothing left to read."""
        try:
            return self._buffer == b"" and self._socket.recv(1) == b""
        except OSError:
            return True

    def transact(self, sender, recipients, content, mail_options=b""):
        """One message, pipelined; replies are (mail, [rcpt...], data, end), those after a refusal None. `content` has CRLF line ends."""
        commands = b"MAIL FROM:<" + sender + b">" + mail_options + b"\r\n"
        commands += b"".join(b"RCPT TO:<" + r + b">\r\n" for r in recipients)
        self.send(commands + b"DATA\r\n")
        mail = self.reply()
        rcpts = [self.reply() for _ in recipients]
        data = self.reply()
        if data.code != 354:
            self.command(b"RSET")
            return mail, rcpts, data, None
        self.send(dot_stuff(content))
        return mail, rcpts, data, self.reply()

    def quit(self):
        try:
            return self.command(b"QUIT")
        finally:
            self.close()


class Injector:
    """Sends numbered messages over several connections, through any failure, until all of them are taken.

    The recipient is the token: `recipient(n)` must differ for each n, and again for each try, so that the outcome of every single try is
    known. After run(): accepted {recipient: message id}, refused and unknown (no answer to the final dot) as sets of recipients.
    """

    def __init__(self, address, port, count, recipient, content, sender=b"sender@client.test", connections=8, stop_after_s=600):
        self._address = address
        self._port = port
        self._count = count
        self._recipient = recipient
        self._content = content
        self._sender = sender
        self._connections = connections
        self._next = 0
        self._allowed = count
        self._lock = threading.Condition()
        self._stop = threading.Event()
        self._timer = threading.Timer(stop_after_s, self.stop)
        self._timer.daemon = True
        self._threads = []
        self.accepted = {}
        self.refused = set()
        self.unknown = set()

    def start(self):
        self._timer.start()
        for _ in range(self._connections):
            thread = threading.Thread(target=self._work, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def join(self):
        for thread in self._threads:
            thread.join()
        self._timer.cancel()
        if self._stop.is_set():
            raise TimeoutError(f"injection: {len(self.accepted)} of {self._count} accepted when time was up")
        return self

    def stop(self):
        self._stop.set()
        with self._lock:
            self._lock.notify_all()

    def done(self):
        return len(self.accepted)

    def allow(self, count):
        """No message beyond the first `count` is begun from now on: what happens meanwhile happens between these."""
        with self._lock:
            self._allowed = count
            self._lock.notify_all()

    def running(self):
        return any(thread.is_alive() for thread in self._threads)

    def _take(self):
        with self._lock:
            self._lock.wait_for(lambda: self._next < self._allowed or self._next >= self._count or self._stop.is_set())
            number = self._next
            self._next += 1
            return number if number < self._count else None

    def _work(self):
        connection = None
        while not self._stop.is_set():
            number = self._take()
            if number is None:
                break
            attempt = 0
            while not self._stop.is_set():
                recipient = self._recipient(number, attempt)
                attempt += 1
                accepted, connection = self._try(connection, recipient)
                if accepted:
                    break
                # A server that is away, or busy, is asked again after a moment.
                self._stop.wait(0.05)
        if connection is not None:
            connection.close()

    def _try(self, connection, recipient):
        token = recipient.decode()
        sent_data = False
        try:
            if connection is None:
                connection = Connection(self._address, self._port)
                if connection.greeting.code != 220:
                    raise Closed("busy")
            connection.send(b"MAIL FROM:<" + self._sender + b">\r\nRCPT TO:<" + recipient + b">\r\nDATA\r\n")
            replies = [connection.reply(), connection.reply(), connection.reply()]
            if replies[2].code != 354:
                self.refused.add(token)
                connection.command(b"RSET")
                return False, connection
            sent_data = True
            connection.send(dot_stuff(self._content(token)))
            end = connection.reply()
            if end.code == 250:
                self.accepted[token] = end.message_id
                return True, connection
            # Sluice says so where its shard was lost under way: the outcome is as unknown as without an answer.
            (self.unknown if "may be accepted" in end.text else self.refused).add(token)
            return False, connection
        except Closed:
            if sent_data:
                self.unknown.add(token)
            else:
                self.refused.add(token)
            if connection is not None:
                connection.close()
            return False, None
