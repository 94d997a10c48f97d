"""Proves that the account of fuzzing adds up over runs and processes, and that minutes on code that has changed do not count."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.absolute()))
import hours  # noqa: E402

QUERY = """<?xml version="1.1" encoding="UTF-8" standalone="no"?>
<query version="2">
  <rule class="cc_test" name="//services/mail:a_fuzz">
    <rule-input name="//services/mail:a_fuzz.cc"/><rule-input name="//services/mail:a"/><rule-input name="//services/mail:gone.pb.h"/>
  </rule>
  <rule class="cc_library" name="//services/mail:a"><rule-input name="//services/mail:a.cc"/><rule-input name="//services/mail:deeper"/></rule>
  <rule class="cc_library" name="//services/mail:deeper"><rule-input name="//services/mail:deeper.cc"/></rule>
</query>
"""


class HoursTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.addCleanup(setattr, hours, "LEDGER", hours.LEDGER)
        hours.LEDGER = self.root / "hours.tsv"

    def test_minutes_add_up_over_processes(self):
        first, second = hours.Hours({"a": "1", "b": "2"}), hours.Hours({"a": "1", "b": "2"})
        first.add("a", 90, 600, 1000)
        second.add("a", 30, 60, 5)
        second.add("b", 60, 60, 7)
        self.assertEqual((second.minutes("a"), second.minutes("a", "clock")), (2, 11))
        again = hours.Hours({"a": "1", "b": "2"})
        self.assertEqual((again.minutes("a"), again.minutes("b")), (2, 1))
        self.assertEqual([line.split("\t")[0] for line in hours.LEDGER.read_text().splitlines()], ["fuzzer", "a", "b"])

    def test_changed_code_begins_anew(self):
        hours.Hours({"a": "1"}).add("a", 60, 60, 1000)
        changed = hours.Hours({"a": "2"})
        self.assertEqual(changed.minutes("a"), 0)
        changed.add("a", 120, 240, 10)
        self.assertEqual(hours.Hours({"a": "2"}).minutes("a"), 2)
        self.assertEqual(hours.Hours({"a": "2"}).minutes("a", "clock"), 4)
        self.assertEqual(hours.Hours({"a": "1"}).minutes("a"), 0)
        row = dict(zip(hours.COLUMNS, hours.LEDGER.read_text().splitlines()[1].split("\t")))
        self.assertEqual((row["minutes_ever"], row["executions_ever"]), ("3.0", "1010"))

    def digest(self, **sources):
        folder = self.root / "services/mail"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ({"a_fuzz": "f();", "a": "int a = 1;", "deeper": "int d;"} | sources).items():
            (folder / f"{name}.cc").write_text(text)
        return hours.code_digests(self.root, ["//services/mail:a_fuzz"], lambda *_: QUERY)["//services/mail:a_fuzz"]

    def test_code_is_what_the_fuzzer_names(self):
        before = self.digest()
        self.assertEqual(self.digest(a="int a  =\n 1;  // why"), before)
        self.assertEqual(self.digest(deeper="int other;"), before)
        self.assertNotEqual(self.digest(a="int a = 2;"), before)
        self.assertNotEqual(self.digest(a_fuzz="g();"), before)


if __name__ == "__main__":
    unittest.main()
