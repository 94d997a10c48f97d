#!/usr/bin/env python3
"""Holds documents to the code: files, commands and flags that a document names are there, and programs' flags are documented.

Usage: docs_lint.py [ROOT]    Prints FILE:LINE: what; exit code 1 where anything was found.

- `path/to/file` in backquotes that looks like a path of this tree (has a slash, starts with a top-level folder) must exist.
- ./tools/NAME in a code block or backquotes must be an executable file.
- `--flag` in backquotes or after one of our programs in a code block must be declared in the source: a CLI11 add_option/add_flag, or an
  argument that a script parses.
- Relative Markdown links must lead somewhere.
- Metrics: each "sluice_SERVICE_NAME" of the source is in services/SERVICE/README.md, as such or as `NAME`, and each that a document names is in the source.
"""
import pathlib
import re
import subprocess
import sys

PROGRAMS = ("sluiced", "sluicectl", "sluice-ingest", "sluice-queue", "sluice-delivery", "sluice-policy", "sluice-sink",
            "./tools/quickstart", "./tools/bench", "./tools/test", "./tools/lint")
# Flags of programs that are not ours.
FOREIGN = {"--config", "--config=asan", "--config=tsan", "--config=ubsan", "--config=fuzz", "--config=opt", "--help"}


def tracked(root):
    done = subprocess.run(["git", "-C", str(root), "ls-files"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def declared_flags(root, files):
    flags = set()
    for name in files:
        path = root / name
        if not path.is_file():
            continue
        if name.endswith((".cc", ".h")) and not name.endswith("_test.cc"):
            text = path.read_text(encoding="utf-8", errors="replace")
            if "CLI" in text:
                for literal in re.findall(r'"([^"\n]*--[^"\n]*)"', text):
                    flags.update(re.findall(r"--[a-z0-9][a-z0-9-]*", literal))
        elif name.startswith(("tools/", "tests/")) and ("." not in path.name or name.endswith((".py", ".sh"))):
            text = path.read_text(encoding="utf-8", errors="replace")
            flags.update(re.findall(r"--[a-z0-9][a-z0-9-]*", text))
    return flags


def lint_document(root, name, flags, top, report):
    in_block = False
    for number, line in enumerate((root / name).read_text(encoding="utf-8").splitlines(), 1):
        if line.strip().startswith("```"):
            in_block = not in_block
            continue
        code = [line] if in_block or line.startswith("    ") else re.findall(r"`([^`]+)`", line)
        for text in code:
            ours = any(re.search(r"(?<![\w/-])" + re.escape(p) + r"(?![\w-])", text) for p in PROGRAMS)
            alone = re.fullmatch(r"--[a-z0-9][a-z0-9-]*(?:[= ]\S+)?", text.strip())
            if ours or alone:
                for flag in re.findall(r"(?<![\w-])--[a-z0-9][a-z0-9-]*", text):
                    if flag not in flags and flag not in FOREIGN:
                        report(name, number, f"no program has the flag {flag}")
            for path in re.findall(r"(?<![\w/.-])(?:\./)?((?:[\w.-]+/)+[\w.-]+)", text):
                if path.split("/")[0] in top and not re.search(r"[*{<]", text) and not (root / path).exists():
                    if not (root / "proto" / path).exists():
                        report(name, number, f"there is no {path}")
            for script in re.findall(r"(?<!\S)\./(tools/[\w-]+)", text):
                path = root / script
                if path.exists() and not path.stat().st_mode & 0o111:
                    report(name, number, f"{script} is not executable")
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
            if not re.match(r"[a-z]+:", link) and not ((root / name).parent / link).exists():
                report(name, number, f"the link {link} leads nowhere")


def declared_metrics(root, files):
    """Metrics of the source: name -> file."""
    metrics = {}
    for name in files:
        if name.startswith("services/") and name.endswith((".cc", ".h")) and not name.endswith("_test.cc") and (root / name).is_file():
            for metric in re.findall(r'"(sluice_[a-z]+_[a-z_]+)"', (root / name).read_text(encoding="utf-8", errors="replace")):
                metrics[metric] = name
    return metrics


def lint_metrics(root, files, report):
    metrics = declared_metrics(root, files)
    for metric, source in sorted(metrics.items()):
        _, service, rest = metric.split("_", 2)
        readme = root / "services" / service / "README.md"
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        if metric not in text and f"`{rest}`" not in text:
            report(source, 1, f"services/{service}/README.md does not tell of the metric {metric}")
    for name in files:
        if not name.endswith(".md") or not (root / name).is_file():
            continue
        for number, line in enumerate((root / name).read_text(encoding="utf-8").splitlines(), 1):
            for metric in re.findall(r"`(sluice_(?:ingest|queue|delivery|policy)_[a-z_]*[a-z])`", line):
                if metric not in metrics:
                    report(name, number, f"there is no metric {metric}")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    files = tracked(root)
    top = {name.split("/")[0] for name in files if "/" in name}
    flags = declared_flags(root, files)
    problems = []
    for name in files:
        if name.endswith(".md") and (root / name).is_file():
            lint_document(root, name, flags, top, lambda f, n, what: problems.append(f"{f}:{n}: {what}"))
    lint_metrics(root, files, lambda f, n, what: problems.append(f"{f}:{n}: {what}"))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
