"""cc_proto: C++ for one .proto file, with Debian's protoc and gRPC plugin.

Bazel's own proto rules want to build protoc; this calls /usr/bin/protoc. Each .proto is one target, and names the targets
of the files it imports in deps.
"""

def cc_proto(name, src, deps = [], grpc = False, visibility = None):
    """Makes a cc_library `name` from `src`, and a filegroup `name`_src that importers need.

    Args:
      name: the target; by convention FILE_proto.
      src: the .proto file, in this package, below //proto.
      deps: cc_proto targets of the imported files.
      grpc: True where the file declares services.
      visibility: of the library.
    """
    base = src[:-len(".proto")]
    outs = [base + e for e in [".pb.h", ".pb.cc"]]
    flags = "--cpp_out=$(GENDIR)/proto"
    if grpc:
        outs += [base + e for e in [".grpc.pb.h", ".grpc.pb.cc"]]
        flags += " --grpc_out=$(GENDIR)/proto --plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin"
    native.filegroup(
        name = name + "_src",
        srcs = [src] + [d + "_src" for d in deps],
        visibility = ["//proto:__subpackages__"],
    )
    native.genrule(
        name = name + "_gen",
        srcs = [src] + [d + "_src" for d in deps],
        outs = outs,
        cmd = "/usr/bin/protoc -Iproto " + flags + " $(location " + src + ")",
    )
    native.cc_library(
        name = name,
        srcs = [o for o in outs if o.endswith(".cc")],
        hdrs = [o for o in outs if o.endswith(".h")],
        strip_include_prefix = "/proto",
        copts = ["-Wno-unused-parameter"],
        deps = deps + (["//tools/sysdeps:grpcpp"] if grpc else ["//tools/sysdeps:protobuf"]),
        visibility = visibility,
    )
