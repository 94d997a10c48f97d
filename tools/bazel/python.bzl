"""python_test: a Python test run by the system's python3 (Bazel's own stub asks for a program named python, which Debian lacks)."""

def python_test(name, src, data = [], size = "small", args = [], **kwargs):
    """Makes a test target that runs `src`.

    Args:
      name: the target.
      src: the script; exit code 0 means passed.
      data: what it reads or runs.
      size: as for any test.
      args: given to the script.
      **kwargs: as for any test.
    """
    native.sh_test(
        name = name,
        size = size,
        srcs = ["//tools/bazel:python_test.sh"],
        args = ["$(location " + src + ")"] + args,
        data = [src] + data,
        **kwargs
    )
