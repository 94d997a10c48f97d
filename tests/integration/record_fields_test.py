"""Proves that every field of the stored records has its value where it has a source today: messages by SMTP (TLS, AUTH, all parameters), by
mail merge and by gRPC are read back field by field, and over all of them no field of Message, Delivery and Event stays unset but those below."""
import datetime
import pathlib
import re
import smtplib
import ssl
import unittest

from tests.harness import sluice
from tests.harness.certificates import Authority
from tests.harness.processes import Process, loopback, program, wait_until
from tests.integration.scenario import ScenarioTest

SINK, SINK_PORT = loopback(12), 2600
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CONTENT = (b"Received: from a by b; Sat, 21 Nov 2026 05:12:01 +0000\r\nFrom: Shop <shop@client.test>\r\nSender: <news@client.test>\r\n"
           b"Subject: caf\xe9\r\nMessage-ID: <1@client.test>\r\nX-Job: spring\r\nX-Virtual-MTA: v1\r\n\r\nbody\r\n")

# Fields that stay unset here, and why. One that gets its source leaves this list.
UNSET = {
    "Message": {
        "mail_from_rewritten": "made for the transaction alone, so that a new rule holds for what is queued",
        "dkim_options": "no DKIM yet", "dkim_key_ref": "no DKIM yet",
        "header_edits": "services/delivery/core/outgoing_edits_test.cc: made for the transaction alone",
        "shard_positions": "the shard's own, never shown",
    },
    "Delivery": {
        "verp_token": "the address itself carries it",
        "priority": "a message has one for all", "not_before_us": "a message has one for all",
        "hold": "services/queue/core/shard_change_test.cc", "lost_leases": "services/queue/core/shard_change_test.cc",
    },
    "Event": {
        "bounce_category": "services/queue/core/shard_categories_test.cc", "bounce_rule": "services/queue/core/shard_categories_test.cc",
    },
    "Attempt": {},
    "Reply": {"bounce_category": "services/queue/core/shard_categories_test.cc"},
}


def fields_of(message):
    """Names of the fields of a message of proto/sluice/common/v1."""
    for name in ("message.proto", "event.proto"):
        text = pathlib.Path(f"proto/sluice/common/v1/{name}").read_text(encoding="utf-8")
        found = re.search(rf"^message {message} {{\n(.*?)^}}", text, re.M | re.S)
        if found:
            body = re.sub(r"^\s*enum \w+ {.*?^\s*}", "", found.group(1), flags=re.M | re.S)
            return re.findall(r"^\s*(?:repeated\s+)?(?:map<[^>]*>|[\w.]+)\s+(\w+)\s*=\s*\d+;", body, re.M)
    raise AssertionError(f"there is no message {message}")


def said(record):
    """Without what is unset."""
    return {key: value for key, value in record.items() if value not in (0, False, "", "0", None, "unspecified", [], {})}


class RecordFieldsTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        argv = [program("tools/sink/sluice-sink"), "--listen", f"{SINK}:{SINK_PORT}", "--dns", f"{SINK}:5300", "--quiet", "--tls-certificate",
                "self-signed", "--rule", "no.test reject=1", "--rule", "later.test defer=1", "--ready-file", self.scenario.path("sink.ready")]
        self.scenario.add(Process("sink", argv, self.scenario.folder, ready_file=self.scenario.path("sink.ready"))).start()
        certificate = Authority(self.scenario.path("tls")).issue("mx.sluice.test", loopback(1))[2]
        extra = f"""smtp-server-tls-certificate {certificate}
notify-of-delay-every 1s
<smtp-user shop>
  password "open sesame"
  source {{shops}}
</smtp-user>
<source-group partners>
</source-group>
<source {{shops}}>
  source-group partners
</source>
<source 127.0.0.0/8>
  allow-starttls yes
  require-auth no
  allow-mailmerge yes
  process-x-schedule yes
  source-group partners
</source>
<source {loopback(13)}>
  public-ip 192.0.2.77
</source>
<domain routed.test>
  queue-to rollup.test
</domain>
"""
        config = sluice.configuration(sluice.default_sources(), SINK_PORT, extra, "  use-starttls yes\n")
        self.node_ = sluice.Node(self.scenario, config, f"{SINK}:5300").start()
        self.seen = {}

    def ctl(self, *arguments):
        done = self.node_.ctl.run(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def show(self, message):
        """Message and recipients as they are stored; remembered."""
        shown = self.node_.ctl.json("messages", "show", message)["message"]
        self.note("Message", shown["message"])
        for recipient in shown["recipients"]:
            self.note("Delivery", recipient["delivery"])
        return shown

    def events(self, message):
        events = self.node_.ctl.events(message)
        for event in events:
            self.note("Event", event)
        return events

    def note(self, kind, record):
        for field, value in said(record).items():
            self.seen.setdefault(kind, set()).add(field)
            if field in ("reply", "last_reply"):
                self.note("Reply", value)
            if field == "attempt":
                self.note("Attempt", value)

    def client(self):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = smtplib.SMTP(self.node_.address, sluice.SMTP_PORT, timeout=60, local_hostname="shop.client.test")
        self.addCleanup(client.close)
        client.starttls(context=context)
        client.ehlo()
        return client

    def end(self, client, content):
        code, text = client.data(content)
        self.assertEqual(code, 250, text)
        return text.decode().split()[-1]

    def by_smtp(self, rcpt, options=(), content=CONTENT):
        client = self.client()
        client.user, client.password = "shop", "open sesame"
        self.assertEqual(client.auth("PLAIN", client.auth_plain)[0], 235)
        wanted = ["BODY=8BITMIME", "RET=HDRS", "ENVID=env+2B1", "AUTH=boss+2Bx@client.test", "MT-PRIORITY=3", *options]
        code, text = client.mail("shop@client.test", wanted)
        self.assertEqual(code, 250, text)
        code, text = client.rcpt(rcpt, ["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;first+2B@other.test"])
        self.assertEqual(code, 250, text)
        return self.end(client, content)

    def by_merge(self):
        client = self.client()
        for line in ("XMRG FROM:<shop@client.test> VERP", 'XDFN name="Ann" *parts=1 *vmta=v2 *jobid=j7 *envid=e7', "RCPT TO:<ann@grey.test>"):
            code, text = client.docmd(line)
            self.assertEqual(code, 250, (line, text))
        code, text = client.docmd("XPRT 1 LAST")
        self.assertEqual(code, 354, text)
        client.send(b"Subject: for [name]\r\n\r\nhello\r\n.\r\n")
        code, text = client.getreply()
        self.assertEqual(code, 250, text)
        return text.decode().split()[-1]

    def test_field_by_field(self):
        self.ctl("pause", "*/*", "--reason", "look", "--author", "ops")
        self.smtp_message()
        self.merged_message()
        self.grpc_message()
        window = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        times = [f"{window + datetime.timedelta(hours=hours):%Y-%m-%d %H:%M:%SZ}" for hours in range(4)]
        line = f"X-Schedule: {times[0]} / {times[1]}, {times[2]} / {times[3]}\r\n"
        later = self.show(self.by_smtp("u@routed.test", ["REQUIRETLS", "SMTPUTF8"], line.encode() + CONTENT))
        self.assertTrue(later["message"]["require_tls"] and later["message"]["smtputf8"], later)
        self.assertGreater(int(later["message"]["not_before_us"]), int(later["message"]["time_queued_us"]))
        delivery = later["recipients"][0]["delivery"]
        self.assertEqual(int(delivery["expires_us"]) - int(later["message"]["not_before_us"]), 3 * 3_600_000_000)
        self.assertEqual([int(each["end_us"]) - int(each["begin_us"]) for each in delivery["windows"]], 2 * [3_600_000_000])
        self.assertEqual((delivery["queue_domain"], later["recipients"][0]["queue"]), ("rollup.test", "rollup.test/v1"))
        refused, deferred = self.by_smtp("u@no.test"), self.by_smtp("u@later.test")
        self.ctl("messages", "reroute", "--id", deferred, "--target", "v2", "--reason", "warm", "--author", "ops")
        moved = self.show(deferred)["recipients"][0]["delivery"]
        self.assertEqual((moved["vmta"], moved["first_vmta"], moved["first_queue"]), ("v2", "v1", "later.test/v1"))
        self.assertEqual(said(moved["reroute"]).keys(), {"reason", "author", "since_us", "target"})
        wait_until(lambda: "delayed" in [e["kind"] for e in self.events(deferred)], "a notice of delay", 60)
        self.ctl("pause", "client.test/*", "--reason", "look", "--author", "ops")
        self.ctl("resume", "*/*")
        wait_until(lambda: "transient" in [e["kind"] for e in self.events(deferred)], "a deferral", 60)
        put_off = self.show(deferred)["recipients"][0]["delivery"]
        self.assertGreaterEqual(put_off["attempts"], 1)
        self.assertEqual((put_off["last_reply"]["stage"], put_off["last_reply"]["ip"]), ("rcpt", SINK))
        wait_until(lambda: "failed" in [e["kind"] for e in self.events(refused)], "a refusal", 60)
        reports = self.node_.ctl.json("messages", "list", "--queue", "client.test/*")["recipients"]
        parents = {self.show(report["message_id"])["message"]["parent_id"] for report in reports}
        self.assertLessEqual({refused, deferred}, parents)
        for report in reports:
            self.events(report["message_id"])
        for kind, unset in UNSET.items():
            fields = set(fields_of(kind))
            self.assertGreater(len(fields), 5, kind)
            self.assertLessEqual(set(unset), fields, "no such field")
            self.assertEqual(fields - self.seen[kind], set(unset), f"{kind}: fields without a value")

    def smtp_message(self):
        message = self.by_smtp("U.ser@Grey.test")
        shown = self.show(message)
        kept = said(shown["message"])
        for field in ("time_queued_us", "snapshot_version", "body_size", "header_size"):
            self.assertGreater(int(kept.pop(field)), 0, field)
        tls = kept.pop("client_tls")
        self.assertEqual(({*said(tls)}, tls["verdict"]), ({"version", "cipher", "verdict"}, "opportunistic"))
        headers = {h["name"]: h["value"] for h in kept.pop("captured_headers")}
        self.assertEqual({key: value for key, value in headers.items() if key != "Subject"},
                         {"From": "Shop <shop@client.test>", "Sender": "<news@client.test>", "Message-ID": "<1@client.test>", "X-Job": "spring",
                          "X-Virtual-MTA": "v1"})
        self.assertIn("Subject", headers)
        self.assertEqual(kept, {
            "id": message, "mail_from": "shop@client.test", "auth_param": "boss+x@client.test", "body_type": "8bitmime", "dsn_return": "headers",
            "envid": "env+1", "priority": 65, "source_type": "smtp", "client_name": "shop.client.test", "client_ip": "127.0.0.1",
            "local_ip": self.node_.address, "listener": f"{self.node_.address}:{sluice.SMTP_PORT}", "user": "shop", "hops": 1,
            "header_from": "shop@client.test", "source_group": "partners"})
        (recipient,) = shown["recipients"]
        self.assertEqual(said(recipient["delivery"]), {
            "rcpt_given": "U.ser@grey.test", "rcpt": "U.ser@grey.test", "orcpt": "rfc822;first+@other.test", "notify": 12, "vmta": "v1",
            "job_id": "spring"})
        self.assertEqual((recipient["state"], recipient["reason"], recipient["queue"]), ("paused", "paused by ops: look", "grey.test/v1"))
        (received,) = self.events(message)
        event = said(received)
        for field in ("id", "time_us", "time_queued_us", "snapshot_version", "body_size", "captured_headers"):
            self.assertTrue(event.pop(field), field)
        self.assertEqual(event, {
            "kind": "received", "queue": "grey.test/v1", "message_id": message, "mail_from": "shop@client.test", "rcpt": "U.ser@grey.test",
            "rcpt_given": "U.ser@grey.test", "orcpt": "rfc822;first+@other.test", "envid": "env+1", "job_id": "spring", "vmta": "v1",
            "source_type": "smtp", "source_mta": "shop.client.test", "client_ip": "127.0.0.1", "local_ip": self.node_.address, "user": "shop",
            "rcpt_count": 1, "shard": received["shard"]})

    def merged_message(self):
        message = self.by_merge()
        shown = self.show(message)
        kept = shown["message"]
        self.assertTrue(kept["is_template"] and kept["verp"], kept)
        self.assertEqual([part["number"] for part in kept["parts"]], [0, 1])  # 0: our Received
        (recipient,) = shown["recipients"]
        delivery = said(recipient["delivery"])
        variables = delivery.pop("merge_variables")
        self.assertIn("name", variables)
        self.assertEqual(delivery, {"rcpt_given": "ann@grey.test", "rcpt": "ann@grey.test", "vmta": "v2", "job_id": "j7", "envelope_id": "e7",
                                    "parts": [1]})
        (received,) = self.events(message)
        self.assertEqual((received["envid"], received["job_id"], received["vmta"]), ("e7", "j7", "v2"))

    def grpc_message(self):
        ids = self.ctl("inject", "--from", "a@client.test", "--to", "u@grpc.test", "--vmta", "all", "--job", "j", "--envid", "e", "--priority",
                       "70", "--metadata", "k=v", "--traceparent", TRACE, "--idempotency-key", "key", "--tenant", "acme", "--ids")
        shown = self.show(ids.split()[0])
        kept = said(shown["message"])
        for field in ("time_queued_us", "snapshot_version", "body_size", "header_size", "captured_headers", "header_from"):
            self.assertTrue(kept.pop(field), field)
        self.assertEqual(kept, {
            "id": ids.split()[0], "mail_from": "a@client.test", "envid": "e", "priority": 70, "source_type": "grpc", "client_ip": "127.0.0.1",
            "metadata": {"k": "v"}, "traceparent": TRACE, "idempotency_key": "key", "source_group": "partners", "tenant": "acme"})
        delivery = said(shown["recipients"][0]["delivery"])
        self.assertIn(delivery.pop("vmta"), ("v1", "v2"))
        self.assertEqual(delivery, {"rcpt_given": "u@grpc.test", "rcpt": "u@grpc.test", "pool": "all", "job_id": "j"})
        (received,) = self.events(ids.split()[0])
        self.assertEqual((received["pool"], received["metadata"], received["source_type"]), ("all", {"k": "v"}, "grpc"))
        self.ctl("messages", "delete", "--id", ids.split()[0], "--reason", "gone", "--author", "ops")
        deleted = self.events(ids.split()[0])[-1]
        self.assertEqual((deleted["kind"], deleted["author"], deleted["reason"], deleted["reply"]["local"]), ("deleted", "ops", "gone", True))


if __name__ == "__main__":
    unittest.main()
