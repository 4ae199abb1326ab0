"""Goal: libkms is installed, found by pkg-config, compiled against and run as a user of it would, and shows what it should.

The examples of tests/example are the programs: a file and a buffer through the cache, a stream, and batches.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from cases import CUSTOMER, PURPOSE, TENANT, DaemonTestCase
from harness import BUILD, ROOT, SLOW

EXAMPLES = ROOT / "tests" / "example"
HEADERS = ROOT / "include" / "kms"
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wstrict-prototypes", "-Werror"]


def run(*command, **options):
    """Run a command that must succeed; returns its output."""
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=300 * SLOW, **options,
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def sanitizers():
    """What the build's code needs at link time."""
    for line in (BUILD / "CMakeCache.txt").read_text().splitlines():
        if line.startswith("KMS_SANITIZE:") and not line.endswith("="):
            return ["-fsanitize=" + line.split("=", 1)[1]]
    return []


class Library:
    """An installed libkms in a directory of its own."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="kms-library-"))
        run("cmake", "--build", BUILD, "--target", "kms_shared", "kms_static")
        run("cmake", "--install", BUILD, "--component", "libkms", "--prefix", self.path)
        (config,) = self.path.rglob("kms.pc")
        self.lib = config.parent.parent
        self.environment = dict(os.environ, PKG_CONFIG_PATH=str(config.parent), LD_LIBRARY_PATH=str(self.lib))

    def flags(self, *options):
        return run("pkg-config", *options, "kms", env=self.environment).split()

    def compile(self, name, static=False):
        """An example program; returns its path."""
        program = self.path / (name + ("-static" if static else ""))
        libraries = self.flags("--libs")
        if static:
            libraries = [str(self.lib / "libkms.a"), *(word for word in self.flags("--static", "--libs") if word != "-lkms")]
        run(
            "cc", "-std=c11", *WARNINGS, *sanitizers(), EXAMPLES / f"{name}.c", *self.flags("--cflags"), *libraries,
            "-o", program,
        )  # fmt: skip
        return program

    def cleanup(self):
        shutil.rmtree(self.path, ignore_errors=True)


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.library = Library()
        cls.addClassCleanup(cls.library.cleanup)
        text = "".join(path.read_text() for path in HEADERS.glob("*.h"))
        cls.declared = set(re.findall(r"\b(kms_(?:client|datakey|envelope|cache)_\w+)\(", text))

    def defined(self, *options):
        lines = run("nm", "--defined-only", *options).splitlines()
        return {line.split()[-1].split("@")[0] for line in lines if re.search(r" [TDBRVW] ", line)}

    def test_every_function_of_the_headers_and_nothing_else_is_exported(self):
        self.assertGreater(len(self.declared), 25)
        self.assertEqual(self.defined("-D", self.library.lib / "libkms.so"), self.declared)

    def test_the_static_library_shows_the_same_symbols(self):
        found = {name for name in self.defined("-g", self.library.lib / "libkms.a") if not name.startswith("__")}
        self.assertEqual(found, self.declared)

    def test_the_library_has_its_name_and_version(self):
        header = run("readelf", "-d", self.library.lib / "libkms.so")
        self.assertIn("[libkms.so.0]", header)
        self.assertRegex(run("pkg-config", "--modversion", "kms", env=self.library.environment), r"^\d+\.\d+\.\d+$")

    def test_each_header_compiles_alone_in_c_and_cxx(self):
        compilers = [("cc", "-std=c11", "c")]
        if shutil.which("c++"):
            compilers.append(("c++", "-std=c++17", "c++"))
        for header in sorted(HEADERS.glob("*.h")):
            for compiler, standard, language in compilers:
                with self.subTest(header=header.name, language=language):
                    source = self.library.path / f"alone.{language}"
                    source.write_text(f"#include <kms/{header.name}>\n")
                    run(
                        compiler, standard, "-x", language, "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only",
                        *self.library.flags("--cflags"), source,
                    )  # fmt: skip

    def test_headers_include_nothing_of_the_inside(self):
        for header in HEADERS.glob("*.h"):
            for name in re.findall(r"#include\s+[<\"]([^>\"]+)", header.read_text()):
                self.assertRegex(name, r"^(kms/\w+\.h|stddef\.h|stdint\.h)$", header.name)


class Examples(DaemonTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.library = Library()
        cls.addClassCleanup(cls.library.cleanup)

    def example(self, program, *arguments, customer=CUSTOMER):
        """Run a compiled example as the application; returns the completed process."""
        command = [program, self.home.address, self.home.path / "pki", TENANT, customer, PURPOSE, *map(str, arguments)]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120 * SLOW,
            env=dict(self.library.environment, GRPC_VERBOSITY="NONE"),
        )  # fmt: skip

    def test_a_file_and_a_buffer_through_the_cache(self):
        program = self.library.compile("envelope_file")
        plain = self.library.path / "plain"
        plain.write_bytes(os.urandom(300_000))
        done = self.example(program, plain, self.library.path / "out")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.library.path / "out").read_bytes(), plain.read_bytes())
        self.assertIn("2 keys fetched, 2 taken from the cache", done.stdout)
        sealed = (self.library.path / "out.kms").read_bytes()
        self.assertEqual(sealed[:8], b"KMSENC\x01\x01")
        self.assertNotIn(plain.read_bytes()[:32], sealed)

    def test_a_stream_and_batches(self):
        for static in (False, True):
            with self.subTest(static=static):
                done = self.example(self.library.compile("datakeys", static), 2500)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("2500 keys made, 999 of 1000 the same after rewrap and unwrap", done.stdout)
                self.assertIn("item 999: BLOB_REFUSED", done.stdout)

    def test_a_refusal_carries_the_request_id_of_the_audit_log(self):
        program = self.library.compile("envelope_file")
        files = [EXAMPLES / "envelope_file.c", self.library.path / "refused"]
        done = self.example(program, *files, customer="nobody")
        self.assertEqual(done.returncode, 1)
        match = re.search(r"NOT_FOUND, request ([0-9a-f-]+)\)", done.stderr)
        self.assertIsNotNone(match, done.stderr)
        self.assertFalse((self.library.path / "refused.kms").exists())
        self.assertIn(match[1], [record.get("request_id") for record in self.home.audit_records()])


if __name__ == "__main__":
    unittest.main()
