"""Goal: whoever did not get the answer to a request that makes an operation sends it again under its request id, and nothing is
done twice."""

import uuid

import grpc

import protos
from cases import DEADLINE, PURPOSE, TENANT
from shred_cases import ShredTestCase

EXISTS = grpc.StatusCode.ALREADY_EXISTS
S = protos.shred


class Repeated(ShredTestCase):
    def count(self):
        return len(self.ctl("operator", "operation", "list")["operations"])

    def assertMadeOnce(self, identity, *command):
        """Twice under one id: one operation. Under another id, or none: another one."""
        given = ("--request-id", str(uuid.uuid4()))
        before = self.count()
        first = self.ctl(identity, *command, *given)
        self.assertEqual(self.ctl(identity, *command, *given)["uid"], first["uid"], command)
        self.assertEqual(self.count(), before + 1, command)
        self.assertEqual(uuid.UUID(first["uid"]).version, 8)
        return first

    def test_every_method_that_makes_an_operation_takes_a_request_id(self):
        found = []
        names = [path.stem for path in (protos.ROOT / "proto" / "kms" / "v1").glob("*.proto")]
        for name in names:
            for service in getattr(protos, name).DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    if method.output_type.full_name == "kms.v1.Operation" and service.name != "OperationService":
                        self.assertIn("request_id", method.input_type.fields_by_name, method.full_name)
                        found.append(method.name)
        self.assertGreaterEqual(len(found), 12, found)

    def test_rotations(self):
        name, _, _ = self.new_customer()
        self.assertMadeOnce("operator", "rotate", "master", "--tenant", TENANT)
        self.assertMadeOnce("operator", "rotate", "tree", "--tenant", TENANT)
        made = self.assertMadeOnce("operator", "rotate", "kek", "--tenant", TENANT, "--customer", name, "--purpose", PURPOSE)
        self.ctl("operator", "operation", "wait", made["uid"])
        listed = self.ctl("operator", "version", "list", "--tenant", TENANT, "--customer", name, "--purpose", PURPOSE)
        self.assertEqual([v["version"] for v in listed["versions"]], [1, 2])

    def test_the_end_of_a_hold_and_of_a_freeze_also_when_it_is_over_by_then(self):
        name, _, _ = self.new_customer()
        hold = self.ctl("operator", "hold", "place", "--tenant", TENANT, "--customer", name, "--reference", "r", "--reason", "court")
        given = ("--request-id", str(uuid.uuid4()))
        first = self.ctl("operator", "hold", "release", hold["uid"], *given, "--wait")
        again = self.ctl("operator", "hold", "release", hold["uid"], *given)
        self.assertEqual((again["uid"], again["state"]), (first["uid"], "SUCCEEDED"))
        self.refused("released already", "operator", "hold", "release", hold["uid"])
        self.ctl("operator", "freeze", "customer", "--tenant", TENANT, name, "--reason", "a doubt", "--yes")
        unfreeze = ("unfreeze", "customer", "--tenant", TENANT, name, "--reason", "settled")
        first = self.assertMadeOnce("operator", *unfreeze)
        self.approve(first)
        self.ctl("operator", "operation", "wait", first["uid"])
        self.refused("not frozen", "operator", *unfreeze)

    def test_shreds(self):
        name, uid, _ = self.new_customer()
        command = ("shred", "request", "--tenant", TENANT, "--customer", name, "--no-window", "--yes")
        first = self.assertMadeOnce("operator", *command)
        self.refused("is in shred job", "operator", *command)
        self.approve(first)
        self.ctl("operator", "operation", "wait", first["uid"])
        self.assertEqual(self.state(uid), "SEALED")
        name, _, _ = self.new_customer()
        self.ctl("operator", "rotate", "kek", "--tenant", TENANT, "--customer", name, "--purpose", PURPOSE, "--wait")
        owner = ("--tenant", TENANT, "--customer", name, "--purpose", PURPOSE)
        self.assertMadeOnce("operator", "version", "shred", "1", *owner, "--no-window", "--yes")

    def test_a_hold_is_placed_once(self):
        name, _, _ = self.new_customer()
        place = ("hold", "place", "--tenant", TENANT, "--customer", name, "--reason", "court")
        given = ("--request-id", str(uuid.uuid4()))
        first = self.ctl("operator", *place, "--reference", "r", *given)
        self.assertEqual(self.ctl("operator", *place, "--reference", "r", *given)["uid"], first["uid"])
        self.refused("request_id", "operator", *place, "--reference", "another", *given)
        self.ctl("operator", *place, "--reference", "r")
        listed = self.ctl("operator", "hold", "list", "--tenant", TENANT, "--customer", name)
        self.assertEqual(len(listed["holds"]), 2)

    def test_a_job_is_made_once_and_its_id_is_no_other_methods(self):
        shred = self.client("operator").shred
        request = S.CreateShredJobRequest(tenant=TENANT, request_id=str(uuid.uuid4()))
        job = shred.CreateShredJob(request, timeout=DEADLINE)
        self.assertEqual(shred.CreateShredJob(request, timeout=DEADLINE).uid, job.uid)
        other = S.CreateShredJobRequest(tenant=TENANT, reason="another", request_id=request.request_id)
        self.assertRefused(EXISTS, shred.CreateShredJob, other, says="request_id")
        rotate = protos.rotation.RotateMasterRequest(tenant=TENANT, request_id=request.request_id)
        self.assertRefused(EXISTS, self.client("operator").rotation.RotateMaster, rotate, says="request_id")
        bad = S.CreateShredJobRequest(tenant=TENANT, request_id="not a uuid")
        self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, shred.CreateShredJob, bad, says="request_id")

    def test_a_list_that_was_broken_off_is_not_taken_for_a_whole_one(self):
        name, _, _ = self.new_customer()
        given = str(uuid.uuid4())
        shred = self.client("operator").shred
        job = shred.CreateShredJob(S.CreateShredJobRequest(tenant=TENANT, no_window=True, request_id=given), timeout=DEADLINE)
        shred.AddShredTargets(S.AddShredTargetsRequest(job=job.uid, customers=[name]), timeout=DEADLINE)
        command = ("shred", "request", "--tenant", TENANT, "--customer", name, "--no-window", "--yes")
        self.refused("broken off", "operator", *command, "--request-id", given)
        self.assertEqual(self.ctl("operator", *command)["state"], "PENDING")

    def test_policies(self):
        current = self.kmsctl("admin", "policy", "get").stdout
        path = self.home.path / "wanted.yaml"
        path.write_text(current + "\n# a remark\n")
        self.assertMadeOnce("admin", "policy", "apply", path, "--yes")
