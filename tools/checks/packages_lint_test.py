"""Proves that packages_lint finds a library that no listed package brings, and takes what a listed one depends on."""
import importlib.util
import pathlib
import unittest

spec = importlib.util.spec_from_file_location("packages_lint", pathlib.Path(__file__).parent / "packages_lint.py")
packages_lint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(packages_lint)

BUILD = 'linkopts = ["-lre2", "-l:librocksdb.a", "-lz", "-Wl,-x"]'


class PackagesLintTest(unittest.TestCase):
    def setUp(self):
        self.wanted = packages_lint.libraries(BUILD)
        self.owners = {"libre2.so": {"libre2-dev"}, "librocksdb.a": {"librocksdb-dev"}, "libz.so": {"zlib1g-dev"}}
        self.depends = {"librocksdb-dev": ", libc6-dev, zlib1g-dev (>= 1:1.2) | other:any"}

    def problems(self, packages):
        return packages_lint.problems(self.wanted, self.owners, packages_lint.closure(packages_lint.listed(packages), self.depends))

    def test_files_of_libraries(self):
        self.assertEqual(self.wanted, {":librocksdb.a": ["librocksdb.a"], "re2": ["libre2.so", "libre2.a"], "z": ["libz.so", "libz.a"]})

    def test_what_a_listed_package_brings(self):
        self.assertEqual(self.problems("# libs\nlibre2-dev\n\nlibrocksdb-dev\n"), [])

    def test_a_package_that_is_not_listed(self):
        self.assertEqual(self.problems("librocksdb-dev\n# libre2-dev\n"),
                         ["tools/packages.txt: -lre2 needs libre2-dev, which no package of the list brings"])

    def test_a_library_that_nobody_has(self):
        self.wanted = packages_lint.libraries('"-lgmock"')
        self.assertEqual(self.problems("librocksdb-dev"), ["tools/sysdeps/BUILD: no package here has the library of -lgmock"])


if __name__ == "__main__":
    unittest.main()
