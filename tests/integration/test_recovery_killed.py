"""Goal: a restore into a new token that is killed in the middle loses nothing: it is repeated, or was done."""

import unittest

from cases import DEADLINE, PURPOSE, unwrap_request
from harness import Client, running
from test_recovery import LossTestCase

KILLED = -9


class Killed(LossTestCase):
    def serves(self, machine):
        with running(machine) as daemon:
            app = Client(daemon.channel("app"))
            for name, _, keys in self.live:
                reply = app.keys.UnwrapDataKey(unwrap_request(keys[PURPOSE], customer=name), timeout=DEADLINE)
                self.assertEqual(len(reply.plaintext), 32)
            app.close()

    def test_with_the_keys_in_the_token_and_the_database_a_draft(self):
        machine = self.machine()
        capsule = self.opened(machine)
        self.assertEqual(machine.restore(capsule, crash_at="restore.brought").returncode, KILLED)
        self.assertFalse((machine.path / "kms.db").exists())
        # the keys stay where the killed one has left them, also when the next one fails
        objects = machine.token_objects()
        self.refuses(machine.restore(capsule, target=machine.path / "nowhere"), "nowhere")
        self.assertEqual(machine.token_objects(), objects)
        again = machine.restore(capsule, "--prove")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(machine.token_objects(), objects - 2)  # the transport key is gone, both halves
        self.serves(machine)

    def test_with_the_database_in_its_place(self):
        machine = self.machine()
        capsule = self.opened(machine)
        self.assertEqual(machine.restore(capsule, crash_at="restore.published").returncode, KILLED)
        self.refuses(machine.restore(capsule), "there is something at .* already")
        self.serves(machine)


del LossTestCase

if __name__ == "__main__":
    unittest.main()
