"""Goal: the database keeps changes only as long as a backup target needs them, and no longer than configured for one that is away; what was
forgotten is in the targets, and a restore brings it back."""

import sqlite3
import unittest

from cases import DEADLINE, PURPOSE, TENANT, DaemonTestCase, R
from harness import Daemon, eventually
from test_backup import lose_database, restore, target_of

CUSTOMERS = 4000  # some 10,000 changes: more than one portion


class ChangeLogTestCase(DaemonTestCase):
    def count(self, table):
        database = sqlite3.connect(f"file:{self.home.path}/kms.db?mode=ro", uri=True)
        try:
            return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        finally:
            database.close()

    def grow(self, begin):
        for start in range(begin, begin + CUSTOMERS, 1000):
            customers = [R.Customer(customer=f"c{number}") for number in range(start, start + 1000)]
            request = R.BatchCreateCustomersRequest(tenant=TENANT, customers=customers, purposes=[PURPOSE])
            self.operator.directory.BatchCreateCustomers(request, timeout=DEADLINE)

    def eventually_empty(self):
        eventually(lambda: self.count("change_log") == 0, "every change is forgotten")


class WithoutTargets(ChangeLogTestCase):
    def test_nothing_is_kept(self):
        self.grow(0)
        self.eventually_empty()


class WithTarget(ChangeLogTestCase):
    @classmethod
    def prepare(cls, home):
        cls.target = target_of(home)
        home.config["backup"]["keep_changes"] = 1000
        home.config["backup"]["durability"] = "async"

    def test_what_is_shipped_is_forgotten_and_comes_back_with_a_restore(self):
        self.grow(0)
        self.eventually_empty()
        away = self.target.with_name("away")
        self.target.rename(away)
        self.grow(CUSTOMERS)
        eventually(lambda: 0 < self.count("change_log") <= 1000, "as many changes are kept as are configured")
        away.rename(self.target)
        self.eventually_empty()
        customers = self.count("customer")
        self.assertGreaterEqual(customers, 2 * CUSTOMERS)
        self.close_clients()
        self.stop_daemon()
        lose_database(self.home)
        done = restore(self.home, self.target)
        type(self).daemon = Daemon(self.home).start()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.report["customers"], customers)
        self.generate(customer=f"c{2 * CUSTOMERS - 1}")


if __name__ == "__main__":
    unittest.main()
