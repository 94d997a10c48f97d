"""aiosmtpd as a mail server beside the test, in a thread of its own: a server that others wrote, for what Sluice sends."""
import asyncio
import collections
import threading

try:
    from aiosmtpd.smtp import SMTP, AuthResult
except ImportError:
    SMTP = AuthResult = None

# `auth` is what the authenticator gave as auth_data, None without AUTH; `tls` is whether the message came encrypted.
Taken = collections.namedtuple("Taken", "peer host_name mail_from recipients content auth tls")


def missing():
    """Why it cannot run here, or None."""
    return None if SMTP else "python3-aiosmtpd is not installed"


class Server:
    """Keeps what it takes in `taken`. `handler` may add mechanisms (auth_NAME) and hooks; `options` go to aiosmtpd's SMTP."""

    def __init__(self, address, port, handler=None, **options):
        self.address, self.port = address, port
        self.taken = []
        self._handler = handler or type("Handler", (), {})()
        self._handler.handle_DATA = self._take
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            self._loop.create_server(lambda: SMTP(self._handler, loop=self._loop, decode_data=False, **options), address, port))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _take(self, server, session, envelope):
        self.taken.append(Taken(session.peer[0], session.host_name, envelope.mail_from, tuple(envelope.rcpt_tos), envelope.content,
                                session.auth_data, session.ssl is not None))
        return "250 taken"

    def recipients(self):
        return [recipient for taken in self.taken for recipient in taken.recipients]

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
