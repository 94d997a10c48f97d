"""Proves that mail is held to what receivers publish of TLS: DANE by unbound with signed zones, MTA-STS by an HTTPS server. A host that
fails gets no mail, in clear text neither, and siblings on the same host do not suffer for it. What happened is reported to those who ask, by
mail and by HTTPS."""
import email
import gzip
import hashlib
import http.server
import json
import os
import re
import shutil
import smtplib
import ssl
import subprocess
import threading
import unittest

from tests.harness import sluice
from tests.harness.processes import Process, loopback, program, wait_until
from tests.integration.scenario import ScenarioTest

MX, WEB, DNS, SECOND_MX = loopback(8), loopback(9), loopback(10), loopback(11)
MX_PORT, CLEAR_PORT, DNS_PORT, HTTPS_PORT = 2530, 2531, 5330, 443
SOA = "$ORIGIN {0}.\n$TTL 300\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 127.0.0.1\n"
STS = "_mta-sts IN TXT \"v=STSv1; id=1\"\nmta-sts IN A " + WEB + "\n"
TLSRPT = "_smtp._tls IN TXT \"v=TLSRPTv1; rua={}\"\n"
POLICIES = {"sts.test": "mx.sts.test", "strict.test": "other.sts.test", "tested.test": "other.sts.test", "mailed.test": "mx.sts.test"}


