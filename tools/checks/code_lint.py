#!/usr/bin/env python3
"""Holds the source to those house rules that a machine can see.

Usage: code_lint.py [ROOT]    Prints FILE:LINE: what; exit code 1 where anything was found.

- A test says first what it proves: *_test.cc begins with a comment, *_test.py with a docstring.
- A header is a contract: it begins with a comment, and has #pragma once.
- Nothing is left for later: no TODO, FIXME or XXX.
- Arguments have no order: none asks what another one moves (gcc takes the last one first, clang the first).
- No peer ends a program with bytes that are not UTF-8: nlohmann's dump() has an error handler, since it throws else.
- Every cc_test has a size, so that none runs for ever.
- No file of code is longer than LINES_MAX: one past 500 wants to be two, and one past this is.
"""
import pathlib
import re
import subprocess
import sys

LINES_MAX = 650
# f(std::move(x), x.size()), without a lambda in between, whose captures are its own.
ASKS_WHAT_IS_MOVED = re.compile(r"std::move\((\w+)\),[^;{}\[\]]*?\b\1(?:\.|->)")
DUMPS = re.compile(r"\.dump\((?![^;]*error_handler_t)")


def lint(name, text):
    """(line, what) of each fault."""
    lines = text.splitlines()
    if name.endswith("_test.cc") and not text.startswith("//"):
        yield 1, "a test says first, in a comment, what it proves"
    if name.endswith("_test.py") and not re.match(r'(#!.*\n)?"""', text):
        yield 1, "a test says first, in a docstring, what it proves"
    if name.endswith(".h"):
        if not text.startswith("//"):
            yield 1, "a header begins with a comment that says what it is"
        if "#pragma once" not in lines:
            yield 1, "no #pragma once"
    if name.endswith((".cc", ".h", ".py", ".proto")):
        if len(lines) > LINES_MAX:
            yield LINES_MAX, f"{len(lines)} lines: make it two files"
        for number, line in enumerate(lines, 1):
            if re.search(r"(?://|#)\s*(?:TODO|FIXME|XXX)\b", line):
                yield number, "nothing is left for later: do it, or say why it is as it is"
    if name.endswith((".cc", ".h")):
        for call in ASKS_WHAT_IS_MOVED.finditer(text):
            yield text.count("\n", 0, call.start()) + 1, f"{call.group(1)} may have been moved when the other argument asks it"
        for call in DUMPS.finditer("" if name.startswith("tests/") or name.endswith("_test.cc") else text):
            yield text.count("\n", 0, call.start()) + 1, "dump() throws where text is not UTF-8: give it error_handler_t::replace"
    if pathlib.PurePath(name).name == "BUILD":
        for rule in re.finditer(r"^cc_test\(\n.*?^\)", text, re.M | re.S):
            if not re.search(r"^ *size = ", rule.group(), re.M):
                yield text.count("\n", 0, rule.start()) + 1, "a cc_test without a size"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    listed = subprocess.run(["git", "-C", str(root), "ls-files"], capture_output=True, text=True, check=True)
    problems = [f"{name}:{line}: {what}"
                for name in listed.stdout.splitlines() if (root / name).is_file()
                if name.endswith((".cc", ".h", ".py", ".proto", "BUILD"))
                for line, what in lint(name, (root / name).read_text(encoding="utf-8", errors="replace"))]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
