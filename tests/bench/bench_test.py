"""The harness reads /proc, accounts for a process tree and reports rightly. Measures no speed."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

from tests.bench import measure, report
from tests.bench.profiles import PROFILES


class Measure(unittest.TestCase):
    def test_stat_of_a_program_with_a_name_that_looks_like_fields(self):
        line = "42 (a) b (c) S 7 " + " ".join(str(n) for n in range(5, 53))
        name, parent, ticks, pages = measure.parse_stat(line)
        self.assertEqual(name, "a) b (c")
        self.assertEqual(parent, 7)
        # Fields 14 to 17 and 24 of proc(5): utime, stime, cutime, cstime, rss.
        self.assertEqual(ticks, 14 + 15 + 16 + 17)
        self.assertEqual(pages, 24)

    def test_volatile_spools_are_refused(self):
        self.assertEqual(measure.file_system("/proc")[0], "proc")
        shm = pathlib.Path("/dev/shm")
        if shm.is_dir() and measure.file_system(shm)[0] == "tmpfs":
            with self.assertRaises(SystemExit):
                measure.refuse_volatile(shm)

    def test_cpu_of_children_that_ended_is_counted(self):
        burn = "import os\nfor _ in range(3):\n pid = os.fork()\n if pid == 0:\n  sum(range(3000000)); os._exit(0)\n os.waitpid(pid, 0)\n"
        script = burn + "print('done', flush=True)\ninput()"
        with tempfile.TemporaryDirectory() as folder:
            with subprocess.Popen([sys.executable, "-c", "input()\n" + script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
                meter = measure.Meter([child.pid], folder)
                meter.start()
                child.stdin.write(b"\n")
                child.stdin.flush()
                self.assertEqual(child.stdout.readline(), b"done\n")
                cost = meter.stop()
                child.communicate(b"\n")
        self.assertGreater(cost["cpu_s"], 0)
        self.assertGreater(cost["rss_peak_bytes"], 1 << 20)

    def test_the_tree_has_all_generations_and_nobody_else(self):
        table = {1: ("init", 0, 0, 0), 5: ("a", 1, 0, 0), 6: ("b", 5, 0, 0), 7: ("c", 6, 0, 0), 8: ("d", 1, 0, 0)}
        self.assertEqual(sorted(measure.tree([5], table)), [5, 6, 7])
        self.assertEqual(measure.tree([99], table), [])

    def test_sync_probe_leaves_nothing_behind(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertGreater(measure.sync_probe(folder, 3), 0)
            self.assertEqual(os.listdir(folder), [])


class Report(unittest.TestCase):
    RESULTS = [
        {"system": "postfix-tuned", "title": "Postfix, tuned", "end_to_end_per_s": 500.0, "cpu_s_per_1000": 2.0, "notes": ["odd <thing>"]},
        {"system": "sluiced", "title": "sluiced", "end_to_end_per_s": 4000.0, "accept_per_s": 4100.0, "cpu_s_per_1000": 0.15,
         "delivery_latency": {"p50_us": 1500, "p99_us": 12000}, "notes": []},
        {"system": "services", "title": "four services", "notes": ["failed: x"]},
    ]

    def test_table_has_ratios_and_gaps(self):
        text = "\n".join(report.table(PROFILES["10k"], self.RESULTS))
        self.assertIn("8.00×", text)
        self.assertIn("1.5 / 12.0", text)
        self.assertIn("four services: failed: x", text)

    def test_chart_is_well_formed(self):
        xml.etree.ElementTree.fromstring(report.svg([(PROFILES["10k"], self.RESULTS)]))


if __name__ == "__main__":
    unittest.main()
