#!/usr/bin/env python3
"""Holds documents to a program's --help: every command is in its own document, and every flag in that is one of the program's; what other
documents call it with are commands and flags that it has.

Usage: help_lint.py DOCUMENT PROGRAM [OTHER_DOCUMENT...]    Prints what is wrong; exit code 1 where anything was found.
"""
import pathlib
import re
import subprocess
import sys

FLAG = re.compile(r"(?<![\w-])--[a-z0-9][a-z0-9-]*")


def help_of(program, *command):
    done = subprocess.run([program, *command, "--help"], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{program} {' '.join(command)} --help: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def subcommands(text):
    """Names in the section `Subcommands:` of a CLI11 help."""
    section = re.search(r"^Subcommands:\n((?:  .*\n?)*)", text, re.M)
    return re.findall(r"^  (\S+)", section.group(1), re.M) if section else []


def walk(program, command=()):
    """(command, flags) of the program and all its commands; commands that have commands of their own only serve to group them."""
    text = help_of(program, *command)
    below = subcommands(text)
    yield (None if below and command else command), set(FLAG.findall(text))
    for name in below:
        yield from walk(program, (*command, name))


def compare(document, helps):
    problems = []
    flags = {"--help"}.union(*(found for _, found in helps))
    for command, _ in helps:
        if command and f"`{' '.join(command)}`" not in document:
            problems.append(f"the command `{' '.join(command)}` is not in the document")
    for flag in sorted(set(FLAG.findall(document)) - flags):
        problems.append(f"the program has no flag {flag}")
    return problems


def calls(document, name):
    """What stands behind the program's name in backquotes and code blocks, up to the end of that command."""
    for line in document.splitlines():
        for code in [line] if line.startswith("    ") else re.findall(r"`([^`]+)`", line):
            for found in re.finditer(rf"(?<![\w-]){re.escape(name)} ([^|;#>)]+)", code):
                yield found.group(1).strip()


def compare_calls(document, name, helps):
    flags_of = {command: flags for command, flags in helps if command is not None}
    common = flags_of[()] | {"--help", "--version"}
    problems = []
    for call in calls(document, name):
        # A flag that stands before the command is followed by its value.
        words = re.sub(r"^(?:--[a-z-]+[ =]\S+\s*)+", "", call).split()
        command = max((c for c in flags_of if tuple(words[:len(c)]) == c), key=len)
        if not command and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
            problems.append(f"`{name} {call}`: there is no command {words[0]}")
        for flag in FLAG.findall(call) if command else ():
            if flag not in flags_of[command] | common:
                problems.append(f"`{name} {call}`: `{' '.join(command)}` has no flag {flag}")
    return problems


def main(argv):
    if len(argv) < 3:
        raise SystemExit(__doc__)
    helps = list(walk(argv[2]))
    name = pathlib.Path(argv[2]).name
    read = lambda path: pathlib.Path(path).read_text(encoding="utf-8")
    problems = [f"{argv[1]}: {problem}" for problem in compare(read(argv[1]), helps)]
    for other in argv[3:]:
        problems += [f"{other}: {problem}" for problem in compare_calls(read(other), name, helps)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
