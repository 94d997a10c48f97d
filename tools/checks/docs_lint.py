#!/usr/bin/env python3
"""Holds documents to the code: what a document names is there, and what has to be documented is.

Usage: docs_lint.py [ROOT]    Prints FILE:LINE: what; exit code 1 where anything was found.

Of every document:
- `path/to/file` in backquotes that looks like a path of this tree (starts with a top-level folder, or has the ending of a source file) must
  exist: below the root, the document's folder, the folder above it, or proto. A file's name alone must be some file's.
- ./tools/NAME in a code block or backquotes must be an executable file.
- `--flag` in backquotes or after one of our programs in a code block must be declared in the source: a CLI11 add_option/add_flag, or an
  argument that a script parses.
- Relative Markdown links must lead somewhere; a row of a table is one line.
- `a-directive` in backquotes must be on the reference page or be a word that the code knows; `a_test`, `a_fuzz`, `a_benchmark` must be files;
  `CamelCase` must be a name of the code.
- Metrics (`sluice_...`), also of code blocks and of alert rules, must be in the source.
Of single documents:
- Each metric of the source is in services/SERVICE/README.md, as such or as `NAME`, and its section on metrics names no other; counters end
  in _total, and nothing else does.
- services/base/log/README.md has the events that the code logs, and no other.
- The tables of tests/integration, tests/harness and tools/fuzzing have every file of their kind.
- Each alert of deploy/prometheus is on the operator's page.
- facts.tsv beside this file: numbers of documents, each with the line of code that it comes from. DOCUMENT, its words, SOURCE (or a file
  beside it), its words.
"""
import pathlib
import re
import subprocess
import sys

PROGRAMS = ("sluiced", "sluicectl", "sluice-ingest", "sluice-queue", "sluice-delivery", "sluice-policy", "sluice-sink",
            "./tools/quickstart", "./tools/bench", "./tools/test", "./tools/lint")
# Flags of programs that are not ours.
FOREIGN = {"--config", "--config=asan", "--config=tsan", "--config=ubsan", "--config=fuzz", "--config=opt", "--help"}

# Names of the system's, not of our code.
FOREIGN_NAMES = {"UdpRcvbufErrors"}
SOURCE_ENDINGS = ("cc", "h", "py", "proto", "md", "tsv", "conf", "yml", "bzl")
ALERTS = "deploy/prometheus/sluice.rules.yml"
OPERATORS_PAGE = "deploy/OPERATING.md"


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
                # services/node/options.cc: the name alone, which makes the environment variable, too.
                for names in re.findall(r"\bAdd\(\s*app,\s*([^,]*\"[a-z0-9-]+\")", text):
                    flags.update("--" + flag for flag in re.findall(r"\"([a-z0-9-]+)\"", names))
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
                is_source = alone_name(text) and path.rpartition(".")[2] in SOURCE_ENDINGS
                if (path.split("/")[0] in top or is_source) and not re.search(r"[*{<]", text):
                    folder = (root / name).parent
                    if not any((base / path).exists() for base in (root, root / "proto", folder, folder.parent)):
                        report(name, number, f"there is no {path}")
            for script in re.findall(r"(?<!\S)\./(tools/[\w-]+)", text):
                path = root / script
                if path.exists() and not path.stat().st_mode & 0o111:
                    report(name, number, f"{script} is not executable")
        if line.startswith("|") and not in_block and not line.rstrip().endswith("|"):
            report(name, number, "a row of a table does not end")
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
            if not re.match(r"[a-z]+:", link) and not ((root / name).parent / link).exists():
                report(name, number, f"the link {link} leads nowhere")


def alone_name(text):
    return re.fullmatch(r"[\w./-]+", text.strip()) is not None


