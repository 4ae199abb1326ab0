"""Goal: what one customer, or one day of the log, costs does not grow with how many there are.

$KMS_SCALE_CUSTOMERS and $KMS_SCALE_RECORDS say how many (tests/run --soak: a million and ten millions); what was measured is shown.
"""

import datetime
import json
import math
import os
import re
import statistics
import subprocess
import time
import unittest

from cases import PURPOSE, TENANT, R, make_directory
from harness import BUILD, KMSCTL, SLOW, Daemon
from shred_cases import ShredTestCase

CUSTOMERS = int(os.environ.get("KMS_SCALE_CUSTOMERS", "5000"))
RECORDS = int(os.environ.get("KMS_SCALE_RECORDS", "200000"))
DAYS = 40
FEW = "few"
SHREDS = 5
FAN_OUT = 16
MINUTES = 60 * SLOW


def seconds_of(operation):
    """How long the service was at it."""
    begun, ended = (datetime.datetime.fromisoformat(operation[t].replace("Z", "+00:00")) for t in ("start_time", "finish_time"))
    return (ended - begun).total_seconds()


class OneAmongMany(ShredTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        make_directory(cls.client("operator"), tenant=FEW, purposes=(PURPOSE,), customers=())
        cls.fill(FEW, FAN_OUT)
        begun = time.monotonic()
        cls.fill(TENANT, CUSTOMERS)
        print(f"\nmeasured: {CUSTOMERS} customers with keys made in {time.monotonic() - begun:.0f} s")

    @classmethod
    def fill(cls, tenant, count):
        for start in range(0, count, 1000):
            customers = [R.Customer(customer=f"c{number}") for number in range(start, min(start + 1000, count))]
            request = R.BatchCreateCustomersRequest(tenant=tenant, customers=customers, purposes=[PURPOSE])
            reply = cls.client("operator").directory.BatchCreateCustomers(request, timeout=MINUTES)
            bad = [r for r in reply.results if r.WhichOneof("result") != "customer"]
            if bad:
                raise AssertionError(f"not created: {bad[:3]}")

    def shred_one(self, tenant, number):
        """One customer from request to SEALED: seconds of the work, and pages with a new key."""
        operation = self.ctl("operator", "shred", "request", "--tenant", tenant, "--customer", f"c{number}", "--no-window", "--yes")
        self.approve(operation)
        ended = self.ctl("operator", "operation", "wait", operation["uid"])
        self.assertEqual(json.loads(ended["result"])["shredded"], 1, ended)
        certificate = self.ctl("auditor", "certificate", "list", "--tenant", tenant, "--limit", 1000)["certificates"][-1]["uid"]
        path = self.home.path / "certificate.json"
        self.ctl("auditor", "certificate", "get", certificate, "--out", path)
        document = json.loads(path.read_bytes())
        for left in (path, path.with_suffix(".json.sig")):
            left.unlink(missing_ok=True)
        return seconds_of(ended), document["pages"]["changed"]

    def test_a_shred_of_one_costs_its_way_to_the_top_and_nothing_else(self):
        levels = math.ceil(math.log(CUSTOMERS, FAN_OUT))
        few = [self.shred_one(FEW, number) for number in range(SHREDS)]
        many = [self.shred_one(TENANT, number * (CUSTOMERS // SHREDS) + 1) for number in range(SHREDS)]
        self.assertEqual({pages for _, pages in few}, {1})
        self.assertEqual({pages for _, pages in many}, {levels})
        among_few, among_many = (statistics.median(s for s, _ in shreds) for shreds in (few, many))
        size = (self.home.path / "kms.db").stat().st_size
        print(f"\nmeasured: one of {FAN_OUT}: {among_few * 1000:.0f} ms; one of {CUSTOMERS}: {among_many * 1000:.0f} ms in {levels} pages; "
              f"database {size / 1e6:.0f} MB")  # fmt: skip
        self.assertLess(among_many, among_few * (levels + 5))  # a page costs less than all else; what grew with the number would show
        self.generate(customer="c2")

    def test_a_start_does_not_take_longer(self):
        self.close_clients()
        self.stop_daemon()
        begun = time.monotonic()
        type(self).daemon = Daemon(self.home).start()
        took = time.monotonic() - begun
        print(f"\nmeasured: start with {CUSTOMERS} customers: {took:.2f} s")
        self.assertLess(took, 5 * SLOW)


class OneDayOfTheLog(unittest.TestCase):
    """A log that the service's own writer has made, with a clock of its own."""

    @classmethod
    def setUpClass(cls):
        cls.directory = subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip()
        cls.addClassCleanup(subprocess.run, ["rm", "-rf", cls.directory], check=True)
        cls.log = os.path.join(cls.directory, "log")
        subprocess.run([BUILD / "tests" / "kms-audit-maker", cls.log, str(RECORDS), str(DAYS)], check=True)
        cls.bytes = sum(entry.stat().st_size for entry in os.scandir(cls.log))

    def query(self, *options):
        """The calls found, what kmsctl says that it read, and the seconds."""
        begun = time.monotonic()
        done = subprocess.run(
            [KMSCTL, "audit", "query", self.log, "--limit", "0", "--json", *options], capture_output=True, text=True, check=True
        )
        took = time.monotonic() - begun
        read = re.search(r"read (\d+) of (\d+) segments, (\d+) records, (\d+) bytes; made (\d+) indexes", done.stderr)
        self.assertIsNotNone(read, done.stderr)
        calls = [line for line in done.stdout.splitlines() if '"type":"call"' in line]
        return calls, [int(number) for number in read.groups()], took

    def test_a_days_query_reads_that_day(self):
        first, _, took = self.query("--from", "2026-01-11", "--until", "2026-01-12")
        print(f"\nmeasured: {RECORDS} records, {self.bytes / 1e9:.2f} GB; a day's query that also makes all indexes: {took:.2f} s")
        self.assertEqual(len(first), RECORDS // DAYS)
        for day in ("2026-01-21", "2026-02-02"):
            until = (datetime.date.fromisoformat(day) + datetime.timedelta(days=1)).isoformat()
            calls, (segments, of, _, size, made), took = self.query("--from", day, "--until", until)
            self.assertEqual((len(calls), made), (RECORDS // DAYS, 0))
            self.assertLessEqual(segments, 3 + of // DAYS)  # of that day, of the next one, whose first record is read, and the newest
            self.assertLess(size, 3 * self.bytes / DAYS + (1 << 20))
            print(f"measured: the day {day}: {took:.2f} s, {segments} of {of} segments, {size / self.bytes:.1%} of the bytes")
        calls, (_, _, _, size, _), took = self.query("--from", "2026-01-21", "--until", "2026-01-22", "--outcome", "PERMISSION_DENIED")
        self.assertEqual(len(calls), RECORDS // DAYS // 1000)
        print(f"measured: what was denied on it: {took:.2f} s, {size / self.bytes:.1%} of the bytes")

    def test_nothing_is_missed(self):
        """All days together are all records, and a customer's are those that the log has."""
        found = 0
        for day in range(DAYS):
            begin = datetime.date(2026, 1, 1) + datetime.timedelta(days=day)
            calls, _, _ = self.query("--from", begin.isoformat(), "--until", (begin + datetime.timedelta(days=1)).isoformat(), "--action", "datakey.generate")
            found += len(calls)
        self.assertEqual(found, (RECORDS + 2) // 3)
        calls, _, _ = self.query("--customer", "5a172041-9177-4a3e-9d00-0000000007d0")
        self.assertEqual(len(calls), sum(1 for number in range(RECORDS) if number * 7919 % 100000 == 2000))


if __name__ == "__main__":
    unittest.main()
