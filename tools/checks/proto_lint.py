#!/usr/bin/env python3
"""Holds the .proto files to those of buf's STANDARD rules that need no buf, and to ours: every service and RPC has a comment of its own, and
numbers that are times say their unit.

Usage: proto_lint.py [ROOT]    (ROOT holds sluice/..., default: proto). Prints FILE:LINE: RULE: what; exit code 1 where anything was found.
"""
import pathlib
import re
import sys

SNAKE = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")
PASCAL = re.compile(r"^[A-Z][A-Za-z0-9]*$")
UPPER_SNAKE = re.compile(r"^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$")
TYPE = r"(?:map\s*<[^>]+>|[A-Za-z_][\w.]*)"
FIELD = re.compile(r"^(?:(optional|repeated|required)\s+)?(" + TYPE + r")\s+(\w+)\s*=\s*(\d+)\s*(?:\[.*\])?;$")
VALUE = re.compile(r"^(\w+)\s*=\s*(-?\d+)\s*(?:\[.*\])?;$")
TIME = re.compile(r"(^|_)(time|timeout|interval|age|duration|delay|until|since)$")
INTEGERS = {"int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "double", "float"}
RPC = re.compile(r"^rpc\s+(\w+)\s*\(\s*(?:stream\s+)?([\w.]+)\s*\)\s*returns\s*\(\s*(?:stream\s+)?([\w.]+)\s*\)")


def upper_snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()


def strip_comment(line):
    """The line without its // comment; strings with // in them stay whole."""
    in_string = False
    for i, char in enumerate(line):
        if char == '"' and line[i - 1] != "\\":
            in_string = not in_string
        if not in_string and line.startswith("//", i):
            return line[:i].strip()
    return line.strip()


class Linter:
    def __init__(self, root):
        self.root = root
        self.problems = []
        self.request_types = {}  # message type of an RPC -> the RPC that uses it

    def report(self, path, line, rule, what):
        self.problems.append(f"{path}:{line}: {rule}: {what}")

    def lint(self, path):
        relative = path.relative_to(self.root)
        lines = path.read_text(encoding="utf-8").splitlines()
        if not SNAKE.match(path.stem):
            self.report(path, 1, "FILE_LOWER_SNAKE_CASE", f"file name {path.name}")
        code = [strip_comment(line) for line in lines]
        if 'syntax = "proto3";' not in code:
            self.report(path, 1, "SYNTAX_SPECIFIED", 'no syntax = "proto3";')
        if not lines or not lines[0].startswith("//"):
            self.report(path, 1, "COMMENT_FILE", "the first line says what the file is for")
        package = None
        stack = []  # (kind, name)
        imports = {}
        first_value = None
        for number, text in enumerate(code, 1):
            if not text:
                continue
            match = re.match(r"^package\s+([\w.]+);$", text)
            if match:
                package = match.group(1)
                parts = package.split(".")
                if not all(SNAKE.match(part) for part in parts):
                    self.report(path, number, "PACKAGE_LOWER_SNAKE_CASE", package)
                if not re.match(r"^v[1-9]\d*((alpha|beta)\d*)?$", parts[-1]):
                    self.report(path, number, "PACKAGE_VERSION_SUFFIX", package)
                if "/".join(parts) != str(relative.parent):
                    self.report(path, number, "PACKAGE_DIRECTORY_MATCH", f"{package} is not {relative.parent}")
                continue
            match = re.match(r'^import\s+(?:(public|weak)\s+)?"([^"]+)";$', text)
            if match:
                if match.group(1) == "public":
                    self.report(path, number, "IMPORT_NO_PUBLIC", match.group(2))
                if match.group(1) == "weak":
                    self.report(path, number, "IMPORT_NO_WEAK", match.group(2))
                imports[match.group(2)] = number
                continue
            match = re.match(r"^(message|enum|service|oneof)\s+(\w+)\s*\{(.*)$", text)
            if match:
                kind, name, rest = match.groups()
                self.open_block(path, number, kind, name, lines, stack)
                first_value = None
                if rest.strip().endswith("}"):
                    body = rest.strip()[:-1].strip()
                    for statement in filter(None, (s.strip() for s in body.split(";"))):
                        self.statement(path, number, statement + ";", kind, name, lines, True)
                else:
                    stack.append((kind, name))
                continue
            if text.startswith("}"):
                if stack:
                    stack.pop()
                continue
            if stack:
                kind, name = stack[-1]
                if kind == "enum" and VALUE.match(text):
                    self.statement(path, number, text, kind, name, lines, first_value is None)
                    first_value = text
                else:
                    self.statement(path, number, text, kind, name, lines, False)
                if text.startswith("rpc") and text.endswith("{"):
                    stack.append(("rpc", ""))
        if package is None:
            self.report(path, 1, "PACKAGE_DEFINED", "no package")
        body = "\n".join(code)
        for imported, number in imports.items():
            if not self.is_used(imported, body):
                self.report(path, number, "IMPORT_USED", imported)

    def is_used(self, imported, body):
        source = self.root / imported
        if not source.exists():
            return True  # a system import
        names = re.findall(r"^(?:message|enum)\s+(\w+)", source.read_text(encoding="utf-8"), re.M)
        return any(re.search(r"\b" + name + r"\b", body) for name in names)

    def open_block(self, path, number, kind, name, lines, stack):
        if kind == "oneof":
            if not SNAKE.match(name):
                self.report(path, number, "ONEOF_LOWER_SNAKE_CASE", name)
            return
        if not PASCAL.match(name):
            self.report(path, number, f"{kind.upper()}_PASCAL_CASE", name)
        if kind == "service":
            self.comment_above(path, number, lines, "COMMENT_SERVICE", name)
            if not name.endswith("Service"):
                self.report(path, number, "SERVICE_SUFFIX", f"{name} does not end in Service")

    def statement(self, path, number, text, kind, name, lines, first):
        if kind == "enum":
            match = VALUE.match(text)
            if not match:
                return
            value, digits = match.groups()
            prefix = upper_snake(name) + "_"
            if not UPPER_SNAKE.match(value):
                self.report(path, number, "ENUM_VALUE_UPPER_SNAKE_CASE", value)
            if not value.startswith(prefix):
                self.report(path, number, "ENUM_VALUE_PREFIX", f"{value} does not start with {prefix}")
            if first and int(digits) != 0:
                self.report(path, number, "ENUM_FIRST_VALUE_ZERO", value)
            if int(digits) == 0 and not value.endswith("_UNSPECIFIED"):
                self.report(path, number, "ENUM_ZERO_VALUE_SUFFIX", value)
        elif kind in ("message", "oneof"):
            match = FIELD.match(text)
            if match and not SNAKE.match(match.group(3)):
                self.report(path, number, "FIELD_LOWER_SNAKE_CASE", match.group(3))
            if match and TIME.search(match.group(3)) and match.group(2) in INTEGERS:
                self.report(path, number, "FIELD_TIME_UNIT", f"{match.group(3)} does not say its unit")
            if match and match.group(1) == "required":
                self.report(path, number, "FIELD_NOT_REQUIRED", match.group(3))
        elif kind == "service":
            self.rpc(path, number, text, name, lines)

    def rpc(self, path, number, text, service, lines):
        match = RPC.match(text)
        if not match:
            return
        name, request, response = match.groups()
        if not PASCAL.match(name):
            self.report(path, number, "RPC_PASCAL_CASE", name)
        for role, given in (("Request", request), ("Response", response)):
            allowed = (name + role, service + name + role)
            if given.split(".")[-1] not in allowed:
                self.report(path, number, f"RPC_{role.upper()}_STANDARD_NAME", f"{given} should be {name}{role}")
            full = (path.parent, given)
            user = f"{service}.{name}.{role}"
            if self.request_types.setdefault(full, user) != user:
                self.report(path, number, "RPC_REQUEST_RESPONSE_UNIQUE", f"{given} is also of {self.request_types[full]}")
        self.comment_above(path, number, lines, "COMMENT_RPC", name)

    def comment_above(self, path, number, lines, rule, name):
        if number < 2 or not lines[number - 2].strip().startswith("//"):
            self.report(path, number, rule, f"{name} has no comment")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "proto")
    linter = Linter(root)
    files = sorted(root.rglob("*.proto"))
    if not files:
        print(f"proto_lint: no .proto file under {root}", file=sys.stderr)
        return 2
    for path in files:
        linter.lint(path)
    for problem in linter.problems:
        print(problem)
    return 1 if linter.problems else 0


if __name__ == "__main__":
    sys.exit(main())
