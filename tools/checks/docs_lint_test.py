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
    "services/node/main.cc": '#include "CLI/CLI.hpp"\napp.add_option("-s,--spool", spool, "folder");\n',
    "tools/quickstart": 'case "$1" in --keep) keep=1 ;; esac\n',
}


class DocsLintTest(unittest.TestCase):
    def test_true_statements_pass(self):
        text = "Run\n\n    sluiced --spool /var/spool\n\nor `--keep`, see `services/node/main.cc` and [it](services/node/main.cc).\n"
        self.assertEqual(run(text, FILES), (0, []))

    def test_false_statements_are_found(self):
        table = [
            ("    sluiced --spoool x\n", "no program has the flag --spoool"),
            ("give `--fast`\n", "no program has the flag --fast"),
            ("see `services/node/other.cc`\n", "there is no services/node/other.cc"),
            ("see [it](docs/none.md)\n", "the link docs/none.md leads nowhere"),
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

    def test_foreign_programs_are_not_our_business(self):
        self.assertEqual(run("    apt-get install --no-install-recommends x\n", FILES), (0, []))


if __name__ == "__main__":
    unittest.main()
