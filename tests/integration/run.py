#!/usr/bin/python3
"""Goal: run the integration tests, each file in a process of its own and several at once, and count what passed.

usage: run.py [--jobs N] [--list] [NAME...]     NAME: test_datakeys, or test_datakeys.DataKeys.test_unary
The build under test is $KMS_BUILD (default build/release). The last line is "N passed, N failed, N skipped".
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
FILE_TIMEOUT = 900
MEASURED = "measured: "  # such lines of a test are shown although it passes
# The quickstart builds, and what is being linked cannot be started: it comes before all others, by itself.
BEFORE_ALL = "test_quickstart"
# The longest first, so that the end is not one file running alone.
LONG_FIRST = ("test_backup_hang", "test_seals", "test_recovery", "test_recovery_keys", "test_shred", "test_backup_shred", "test_crash_matrix", "test_shred_proof", "test_faults", "test_policy", "test_rotation", "test_backup", "test_recovery_proof", "test_audit_faults", "test_metrics")
# What kills programs at named places, or leaves steps out, needs a build that has those places: dev or asan.
TEST_POINTS_ONLY = ("test_backup_killed", "test_rolled_back", "test_removed_row", "test_recovery_killed", "test_recovery_crash", "test_recovery_proof", "test_shred_proof", "test_crash_matrix", "test_shred_crash", "test_shred_meanwhile")


def has_test_points(build):
    """Whether a build directory is of such a build."""
    return "\nKMS_TEST_POINTS:BOOL=ON\n" in (build / "CMakeCache.txt").read_text()


def all_names():
    """Every file that this build can run; tests/run runs the others with the build that they need."""
    build = pathlib.Path(os.environ.get("KMS_BUILD", HERE.parents[1] / "build" / "release"))
    left_out = () if has_test_points(build) else TEST_POINTS_ONLY
    return sorted(path.stem for path in HERE.glob("test_*.py") if path.stem not in left_out)


class Result(unittest.TextTestResult):
    """Counts passes as well; a sub-test that fails counts as one failure."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def run_here(names, report):
    """Run the named tests in this process and write the counts into a file."""
    os.chdir(HERE)
    sys.path.insert(0, str(HERE))
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    wanted = suite.countTestCases()
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2, resultclass=Result).run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = [f"{test.id()}: {reason}" for test, reason in result.skipped]
    missing = wanted - result.passed - failed - len(skipped) if not failed else 0
    counts = {"passed": result.passed, "failed": failed + max(missing, 0), "skipped": skipped}
    pathlib.Path(report).write_text(json.dumps(counts))
    return 0 if failed == 0 and wanted > 0 else 1


def run_file(names):
    """Run one file's tests in a child; returns (title, seconds, counts, output)."""
    began = time.monotonic()
    with tempfile.NamedTemporaryFile("r", prefix="kms-report-") as report:
        command = [sys.executable, "-B", str(HERE / "run.py"), "--report", report.name, *names]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=FILE_TIMEOUT, check=False,
            )  # fmt: skip
            output = done.stdout
        except subprocess.TimeoutExpired as late:
            output = (late.stdout or b"") + f"\nnot done within {FILE_TIMEOUT} s\n".encode()
        text = report.read()
    counts = json.loads(text) if text else {"passed": 0, "failed": 1, "skipped": []}
    return names[0], time.monotonic() - began, counts, output.decode(errors="replace")


def group(names):
    """Names of one file stay together: they may share a class's daemon."""
    files = {}
    for name in names:
        files.setdefault(name.split(".")[0], []).append(name)
    order = {name: place for place, name in enumerate(LONG_FIRST)}
    return [files[file] for file in sorted(files, key=lambda file: (order.get(file, len(order)), file))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--report", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.report:
        return run_here(options.names, options.report)
    names = options.names or all_names()
    if options.list:
        print("\n".join(names))
        return 0
    passed, failed, skipped = 0, 0, []
    groups = group(names)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        begun = [pool.submit(run_file, names) for names in groups if names[0].startswith(BEFORE_ALL)]
        concurrent.futures.wait(begun)
        begun += [pool.submit(run_file, names) for names in groups if not names[0].startswith(BEFORE_ALL)]
        for future in concurrent.futures.as_completed(begun):
            title, seconds, counts, output = future.result()
            passed += counts["passed"]
            failed += counts["failed"]
            skipped += counts["skipped"]
            word = "ok  " if counts["failed"] == 0 and counts["passed"] > 0 else "FAIL"
            print(f"   {word} {title}: {counts['passed']} passed, {counts['failed']} failed, {seconds:.0f} s", flush=True)
            if counts["failed"] or counts["passed"] == 0:
                failed += 0 if counts["failed"] else 1
                print(output, flush=True)
                continue
            for line in output.splitlines():
                if line.startswith(MEASURED):
                    print(f"        {line}", flush=True)
    for line in skipped:
        print(f"   skipped {line}")
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
