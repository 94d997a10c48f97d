"""Proves that mail goes to a smart host that wants AUTH, by each mechanism, that nothing goes without, and that a wrong password bounces
nothing. The smart host is aiosmtpd; its CRAM-MD5 and SCRAM-SHA-256 are Python's own hashes. For the binding to the TLS connection, which Python
lacks, it is another sluiced; GNU SASL's client stands beside ours in tls_test."""
import base64
import hashlib
import hmac
import os
import shutil
import ssl
import subprocess
import time
import unittest

from tests.harness import aiosmtpd_server, sluice
from tests.harness.aiosmtpd_server import AuthResult
from tests.harness.certificates import Authority
from tests.harness.processes import loopback, wait_until
from tests.integration.scenario import ScenarioTest

PORT = 2529
USER, PASSWORD = b"tim", b"pa,ss=word"
ITERATIONS = 4096


def sha256_hmac(key, text):
    return hmac.new(key, text, hashlib.sha256).digest()


class Handler:
    """Mechanisms that aiosmtpd lacks, and which of all were tried."""

    def __init__(self):
        self.tried = []

    async def auth_CRAM__MD5(self, server, args):
        self.tried.append("CRAM-MD5")
        challenge = b"<%d.%d@smart.test>" % (os.getpid(), time.time_ns())
        answer = await server.challenge_auth(challenge)
        name, _, digest = answer.partition(b" ")
        good = name == USER and digest.decode() == hmac.new(PASSWORD, challenge, hashlib.md5).hexdigest()
        return AuthResult(success=good, handled=False, auth_data="CRAM-MD5")

    async def auth_SCRAM__SHA__256(self, server, args):
        self.tried.append("SCRAM-SHA-256")
        client_bare = base64.b64decode(args[1]).removeprefix(b"n,,")
        nonce = client_bare.partition(b",r=")[2] + base64.b64encode(os.urandom(9))
        salt = os.urandom(16)
        server_first = b"r=%s,s=%s,i=%d" % (nonce, base64.b64encode(salt), ITERATIONS)
        final = await server.challenge_auth(server_first)
        without_proof, _, proof = final.partition(b",p=")
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD, salt, ITERATIONS)
        message = b",".join([client_bare, server_first, without_proof])
        client_key = sha256_hmac(salted, b"Client Key")
        signature = sha256_hmac(hashlib.sha256(client_key).digest(), message)
        good = base64.b64decode(proof) == bytes(a ^ b for a, b in zip(client_key, signature)) and b"r=" + nonce in without_proof
        if good:
            verifier = sha256_hmac(sha256_hmac(salted, b"Server Key"), message)
            good = await server.challenge_auth(b"v=" + base64.b64encode(verifier)) == b""
        return AuthResult(success=good, handled=False, auth_data="SCRAM-SHA-256")


