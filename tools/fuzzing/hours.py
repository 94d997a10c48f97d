"""The account of ./tools/fuzz: how long each fuzzer has run on the code that it runs on now. hours.tsv beside this file."""
import datetime
import fcntl
import hashlib
import os
import pathlib
import re
import xml.etree.ElementTree

LEDGER = pathlib.Path(__file__).resolve().parent / "hours.tsv"
COLUMNS = ("fuzzer", "minutes", "clock", "minutes_ever", "executions_ever", "last", "code")


def code_digests(root, labels, bazel):
    """label -> digest of what the fuzzer is about: its own source, and those of the libraries that it names. Comments and white space do not count."""
    text = bazel("query", "--output=xml", "--noshow_progress", "--ui_event_filters=-info", f"deps(set({' '.join(labels)}), 2)")
    # Says that it is XML 1.1, which Python does not read.
    rules = {rule.get("name"): [each.get("name") for each in rule.iter("rule-input")]
             for rule in xml.etree.ElementTree.fromstring(text.partition("\n")[2]).iter("rule")}
    digests = {}
    for label in labels:
        sources = {source for rule in [label, *rules[label]] for source in rules.get(rule, ())}
        digest = hashlib.sha1()
        for source in sorted(sources):
            file = root / source[2:].replace(":", "/")
            if source.startswith("//") and file.suffix in (".cc", ".h") and file.exists():  # not what is generated
                digest.update(re.sub(r"//[^\n]*|\s+", "", file.read_text(encoding="utf-8")).encode())
        digests[label] = digest.hexdigest()[:12]
    return digests


class Hours:
    """Thread-safety: one thread at a time; several processes may share the file."""

    def __init__(self, digests):
        """digests: fuzzer name -> digest of its code."""
        self.digests = digests
        self.rows = self._read()

    def minutes(self, name, column="minutes"):
        """Of CPU, on the code as it is; of the wall's clock in the column "clock"."""
        row = self.rows.get(name)
        return float(row[column]) if row and row["code"] == self.digests[name] else 0.0

    def add(self, name, cpu_s, clock_s, executions):
        folder = os.open(LEDGER.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self.rows = self._read()
            row = self.rows.get(name, {"minutes_ever": 0, "executions_ever": 0})
            self.rows[name] = {
                "fuzzer": name,
                "minutes": f"{self.minutes(name) + cpu_s / 60:.1f}",
                "clock": f"{self.minutes(name, 'clock') + clock_s / 60:.1f}",
                "minutes_ever": f"{float(row['minutes_ever']) + cpu_s / 60:.1f}",
                "executions_ever": int(row["executions_ever"]) + executions,
                "last": datetime.date.today().isoformat(),
                "code": self.digests[name],
            }
            lines = ["\t".join(COLUMNS)] + ["\t".join(str(self.rows[each][column]) for column in COLUMNS) for each in sorted(self.rows)]
            fresh = LEDGER.with_suffix(".new")
            fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
            os.replace(fresh, LEDGER)
        finally:
            os.close(folder)

    @staticmethod
    def _read():
        if not LEDGER.exists():
            return {}
        lines = LEDGER.read_text(encoding="utf-8").splitlines()
        return {row["fuzzer"]: row for row in (dict(zip(COLUMNS, line.split("\t"))) for line in lines[1:])}
