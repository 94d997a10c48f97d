"""Proves that docs_lint finds what a document promises and the tree does not hold, and believes what is there."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

LINT = pathlib.Path(__file__).parent.absolute() / "docs_lint.py"


def run(document, files):
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for path, text in {**files, "README.md": document}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        subprocess.run(["git", "init", "-q", name], check=True)
        subprocess.run(["git", "-C", name, "add", "."], check=True)
        done = subprocess.run([sys.executable, str(LINT), name], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()


FILES = {
    "services/node/main.cc": '#include "CLI/CLI.hpp"\napp.add_option("-s,--spool", spool, "folder");\n'
                             'Add(app, role == kQueue ? "name" : "shard-name", o.name, "who");\n',
    "tools/quickstart": 'case "$1" in --keep) keep=1 ;; esac\n',
}


class DocsLintTest(unittest.TestCase):
    def test_true_statements_pass(self):
        text = "Run\n\n    sluiced --spool /var/spool --shard-name s --name s\n\nor `--keep`, see `services/node/main.cc` and [it](services/node/main.cc).\n"
        self.assertEqual(run(text, FILES), (0, []))

    def test_false_statements_are_found(self):
        table = [
            ("    sluiced --spoool x\n", "no program has the flag --spoool"),
            ("give `--fast`\n", "no program has the flag --fast"),
            ("see `services/node/other.cc`\n", "there is no services/node/other.cc"),
            ("see [it](docs/none.md)\n", "the link docs/none.md leads nowhere"),
            ("| a | b\n", "a row of a table does not end"),
            ("run `./tools/quickstart`\n", "tools/quickstart is not executable"),
        ]
        for text, what in table:
            with self.subTest(text=text):
                self.assertEqual(run(text, FILES), (1, [f"README.md:1: {what}"]))

    def test_metrics_and_readmes_name_each_other(self):
        source = {"services/queue/core/m.cc": 'add("sluice_queue_workers", "Connected.");\n'}
        readme = lambda text: {**source, "services/queue/README.md": text}
        self.assertEqual(run("", readme("`workers` now\n")), (0, []))
        self.assertEqual(run("", readme("`sluice_queue_workers` now\n")), (0, []))
        self.assertEqual(run("", readme("nothing\n")),
                         (1, ["services/queue/core/m.cc:1: services/queue/README.md does not tell of the metric sluice_queue_workers"]))
        self.assertEqual(run("see `sluice_queue_worker`\n", readme("`workers`\n")), (1, ["README.md:1: there is no metric sluice_queue_worker"]))
        self.assertEqual(run("", readme("`workers`\n## Metrics\n`workers`, `syncs_total`\n")),
                         (1, ["services/queue/README.md:3: there is no metric sluice_queue_syncs_total"]))

    def test_metrics_of_alerts_exist_and_alerts_are_told_of(self):
        rules = lambda metric: {**FILES, "services/queue/m.cc": 'page.Gauge("sluice_queue_workers", "Connected.", n);\n',
                                "services/queue/README.md": "`workers`\n", "deploy/OPERATING.md": "`NoWorker`\n",
                                "deploy/prometheus/sluice.rules.yml": f"      - alert: NoWorker\n        expr: {metric} == 0\n"}
        self.assertEqual(run("", rules("sluice_queue_workers")), (0, []))
        self.assertEqual(run("", rules("sluice_queue_worker")),
                         (1, ["deploy/prometheus/sluice.rules.yml:2: there is no metric sluice_queue_worker"]))
        self.assertEqual(run("", {**rules("sluice_queue_workers"), "deploy/OPERATING.md": ""}),
                         (1, ["deploy/prometheus/sluice.rules.yml:1: deploy/OPERATING.md does not tell of NoWorker"]))

    def test_names_are_the_codes(self):
        code = {**FILES, "services/queue/core/shard.h": 'class Shard { void SetQueueMode(); };  // "delivery-type"\n',
                "services/config/REFERENCE.md": "| `max-smtp-out` |\n"}
        self.assertEqual(run("`max-smtp-out`, `delivery-type`, `Shard::SetQueueMode`, `shard.h`, `quickstart`\n", code), (0, []))
        table = [
            ("`max-smpt-out`", "no directive or word of the code is max-smpt-out"),
            ("`SetQueueModes`", "the code has no name SetQueueModes"),
            ("`shards.h`", "there is no file shards.h"),
            ("`core/shards.h`", "there is no core/shards.h"),
            ("`shard_test`", "there is no shard_test"),
        ]
        for text, what in table:
            with self.subTest(text=text):
                self.assertEqual(run(f"see {text}\n", code), (1, [f"README.md:1: {what}"]))

    def test_log_page_and_code_have_the_same_events(self):
        source = {"services/queue/m.cc": 'log->Warn("disk_full", "");\nlog.Info(up ? "went_up" : "went_down", "");\n'}
        page = lambda events: {**source, "services/base/log/README.md": "".join(f"| {event} | info | x |\n" for event in events)}
        self.assertEqual(run("", page(["`disk_full`", "`went_up`, `went_down`"])), (0, []))
        self.assertEqual(run("", page(["`disk_full`", "`went_up`"])),
                         (1, ["services/queue/m.cc:1: services/base/log/README.md does not tell of the event went_down"]))
        self.assertEqual(run("", page(["`disk_full`", "`went_up`, `went_down`, `flew`"])),
                         (1, ["services/base/log/README.md:2: nothing logs the event flew"]))

    def test_every_scenario_is_told_of(self):
        files = {"tests/integration/crash_test.py": "", "tests/integration/scenario.py": "", "tests/integration/README.md": "nothing\n"}
        self.assertEqual(run("", files), (1, ["tests/integration/README.md:1: it does not tell of tests/integration/crash_test.py"]))

    def test_facts_hold_in_both_places(self):
        line = "README.md\tat most 64 clients\tservices/m.h\tkMost = 64;\n"
        files = lambda code: {"services/m.h": code, "tools/checks/facts.tsv": "# document, words, source, words\n" + line}
        self.assertEqual(run("there are at\nmost 64 clients\n", files("constexpr int kMost = 64;\n")), (0, []))
        self.assertEqual(run("at most 64 clients\n", files("constexpr int kMost = 128;\n")),
                         (1, ['tools/checks/facts.tsv:2: services/m.h does not say "kMost = 64;" any more: does README.md still hold?']))
        self.assertEqual(run("at most 65 clients\n", files("constexpr int kMost = 64;\n")),
                         (1, ['tools/checks/facts.tsv:2: README.md does not say "at most 64 clients" any more: mend this line']))

    def test_counters_and_gauges_are_named_alike(self):
        source = lambda call: {"services/queue/m.cc": call, "services/queue/README.md": "`syncs_total`, `syncs`\n"}
        self.assertEqual(run("", source('page.Counter("sluice_queue_syncs_total", "Commits.", n);\n')), (0, []))
        wrong = "counters end in _total, and gauges do not"
        self.assertEqual(run("", source('page.Gauge("sluice_queue_syncs_total", "Commits.", n);\n')),
                         (1, [f"services/queue/m.cc:1: sluice_queue_syncs_total: {wrong}"]))
        self.assertEqual(run("", source('page.Counter("sluice_queue_syncs", "Commits.", n);\n')),
                         (1, [f"services/queue/m.cc:1: sluice_queue_syncs: {wrong}"]))

    def test_foreign_programs_are_not_our_business(self):
        self.assertEqual(run("    apt-get install --no-install-recommends x\n", FILES), (0, []))


if __name__ == "__main__":
    unittest.main()
