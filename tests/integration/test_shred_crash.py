"""Goal: a job of thousands of customers that dies between two of its batches goes on where it was, and every customer has a
certificate in the end. Needs a build with test points.
"""

import unittest

from cases import PURPOSE, TENANT
from harness import eventually
from shred_cases import ShredTestCase


class Crash(ShredTestCase):
    def test_a_job_goes_on_after_a_crash_between_its_batches(self):
        names = [f"crash-{i:05d}" for i in range(1200)]
        done = self.kmsctl("operator", "customer", "batch-create", "--tenant", TENANT, "--with-purpose", PURPOSE, data="\n".join(names) + "\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        path = self.home.path / "crash"
        path.write_text("\n".join(names) + "\n")
        operation = self.request("--no-window", "--file", path)
        self.daemon.stop()
        self.daemon.environment["KMS_CRASH_AT"] = "rekey.committed:2"
        self.restart()
        self.approve(operation)
        eventually(lambda: not self.daemon.alive(), "killed at its test point", 60)
        self.daemon.kill()
        del self.daemon.environment["KMS_CRASH_AT"]
        self.restart()
        self.ctl("operator", "operation", "wait", operation["uid"])
        job = self.job(operation)
        self.assertEqual((job["state"], job["shredded"], job["failed"]), ("DONE", 1200, 0))
        targets = self.ctl("auditor", "shred", "customers", job["uid"], "--limit", "0")["targets"]
        self.assertEqual({t["state"] for t in targets}, {"SEALED"})
        self.assertTrue(all(t["certificate"] for t in targets))

    def restart(self):
        self.close_clients()
        self.daemon.start()


if __name__ == "__main__":
    unittest.main()
