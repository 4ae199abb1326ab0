"""Goal: after every rotation what was wrapped before still opens, what is wrapped anew is under the new keys, the old master key is
gone; versions can be disabled, enabled and shredded one by one; a file of wrapped keys is rewrapped with resume."""

import base64
import json
import os
import signal
import subprocess
import time
import unittest

import grpc

from cases import CUSTOMER, DEADLINE, PURPOSE, TENANT, D, R, generate_request, unwrap_request
from harness import KMSCTL, eventually
from shred_cases import KYC, ShredTestCase

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


class Rotations(ShredTestCase):
    def epoch(self):
        return self.ctl("operator", "tenant", "get", TENANT)["epoch"]

    def rotate(self, what, *arguments):
        return self.ctl("operator", "rotate", what, "--tenant", TENANT, "--wait", *arguments)

    def versions(self, customer, purpose=PURPOSE):
        listed = self.ctl("auditor", "version", "list", "--tenant", TENANT, "--customer", customer, "--purpose", purpose)
        return {row["version"]: row for row in listed["versions"]}

    def test_a_new_master_key_is_a_new_epoch_and_everything_still_opens(self):
        made = [self.new_customer() for _ in range(3)]
        before = self.epoch()
        done = self.rotate("master")
        self.assertEqual(done["state"], "SUCCEEDED")
        result = json.loads(done["result"])
        self.assertEqual((result["epoch"], self.epoch()), (before + 1, before + 1))
        self.assertNotEqual(result["old_master_id"], result["new_master_id"])
        for name, _, keys in made:
            self.unwrap(keys[PURPOSE], customer=name)
            self.generate(customer=name)

    def test_a_new_tree_has_new_keys_in_every_page_and_everything_still_opens(self):
        names = [f"tree-{self.id()[-8:]}-{i:03d}" for i in range(300)]
        self.kmsctl("operator", "customer", "batch-create", "--tenant", TENANT, "--with-purpose", PURPOSE, data="\n".join(names) + "\n")
        blobs = {name: self.generate(customer=name).wrapped for name in names[::50]}
        done = self.rotate("tree")
        self.assertEqual(done["state"], "SUCCEEDED")
        self.assertGreater(json.loads(done["result"])["pages"], 0)
        self.assertEqual(done["done"], done["total"])
        self.assertGreater(done["total"], 300 // 16)
        for name, wrapped in blobs.items():
            self.unwrap(wrapped, customer=name)

    def test_a_new_version_is_primary_and_older_ones_only_open(self):
        name, _, keys = self.new_customer()
        done = self.rotate("kek", "--customer", name, "--purpose", PURPOSE)
        self.assertEqual(json.loads(done["result"])["version"], 2)
        self.assertEqual(self.unwrap(keys[PURPOSE], customer=name).kek_version, 1)
        self.assertEqual(self.generate(customer=name).kek_version, 2)
        versions = self.versions(name)
        self.assertEqual((versions[1]["primary"], versions[2]["primary"]), (False, True))

    def test_a_disabled_version_opens_nothing_until_it_is_enabled(self):
        name, _, keys = self.new_customer()
        self.rotate("kek", "--customer", name, "--purpose", PURPOSE)
        owner = ("--tenant", TENANT, "--customer", name, "--purpose", PURPOSE)
        self.ctl("operator", "version", "disable", "1", *owner)
        with self.assertRaises(grpc.RpcError):
            self.unwrap(keys[PURPOSE], customer=name)
        self.generate(customer=name)
        self.ctl("operator", "version", "enable", "1", *owner)
        self.unwrap(keys[PURPOSE], customer=name)
        self.refused("no version 7", "operator", "version", "disable", "7", *owner)
        self.refused("number from 1", "operator", "version", "disable", "0", *owner, code=2)
        self.refused(".", "app", "version", "disable", "1", *owner, code=4)

    def test_one_version_is_shredded_and_the_others_live(self):
        name, uid, keys = self.new_customer()
        self.rotate("kek", "--customer", name, "--purpose", PURPOSE)
        new = self.generate(customer=name).wrapped
        owner = ("--tenant", TENANT, "--customer", name, "--purpose", PURPOSE)
        operation = self.ctl("operator", "version", "shred", "1", *owner, "--no-window", "--yes")
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        unnamed = unwrap_request(keys[PURPOSE], customer="", purpose="")
        self.assertRefused(INVALID, self.app.keys.UnwrapDataKey, unnamed, reason="BLOB_REFUSED")
        self.unwrap(new, customer=name)
        self.assertEqual(self.versions(name)[1]["state"], "SHREDDED")
        self.assertTrue(self.status(uid)["targets"][0]["certificate"])
        self.refused("shredded", "operator", "version", "enable", "1", *owner)

    def test_a_purposes_period_rotates_by_itself(self):
        name, _, keys = self.new_customer()
        self.ctl("operator", "purpose", "update", PURPOSE, "--tenant", TENANT, "--rotation", "2s")
        try:
            eventually(lambda: 2 in self.versions(name), "a second version", 30)
        finally:
            self.ctl("operator", "purpose", "update", PURPOSE, "--tenant", TENANT, "--rotation", "0")
        self.unwrap(keys[PURPOSE], customer=name)

    def test_rotations_of_what_is_not_there_are_refused(self):
        self.refused("does not exist", "operator", "rotate", "master", "--tenant", "nobody")
        self.refused("does not exist", "operator", "rotate", "kek", "--tenant", TENANT, "--customer", "nobody", "--purpose", PURPOSE)
        self.refused("does not exist", "operator", "rotate", "kek", "--tenant", TENANT, "--customer", CUSTOMER, "--purpose", "nothing")
        self.refused(".", "app", "rotate", "tree", "--tenant", TENANT, code=4)


class Rewrap(ShredTestCase):
    def setUp(self):
        self.owner = ("--tenant", TENANT)

    def lines(self, name, count, **fields):
        """Lines of wrapped keys with a context of their own."""
        made = []
        for i in range(count):
            context = {"document": f"d {i}", "kind": "letter"}
            wrapped = self.generate(customer=name, context=context, **fields).wrapped
            made.append(base64.b64encode(wrapped).decode() + "".join(f"\t{k}={v}" for k, v in context.items()))
        return made

    def rotate(self, name):
        self.ctl("operator", "rotate", "kek", "--tenant", TENANT, "--customer", name, "--purpose", PURPOSE, "--wait")

    def rewrap(self, source, target, code=0, **options):
        done = self.kmsctl("app", "rewrap", source, "--out", target, *self.owner, "--json", **options)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def test_every_line_is_wrapped_under_the_new_version(self):
        name, _, _ = self.new_customer()
        old = self.lines(name, 40)
        self.rotate(name)
        source, target = self.home.path / "old", self.home.path / "new"
        source.write_text("\n".join(old) + "\n")
        done = json.loads(self.rewrap(source, target).stdout)
        self.assertEqual((done["rewrapped"], done["failed"]), (40, 0))
        new = target.read_text().splitlines()
        self.assertEqual(len(new), 40)
        for before, after in zip(old, new):
            self.assertEqual(before.split("\t")[1:], after.split("\t")[1:])
            context = dict(pair.split("=", 1) for pair in after.split("\t")[1:])
            plaintexts = [
                self.unwrap(base64.b64decode(line.split("\t")[0]), customer=name, context=context).plaintext for line in (before, after)
            ]
            self.assertEqual(plaintexts[0], plaintexts[1])
        version = self.unwrap(base64.b64decode(new[0].split("\t")[0]), customer=name, context={"document": "d 0", "kind": "letter"})
        self.assertEqual(version.kek_version, 2)
        self.assertFalse((self.home.path / "new.state").exists())
        self.refused("exists already", "app", "rewrap", source, "--out", target, *self.owner)
        listed = self.ctl("auditor", "version", "list", "--tenant", TENANT, "--customer", name)["versions"]
        eventually(lambda: self.rewrapped(name) >= 40, "the count of rewrapped keys")
        self.assertEqual(len(listed), 2)

    def rewrapped(self, name):
        listed = self.ctl("auditor", "version", "list", "--tenant", TENANT, "--customer", name)["versions"]
        return listed[0]["rewrapped"]

    def test_bad_lines_are_reported_kept_and_counted(self):
        name, _, _ = self.new_customer()
        good = self.lines(name, 2)
        damaged = base64.b64encode(bytes(78)).decode()
        lines = [good[0], "not base64", damaged, good[1] + "\tmore=context", good[1] + "\tnothing", "", good[1]]
        source, target = self.home.path / "bad-in", self.home.path / "bad-out"
        source.write_text("\n".join(lines) + "\n")
        done = self.rewrap(source, target, code=1)
        self.assertEqual(json.loads(done.stdout), {"rewrapped": 2, "failed": 5})
        for line in (2, 3, 4, 5, 6):
            self.assertRegex(done.stderr, f"(?m)^line {line}: .")
        out = target.read_text().splitlines()
        self.assertEqual(out[1:6], lines[1:6])
        self.assertNotEqual((out[0], out[6]), (lines[0], lines[6]))

    def test_an_interrupted_run_goes_on_where_it_was(self):
        name, _, _ = self.new_customer()
        one = self.lines(name, 1)[0]
        source, target = self.home.path / "many", self.home.path / "many-out"
        count = 40000
        source.write_text((one + "\n") * count)
        process = subprocess.Popen(
            [KMSCTL, "--config", self.home.connection("app"), "rewrap", source, "--out", target, *self.owner],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.home.path,
        )  # fmt: skip
        state = self.home.path / "many-out.state"
        eventually(lambda: state.exists() or process.poll() is not None, "a state is kept")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self.assertFalse(target.exists())
        done_before = json.loads(state.read_text())["lines"]
        self.assertGreater(done_before, 0)
        self.assertLess(done_before, count)
        done = self.rewrap(source, target)
        self.assertIn(f"going on behind line {done_before}", done.stderr)
        self.assertEqual(json.loads(done.stdout), {"rewrapped": count, "failed": 0})
        lines = target.read_text().splitlines()
        self.assertEqual(len(lines), count)
        self.assertEqual(len(set(lines)), count)  # each has an IV of its own: none was written twice
        source.write_text("another\n")
        target.unlink()
        state.write_text(json.dumps({"failed": 0, "in_offset": 0, "in_size": 1, "input": "1:1", "lines": 0, "out_offset": 0}))
        self.refused("another input", "app", "rewrap", source, "--out", target, *self.owner)
        state.write_text("{")
        self.refused("damaged", "app", "rewrap", source, "--out", target, *self.owner)


class Configured(ShredTestCase):
    """Bounds that kmsd.yaml sets."""

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        home.config["keys"] = {"wrap_limit": 3, "wrap_block": 1}
        home.config["operations"] = {"unfinished": 10, "unfinished_of_one": 2}

    def test_a_version_is_replaced_when_it_has_made_as_many_wraps_as_it_may(self):
        name, _, _ = self.new_customer(())
        made = [self.generate(customer=name) for _ in range(7)]
        self.assertEqual([m.kek_version for m in made], [1, 1, 1, 2, 2, 2, 3])

    def test_of_one_requester_only_so_many_operations_are_unfinished(self):
        name, _, _ = self.new_customer()
        held = ("freeze", "customer", "--tenant", TENANT, name, "--reason", "a doubt", "--yes")
        self.ctl("operator", *held)
        unfreeze = ("unfreeze", "customer", "--tenant", TENANT, name, "--reason", "settled")
        for _ in range(2):
            self.ctl("operator", *unfreeze)
        self.refused("2 operations that you have requested", "operator", *unfreeze)


if __name__ == "__main__":
    unittest.main()
