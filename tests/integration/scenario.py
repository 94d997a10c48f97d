"""What all scenarios share: a folder, a remote provider, Sluice's processes, and their logs where the scenario fails."""
import re
import sys
import unittest

from tests.harness import sluice
from tests.harness.processes import Scenario
from tests.harness.receiver import Receiver
from tests.harness.smtp_client import Connection

# One Received field, folded or not, as RFC 5321 4.4 wants it at the top.
RECEIVED = re.compile(rb"\AReceived: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")


class ScenarioTest(unittest.TestCase):
    """`self.receiver` is the remote provider of every domain. Overrides: RECEIVER (its options)."""

    RECEIVER = {}

    def setUp(self):
        # Clean-ups also run where the rest of a setUp fails, and after every tearDown.
        self.scenario = Scenario(type(self).__name__.lower())
        self.addCleanup(self.scenario.close)
        self.receiver = Receiver(**self.RECEIVER)
        self.addCleanup(self.receiver.close)

    def run(self, result=None):
        """As usual; where the test failed, the logs go to stderr before the folder goes away."""
        method = getattr(self, self._testMethodName)

        def shown(*arguments):
            try:
                return method(*arguments)
            except unittest.SkipTest:
                raise
            except BaseException:
                for process in self.scenario.processes:
                    print(process.log_tail(), file=sys.stderr)
                raise
        setattr(self, self._testMethodName, shown)
        return super().run(result)

    def needs(self, missing):
        """Skips the test where `missing` says what is not here, and says so where a passing run is read (tools/test repeats it)."""
        if missing:
            print(f"SKIPPED: {self.id()}: {missing}", file=sys.stderr)
            self.skipTest(missing)

    def node(self, extra="", domain_extra="", sources=None, flags=(), start=True, name="sluiced"):
        config = sluice.configuration(sources or sluice.default_sources(), self.receiver.port, extra, domain_extra)
        node = sluice.Node(self.scenario, config, self.receiver.resolver, flags=flags, name=name)
        return node.start() if start else node

    def cluster(self, extra="", domain_extra="", sources=None, **options):
        config = sluice.configuration(sources or sluice.default_sources(), self.receiver.port, extra, domain_extra)
        return sluice.Cluster(self.scenario, config, self.receiver.resolver, **options).start()

    def connect(self, at, **options):
        return Connection(at.address, sluice.SMTP_PORT, **options)

    def send(self, at, recipients, content, sender=b"sender@client.test", mail_options=b""):
        """One message by SMTP that must be taken; its id."""
        with self.connect(at) as connection:
            mail, rcpts, data, end = connection.transact(sender, recipients, content, mail_options)
            self.assertEqual([mail.code, *(r.code for r in rcpts), data.code, end and end.code],
                             [250] + [250] * len(recipients) + [354, 250], (mail, rcpts, data, end))
            connection.quit()
        self.assertIsNotNone(end.message_id, end)
        return end.message_id

    def assert_content(self, got, sent):
        """`got` is `sent` below exactly one Received field of ours."""
        received = RECEIVED.match(got)
        self.assertIsNotNone(received, got[:300])
        rest = got[received.end():]
        if rest != sent:
            at = next((i for i, (a, b) in enumerate(zip(rest, sent)) if a != b), min(len(rest), len(sent)))
            self.fail(f"differs at byte {at}: got {rest[max(0, at - 40):at + 40]!r}, sent {sent[max(0, at - 40):at + 40]!r}; "
                      f"{len(rest)} bytes, {len(sent)} were sent")
