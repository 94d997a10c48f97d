"""Proves that what ./tools/quickstart does after its build works: sends by SMTP and gRPC, waits for all, says what came of it."""
import contextlib
import importlib.util
import io
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

from tests.harness.processes import program

HOST = "127.83.0.1"  # another one than that of a quickstart that runs on this machine


def quickstart():
    spec = importlib.util.spec_from_file_location("quickstart", pathlib.Path("tools/demo/quickstart.py").absolute())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.build = lambda progress: None
    module.binary = lambda name: str(pathlib.Path(program(module.TARGETS[name])).absolute())
    module.EXAMPLE = pathlib.Path("deploy/examples/quickstart.conf").absolute()
    for name in ("SMTP", "RPC", "METRICS", "SINK_SMTP", "SINK_DNS", "SINK_HTTP"):
        setattr(module, name, (HOST, getattr(module, name)[1]))
    return module


class QuickstartTest(unittest.TestCase):
    def test_says_what_was_sent_and_delivered(self):
        with tempfile.TemporaryDirectory(prefix="sluice-test-") as folder:
            said, complaints = io.StringIO(), io.StringIO()
            arguments = ["quickstart", "--messages", "400", "--size", "2048", "--folder", f"{folder}/run"]
            with mock.patch.object(sys, "argv", arguments), contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaints):
                code = quickstart().main()
        self.assertEqual(code, 0, complaints.getvalue() + said.getvalue())
        self.assertRegex(said.getvalue(), r"accepted +400 messages")
        self.assertRegex(said.getvalue(), r"delivered +400 ")
        self.assertRegex(said.getvalue(), r"from 127\.0\.0\.2 +200 messages, as news\.example\.net")
        self.assertRegex(said.getvalue(), r"injection to delivery +p50 [\d.]+ ms")


if __name__ == "__main__":
    unittest.main()
