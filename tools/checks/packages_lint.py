#!/usr/bin/env python3
"""Holds the lists of Debian packages to what is linked: each library of tools/sysdeps/BUILD comes with a package of tools/packages.txt, or with one
that such a package depends on. What only happens to be installed here is missing on the next machine.

Usage: packages_lint.py    Prints what is wrong; exit code 1 where anything was found.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib")


def libraries(build):
    """Files that the linker looks for: libX.so and libX.a of "-lX", the very name of "-l:X"."""
    wanted = {}
    for name in sorted(set(re.findall(r'"-l([^"]+)"', build))):
        wanted[name] = [name[1:]] if name.startswith(":") else [f"lib{name}.so", f"lib{name}.a"]
    return wanted


def listed(text):
    return {line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")}


def closure(roots, depends):
    """`roots`, and all that they depend on. depends: package -> text of its Depends field."""
    found, left = set(), list(roots)
    while left:
        package = left.pop()
        if package in found:
            continue
        found.add(package)
        left += [re.sub(r"[ :(].*", "", each.strip()) for each in re.split(r"[,|]", depends.get(package, "")) if each.strip()]
    return found


def problems(wanted, owners, packages):
    """owners: file name -> packages that bring it."""
    wrong = []
    for name, files in wanted.items():
        of = set().union(*(owners.get(file, set()) for file in files))
        if not of:
            wrong.append(f"tools/sysdeps/BUILD: no package here has the library of -l{name}")
        elif not of & packages:
            wrong.append(f"tools/packages.txt: -l{name} needs {' or '.join(sorted(of))}, which no package of the list brings")
    return wrong


def main():
    wanted = libraries((ROOT / "tools/sysdeps/BUILD").read_text(encoding="utf-8"))
    fields = subprocess.run(["dpkg-query", "-W", "-f=${Package}\t${Pre-Depends}, ${Depends}\n"], capture_output=True, text=True, check=True).stdout
    depends = dict(line.split("\t", 1) for line in fields.splitlines())
    paths = [f"{folder}/{file}" for files in wanted.values() for file in files for folder in FOLDERS]
    found = subprocess.run(["dpkg-query", "-S", *paths], capture_output=True, text=True, check=False).stdout  # 1 where one path is nobody's
    owners = {}
    for line in found.splitlines():
        of, path = line.rsplit(": ", 1)
        owners.setdefault(pathlib.Path(path).name, set()).update(each.split(":")[0] for each in of.split(", "))
    packages = closure(listed((ROOT / "tools/packages.txt").read_text(encoding="utf-8")), depends)
    wrong = problems(wanted, owners, packages)
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
