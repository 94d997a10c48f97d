"""Proves that what is known of a message, its recipients and what became of them is in the records, and read back by sluicectl: the envelope's
options, the client and its TLS, captured headers, who chose the way, and of each attempt source, destination, TLS, connection, worker and times."""
import smtplib
import ssl
import time
import unittest

from tests.harness import sluice
from tests.harness.processes import Process, loopback, program, wait_until
from tests.harness.certificates import Authority
from tests.integration.scenario import ScenarioTest

SINK, SINK_PORT = loopback(12), 2600
CONTENT = (b"From: Shop <shop@client.test>\r\nSender: <news@client.test>\r\nSubject: caf\xe9\r\nMessage-ID: <1@client.test>\r\nX-Job: spring\r\n"
           b"X-Virtual-MTA: v1\r\n\r\nbody\r\n")
SHORT_S = "1s"
DELAY_S = 4


class RecordsTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        argv = [program("tools/sink/sluice-sink"), "--listen", f"{SINK}:{SINK_PORT}", "--dns", f"{SINK}:5300", "--quiet", "--tls-certificate",
                "self-signed", "--rule", f"grey.test greylist={SHORT_S}", "--ready-file", self.scenario.path("sink.ready")]
        self.scenario.add(Process("sink", argv, self.scenario.folder, ready_file=self.scenario.path("sink.ready"))).start()

    def start(self):
        certificate = Authority(self.scenario.path("tls")).issue("mx.sluice.test", loopback(1))[2]
        config = sluice.configuration(sluice.default_sources(), SINK_PORT,
                                      f"smtp-server-tls-certificate {certificate}\nallow-starttls yes\n<source {loopback(13)}>\n"
                                      f"  public-ip 192.0.2.77\n</source>\n", "  use-starttls yes\n")
        return sluice.Node(self.scenario, config, f"{SINK}:5300").start()

    def send_with_everything(self, node):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with smtplib.SMTP(node.address, sluice.SMTP_PORT, timeout=60, local_hostname="shop.client.test") as client:
            client.starttls(context=context)
            client.ehlo()
            self.assertEqual(client.mail("shop@client.test", ["BODY=8BITMIME", "RET=HDRS", "ENVID=env+2B1"])[0], 250)
            code, _ = client.rcpt("u@grey.test", ["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;first+2B@other.test"])
            self.assertEqual(code, 250)
            code, said = client.data(CONTENT)
            self.assertEqual(code, 250, said)
        return said.decode().split()[-1]

    def test_what_is_kept_and_told(self):
        node = self.start()
        message = self.send_with_everything(node)
        wait_until(lambda: "delivered" in [e["kind"] for e in node.ctl.events(message)], "the delivery", 60)
        events = {e["kind"]: e for e in node.ctl.events(message)}
        self.assertEqual(set(events), {"received", "transient", "delivered"})
        self.assertEqual(len({e["id"] for e in node.ctl.events(message)}), 3, "ids are unique")
        for event in events.values():
            expected = {"queue": "grey.test/v1", "vmta": "v1", "job_id": "spring", "mail_from": "shop@client.test", "rcpt": "u@grey.test",
                        "rcpt_given": "u@grey.test", "orcpt": "rfc822;first+@other.test", "envid": "env+1", "client_ip": "127.0.0.1",
                        "local_ip": node.address, "source_mta": "shop.client.test", "message_id": message, "source_type": "smtp"}
            self.assertEqual({key: event[key] for key in expected}, expected)
            self.assertGreater(event["time_us"], 0)
            self.assertGreater(event["time_queued_us"], 0)
            self.assertGreater(event["snapshot_version"], 0)
            self.assertEqual(event["body_size"], events["received"]["body_size"])
            headers = {h["name"]: h["value"] for h in event["captured_headers"]}
            self.assertEqual(set(headers), {"From", "Sender", "Subject", "Message-ID", "X-Job", "X-Virtual-MTA"})
        self.assertEqual(events["transient"]["reply"]["code"], 451)
        self.assertEqual((events["transient"]["dsn_action"], events["transient"]["stage"]), ("delayed", "rcpt"))
        self.assertGreater(events["transient"]["retry_us"], events["transient"]["time_us"])
        delivered = events["delivered"]
        self.assertEqual((delivered["dsn_action"], delivered["attempts"], delivered["stage"]), ("relayed", 2, "final_dot"))
        self.assertTrue(delivered["dsn_status"].startswith("2."), delivered)
        self.assertIn("grey.test", delivered["dsn_mta"])
        self.assertTrue(delivered["dsn_diagnostic"], delivered)
        for kind in ("transient", "delivered"):
            attempt = events[kind]["attempt"]
            self.assertEqual((attempt["source_ip"], attempt["source_public_ip"]), (loopback(13), "192.0.2.77"))
            self.assertEqual((attempt["source"], attempt["worker"], attempt["delivery_type"]), ("out1.sluice.test", "sluiced", "smtp"))
            self.assertEqual(attempt["destination_ip"], SINK)
            self.assertIn("grey.test", attempt["destination_host"])
            self.assertGreater(attempt["connection_id"], 0)
            self.assertRegex(attempt["tls"]["version"], r"TLSv1\.[23]")
            self.assertTrue(attempt["tls"]["cipher"], attempt)
            self.assertTrue(attempt["tls"]["verdict"], attempt)
            self.assertGreater(attempt["size"], 0)
        first = events["transient"]["attempt"]
        self.assertIn("PIPELINING", first["esmtp_extensions"])
        for stage in ("dns_us", "connect_us", "tls_us"):
            self.assertGreater(first["times"][stage], 0, stage)
        for stage in ("envelope_us", "final_us"):  # all text may leave in one turn
            self.assertGreater(delivered["attempt"]["times"][stage], 0, stage)

    def test_a_queued_message_is_shown_whole(self):
        node = self.start()
        done = node.ctl.run("pause", "*/*", "--reason", "look", "--author", "ops")
        self.assertEqual(done.returncode, 0, done.stderr)
        message = self.send_with_everything(node)
        shown = node.ctl.json("messages", "show", message)["message"]
        kept = shown["message"]
        expected = {"mail_from": "shop@client.test", "envid": "env+1", "body_type": "8bitmime", "dsn_return": "headers", "client_name": "shop.client.test",
                    "client_ip": "127.0.0.1", "local_ip": node.address, "source_type": "smtp", "hops": 0, "header_from": "shop@client.test"}
        self.assertEqual({key: kept[key] for key in expected}, expected)
        self.assertRegex(kept["client_tls"]["version"], r"TLSv1\.[23]")
        self.assertTrue(kept["client_tls"]["cipher"])
        self.assertGreater(kept["snapshot_version"], 0)
        self.assertGreater(kept["body_size"], kept["header_size"])
        (recipient,) = shown["recipients"]
        self.assertEqual((recipient["state"], recipient["queue"]), ("paused", "grey.test/v1"))
        delivery = recipient["delivery"]
        self.assertEqual((delivery["vmta"], delivery["job_id"], delivery["notify"], delivery["orcpt"]),
                         ("v1", "spring", 4 + 8, "rfc822;first+@other.test"))
        done = node.ctl.run("inject", "--from", "a@client.test", "--to", "u@grpc.test", "--vmta", "all", "--job", "j", "--envid", "e", "--priority",
                            "70", "--metadata", "k=v", "--traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                            "--idempotency-key", "key", "--tenant", "acme", "--deliver-within", "2h", "--ids")
        self.assertEqual(done.returncode, 0, done.stderr)
        kept = node.ctl.json("messages", "show", done.stdout.split()[0])["message"]
        expected = {"priority": 70, "metadata": {"k": "v"}, "idempotency_key": "key", "source_type": "grpc", "envid": "e", "tenant": "acme"}
        self.assertEqual({key: kept["message"][key] for key in expected}, expected)
        self.assertTrue(kept["message"]["traceparent"].startswith("00-0af76519"))
        self.assertEqual(kept["recipients"][0]["delivery"]["pool"], "all")
        hours_s = (kept["message"]["deliver_by_us"] - kept["message"]["time_queued_us"]) / 1e6
        self.assertAlmostEqual(hours_s, 7200, delta=30)
        self.assertEqual(kept["recipients"][0]["delivery"]["expires_us"], kept["message"]["deliver_by_us"])

    def test_mail_leaves_when_its_sender_said(self):
        node = self.start()
        asked_us = time.time_ns() // 1000  # the sender counts from before the message is received
        done = node.ctl.run("inject", "--from", "a@client.test", "--to", "u@grpc.test", "--vmta", "v1", "--tenant", "acme", "--delay", f"{DELAY_S}s", "--ids")
        self.assertEqual(done.returncode, 0, done.stderr)
        message = done.stdout.split()[0]
        (queue,) = node.ctl.json("queues", "show", "grpc.test/v1")["per_shard"]
        self.assertEqual(queue["reason"], "waits for the time that its sender gave")
        self.assertGreater(queue["oldest_queued_us"], 0)
        self.assertFalse(queue["oldest_at_least"])
        wait_until(lambda: "delivered" in [e["kind"] for e in node.ctl.events(message)], "the delivery", 60)
        times = {e["kind"]: e["time_us"] for e in node.ctl.events(message)}
        self.assertGreaterEqual(times["delivered"] - asked_us, DELAY_S * 1_000_000)
        self.assertEqual({e["tenant"] for e in node.ctl.events(message)}, {"acme"})


if __name__ == "__main__":
    unittest.main()
