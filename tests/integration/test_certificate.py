"""Goal: a certificate of destruction says what was destroyed, how, by whom and what remains; anybody checks it with a public key, and
one customer among many can be shown without the others."""

import json
import subprocess
import unittest

from cases import PURPOSE, TENANT
from shred_cases import ShredTestCase


class Certificates(ShredTestCase):
    def setUp(self):
        self.key = self.home.path / "attestation.pem"
        if not self.key.exists():
            self.ctl("auditor", "attestation", "get", self.key)
        self.number = getattr(type(self), "number", 0) + 1
        type(self).number = self.number

    def saved(self, target, *arguments):
        """The certificate of a target in a new file."""
        path = self.home.path / f"certificate-{self.number}.json"
        self.ctl("auditor", "certificate", "get", target["certificate"], "--out", path, *arguments)
        return path

    def verify(self, path, *arguments, code=0):
        done = self.kmsctl(None, "certificate", "verify", path, "--key", self.key, *arguments)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def openssl(self, path):
        return subprocess.run(
            ["openssl", "dgst", "-sha256", "-verify", self.key, "-signature", f"{path}.sig", path], capture_output=True, check=False
        ).returncode

    def test_a_certificate_says_what_when_by_whom_and_with_what(self):
        name, uid, _ = self.new_customer()
        job = self.shred_now("--customer", name, "--reason", "case 7")
        path = self.saved(self.status(uid)["targets"][0])
        document = json.loads(path.read_bytes())
        self.assertEqual(path.read_bytes(), json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
        self.assertEqual(document["destroyed"]["customer"], uid)
        self.assertEqual((document["destroyed"]["count"], document["destroyed"]["customers"]), (1, 1))
        self.assertEqual(document["operation"]["uid"], job["operation"])
        self.assertEqual(document["operation"]["requester"], "spiffe://kms.example/operator/alice")
        self.assertEqual(
            {a["identity"] for a in document["approvals"]},
            {"spiffe://kms.example/approver/dave", "spiffe://kms.example/approver/erin"},
        )
        keys = document["keys"]
        self.assertEqual(keys["new_epoch"], keys["old_epoch"] + 1)
        self.assertNotEqual(keys["old_master_id"], keys["new_master_id"])
        self.assertGreater(document["pages"]["changed"], 0)
        self.assertEqual(document["media"]["erase_class"], "C")
        self.assertTrue(document["development"])
        self.assertTrue(document["remaining"])
        self.assertNotIn(name, path.read_text())  # no external id
        record = [r for r in self.home.audit_records() if r["seq"] == document["audit"]["seq"]][0]
        self.assertEqual(record["hash"], document["audit"]["hash"])

    def test_it_is_checked_off_line_by_kmsctl_and_by_openssl_alone(self):
        name, uid, _ = self.new_customer()
        self.shred_now("--customer", name)
        path = self.saved(self.status(uid)["targets"][0])
        self.verify(path)
        self.assertEqual(self.openssl(path), 0)
        shown = self.kmsctl(None, "certificate", "show", path)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        for text in ("DEVELOPMENT", uid, "Cryptographic Erase", "approver/erin", "Between SEALED and ERASED"):
            self.assertIn(text, shown.stdout)
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b'"result":"verified"', b'"result":"verifieD"'))
        self.verify(path, code=5)
        self.assertNotEqual(self.openssl(path), 0)
        path.write_bytes(whole[:-1])
        self.verify(path, code=1)
        path.write_bytes(whole)
        other = self.home.path / "other.pem"
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.home.path / "k"], check=True)
        subprocess.run(["openssl", "ec", "-in", self.home.path / "k", "-pubout", "-out", other], check=True, capture_output=True)
        done = self.kmsctl(None, "certificate", "verify", path, "--key", other)
        self.assertEqual(done.returncode, 5, done.stderr)

    def test_one_customer_of_many_is_shown_without_the_others(self):
        made = [self.new_customer() for _ in range(7)]
        path = self.home.path / f"list-{self.number}"
        path.write_text("".join(name + "\n" for name, _, _ in made))
        self.shred_now("--file", path)
        uids = [uid for _, uid, _ in made]
        target = self.status(uids[3])["targets"][0]
        saved = self.saved(target, "--customer", uids[3])
        text = saved.read_text() + (self.home.path / f"{saved}.proof").read_text()
        for uid in uids:
            (self.assertIn if uid == uids[3] else self.assertNotIn)(uid, text)
        done = self.verify(saved, "--proof", f"{saved}.proof", "--customer", uids[3])
        self.assertIn(uids[3], done.stdout)
        self.verify(saved, "--proof", f"{saved}.proof", "--customer", uids[4], code=5)
        proof = json.loads((self.home.path / f"{saved}.proof").read_text())
        proof["customer"] = uids[4]
        (self.home.path / f"{saved}.proof").write_text(json.dumps(proof))
        self.verify(saved, "--proof", f"{saved}.proof", code=5)
        stranger, uid, _ = self.new_customer()
        self.refused("not among", "auditor", "certificate", "get", target["certificate"], "--customer", uid, "--out", "nothing")

    def test_certificates_are_listed_and_found_by_batch(self):
        name, uid, _ = self.new_customer()
        self.shred_now("--customer", name)
        target = self.status(uid)["targets"][0]
        listed = self.ctl("auditor", "certificate", "list", "--tenant", TENANT, "--limit", "0")["certificates"]
        self.assertIn(target["certificate"], {c["uid"] for c in listed})
        path = self.home.path / f"by-batch-{self.number}"
        self.ctl("auditor", "certificate", "get", target["batch"], "--out", path)
        self.verify(path)
        self.refused("exists", "auditor", "certificate", "get", target["batch"], "--out", path)
        self.refused("no certificate", "auditor", "certificate", "get", uid, "--out", "nothing")
        self.refused(".", "app", "certificate", "list", "--tenant", TENANT, code=4)


class EraseClasses(ShredTestCase):
    """Profiles that claim more than SoftHSM can do, to see what the certificate says then."""

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        profiles = home.path / "profiles"
        source = (profiles / "softhsm2.yaml").read_text()
        profiles.unlink()
        profiles.mkdir()
        changed = source.replace("erase_class: C", "erase_class: B").replace("provider_retention_days: 0", "provider_retention_days: 30")
        assert changed.count("erase_class: B") == 1 and "provider_retention_days: 30" in changed, source
        (profiles / "softhsm2.yaml").write_text(changed)
        cls.erase_class_a = source.replace("erase_class: C", "erase_class: A")

    def test_class_b_carries_the_end_of_the_providers_retention_and_class_a_leaves_nothing(self):
        name, uid, _ = self.new_customer()
        self.shred_now("--customer", name)
        target = self.status(uid)["targets"][0]
        self.assertEqual(target["state"], "SEALED")
        self.assertRegex(target["remaining"][0], "provider, until 20")
        path = self.home.path / "b.json"
        self.ctl("auditor", "certificate", "get", target["certificate"], "--out", path)
        document = json.loads(path.read_bytes())
        self.assertFalse(document["development"])
        self.assertRegex(document["media"]["provider_retention_until"], "^20")

        self.close_clients()
        self.daemon.stop()
        (self.home.path / "profiles" / "softhsm2.yaml").write_text(self.erase_class_a)
        self.daemon.start()
        self.assertEqual(self.state(uid), "ERASED")
        name, uid, _ = self.new_customer()
        self.shred_now("--customer", name)
        self.assertEqual(self.status(uid)["targets"][0]["remaining"], [])


if __name__ == "__main__":
    unittest.main()
