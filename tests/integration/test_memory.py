"""Goal: after ten thousand replies no plaintext data key is left in the daemon's memory, and KEKs never were in it.

The daemon's memory is read through /proc/PID/mem while it idles. Controls prove that the scan finds what is there: the
client's own process holds the keys, and the daemon holds the caller's identity.
"""

import json
import os
import subprocess
import sys
import unittest

from cases import CUSTOMER, PURPOSE, TENANT, D, DaemonTestCase, generate_request, unwrap_request, wrap_request
from cases import DEADLINE
from harness import BUILD, URI
from pathlib import Path

REPLIES = 10_000
KEYTREE = Path(__file__).with_name("keytree.py")


def scan(pid, patterns):
    """Where the patterns stand in a process's memory: the decoded answer of kms-memscan."""
    text = "".join(pattern.hex() + "\n" for pattern in patterns)
    done = subprocess.run(
        [BUILD / "tests" / "kms-memscan", str(pid)], input=text, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def halves(keys):
    """Half a key left on a dead stack is a leak, too."""
    return [half for key in keys for half in (key[:16], key[-16:])]


@unittest.skipUnless(os.geteuid() == 0, "only root may read the memory of a process that protects itself")
class Memory(DaemonTestCase):
    def unary(self):
        """Keys of generate, unwrap and wrap calls of every kind, one after the other."""
        keys = []
        for i in range(REPLIES // 4):
            made = self.generate(context={"row": str(i)})
            opened = self.unwrap(made.wrapped, context={"row": str(i)})
            self.assertEqual(opened.plaintext, made.plaintext)
            keys.append(made.plaintext)
        for _ in range(50):
            keys.append(os.urandom(32))
            self.app.keys.WrapDataKey(wrap_request(keys[-1]), timeout=DEADLINE)
        return keys

    def many_at_once(self):
        """Replies of a group share a commit, a buffer of TLS and a thread of core's own."""
        keys = []
        for _ in range(REPLIES // 250):
            calls = [self.app.keys.GenerateDataKey.future(generate_request(), timeout=DEADLINE) for _ in range(100)]
            keys += [call.result().plaintext for call in calls]
        return keys

    def streams_and_batches(self):
        requests = [generate_request() for _ in range(REPLIES // 4)]
        made = list(self.app.keys.StreamGenerateDataKey(iter(requests), timeout=DEADLINE))
        keys = [result.response.plaintext for result in made]
        for start in range(0, len(made), 500):
            opens = [unwrap_request(r.response.wrapped) for r in made[start : start + 500]]
            batch = D.BatchUnwrapDataKeyRequest(requests=opens)
            opened = self.app.keys.BatchUnwrapDataKey(batch, timeout=DEADLINE)
            self.assertEqual([r.response.plaintext for r in opened.results], keys[start : start + 500])
        return keys

    def test_no_data_key_is_left(self):
        keys = self.unary() + self.many_at_once() + self.streams_and_batches()
        self.generate()  # not a key of the list: the last reply's buffers are the likeliest place
        found = scan(self.daemon.pid, halves(keys))
        self.assertGreater(found["bytes"], 1 << 20)
        self.assertEqual(found["total"], 0, found["found"][:20])
        control = scan(os.getpid(), halves(keys))
        self.assertGreaterEqual(control["total"], len(keys), "the scan does not find keys that are there")
        control = scan(self.daemon.pid, [URI["app"].encode(), CUSTOMER.encode()])
        self.assertGreater(control["total"], 0, "the scan does not find what the daemon must know")

    def test_no_kek_and_no_page_key_is_ever_there(self):
        for i in range(40):  # enough for a second level of pages
            self.make_customer(f"kek {i}")
            self.generate(customer=f"kek {i}")
        made = self.generate()
        sample = {"wrapped": made.wrapped.hex(), "aad": "0000", "plaintext": made.plaintext.hex()}
        done = subprocess.run(
            [sys.executable, "-B", KEYTREE, self.home.path], input=json.dumps(sample), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        known = json.loads(done.stdout)
        self.assertTrue(known["opened"], "the KEK learnt from outside does not open its data key")
        self.assertGreaterEqual(len(known["keks"]), 41)
        self.assertGreaterEqual(len(known["pages"]), 4)
        keys = [bytes.fromhex(key) for key in known["keks"] + known["pages"]]
        found = scan(self.daemon.pid, halves(keys))
        self.assertEqual(found["total"], 0, found["found"][:20])
        self.assertGreater(scan(os.getpid(), halves(keys))["total"], 0)

    def test_neither_the_pin(self):
        """It is needed for a new login and so has to be somewhere: in one locked place, masked or once at most."""
        pin = (self.home.path / "user.pin").read_bytes()
        self.generate()
        self.assertLessEqual(scan(self.daemon.pid, [pin])["total"], 1)

    def make_customer(self, customer):
        from cases import R

        request = R.CreateCustomerRequest(customer=R.Customer(tenant=TENANT, customer=customer))
        self.operator.directory.CreateCustomer(request, timeout=DEADLINE)

    def test_the_process_protects_itself(self):
        limits = Path(f"/proc/{self.daemon.pid}/limits").read_text()
        self.assertRegex(limits, r"Max core file size +0 +0")
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        self.assertRegex(status, r"NoNewPrivs:\s+1")
        locked = int(next(l for l in status.splitlines() if l.startswith("VmLck")).split()[1])
        self.assertGreater(locked, 0)
        self.assertEqual(os.stat(f"/proc/{self.daemon.pid}/mem").st_uid, 0)


if __name__ == "__main__":
    unittest.main()
