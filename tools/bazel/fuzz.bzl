"""cc_fuzz_test: one libFuzzer target that is also an ordinary test.

`bazel test` replays the corpus (every prefix of each named file, and the inputs in found.pack) through LLVMFuzzerTestOneInput.
`./tools/fuzz NAME` fuzzes.
"""

def cc_fuzz_test(name, srcs, deps = [], corpus = [], size = "small"):
    """Declares the target.

    Args:
      name: by convention FILE_fuzz.
      srcs: defines LLVMFuzzerTestOneInput.
      deps: of srcs.
      corpus: files to replay, usually glob(["FILE_corpus/**"]).
      size: of the replay test.
    """
    native.cc_test(
        name = name,
        size = size,
        srcs = srcs,
        args = ["$(rootpath %s)" % f for f in corpus],
        data = corpus,
        linkopts = select({
            "//tools/fuzzing:fuzzing": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        tags = ["fuzz"],
        deps = deps + select({
            "//tools/fuzzing:fuzzing": [],
            "//conditions:default": ["//tools/fuzzing:replay_main"],
        }),
    )
