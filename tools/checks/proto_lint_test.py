"""Proves that proto_lint finds each kind of fault it names, and is silent about a clean file."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

LINT = pathlib.Path(__file__).parent.absolute() / "proto_lint.py"

CLEAN = """// What it is for.
syntax = "proto3";

package sluice.demo.v1;

// By everybody.
service DemoService {
  // Says it.
  rpc Say(SayRequest) returns (stream SayResponse);
}
message SayRequest {
  string text = 1; // "a // b"
  enum Tone {
    TONE_UNSPECIFIED = 0;
    TONE_LOUD = 1;
  }
  oneof how { string at_once = 2; }
  map<string, string> metadata = 3;
}
message SayResponse {}
"""


def run(text, path="sluice/demo/v1/demo_service.proto"):
    with tempfile.TemporaryDirectory() as root:
        file = pathlib.Path(root) / path
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, str(LINT), root], capture_output=True, text=True, check=False)
        return done.returncode, [line.split(": ")[1] for line in done.stdout.splitlines()]


class ProtoLintTest(unittest.TestCase):
    def test_clean(self):
        self.assertEqual(run(CLEAN), (0, []))

    def test_faults(self):
        table = [
            ("package sluice.demo.v1;", "package sluice.demo;", {"PACKAGE_VERSION_SUFFIX", "PACKAGE_DIRECTORY_MATCH"}),
            ("package sluice.demo.v1;", "package sluice.other.v1;", {"PACKAGE_DIRECTORY_MATCH"}),
            ("package sluice.demo.v1;", "", {"PACKAGE_DEFINED"}),
            ('syntax = "proto3";', "", {"SYNTAX_SPECIFIED"}),
            ("// What it is for.\n", "", {"COMMENT_FILE"}),
            ("service DemoService", "service Demo", {"SERVICE_SUFFIX"}),
            ("  // Says it.\n", "", {"COMMENT_RPC"}),
            ("// By everybody.\n", "", {"COMMENT_SERVICE"}),
            ("string text = 1;", "int64 wait_time = 1;", {"FIELD_TIME_UNIT"}),
            ("rpc Say(SayRequest)", "rpc Say(Text)", {"RPC_REQUEST_STANDARD_NAME"}),
            ("(stream SayResponse)", "(SayRequest)", {"RPC_RESPONSE_STANDARD_NAME", "RPC_REQUEST_RESPONSE_UNIQUE"}),
            ("string text = 1;", "string Text = 1;", {"FIELD_LOWER_SNAKE_CASE"}),
            ("string text = 1;", "repeated string textLine = 1;", {"FIELD_LOWER_SNAKE_CASE"}),
            ("string at_once", "string atOnce", {"FIELD_LOWER_SNAKE_CASE"}),
            ("oneof how", "oneof How", {"ONEOF_LOWER_SNAKE_CASE"}),
            ("TONE_UNSPECIFIED = 0", "TONE_NONE = 0", {"ENUM_ZERO_VALUE_SUFFIX"}),
            ("TONE_LOUD", "LOUD", {"ENUM_VALUE_PREFIX"}),
            ("TONE_LOUD", "TONE_loud", {"ENUM_VALUE_UPPER_SNAKE_CASE"}),
            ("message SayResponse", "message say_response", {"MESSAGE_PASCAL_CASE"}),
        ]
        for old, new, rules in table:
            with self.subTest(new=new or f"without {old!r}"):
                self.assertIn(old, CLEAN)
                code, found = run(CLEAN.replace(old, new))
                self.assertEqual(set(found), rules)
                self.assertEqual(code, 1 if rules else 0)

    def test_nothing_to_check_is_an_error(self):
        with tempfile.TemporaryDirectory() as root:
            done = subprocess.run([sys.executable, str(LINT), root], capture_output=True, check=False)
            self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    unittest.main()
