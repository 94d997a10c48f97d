"""Proves that what cannot start says why in one line and ends: bad configuration, folder in use, port in use, wrong flags; and that a bad
file changes nothing when it is read again."""
import os
import pathlib
import re
import signal
import socket
import subprocess
import unittest

from tests.harness import sluice
from tests.harness.processes import loopback, program, wait_until
from tests.integration.scenario import ScenarioTest

CONTENT = b"From: <sender@client.test>\r\nSubject: start\r\n\r\nbody\r\n"


class StartupTest(ScenarioTest):
    def ends(self, node, *said):
        """The node does not start, and its log says all of `said` in one line."""
        node.service.start(wait=False)
        self.assertNotEqual(node.service.wait(60), 0)
        log = node.service.log_text()
        self.assertTrue(any(all(word in line for word in said) for line in log.splitlines()), log)
        self.assertNotIn("CHECK", log)

    def test_bad_configuration(self):
        node = self.node(extra="no-such-directive yes", start=False)
        line = next(i for i, text in enumerate(node.config.read_text().splitlines(), 1) if text.startswith("no-such-directive"))
        self.ends(node, f"{node.config}:{line}", "no-such-directive")

    def test_missing_configuration(self):
        node = self.node(start=False)
        node.config.unlink()
        self.ends(node, str(node.config))

    def test_folder_in_use(self):
        first = self.node()
        second = sluice.Node(self.scenario, first.config.read_text(), self.receiver.resolver, name="second", address=loopback(2))
        second.service.argv[second.service.argv.index(str(second.service.data))] = str(first.service.data)
        self.ends(second, str(first.service.data), "in use")
        self.send(first, [b"u@example.test"], CONTENT)
        self.receiver.wait_for(1)

    def test_port_in_use(self):
        with socket.create_server((loopback(1), sluice.SMTP_PORT)):
            self.ends(self.node(start=False), f"{loopback(1)}:{sluice.SMTP_PORT}", "in use")

    def test_rpc_port_in_use(self):
        with socket.create_server((loopback(1), sluice.RPC_PORT)):
            self.ends(self.node(start=False, name="rpc"), f"{loopback(1)}:{sluice.RPC_PORT}")

    def test_wrong_flags(self):
        for argv in (["--data-dir", str(self.scenario.path("x")), "--no-such-flag"], []):
            done = subprocess.run([program("services/node/sluiced"), *argv], capture_output=True, text=True, timeout=60, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("--help", done.stderr)

    def test_what_cannot_hold_is_the_last_line(self):
        """Whatever ran before it, and was stopped again, said."""
        def last_line(target, *flags):
            argv = [program(target), "--data-dir", self.scenario.path("y"), "--rpc-listen", f"{loopback(1)}:0", *flags]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            self.assertNotEqual(done.returncode, 0)
            return done.stderr.strip().splitlines()[-1]
        twice = ["--shard", "s=127.0.0.1:1", "--shard", "s=127.0.0.1:2"]
        self.assertIn("two queue shards have the name s", last_line("services/ingest/sluice-ingest", *twice))
        self.assertIn("must not be negative", last_line("services/node/sluiced", "--ballast", "-5"))
        with socket.create_server((loopback(1), sluice.METRICS_PORT)):
            said = last_line("services/node/sluiced", "--smtp-listen", f"{loopback(1)}:0", "--metrics-listen", f"{loopback(1)}:{sluice.METRICS_PORT}")
            self.assertIn(str(sluice.METRICS_PORT), said)
            self.assertTrue(said.startswith("sluiced: "), said)

    def test_what_is_away_is_told(self):
        cluster = self.cluster()
        cluster.policy.kill()
        cluster.shards[0].kill()
        for service, words in ((cluster.ingest, ("shard_unreachable .*shard=shard-0", "policy_unreachable .*for=ingest")),
                               (cluster.workers[0], ("shard_unreachable .*shard=shard-0", "policy_unreachable .*for=delivery"))):
            for word in words:
                wait_until(lambda service=service, word=word: re.search("level=warn .*event=" + word, service.log_text()), f"{word} of {service.name}")

    def test_every_program_tells_its_version(self):
        texts = set()
        for path in ("node/sluiced", "ingest/sluice-ingest", "queue/sluice-queue", "delivery/sluice-delivery", "policy/sluice-policy"):
            texts.add(self.version("services/" + path))
        texts |= {self.version("tools/ctl/sluicectl"), self.version("tools/sink/sluice-sink")}
        self.assertGreater(len(texts), 1)  # each its own build

    def version(self, path):
        done = subprocess.run([program(path), "--version"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""), path)
        self.assertRegex(done.stdout, r"\ASluice \d+\.\d+\.\d+\nbuild [0-9a-f]{40}, .+\nspool format \d+, .+\n\Z", path)
        return done.stdout

    def test_a_shard_by_a_wrong_name_is_named(self):
        cluster = self.cluster(shards=1)
        for service in (cluster.ingest, cluster.workers[0]):
            service.kill()
            at = service.argv.index("--shard") + 1
            service.argv[at] = service.argv[at].replace("shard-0=", "shard-7=")
            service.start(wait=False)
            wait_until(lambda service=service: "this is shard shard-0, not shard-7" in service.log_text(), "the error in the log")
            self.assertRegex(service.log_text(), "level=error .*event=shard_wrong .*shard=shard-7")

    def test_each_service_tells_its_state(self):
        cluster = self.cluster()
        for service, own in ((cluster.policy, "sluice_policy_services_connected 3"), (cluster.shards[0], "sluice_queue_workers 1"),
                             (cluster.workers[0], "sluice_delivery_connections 0"), (cluster.ingest, "sluice_ingest_")):
            wait_until(lambda: own in sluice.metrics(service.address), f"{own} of {service.name}")
            self.assertTrue(service.is_ready())
            self.assertIsNotNone(sluice.metrics(service.address, path="/healthz"))

    def test_reload_takes_a_good_file_and_refuses_a_bad_one(self):
        node = self.node()
        good = node.config.read_text()
        version = node.ctl.status()["snapshot_version"]
        node.config.write_text(good + "\nno-such-directive yes\n")
        done = node.ctl.run("reload")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no-such-directive", done.stderr)
        self.assertIn(f"{node.config}:", done.stderr)
        self.assertEqual(node.ctl.status()["snapshot_version"], version)
        self.send(node, [b"u@example.test"], CONTENT)
        self.receiver.wait_for(1)
        node.config.write_text(good + "\n<domain slow.test>\n  max-smtp-out 1\n</domain>\n")
        self.assertTrue(node.ctl.json("reload")["changed"])
        self.assertGreater(node.ctl.status()["snapshot_version"], version)
        node.config.write_text(good)
        node.service.signal(signal.SIGHUP)
        wait_until(lambda: node.ctl.status()["snapshot_version"] > version + 1, "reload by SIGHUP")

    def test_disk_queue_holds_the_spool(self):
        folder = self.scenario.path("big")
        node = self.node(extra=f"disk-queue {folder}")
        self.send(node, [b"u@example.test"], CONTENT)
        self.receiver.wait_for(1)
        self.assertTrue((folder / "sluice-spool" / "CURRENT").exists())
        self.assertFalse((node.service.data / "spool").exists())

    def test_disk_queue_leaves_no_mail_behind(self):
        node = self.node()
        node.service.stop()
        node.config.write_text(node.config.read_text() + f"\ndisk-queue {self.scenario.path('big')}\n")
        self.ends(node, "--spool-dir", str(node.service.data / "spool"))

    def test_mail_and_passwords_are_nobody_elses(self):
        """The spool has mail, the snapshot the passwords of users: others can read neither, nor the folders that they are in."""
        node = self.node(extra="<smtp-user ann>\npassword sesame\n</smtp-user>\n")
        self.send(node, [b"u@example.test"], CONTENT)
        node.ctl.wait_empty()
        node.service.stop()
        snapshots = []
        for folder, folders, files in os.walk(node.service.data):
            for path in [folder] + [os.path.join(folder, name) for name in folders + files]:
                self.assertEqual(os.stat(path).st_mode & 0o007, 0, path)
                if not os.path.isdir(path) and b"sesame" in pathlib.Path(path).read_bytes():
                    snapshots.append(path)
        self.assertTrue(snapshots, "the password was looked for where it is")

    def test_only_loopback_may_relay(self):
        config = sluice.configuration(sluice.default_sources(), self.receiver.port)
        config = config.replace("<source 127.0.0.0/8>", f"<source {loopback(1)}/32>")
        node = sluice.Node(self.scenario, config + "\n<source 127.0.0.0/8>\n  always-allow-relaying no\n</source>\n", self.receiver.resolver).start()
        with self.connect(node, source=loopback(7)) as connection:
            _, rcpts, _, _ = connection.transact(b"a@client.test", [b"u@example.test"], CONTENT)
        self.assertEqual(rcpts[0].code // 100, 5, rcpts)


if __name__ == "__main__":
    unittest.main()
