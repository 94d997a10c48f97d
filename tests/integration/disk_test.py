"""Proves what a full and a failing disk do: mail is refused with a 4xx before the disk is full, results can still be written, nothing
accepted is lost, and mail is taken again when there is room or the disk is mended. On loop-mounted file systems; needs root."""
import unittest

from tests.harness import disk
from tests.harness.disk import Disk
from tests.harness.processes import wait_until
from tests.integration.scenario import ScenarioTest

SIZE_MIB = 512
BALLAST_MIB = 64
CONTENT = b"From: <sender@client.test>\r\nSubject: disk\r\n\r\n" + (b"x" * 998 + b"\r\n") * 250
TRIES_MAX = 4000


class DiskTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.needs(disk.missing())
        self.disk = Disk(self.scenario, SIZE_MIB)

    def tearDown(self):
        for process in self.scenario.processes:
            process.kill()
        if hasattr(self, "disk"):
            self.disk.close()
        super().tearDown()

    def node_on_disk(self):
        node = self.node(start=False, flags=["--ballast", BALLAST_MIB << 20])
        node.service.argv[node.service.argv.index(str(node.service.data))] = str(self.disk.path / "data")
        return node.start()

    def fill(self, node, accepted):
        """Sends until a message is refused; `accepted` gets the recipients. The refusal."""
        with self.connect(node) as connection:
            for number in range(len(accepted), TRIES_MAX):
                recipient = f"m{number}@d{number % 5}.test"
                mail, rcpts, data, end = connection.transact(b"sender@client.test", [recipient.encode()], CONTENT)
                if end is not None and end.code == 250:
                    accepted.append(recipient)
                    continue
                return next(r for r in (mail, *rcpts, data, end) if r is not None and r.code >= 400)
        self.fail("the disk took everything")

    def test_full_disk(self):
        node = self.node_on_disk()
        pause = node.ctl.json("pause", "*/*", "--reason", "disk test")["entry"]["id"]
        accepted = []
        while True:  # what the store had written twice makes room for a moment
            refusal = self.fill(node, accepted)
            self.assertEqual((refusal.code // 100, refusal.text[:2]), (4, "4."), refusal)
            shard = node.ctl.status()["shards"][0]
            if not shard["accepting"]:
                break
        self.assertGreater(len(accepted), 80)
        self.assertTrue(shard["not_accepting_reason"])
        # It starts again on the full disk, and delivers all of it.
        node.service.kill()
        node.start()
        node.ctl.run("resume", "--id", pause)
        node.ctl.wait_empty(240)
        self.assertEqual(sorted(set(self.receiver.recipients())), sorted(accepted))

        def taken_again():
            with self.connect(node) as connection:
                end = connection.transact(b"sender@client.test", [b"again@example.test"], CONTENT)[-1]
                return end is not None and end.code == 250
        wait_until(taken_again, "room for new mail", 120)

    def test_failing_disk(self):
        node = self.node_on_disk()
        pause = node.ctl.json("pause", "*/*")["entry"]["id"]
        accepted = []
        with self.connect(node) as connection:
            for number in range(50):
                recipient = f"m{number}@example.test"
                self.assertEqual(connection.transact(b"sender@client.test", [recipient.encode()], CONTENT)[-1].code, 250)
                accepted.append(recipient)
            self.disk.fail()
            replies = connection.transact(b"sender@client.test", [b"lost@example.test"], CONTENT)
            refusals = [r for r in (replies[0], *replies[1], replies[2], replies[3]) if r is not None and r.code >= 400]
            self.assertEqual([r.code // 100 for r in refusals][-1:], [4], replies)
        node.service.kill()
        self.disk.mend()
        node.start()
        node.ctl.run("resume", "--id", pause)
        self.receiver.wait_for(len(accepted))
        node.ctl.wait_empty()
        self.assertEqual(sorted(set(self.receiver.recipients()) - {"lost@example.test"}), sorted(accepted))
        self.assertLessEqual(set(self.receiver.recipients()), {*accepted, "lost@example.test"})

    def test_read_only_folder(self):
        self.disk.fail()
        node = self.node(start=False)
        node.service.argv[node.service.argv.index(str(node.service.data))] = str(self.disk.path / "data")
        node.service.start(wait=False)
        self.assertNotEqual(node.service.wait(60), 0)
        log = node.service.log_text()
        self.assertIn(str(self.disk.path), log)
        self.assertIn("Read-only", log)


if __name__ == "__main__":
    unittest.main()
