"""Proves that code_lint finds each fault that it names, and is silent about clean files."""
import importlib.util
import pathlib
import unittest

spec = importlib.util.spec_from_file_location("code_lint", pathlib.Path(__file__).parent / "code_lint.py")
code_lint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(code_lint)


LATER = "TO" + "DO"  # this file is held to the rule, too


class CodeLintTest(unittest.TestCase):
    def lines(self, name, text):
        return [line for line, _ in code_lint.lint(name, text)]

    def test_clean_files(self):
        for name, text in (("a/shard_test.cc", "// Proves that it holds.\n#include <x>\n"), ("a/run_test.py", '"""Proves it."""\n'),
                           ("a/shard.h", "// A shard.\n#pragma once\n"), ("a/BUILD", 'cc_test(\n    name = "t",\n    size = "small",\n)\n'),
                           ("a/run.cc", "f(std::move(a), b.size());\ng(std::move(a), [a = a.x] { a.y(); });\nh(a.size(), std::move(b));\n"),
                           ("a/json.cc", "a = b.dump(1, ' ', false,\n  json::error_handler_t::replace);\n"), ("a/b_test.cc", "// Proves.\na.dump();\n"),
                           ("a/long.cc", "\n" * code_lint.LINES_MAX), ("a/notes.md", f"# {LATER}\n")):
            with self.subTest(name=name):
                self.assertEqual(self.lines(name, text), [])

    def test_faults(self):
        for name, text, line in (("a/shard_test.cc", "#include <x>\n", 1), ("a/run_test.py", "import os\n", 1), ("a/shard.h", "#pragma once\n", 1),
                                 ("a/shard.h", "// A shard.\n", 1), ("a/shard.cc", f"int a;\nint b;  // {LATER}: c\n", 2),
                                 ("a/run.cc", "int b;\nf(std::move(a),\n  b, a.size());\n", 2), ("a/run.cc", "f(std::move(a), a->b);\n", 1),
                                 ("a/json.cc", "\na = b.dump(1);\n", 2), ("a/run.py", f"# {LATER}\n", 1), ("a/BUILD", '\ncc_test(\n    name = "t",\n    srcs = ["t.cc"],\n)\n', 2),
                                 ("a/long.cc", "\n" * (code_lint.LINES_MAX + 1), code_lint.LINES_MAX)):
            with self.subTest(name=name, text=text[:20]):
                self.assertEqual(self.lines(name, text), [line])


if __name__ == "__main__":
    unittest.main()
