"""Goal: what the tests of shredding, rotation and certificates share: a daemon whose policy allows short windows, and two approvers."""

import json
import uuid

from cases import CUSTOMER, PURPOSE, TENANT, DaemonTestCase
from harness import eventually

KYC = "kyc"  # kept by law for three seconds
ALWAYS = "archive"  # required by law, without an end


class ShredTestCase(DaemonTestCase):
    """A tenant with a window of two seconds, and purposes of three kinds: free, with retention, required by law."""

    @classmethod
    def prepare(cls, home):
        home.policy["shred"] = {"minimum_window": "1s", "allow_zero_window": True}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ctl_class("operator", "tenant", "update", TENANT, "--shred-window", "2s")
        cls.ctl_class("admin", "purpose", "update", KYC, "--tenant", TENANT, "--retention", "3s")
        cls.ctl_class("operator", "purpose", "create", ALWAYS, "--tenant", TENANT, "--required-by-law", "yes")

    @classmethod
    def ctl_class(cls, identity, *arguments, code=0, **options):
        """kmsctl with --json: its document, after checking the exit code."""
        from harness import kmsctl

        done = kmsctl(cls.home, identity, *arguments, "--json", **options)
        if done.returncode != code:
            raise AssertionError(f"kmsctl {arguments}: {done.returncode}, wanted {code}\n{done.stdout}\n{done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else done

    def ctl(self, identity, *arguments, code=0, **options):
        return self.ctl_class(identity, *arguments, code=code, **options)

    def refused(self, says, identity, *arguments, code=1, **options):
        """A command that fails, and says why."""
        done = self.kmsctl(identity, *arguments, **options)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertRegex(done.stderr, says)
        return done

    def new_customer(self, purposes=(PURPOSE,)):
        """A customer with a data key for each purpose; returns id, uid and the wrapped keys by purpose."""
        name = f"customer {uuid.uuid4()}"
        made = self.ctl("operator", "customer", "create", "--tenant", TENANT, name)
        keys = {purpose: self.generate(customer=name, purpose=purpose).wrapped for purpose in purposes}
        return name, made["uid"], keys

    def approve(self, operation, approvers=("approver1", "approver2")):
        for approver in approvers:
            self.ctl(approver, "operation", "approve", operation["uid"], "--yes")

    def request(self, *arguments):
        """A shred that is requested; returns the operation."""
        return self.ctl("operator", "shred", "request", "--tenant", TENANT, "--yes", *arguments)

    def shred_now(self, *arguments):
        """Requested without a window, approved by two, done; returns the job."""
        operation = self.request("--no-window", *arguments)
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        return self.job(operation)

    def job(self, operation):
        document = self.ctl("operator", "operation", "show", operation["uid"])["document"]
        return self.ctl("operator", "shred", "status", json.loads(base64_text(document))["parameters"]["job"])

    def status(self, customer):
        return self.ctl("auditor", "shred", "status", "--tenant", TENANT, "--customer", customer)

    def state(self, customer):
        return self.status(customer)["targets"][-1]["state"]

    def eventually_state(self, customer, wanted, seconds=20):
        eventually(lambda: self.state(customer) == wanted, f"{customer} is {wanted}", seconds)


def base64_text(text):
    import base64

    return base64.b64decode(text)