class SmartHostTest(ScenarioTest):
    def smart_host(self, leave_out=(), tls=None):
        """Takes mail only after AUTH, and with `tls`, an SSLContext, only after STARTTLS."""
        self.needs(aiosmtpd_server.missing())
        handler = Handler()

        def authenticate(server, session, envelope, mechanism, data):
            handler.tried.append(mechanism)
            good = getattr(data, "login", None) == USER and getattr(data, "password", None) == PASSWORD
            return AuthResult(success=good, handled=False, auth_data=mechanism)
        server = aiosmtpd_server.Server(self.receiver.address, PORT, handler, authenticator=authenticate, auth_required=True,
                                        auth_require_tls=tls is not None, tls_context=tls, require_starttls=tls is not None,
                                        auth_exclude_mechanism=leave_out)
        self.addCleanup(server.close)
        return server, handler.tried

    def relay(self, password=PASSWORD.decode(), extra=""):
        node = self.node(domain_extra=f"smtp-hosts {self.receiver.address}:{PORT}\nauth-username {USER.decode()}\n"
                                      f"auth-password \"{password}\"\n{extra}\n")
        self.send(node, [b"a@one.test"], b"Subject: x\r\n\r\nbody\r\n")
        return node

    def check(self, mechanism, leave_out, extra=""):
        server, _ = self.smart_host(leave_out)
        node = self.relay(extra=f"{extra}\nlog-commands yes\nlog-connections yes")
        wait_until(lambda: server.taken, "delivery to the smart host")
        self.assertEqual([(t.auth, t.recipients) for t in server.taken], [(mechanism, ("a@one.test",))])
        node.ctl.wait_empty()
        # What was said is in the log, but for what would be a secret, and the text.
        said = node.service.log_text()
        for line in (f'text="AUTH {mechanism} (response hidden)"', 'text="235 2.7.0 (text hidden)"', 'text="RCPT TO:<a@one.test>"', "text=.",
                     "event=remote_connected"):
            self.assertIn(line, said)
        both = b"\0" + USER + b"\0" + PASSWORD
        for secret in (PASSWORD, base64.b64encode(PASSWORD), base64.b64encode(both), base64.b64encode(USER), b"Subject: x"):
            self.assertNotIn(secret.decode(), said)

    def test_scram_sha_256(self):
        self.check("SCRAM-SHA-256", [])

    def test_cram_md5(self):
        self.check("CRAM-MD5", ["SCRAM-SHA-256"])

    def test_plain_in_clear_where_allowed(self):
        self.check("PLAIN", ["SCRAM-SHA-256", "CRAM-MD5"], "use-unencrypted-plain-auth yes")

    def test_login_in_clear_where_allowed(self):
        self.check("LOGIN", ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN"], "use-unencrypted-plain-auth yes")

    def test_plain_in_tls(self):
        openssl = shutil.which("openssl")
        self.needs(None if openssl else "openssl is not installed")
        file = str(self.scenario.path("smart.pem"))
        subprocess.run([openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file + ".key",
                        "-out", file, "-subj", "/CN=smart.test", "-days", "2"], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file, file + ".key")
        server, _ = self.smart_host(["SCRAM-SHA-256", "CRAM-MD5"], context)
        node = self.relay(extra="use-starttls yes")
        wait_until(lambda: server.taken, "delivery to the smart host")
        self.assertEqual([(t.auth, t.recipients, t.tls) for t in server.taken], [("PLAIN", ("a@one.test",), True)])
        node.ctl.wait_empty()

    def test_scram_is_bound_to_the_tls_connection(self):
        self.needs(None if shutil.which("openssl") else "openssl is not installed")
        certificate = Authority(self.scenario.path("tls")).issue("hub.test", loopback(8))[2]
        relay = "  always-allow-relaying yes"
        config = sluice.configuration(sluice.default_sources(), self.receiver.port, f"smtp-server-tls-certificate {certificate}\n<smtp-user "
                                      f"{USER.decode()}>\n  password \"{PASSWORD.decode()}\"\n</smtp-user>\n")
        config = config.replace(relay, f"{relay}\n  allow-starttls yes\n  require-auth yes\n  log-commands yes")
        hub = sluice.Node(self.scenario, config, self.receiver.resolver, name="hub", address=loopback(8)).start()
        # TLS 1.3 binds to its exporter; TLS 1.2 does, too, with the extended master secret.
        for i, version in enumerate(("", "smtp-tls-allow-tlsv1.3 no\n")):
            node = self.node(domain_extra=f"smtp-hosts {hub.address}:{sluice.SMTP_PORT}\nauth-username {USER.decode()}\nuse-starttls yes\n"
                                          f"{version}auth-password \"{PASSWORD.decode()}\"\n", name=f"relay{i}")
            self.send(node, [f"u{i}@one.test".encode()], b"Subject: x\r\n\r\nbody\r\n")
            wait_until(lambda: f"u{i}@one.test" in self.receiver.recipients(), "delivery by the hub")
            said = hub.service.log_text()
            self.assertEqual(said.count('text="AUTH SCRAM-SHA-256-PLUS '), i + 1, said[-2000:])
            node.service.stop()

    def test_no_password_in_clear_and_no_mail_without_auth(self):
        server, tried = self.smart_host(["SCRAM-SHA-256", "CRAM-MD5"])
        node = self.relay()
        wait_until(lambda: "may be used here" in str(node.ctl.json("queues", "list")), "the reason in the queue's status")
        self.assertEqual((tried, server.taken), ([], []))
        self.assertEqual(node.ctl.totals()["failed_total"], 0)

    def test_a_wrong_password_bounces_nothing(self):
        server, tried = self.smart_host()
        node = self.relay(password="wrong")
        wait_until(lambda: len(tried) >= 2, "a second try")
        self.assertEqual(server.taken, [])
        self.assertEqual(node.ctl.totals()["failed_total"], 0)


if __name__ == "__main__":
    unittest.main()