class Names:
    """What a name in backquotes may be."""

    def __init__(self, root, files):
        self.files = {pathlib.PurePath(name).name for name in files}
        self.stems = {pathlib.PurePath(name).stem for name in files}
        self.words = set()
        self.literals = set()
        for name in files:
            if name.endswith((".cc", ".h", ".py", ".proto", ".bzl", ".yml", "BUILD")):
                text = read(root / name)
                self.words.update(re.findall(r"[A-Za-z_]\w+", text))
                self.literals.update(re.findall(r"\"([a-z0-9]+(?:-[a-z0-9]+)+)\"", text))
        reference = root / "services/config/REFERENCE.md"
        self.literals.update(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", read(reference)))

    def problem(self, text):
        if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", text) and text not in self.literals:
            return f"no directive or word of the code is {text}"
        if re.fullmatch(r"[a-z0-9]\w*_(test|fuzz|benchmark|bench)", text) and text not in self.stems:
            return f"there is no {text}"
        if re.fullmatch(r"[a-z]\w*\.(cc|h|py|proto)", text) and text not in self.files:
            return f"there is no file {text}"
        if re.fullmatch(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*(::\w+)?", text) and text not in FOREIGN_NAMES:
            for word in text.split("::"):
                if word not in self.words:
                    return f"the code has no name {word}"
        return None


def lint_names(root, name, names, report):
    if name == "services/config/REFERENCE.md":
        return
    for number, line in enumerate(read(root / name).splitlines(), 1):
        for text in re.findall(r"`([^`]+)`", line):
            problem = names.problem(text)
            if problem:
                report(name, number, problem)


def read(path):
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def declared_metrics(root, files):
    """Metrics of the source: name -> file."""
    metrics = {}
    for name in files:
        if name.startswith("services/") and name.endswith((".cc", ".h")) and not name.endswith("_test.cc") and (root / name).is_file():
            for metric in re.findall(r'"(sluice_[a-z]+_[a-z0-9_]+)"', (root / name).read_text(encoding="utf-8", errors="replace")):
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
        kind = re.search(rf'(Counter|Gauge)\(\s*"{metric}"', read(root / source))
        if kind and (kind.group(1) == "Gauge") == metric.endswith("_total"):
            report(source, 1, f"{metric}: counters end in _total, and gauges do not")
    logged = set(logged_events(root, files))
    for name in files:
        service = re.fullmatch(r"services/(\w+)/README\.md", name)
        in_section = False
        for number, line in enumerate(read(root / name).splitlines() if service else (), 1):
            if line.startswith("## "):
                in_section = "metrics" in line.lower()
            for short in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", line) if in_section else ():
                if f"sluice_{service.group(1)}_{short}" not in metrics and short not in metrics and short not in logged:
                    report(name, number, f"there is no metric sluice_{service.group(1)}_{short}")
    for name in files:
        if not name.endswith((".md", "rules.yml")) or not (root / name).is_file():
            continue
        for number, line in enumerate(read(root / name).splitlines(), 1):
            code = line if line.startswith("    ") or name.endswith(".yml") else " ".join(re.findall(r"`[^`]+`", line))
            for metric in re.findall(r"\b(sluice_(?:ingest|queue|delivery|policy)_[a-z0-9_]*[a-z])\b", code):
                if metric not in metrics:
                    report(name, number, f"there is no metric {metric}")


LOG_CALL = re.compile(r"\b(?:Info|Warn|Error|Write)\(\s*(?:LogLevel::\w+\s*,\s*)?((?:[^()\"]|\([^()\"]*\))*?\?\s*\"[a-z_]+\"\s*:\s*\"[a-z_]+\""
                      r"|\"[a-z_]+\")\s*,")


def logged_events(root, files):
    """Events that the code logs: name -> file."""
    logged = {}
    for name in files:
        if name.startswith("services/") and name.endswith((".cc", ".h")) and not re.search(r"_(test|fuzz)\.cc$", name):
            text = re.sub(r"//.*", "", read(root / name))
            for call in LOG_CALL.findall(text) + re.findall(r"LogLevel::k\w+, (\"[a-z_]+\")", text):
                for event in re.findall(r"\"([a-z_]+)\"", call):
                    logged[event] = name
    return logged


def lint_log(root, files, report):
    page = "services/base/log/README.md"
    if page not in files:
        return
    logged = logged_events(root, files)
    told = {}
    for number, line in enumerate(read(root / page).splitlines(), 1):
        cell = re.match(r"\| ((?:`[a-z_]+`(?:, )?)+) \|", line)
        for event in re.findall(r"`([a-z_]+)`", cell.group(1)) if cell else ():
            told[event] = number
    for event in sorted(set(logged) - set(told)):
        report(logged[event], 1, f"{page} does not tell of the event {event}")
    for event in sorted(set(told) - set(logged)):
        report(page, told[event], f"nothing logs the event {event}")


def lint_tables(root, files, report):
    """Documents that list all files of a kind."""
    for page, kind, shown in (("tests/integration/README.md", r"tests/integration/(\w+_test)\.py", "{}.py`"),
                              ("tests/harness/README.md", r"tests/harness/(\w+(?<!_test))\.py", "{}.py`"),
                              ("tools/fuzzing/README.md", r"(?:.*/)?(\w+_fuzz)\.cc", "`{}`")):
        text = read(root / page)
        for name in files if text else ():
            match = re.fullmatch(kind, name)
            if match and not match.group(1).startswith("__") and shown.format(match.group(1)) not in text:
                report(page, 1, f"it does not tell of {name}")
    page = read(root / OPERATORS_PAGE)
    for number, line in enumerate(read(root / ALERTS).splitlines(), 1):
        alert = re.match(r"\s*- alert: (\w+)", line)
        if alert and f"`{alert.group(1)}`" not in page:
            report(ALERTS, number, f"{OPERATORS_PAGE} does not tell of {alert.group(1)}")


def folded(text):
    return " ".join(text.split())


def lint_facts(root, report):
    facts = "tools/checks/facts.tsv"
    for number, line in enumerate(read(root / facts).splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) != 4:
            report(facts, number, "a line has four cells, with a tab between each two")
            continue
        document, says, source, code = cells
        # A line may have moved to a file beside.
        beside = [path for path in (root / source).parent.glob("*") if path.suffix in (".h", ".cc") and not path.stem.endswith("_test")]
        if not any(folded(code) in folded(read(path)) for path in [root / source, *sorted(beside)]):
            report(facts, number, f"{source} does not say \"{code}\" any more: does {document} still hold?")
        if folded(says) not in folded(read(root / document)):
            report(facts, number, f"{document} does not say \"{says}\" any more: mend this line")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    files = tracked(root)
    top = {name.split("/")[0] for name in files if "/" in name}
    flags = declared_flags(root, files)
    problems = []
    for name in files:
        if name.endswith(".md") and (root / name).is_file():
            lint_document(root, name, flags, top, lambda f, n, what: problems.append(f"{f}:{n}: {what}"))
    report = lambda f, n, what: problems.append(f"{f}:{n}: {what}")
    lint_metrics(root, files, report)
    lint_log(root, files, report)
    lint_tables(root, files, report)
    lint_facts(root, report)
    names = Names(root, files)
    for name in files:
        if name.endswith(".md"):
            lint_names(root, name, names, report)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
