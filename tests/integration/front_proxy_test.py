"""Proves that clients come through haproxy as themselves, by both versions of the PROXY protocol, in clear and with TLS from the first byte, that
its health checks are no offence, and that what it says of a client decides what the client may do."""
import os
import re
import shutil
import smtplib
import ssl
import subprocess
import unittest

from tests.harness import sluice
from tests.harness.certificates import Authority
from tests.harness.processes import loopback, wait_until
from tests.harness.sluice import wait_port
from tests.integration.scenario import ScenarioTest

PROXIED_PORT, TLS_PORT = 2527, 4650
FRONT = loopback(8)
# What haproxy listens on, whether it speaks version 2, and whether the listener behind it begins with TLS.
FRONTS = {2551: ("send-proxy", PROXIED_PORT), 2552: ("send-proxy-v2", PROXIED_PORT), 2553: ("send-proxy", TLS_PORT), 2554: ("send-proxy-v2", TLS_PORT)}
CONTENT = b"From: <sender@client.test>\r\nSubject: proxied\r\n\r\nbody\r\n"


class FrontProxyTest(ScenarioTest):
    def haproxy(self, node):
        path = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
        self.needs(None if path else "haproxy is not installed")
        text = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        for port, (how, behind) in FRONTS.items():
            text += f"listen front{port}\n  bind {FRONT}:{port}\n  server sluice {node.address}:{behind} {how} check inter 100ms check-send-proxy\n"
        config = self.scenario.path("haproxy.cfg")
        sluice.write(config, text)
        process = subprocess.Popen([path, "-db", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for port in FRONTS:
            wait_port(FRONT, port, "haproxy")

    def test_clients_are_themselves(self):
        self.needs(None if shutil.which("openssl") else "openssl is not installed")
        authority = Authority(self.scenario.path("tls"))
        ours = authority.issue("mx.sluice.test", FRONT)[2]
        address = loopback(1)
        known = loopback(5)
        node = self.node(start=False, extra=(
            f"smtp-server-tls-certificate {ours}\nsmtp-proxy-listener {address}:{PROXIED_PORT}\nsmtp-proxy-listener {address}:{TLS_PORT}\n"
            f"<smtp-listener {address}:{TLS_PORT}>\n  immediate-tls yes\n</smtp-listener>\n"))
        # Proxies may speak for clients; of these only one may relay.
        rules = (f"<source 127.0.0.0/8>\n  allow-proxy-protocol yes\n  always-allow-relaying no\n  allow-relay no\n  default-virtual-mta all\n</source>\n"
                 f"<source {known}/32>\n  always-allow-relaying yes\n</source>\n")
        text = node.config.read_text()
        node.config.write_text(rules + text[text.index("<virtual-mta "):] + "\nhost-name mx.sluice.test\n")
        node.start()
        self.haproxy(node)
        context = ssl.create_default_context(cafile=authority.ca)
        for port, (_, behind) in FRONTS.items():
            for source, well in ((known, True), (loopback(6), False)):
                options = {"timeout": 60, "source_address": (source, 0)}
                with (smtplib.SMTP_SSL(FRONT, port, context=context, **options) if behind == TLS_PORT else
                      smtplib.SMTP(FRONT, port, **options)) as client:
                    if well:
                        self.assertEqual(client.sendmail("sender@client.test", [f"p{port}@example.test"], CONTENT), {})
                        continue
                    with self.assertRaises(smtplib.SMTPRecipientsRefused):
                        client.sendmail("sender@client.test", [f"p{port}@example.test"], CONTENT)
        wait_until(lambda: len(self.receiver.recipients()) == len(FRONTS), "mail by each of the ways")
        for transaction in self.receiver.taken():
            self.assertIn(f"([{known}])".encode(), transaction.content)
        # Checks are connections like any other, and no header is taken for a wrong one.
        self.assertIn("\nsluice_ingest_proxy_headers_refused_total 0\n", re.sub(r"\{[^}]*\}", "", sluice.metrics(node.address)))


if __name__ == "__main__":
    unittest.main()
