"""Proves TLS end to end with Python's and OpenSSL's own clients: STARTTLS and TLS from the first byte on the way in, STARTTLS on the way out,
certificates by name and new ones without a restart, and that mail which needs TLS waits where there is none."""
import glob
import json
import os
import pathlib
import smtplib
import ssl
import subprocess
import unittest
import urllib.request

from tests.harness import sluice
from tests.harness.processes import Process, loopback, program, wait_until
from tests.integration.scenario import ScenarioTest

SINK = loopback(12)
SINK_PORT = 2600
TLS_PORT = 2465
MESSAGE = b"Subject: x\r\n\r\nbody\r\n"


def make_certificate(path, name):
    """A key and its certificate in one file, put there at once."""
    new = f"{path}.new"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", f"{new}.key", "-out", f"{new}.crt"],
                   check=True, capture_output=True)
    pathlib.Path(new).write_bytes(pathlib.Path(f"{new}.key").read_bytes() + pathlib.Path(f"{new}.crt").read_bytes())
    os.replace(new, path)


def any_certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TlsListenerTest(ScenarioTest):
    def start_sink(self, tls):
        self.store = str(self.scenario.path("store"))
        os.makedirs(self.store, exist_ok=True)
        argv = [program("tools/sink/sluice-sink"), "--listen", f"{SINK}:{SINK_PORT}", "--dns", f"{SINK}:5300", "--http", f"{SINK}:8025",
                "--store", self.store, "--quiet", "--ready-file", self.scenario.path("sink.ready")]
        if tls:
            argv += ["--tls-certificate", "self-signed"]
        return self.scenario.add(Process("sink", argv, self.scenario.folder, ready_file=self.scenario.path("sink.ready"))).start()

    def counters(self):
        with urllib.request.urlopen(f"http://{SINK}:8025/counters", timeout=30) as answer:
            return json.loads(answer.read())

    def wait_messages(self, count):
        wait_until(lambda: self.counters()["messages"] >= count, f"{count} messages at the sink", 60)

    def start_node(self, extra="", domain_extra=""):
        config = sluice.configuration(sluice.default_sources(), SINK_PORT, extra, domain_extra)
        node = sluice.Node(self.scenario, config, f"{SINK}:5300", flags=["--smtp-listen", f"{loopback(1)}:{TLS_PORT}"])
        return node.start()

    def start_tls_node(self, domain_extra=""):
        self.first, self.second = str(self.scenario.path("first.pem")), str(self.scenario.path("second.pem"))
        make_certificate(self.first, "first.test")
        make_certificate(self.second, "second.test")
        return self.start_node(f"smtp-server-tls-certificate {self.first}\nsmtp-server-tls-certificate {self.second}\nallow-starttls yes\n"
                               f"<smtp-listener {loopback(1)}:{TLS_PORT}>\nimmediate-tls yes\n</smtp-listener>", domain_extra)

    def shown(self, name):
        """The common name of the certificate that a client sees who asks for `name`."""
        done = subprocess.run(["openssl", "s_client", "-connect", f"{loopback(1)}:{TLS_PORT}", "-servername", name], input=b"QUIT\r\n",
                              capture_output=True, timeout=30, check=False)
        lines = [line for line in done.stdout.decode().splitlines() if line.startswith("subject=")]
        return lines[0].split("CN = ")[-1].split("CN=")[-1] if lines else ""

    def test_both_ways_in_and_the_way_out(self):
        self.start_sink(tls=True)
        self.start_tls_node("  reuse-ssl-session yes")
        with smtplib.SMTP(loopback(1), sluice.SMTP_PORT, timeout=30) as client:
            client.ehlo("c.test")
            client.starttls(context=any_certificate())
            client.ehlo("c.test")
            self.assertFalse(client.has_extn("starttls"))
            client.sendmail("a@client.test", ["starttls@d.test"], MESSAGE)
        with smtplib.SMTP_SSL(loopback(1), TLS_PORT, timeout=30, context=any_certificate()) as client:
            client.sendmail("a@client.test", ["immediate@d.test"], MESSAGE)
        self.wait_messages(2)
        self.assertGreater(self.counters()["tls_connections"], 0)
        self.assertEqual(self.counters()["tls_failed"], 0)
        kept = [pathlib.Path(path).read_bytes() for path in glob.glob(f"{self.store}/*.eml")]
        self.assertEqual(len(kept), 2)
        for text in kept:
            self.assertRegex(text, rb"with ESMTPS \(TLSv1\.[23] [A-Z0-9_-]+\) id ")

    def test_certificates_by_name_and_new_ones_without_a_restart(self):
        self.start_sink(tls=False)
        self.start_tls_node()
        self.assertEqual([self.shown("first.test"), self.shown("second.test"), self.shown("other.test")],
                         ["first.test", "second.test", "first.test"])
        with smtplib.SMTP_SSL(loopback(1), TLS_PORT, timeout=30, context=any_certificate()) as before:
            make_certificate(self.second, "third.test")
            wait_until(lambda: self.shown("third.test") == "third.test", "the new certificate", 60)
            before.sendmail("a@client.test", ["kept@d.test"], MESSAGE)  # sessions go on
        self.wait_messages(1)

    def test_what_needs_tls_waits_where_there_is_none(self):
        self.start_sink(tls=False)
        node = self.start_tls_node("</domain>\n<domain strict.test>\n  require-starttls yes")
        for to in ("u@strict.test", "u@free.test"):
            self.send(node, [to.encode()], MESSAGE)
        self.wait_messages(1)
        wait_until(lambda: "STARTTLS" in node.ctl.run("queue", "strict.test/v1").stdout + node.ctl.run("queues").stdout
                   or self.counters()["connections"] >= 3, "attempts for the strict domain", 60)
        self.assertEqual(self.counters()["messages"], 1)
        text = pathlib.Path(glob.glob(f"{self.store}/*.eml")[0]).read_bytes()
        self.assertIn(b"with ESMTP id ", text)


if __name__ == "__main__":
    unittest.main()
