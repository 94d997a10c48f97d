"""Proves that help_lint finds a command that the document lacks, and a flag that the program lacks."""
import importlib.util
import os
import pathlib
import stat
import tempfile
import unittest

spec = importlib.util.spec_from_file_location("help_lint", pathlib.Path(__file__).parent / "help_lint.py")
help_lint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(help_lint)

PROGRAM = """#!/bin/sh
case "$*" in
--help) printf 'About\\nUsage: p [SUBCOMMAND]\\n\\nOptions:\\n  -h,--help  x\\n  --server TEXT\\n\\nSubcommands:\\n  show   Shows\\n  group  More\\n\\nFooter\\n' ;;
"show --help") printf 'Options:\\n  --limit N\\n' ;;
"group --help") printf 'Subcommands:\\n  list  Lists\\n' ;;
"group list --help") printf 'Options:\\n  --all\\n' ;;
*) exit 2 ;;
esac
"""


class HelpLintTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.program = os.path.join(folder.name, "p")
        pathlib.Path(self.program).write_text(PROGRAM)
        os.chmod(self.program, os.stat(self.program).st_mode | stat.S_IXUSR)

    def problems(self, document):
        return help_lint.compare(document, list(help_lint.walk(self.program)))

    def test_agreement(self):
        self.assertEqual(self.problems("`show` and `group list`, with --server, --limit, --all and --help"), [])

    def test_a_missing_command(self):
        self.assertEqual(self.problems("`show`"), ["the command `group list` is not in the document"])

    def test_a_flag_that_is_none(self):
        self.assertEqual(self.problems("`show`, `group list`, `--limits`"), ["the program has no flag --limits"])

    def calls(self, document):
        return help_lint.compare_calls(document, "p", list(help_lint.walk(self.program)))

    def test_calls_in_other_documents(self):
        self.assertEqual(self.calls("`p show --limit 3`, `p group list --all`, `p --server H:1 show`, `pp hide`, plain p hide\n\n    p show | sort --key=1\n"), [])
        self.assertEqual(self.calls("`p hide`"), ["`p hide`: there is no command hide"])
        self.assertEqual(self.calls("`p show --all`"), ["`p show --all`: `show` has no flag --all"])
        self.assertEqual(self.calls("`p group lists`"), ["`p group lists`: there is no command group"])

    def test_a_program_without_help_is_an_error(self):
        with self.assertRaises(SystemExit):
            help_lint.help_of(self.program, "nothing")


if __name__ == "__main__":
    unittest.main()
