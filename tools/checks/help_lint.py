#!/usr/bin/env python3
"""Holds a program's document to its --help: every command is in the document, and every flag in the document is one of the program's.

Usage: help_lint.py DOCUMENT PROGRAM    Prints what is wrong; exit code 1 where anything was found.
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


def main(argv):
    if len(argv) != 3:
        raise SystemExit(__doc__)
    problems = compare(pathlib.Path(argv[1]).read_text(encoding="utf-8"), list(walk(argv[2])))
    for problem in problems:
        print(f"{argv[1]}: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
