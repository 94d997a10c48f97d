"""Proves that the admin API of a real service opens to certificates and tokens as it should: over TLS with a token alone, by role, until the
token is taken out of the file; that services that know each other by certificates carry mail; and that certificate files that cannot be
used end the start with their name."""
import unittest

from tests.harness import certificates, sluice
from tests.harness.processes import loopback, wait_until
from tests.integration.scenario import ScenarioTest

CONTENT = b"From: <sender@client.test>\r\nSubject: who\r\n\r\nbody\r\n"
ADMIN_PORT = 7199


class AdminAccessTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.authority = certificates.Authority(self.scenario.path("authority"))
        self.cert, self.key, _ = self.authority.issue("sluice.test", *(loopback(i) for i in range(1, 7)))
        self.tls = ["--tls-ca", self.authority.ca]
        self.mutual = ["--tls-cert", self.cert, "--tls-key", self.key, *self.tls]
        self.tokens = self.scenario.path("admin-tokens")

    def token(self, ctl, name, role):
        """Makes one, adds its line to the file, and returns the flags that use it."""
        file = self.scenario.path(f"{name}.token")
        done = ctl.run("token", name, "--role", role, "--to", file)
        self.assertEqual(done.returncode, 0, done.stderr)
        with self.tokens.open("a", encoding="utf-8") as tokens:
            tokens.write(done.stdout)
        return ["--token-file", file]

    def code(self, ctl, *arguments):
        done = ctl.run(*arguments)
        return done.returncode, done.stderr

    def test_tokens_open_the_admin_address_by_role(self):
        at = f"{loopback(1)}:{ADMIN_PORT}"
        node = self.node(start=False, flags=["--admin-listen", at, "--admin-tokens", self.tokens, *self.mutual])
        ctl = sluice.Ctl(at)
        probe = self.token(ctl, "probe", "monitor")
        anna = self.token(ctl, "anna", "operator")
        root = self.token(ctl, "root", "admin")
        node.start()
        self.assertEqual(self.code(ctl, "status", *self.tls, *probe), (0, ""))
        code, said = self.code(ctl, "pause", "*/v1", "--reason", "no", *self.tls, *probe)
        self.assertEqual(code, 1)
        self.assertIn("probe has the role monitor, and Pause needs operator", said)
        self.assertEqual(self.code(ctl, "pause", "*/v1", "--reason", "yes", *self.tls, *anna)[0], 0)
        self.assertEqual(self.code(ctl, "reload", *self.tls, *anna)[0], 1)
        self.assertEqual(self.code(ctl, "reload", *self.tls, *root)[0], 0)
        for wrong in ([], self.mutual[:4]):  # nothing, and a certificate that nobody asks for
            code, said = self.code(ctl, "status", *self.tls, *wrong)
            self.assertEqual(code, 1)
            self.assertIn("a token is needed", said)
        # In the clear, and where mail is carried, there is nothing to be had by a token.
        self.assertNotEqual(self.code(ctl, "status", *probe)[0], 0)
        self.assertNotEqual(self.code(node.ctl, "status", *self.tls, *root)[0], 0)
        self.assertEqual(self.code(node.ctl, "status", *self.mutual), (0, ""))
        log = node.service.log_text()
        self.assertRegex(log, "event=admin_call .*method=Pause .*by=anna")
        self.assertRegex(log, "event=admin_refused .*method=Pause")
        self.assertGreaterEqual(int(self.metric(node, "sluice_policy_admin_refused_total")), 4)
        # Taken out of the file: closed, without a restart.
        lines = self.tokens.read_text(encoding="utf-8").splitlines(keepends=True)
        self.tokens.write_text("".join(line for line in lines if not line.startswith("anna")), encoding="utf-8")
        wait_until(lambda: self.code(ctl, "pauses", *self.tls, *anna)[0] == 1, "the token to be worth nothing")
        self.assertEqual(self.code(ctl, "status", *self.tls, *probe), (0, ""))

    def metric(self, node, name):
        return next(line.split()[1] for line in sluice.metrics(node.address).splitlines() if line.startswith(name + " "))

    def test_a_token_is_asked_for_on_this_machine_too(self):
        node = self.node(start=False, flags=["--admin-tokens", self.tokens])
        root = self.token(node.ctl, "root", "admin")
        node.start()
        self.assertIn("a token is needed", self.code(node.ctl, "queues")[1])
        self.assertEqual(self.code(node.ctl, "queues", *root)[0], 0)

    def test_services_with_certificates_carry_mail(self):
        cluster = self.cluster(flags=self.mutual)
        self.send(cluster, [b"u@example.test"], CONTENT)
        self.receiver.wait_for(1)
        status = cluster.ctl.run("status", *self.mutual)
        self.assertEqual(status.returncode, 0, status.stdout + status.stderr)
        self.assertNotEqual(cluster.ctl.run("status", *self.tls).returncode, 0)
        self.assertNotEqual(cluster.ctl.run("status").returncode, 0)

    def test_what_cannot_be_used_is_named(self):
        other = certificates.Authority(self.scenario.path("other"))
        _, other_key, _ = other.issue("other.test")
        bad = self.scenario.path("bad-tokens")
        bad.write_text("anna admin secret-itself\n", encoding="utf-8")
        for name, flags, said in (("key", ["--tls-cert", self.cert, "--tls-key", other_key, *self.tls], str(other_key)),
                                  ("half", ["--tls-cert", self.cert, "--tls-key", self.key], "--tls-ca"),
                                  ("ca", self.tls, "--tls-cert"),
                                  ("tokens", ["--admin-tokens", bad], f"{bad}: line 1"),
                                  ("listen", ["--admin-listen", "127.0.0.1:0"], "--admin-tokens")):
            node = self.node(start=False, name=name, flags=flags)
            node.service.start(wait=False)
            self.assertNotEqual(node.service.wait(60), 0)
            self.assertIn(said, node.service.log_text())
            self.assertNotIn("secret-itself", node.service.log_text())


if __name__ == "__main__":
    unittest.main()
