"""Goal: what is killed in the middle loses nothing: a restore into a new token is repeated, or was done; and a batch that was under way when the HSM
was lost is brought to its end by the recovered service, on the word of an intent that the lost HSM has signed.
"""

import unittest

from cases import DEADLINE, PURPOSE, TENANT, unwrap_request
from escrow import EscrowTestCase, trust
from harness import Client, Daemon, eventually, kmsctl, running
from recovery_site import Ceremony, Machine, attestation_of
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

    def has_transport_key(self, machine):
        """Its public half, which goes last, and whose label SoftHSM writes as it is."""
        return any(b"kms/transport" in path.read_bytes() for path in (machine.path / "tokens").rglob("*.object"))

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

    def test_with_an_older_master_key_in_the_token(self):
        """It would open what was shredded since, and nobody would take it away."""
        machine = self.machine()
        older = self.opened(machine, capsules=self.older, out="older.capsule")
        killed = machine.restore(older, target=self.older_target, crash_at="restore.brought")
        self.assertEqual(killed.returncode, KILLED, killed.stderr)
        newest = self.opened(machine)
        self.refuses_to_restore(machine, newest, "the token holds the master key 'kms/.*/1', which nothing in the backup explains: .* into an empty token")
        fresh = self.machine()
        restored = fresh.restore(self.opened(fresh), "--prove")
        self.assertEqual(restored.returncode, 0, restored.stderr)

    def test_with_the_database_in_its_place(self):
        machine = self.machine()
        capsule = self.opened(machine)
        self.assertEqual(machine.restore(capsule, crash_at="restore.published").returncode, KILLED)
        self.refuses(machine.restore(capsule), "there is something at .* already")
        self.assertFalse(self.has_transport_key(machine))
        self.serves(machine)

    def test_with_the_transport_key_gone_and_the_database_a_draft(self):
        machine = self.machine()
        capsule = self.opened(machine)
        self.assertTrue(self.has_transport_key(machine))
        self.assertEqual(machine.restore(capsule, crash_at="restore.closed").returncode, KILLED)
        self.assertFalse((machine.path / "kms.db").exists())
        self.assertFalse(self.has_transport_key(machine))
        self.refuses(machine.restore(capsule), "repeat it without --transport-capsule")
        again = machine.run("restore", "--server-config", machine.path / "kmsd.yaml", "--target", machine.path / "target", "--prove")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.serves(machine)


class InMidBatch(EscrowTestCase):
    """The service dies between two steps of a rotation, and its token with it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ceremony = Ceremony(cls.home.path)
        cls().enroll(cls.ceremony)

    def setUp(self):
        """The test before has left a service that died."""
        if not self.daemon.alive():
            type(self).daemon = Daemon(self.home).start()

    def tearDown(self):
        """The daemon is gone, as it should be."""

    @classmethod
    def stop_daemon(cls):
        cls.daemon.kill()

    def lose_at(self, step):
        """A machine with what the targets held at that moment, restored; it is about to start."""
        customers = [self.new_customer() for _ in range(3)]
        attestation = attestation_of(self.home, self.home.path / f"{step}.pem")
        self.eventually_exact(self.ceremony)
        self.close_clients()
        self.daemon.stop()
        type(self).daemon = Daemon(self.home, environment={"KMS_CRASH_AT": step}).start()
        self.kmsctl("operator", "rotate", "master", "--tenant", TENANT)
        eventually(lambda: not self.daemon.alive(), "the service dies")
        machine = Machine(self.home, self.targets[0], attestation)
        self.addCleanup(machine.cleanup)
        done, capsule = machine.open(self.ceremony)
        self.assertEqual(done.returncode, 0, done.stderr)
        restored = machine.restore(capsule, "--prove")
        self.assertEqual(restored.returncode, 0, restored.stderr)
        self.assertEqual(trust(machine, self.ceremony).returncode, 0)
        return machine, customers

    def check(self, step, says):
        machine, customers = self.lose_at(step)
        with running(machine) as daemon:
            self.assertIn(says, daemon.log())
            app = Client(daemon.channel("app"))
            for name, _, keys in customers:
                reply = app.keys.UnwrapDataKey(unwrap_request(keys[PURPOSE], customer=name), timeout=DEADLINE)
                self.assertEqual(len(reply.plaintext), 32)
            app.close()
            again = kmsctl(machine, "operator", "rotate", "master", "--tenant", TENANT, "--wait")
            self.assertEqual(again.returncode, 0, again.stdout)

    def test_before_the_commit_it_is_undone(self):
        self.check("rekey.escrowed", "is undone now")

    def test_behind_the_commit_it_is_sealed(self):
        self.check("rekey.durable", "is sealed now")


del LossTestCase

if __name__ == "__main__":
    unittest.main()