def find(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")


class ReceiverTlsTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        missing = [name for name in ("unbound", "ldns-signzone", "ldns-keygen", "openssl") if not find(name)]
        self.needs(f"{', '.join(missing)} not installed" if missing else None)
        self.folder = str(self.scenario.folder)
        self.authority()
        self.certificate("mx", "mx.sts.test", "mx.signed.test", "mx.wrong.test", "hub.signed.test")
        self.certificate("web", *(f"mta-sts.{domain}" for domain in POLICIES))
        self.serve_policies()
        self.log = self.scenario.path("taken.jsonl")
        self.sink("sink", MX_PORT, "--tls-certificate", self.path("mx.both"))
        self.sink("clear", CLEAR_PORT)
        self.sink("second", MX_PORT, "--tls-certificate", self.path("mx.both"), "--extension", "PIPELINING", "--extension", "REQUIRETLS",
                  address=SECOND_MX)
        self.start_unbound()
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = self.path("ca.pem")
        self.addCleanup(lambda: os.environ.pop("SSL_CERT_FILE") if before is None else os.environ.update(SSL_CERT_FILE=before))

    def path(self, name):
        return os.path.join(self.folder, name)

    def shell(self, *argv, stdin=None):
        done = subprocess.run([find(argv[0]), *argv[1:]], input=stdin, capture_output=True, cwd=self.folder, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, (argv, done.stdout, done.stderr))
        return done.stdout

    def authority(self):
        self.shell("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out",
                   "ca.pem", "-subj", "/CN=test authority", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE")

    def certificate(self, name, *hosts):
        names = ",".join(f"DNS:{host}" for host in hosts)
        self.shell("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out",
                   f"{name}.csr", "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}")
        self.shell("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                   "-copy_extensions", "copy", "-out", f"{name}.pem", "-days", "2")
        with open(self.path(f"{name}.both"), "wb") as both:
            for part in (f"{name}.key", f"{name}.pem", "ca.pem"):
                with open(self.path(part), "rb") as file:
                    both.write(file.read())

    def serve_policies(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                domain = self.headers["Host"].removeprefix("mta-sts.")
                mode = "testing" if domain == "tested.test" else "enforce"
                text = f"version: STSv1\r\nmode: {mode}\r\nmx: {POLICIES[domain]}\r\nmax_age: 86400\r\n".encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_POST(handler):
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                with self.lock:
                    self.posts.append((handler.headers["Host"], handler.path, handler.headers["Content-Type"], body))
                handler.send_response(201)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(self, *arguments):
                pass
        self.posts, self.lock = [], threading.Lock()
        try:
            server = http.server.ThreadingHTTPServer((WEB, HTTPS_PORT), Handler)
        except PermissionError:
            self.needs("port 443 may not be listened on")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path("web.both"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

    def sink(self, name, port, *flags, address=MX):
        ready = self.scenario.path(f"{name}.ready")
        sink = Process(name, [program("tools/sink/sluice-sink"), "--listen", f"{address}:{port}", "--log", self.log, "--quiet", "--ready-file",
                              ready, *flags], self.scenario.folder, ready_file=ready)
        self.scenario.add(sink).start()

    def zone(self, name, records, sign):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(SOA.format(name) + records)
        if not sign:
            return name, ""
        key = self.shell("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", name).decode().split()[0]
        self.shell("ldns-signzone", name, key)
        return f"{name}.signed", f"  trust-anchor-file: \"{self.path(key)}.key\"\n"

    def start_unbound(self):
        public_key = self.shell("openssl", "pkey", "-pubin", "-outform", "DER",
                                stdin=self.shell("openssl", "x509", "-in", "mx.pem", "-noout", "-pubkey"))
        anchor = hashlib.sha256(self.shell("openssl", "x509", "-in", "ca.pem", "-outform", "DER")).hexdigest()
        good, bad = hashlib.sha256(public_key).hexdigest(), "00" * 32
        host = f"@ IN MX 10 mx\nmx IN A {MX}\n"
        zones = {
            # The certificate's names: mx, and hub, which list is an alias of. It is not for ta.
            "signed.test": (host + f"_{MX_PORT}._tcp.mx IN TLSA 3 1 1 {good}\nlist IN CNAME hub\nhub IN MX 10 ta\nother IN MX 10 ta\n"
                            f"ta IN A {MX}\n_{MX_PORT}._tcp.ta IN TLSA 2 0 1 {anchor}\n", True),
            "wrong.test": (host + f"_{MX_PORT}._tcp.mx IN TLSA 3 1 1 {bad}\n", True),
            # Two hosts, of which the second one alone offers REQUIRETLS; and the first one alone.
            "two.test": (f"@ IN MX 10 mx.signed.test.\n@ IN MX 20 second\nsecond IN A {SECOND_MX}\n"
                         f"_{MX_PORT}._tcp.second IN TLSA 3 1 1 {good}\nfirst IN MX 10 mx.signed.test.\n", True),
            "clear.test": (host + f"_{CLEAR_PORT}._tcp.mx IN TLSA 3 1 1 {good}\n", True),
            "sts.test": (host + STS + TLSRPT.format("mailto:tls@reports.test,https://mta-sts.sts.test/tls?of=x"), False),
            "strict.test": ("@ IN MX 10 mx.sts.test.\n" + STS + TLSRPT.format("https://mta-sts.strict.test"), False),
            "mailed.test": ("@ IN MX 10 mx.sts.test.\n" + STS + TLSRPT.format("mailto:tls@reports.test"), False),
            "reports.test": (f"@ IN MX 10 mx\nmx IN A {self.receiver.address}\n", False),
            "tested.test": ("@ IN MX 10 mx.sts.test.\n" + STS, False),
            "sibling.test": ("@ IN MX 10 mx.sts.test.\n", False),
        }
        anchors, auth = "", ""
        for name, (records, sign) in zones.items():
            file, anchor = self.zone(name, records, sign)
            anchors += anchor
            auth += (f"auth-zone:\n  name: \"{name}.\"\n  zonefile: \"{self.path(file)}\"\n  for-downstream: no\n  for-upstream: yes\n"
                     "  fallback-enabled: no\n")
        with open(self.path("unbound.conf"), "w", encoding="ascii") as file:
            file.write(f"server:\n  interface: {DNS}\n  port: {DNS_PORT}\n  do-daemonize: no\n  use-syslog: no\n  logfile: \"\"\n"
                       f"  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  directory: \"{self.folder}\"\n"
                       "  module-config: \"validator iterator\"\n  num-threads: 1\n  do-ip6: no\n  local-zone: test. nodefault\n"
                       f"{anchors}remote-control:\n  control-enable: no\n{auth}")
        unbound = Process("unbound", [find("unbound"), "-d", "-c", self.path("unbound.conf")], self.scenario.folder)
        self.scenario.add(unbound).start(wait=False)
        sluice.wait_port(DNS, DNS_PORT, "unbound")

    def taken(self):
        """Recipients that the sinks have."""
        if not os.path.exists(self.log):
            return []
        with open(self.log, encoding="utf-8") as file:
            return sorted(json.loads(line)["to"] for line in file if line.endswith("\n"))

    def start(self, domain_extra, flags=(), extra=""):
        config = sluice.configuration(sluice.default_sources(), MX_PORT, extra + "<domain clear.test>\n"
                                      f"default-smtp-port {CLEAR_PORT}\n</domain>\n<domain reports.test>\n"
                                      f"default-smtp-port {self.receiver.port}\n</domain>\n", domain_extra)
        return sluice.Node(self.scenario, config, f"{DNS}:{DNS_PORT}", flags=flags).start()

    def post(self, node, *domains):
        for domain in domains:
            self.send(node, [f"u@{domain}".encode()], b"Subject: x\r\n\r\nbody\r\n")

    def reasons(self, node):
        return json.dumps(node.ctl.json("queues", "list"))

    def test_dane(self):
        node = self.start("use-dane yes\nuse-starttls yes")
        self.post(node, "wrong.test", "clear.test", "signed.test", "sibling.test", "list.signed.test", "hub.signed.test", "other.signed.test")
        good = ["u@hub.signed.test", "u@list.signed.test", "u@sibling.test", "u@signed.test"]
        wait_until(lambda: self.taken() == good, f"delivery to the good ones; {self.taken()}")
        wait_until(lambda: "DANE" in self.reasons(node) and "STARTTLS" in self.reasons(node), "reasons of the others")
        # RFC 7672 3.2.2: under a trust anchor the names of the next hop count, also that at the end of its aliases; others do not.
        wait_until(lambda: "mismatch" in self.reasons(node), "the reason of the one whose name the certificate lacks")
        self.assertEqual(self.taken(), good)
        self.assertEqual(node.ctl.totals()["failed_total"], 0)

    def test_tls_required_no(self):
        """RFC 8689 4.2.2: who does not insist on TLS gets through; what an operator demands stays, and so does all other mail."""
        node = self.start("use-dane yes\nuse-mta-sts yes\nuse-starttls yes", extra="<domain demanded.test>\nrequire-starttls yes\nsmtp-hosts {}:{}\n</domain>\n".format(MX, CLEAR_PORT))

        ids = {}

        def post(recipient, header=b"TLS-Required: No\r\n"):
            ids[recipient] = self.send(node, [recipient.encode()], header + b"Subject: x\r\n\r\nbody\r\n")
        for domain in ("wrong.test", "clear.test", "strict.test", "signed.test"):
            post(f"optional@{domain}")
            post(f"insists@{domain}", b"")
        post("optional@demanded.test")
        good = ["insists@signed.test", *(f"optional@{d}" for d in ("clear.test", "signed.test", "strict.test", "wrong.test"))]
        wait_until(lambda: self.taken() == good, f"delivery to who does not insist; {self.taken()}")

        def delivered(recipient):
            return next((event for event in node.ctl.events(ids[recipient]) if event["kind"] == "delivered"), None)
        wait_until(lambda: all(delivered(to) for to in good), "the events")
        encrypted = {to: "tls" in delivered(to)["attempt"] for to in good}
        # Encrypted where the host can, though not with what its records say.
        self.assertEqual(encrypted, {to: to != "optional@clear.test" for to in good})
        queues = {queue["name"]: queue for queue in node.ctl.json("queues", "list")["queues"]}
        waiting = {name for name, queue in queues.items() if int(queue.get("recipients", 0))}
        self.assertEqual({name.split("/")[0] for name in waiting},
                         {"wrong.test", "clear.test", "strict.test", "{tls-optional}demanded.test"}, queues)
        demanded = next(queue for name, queue in queues.items() if name.startswith("{tls-optional}demanded.test/"))
        self.assertIn("TLS is required", demanded["reason"])
        waived = re.search(r"^sluice_delivery_tls_policies_waived_total(?:{[^}]*})? (\S+)$", sluice.metrics(node.address), re.M)
        self.assertGreaterEqual(float(waived[1]), 3)
        self.assertEqual(node.ctl.totals()["failed_total"], 0)

    def post_requiring_tls(self, node, recipient):
        """RFC 8689: only over TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP(node.address, sluice.SMTP_PORT, timeout=30) as client:
            client.starttls(context=context)
            client.ehlo()
            self.assertTrue(client.has_extn("requiretls"))
            client.sendmail("sender@reports.test", [recipient], "Subject: x\r\n\r\nbody\r\n", mail_options=["REQUIRETLS"])

    def test_require_tls(self):
        node = self.start("use-dane yes\nuse-starttls yes", extra="<source 127.0.0.0/8>\nallow-starttls yes\n</source>\n"
                          f"smtp-server-tls-certificate {self.path('mx.both')}\n")
        self.post(node, "two.test")
        wait_until(lambda: self.taken() == ["u@two.test"], "ordinary mail by the first host")
        self.post_requiring_tls(node, "needs@two.test")
        wait_until(lambda: "needs@two.test" in self.taken(), "the other one by the second host")
        with open(self.log, encoding="utf-8") as file:
            hosts = {line["to"]: line["local"] for line in map(json.loads, file)}
        self.assertEqual(hosts, {"u@two.test": MX, "needs@two.test": SECOND_MX})
        self.post_requiring_tls(node, "needs@first.two.test")
        wait_until(self.receiver.taken, "the report on what no host takes")
        report = self.receiver.taken()[0]
        self.assertEqual(list(report.recipients), ["sender@reports.test"])
        self.assertIn(b"Status: 5.7.30", report.content)
        self.assertNotIn("needs@first.two.test", self.taken())

    def test_mta_sts(self):
        node = self.start("use-mta-sts yes\nuse-starttls yes")
        self.post(node, "strict.test", "sts.test", "sibling.test", "tested.test")
        good = ["u@sibling.test", "u@sts.test", "u@tested.test"]
        wait_until(lambda: self.taken() == good, f"delivery to all but the strict one; {self.taken()}")
        wait_until(lambda: "no mx of the domain" in self.reasons(node), "the reason of the strict one")
        self.assertEqual(self.taken(), good)
        self.assertEqual(node.ctl.totals()["failed_total"], 0)

    def posted(self):
        """[(host, path, report)] of those that came by HTTPS."""
        with self.lock:
            self.assertTrue(all(kind == "application/tlsrpt+gzip" for _, _, kind, _ in self.posts))
            return [(host, path, json.loads(gzip.decompress(body))) for host, path, _, body in self.posts]

    def test_reports(self):
        # A day of two seconds: sessions may be in two of its reports.
        node = self.start("use-mta-sts yes\nuse-starttls yes", ["--tls-report-period", "2"])
        self.post(node, "strict.test", "sts.test", "tested.test", "mailed.test")

        def sums(domain):
            found = [r["policies"][0]["summary"] for _, _, r in self.posted() if r["policies"][0]["policy"]["policy-domain"] == domain]
            return [sum(each[f"total-{kind}-session-count"] for each in found) for kind in ("successful", "failure")]
        wait_until(lambda: sums("sts.test")[0] > 0 and sums("strict.test")[1] > 0 and self.receiver.taken(), "reports by both ways")
        self.assertEqual((sums("sts.test")[1], sums("strict.test")[0], sums("tested.test")), (0, 0, [0, 0]))
        for host, path, report in self.posted():
            strict = host == "mta-sts.strict.test"
            self.assertEqual((host, path), ("mta-sts.strict.test", "/") if strict else ("mta-sts.sts.test", "/tls?of=x"))
            self.check_report(report, "strict.test" if strict else "sts.test", strict)
        # Without a DKIM signature mail is for those alone who name nothing else (RFC 8460 3).
        for taken in self.receiver.taken():
            self.check_mail(taken)

    def check_report(self, report, domain, failed):
        """RFC 8460 4.4."""
        day = report["date-range"]
        for moment in (day["start-datetime"], day["end-datetime"]):
            self.assertRegex(moment, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual((report["organization-name"], report["contact-info"]), ("mx.sluice.test", "postmaster@mx.sluice.test"))
        self.assertRegex(report["report-id"], rf"^\d+\.sluiced\.{re.escape(domain)}@mx\.sluice\.test$")
        self.assertEqual(len(report["policies"]), 1)
        policy = report["policies"][0]["policy"]
        self.assertEqual((policy["policy-type"], policy["policy-domain"], policy["mx-host"]), ("sts", domain, [POLICIES[domain]]))
        self.assertEqual(policy["policy-string"], ["version: STSv1", "mode: enforce", "max_age: 86400", f"mx: {POLICIES[domain]}"])
        details = report["policies"][0].get("failure-details", [])
        self.assertEqual([each["result-type"] for each in details], ["validation-failure"] * len(details))
        self.assertEqual(bool(details), failed)
        for each in details:
            self.assertEqual((each["receiving-mx-hostname"], each["receiving-ip"]), ("mx.sts.test", MX))
            self.assertIn(each["sending-mta-ip"], [ip for ip, _ in sluice.default_sources().values()])
            self.assertGreater(each["failed-session-count"], 0)

    def check_mail(self, taken):
        """RFC 8460 5.3: as another reads it."""
        self.assertEqual((taken.mail_from, list(taken.recipients)), ("", ["tls@reports.test"]))
        mail = email.message_from_bytes(taken.content)
        self.assertEqual((mail.get_content_type(), mail.get_param("report-type")), ("multipart/report", "tlsrpt"))
        self.assertEqual((mail["TLS-Report-Domain"], mail["TLS-Report-Submitter"]), ("mailed.test", "mx.sluice.test"))
        self.assertEqual(mail["TLS-Required"], "No")
        self.assertEqual((mail["From"], mail["To"]), ("<postmaster@mx.sluice.test>", "<tls@reports.test>"))
        self.assertEqual(mail.defects, [])
        text, attached = mail.get_payload()
        self.assertEqual((text.get_content_type(), attached.get_content_type()), ("text/plain", "application/tlsrpt+gzip"))
        report = json.loads(gzip.decompress(attached.get_payload(decode=True)))
        self.check_report(report, "mailed.test", False)
        self.assertRegex(attached.get_filename(), r"^mx\.sluice\.test!mailed\.test!\d+!\d+!sluiced\.json\.gz$")
        self.assertEqual(re.sub(r"\s+", " ", mail["Subject"]),
                         f"Report Domain: mailed.test Submitter: mx.sluice.test Report-ID: <{report['report-id']}>")


if __name__ == "__main__":
    unittest.main()
