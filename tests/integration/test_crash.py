"""Goal: kill -9 at any moment loses nothing that was acknowledged, and the audit chain holds.

Several clients work at once until a random number of replies has come; then the daemon is killed and started again. The
moment is drawn from a seed that is printed on failure ($KMS_SEED repeats it).
"""

import os
import random
import unittest

import audit_chain
from cases import make_directory
from harness import Client, Daemon, Home
from load import Load, LoadTestCase

ROUNDS = int(os.environ.get("KMS_CRASH_ROUNDS", "6"))
SEED = int(os.environ.get("KMS_SEED", random.SystemRandom().randrange(1 << 32)))


class Crash(LoadTestCase):
    def test_nothing_acknowledged_is_lost(self):
        home = Home()
        self.addCleanup(home.cleanup)
        moment = random.Random(SEED)
        random.seed(SEED)
        loads = []
        daemon = Daemon(home)
        self.addCleanup(lambda: daemon.kill())
        daemon.start()
        operator = Client(daemon.channel("operator"))
        make_directory(operator)
        operator.close()
        for number in range(ROUNDS):
            load = Load(daemon, number)
            loads.append(load)
            load.run_until(moment.randrange(20, 3000))
            daemon.kill()
            load.join()
            self.assertEqual(load.surprises, [], f"seed {SEED}")
            self.assertGreater(load.acknowledged, 0)
            daemon = Daemon(home)
            daemon.start()
            with self.subTest(round=number, seed=SEED):
                self.check(daemon, loads)
        self.assertEqual(daemon.stop(), 0)
        records = audit_chain.verify(home.path / "audit")
        generated = sum(1 for r in records if r.get("action") == "datakey.generate" and r["outcome"] == "OK")
        self.assertGreaterEqual(generated, sum(len(load.keys) for load in loads))
        self.assertGreater(len({r["seq"] for r in records}), generated)


if __name__ == "__main__":
    unittest.main()
