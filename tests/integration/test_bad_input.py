"""Goal: whatever a caller sends, the answer is a status and a text that say what to do, and the daemon goes on.

Every test ends with a check that the daemon is alive, SERVING and gives a data key (cases.DaemonTestCase.tearDown).
"""

import unittest

import grpc

import wire
from cases import (
    CUSTOMER, DEADLINE, PURPOSE, TENANT, D, DaemonTestCase, R, details, generate_request, make_directory, rewrap_request,
    unwrap_request, wrap_request,
)  # fmt: skip

GENERATE = "kms.v1.DataKeyService/GenerateDataKey"
UNWRAP = "kms.v1.DataKeyService/UnwrapDataKey"
CREATE_CUSTOMER = "kms.v1.DirectoryService/CreateCustomer"


class Names(DaemonTestCase):
    def test_unknown_customer_purpose_and_tenant_are_not_found_and_named(self):
        for what, fields in (
            ("customer", {"customer": "nobody"}),
            ("purpose", {"purpose": "nothing"}),
            ("tenant", {"tenant": "nowhere"}),
        ):
            with self.subTest(what=what):
                for call, request in (
                    (self.app.keys.GenerateDataKey, generate_request(**fields)),
                    (self.app.keys.WrapDataKey, wrap_request(b"k" * 32, **fields)),
                ):
                    self.assertRefused(grpc.StatusCode.NOT_FOUND, call, request, reason="NOT_FOUND", says=what)

    def test_missing_names_are_named(self):
        for name in ("tenant", "customer", "purpose"):
            with self.subTest(name=name):
                self.assertInvalid(self.app.keys.GenerateDataKey, generate_request(**{name: ""}), says=name)

    def test_names_that_are_too_long(self):
        for name, length in (("tenant", 64), ("purpose", 64), ("customer", 257), ("customer", 100_000)):
            with self.subTest(name=name, length=length):
                request = generate_request(**{name: "a" * length})
                self.assertInvalid(self.app.keys.GenerateDataKey, request, says=name)

    def test_a_customer_id_of_256_bytes_is_accepted(self):
        longest = "Ω" * 128
        customer = R.Customer(tenant=TENANT, customer=longest)
        self.operator.directory.CreateCustomer(R.CreateCustomerRequest(customer=customer), timeout=DEADLINE)
        self.assertEqual(len(self.generate(customer=longest).plaintext), 32)

    def test_identifiers_outside_their_alphabet(self):
        for bad in ("Acme", "ac me", "-acme", "acme-", ".", "a/b", "acmé", "a%00", "*"):
            for name in ("tenant", "purpose"):
                with self.subTest(name=name, bad=bad):
                    self.assertInvalid(self.app.keys.GenerateDataKey, generate_request(**{name: bad}), says=name)

    def test_control_characters(self):
        for bad in ("line\nbreak", "tab\t", "\x1b[31m", "\x7f", "\x85", "bell\a"):
            with self.subTest(bad=bad):
                self.assertInvalid(self.app.keys.GenerateDataKey, generate_request(customer=bad), says="customer")

    def refuse_raw(self, path, data, channel=None):
        """Bytes that no encoder of ours would send are INVALID_ARGUMENT."""
        call = wire.raw((channel or self.app).channel, path)
        return self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, call, data)

    def test_names_that_are_not_utf8_or_hold_a_nul(self):
        for bad in (b"\xff\xfe", b"ab\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\0b", b"\0"):
            for number in (1, 2, 3):
                names = {1: TENANT.encode(), 2: CUSTOMER.encode(), 3: PURPOSE.encode(), number: bad}
                with self.subTest(bad=bad, number=number):
                    self.refuse_raw(GENERATE, b"".join(wire.field(n, v) for n, v in names.items()))

    def test_the_same_in_a_customer_to_be_created(self):
        for bad in (b"\xff", b"a\0b"):
            with self.subTest(bad=bad):
                customer = wire.field(2, TENANT) + wire.field(3, bad)
                self.refuse_raw(CREATE_CUSTOMER, wire.field(1, customer), self.operator)


class Contexts(DaemonTestCase):
    OWNER = wire.field(1, TENANT) + wire.field(2, CUSTOMER) + wire.field(3, PURPOSE)

    def test_eight_kibibytes_are_the_limit(self):
        fits = {"k": "v" * (8192 - 1)}
        made = self.generate(context=fits)
        self.assertEqual(self.unwrap(made.wrapped, context=fits).plaintext, made.plaintext)
        for too_large in ({"k": "v" * 8192}, {"k" * 8192: "v"}, {f"{i:02}": "v" * 200 for i in range(60)}):
            with self.subTest(entries=len(too_large)):
                request = generate_request(context=too_large)
                self.assertInvalid(self.app.keys.GenerateDataKey, request, says="context")

    def test_sixty_four_entries_are_the_limit(self):
        self.generate(context={f"key{i}": "" for i in range(64)})
        request = generate_request(context={f"key{i}": "" for i in range(65)})
        self.assertInvalid(self.app.keys.GenerateDataKey, request, says="context")

    def test_empty_keys_and_control_characters(self):
        for bad in ({"": "value"}, {"k\n": "v"}, {"k": "v\x01"}):
            with self.subTest(bad=bad):
                self.assertInvalid(self.app.keys.GenerateDataKey, generate_request(context=bad), says="context")

    def test_duplicate_keys_on_the_wire(self):
        twice = self.OWNER + wire.field(4, wire.entry("k", "1")) + wire.field(4, wire.entry("k", "2"))
        self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, wire.raw(self.app.channel, GENERATE), twice, says="context")

    def test_keys_that_are_not_utf8(self):
        bad = self.OWNER + wire.field(4, wire.entry(b"\xff", "v"))
        self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, wire.raw(self.app.channel, GENERATE), bad)

    def test_a_great_many_entries(self):
        """Each entry is tiny on the wire and large when unpacked."""
        many = self.OWNER + wire.field(4, b"") * 500_000
        with self.assertRaises(grpc.RpcError) as caught:
            wire.raw(self.app.channel, GENERATE)(many, timeout=DEADLINE)
        codes = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertIn(caught.exception.code(), codes, caught.exception.details())


class Blobs(DaemonTestCase):
    CONTEXT = {"table": "accounts"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        make_directory(cls.client("operator"), tenant="other")

    def setUp(self):
        self.good = self.generate(context=self.CONTEXT)

    def refusals(self, requests):
        """Batch-unwrap; every item must be refused. Returns the set of (code, text, reason)."""
        answers = set()
        for start in range(0, len(requests), 1000):
            batch = D.BatchUnwrapDataKeyRequest(requests=requests[start : start + 1000])
            for i, result in enumerate(self.app.keys.BatchUnwrapDataKey(batch, timeout=DEADLINE).results):
                self.assertEqual(result.WhichOneof("result"), "error", f"item {start + i} was opened")
                answers.add((result.error.code, result.error.message))
        return answers

    def request(self, wrapped, **fields):
        return unwrap_request(bytes(wrapped), **{"context": self.CONTEXT, **fields})

    def test_every_flipped_bit_truncation_and_extension_has_one_and_the_same_answer(self):
        blob = self.good.wrapped
        damaged = [
            blob[:i] + bytes([blob[i] ^ 1 << bit]) + blob[i + 1 :] for i in range(len(blob)) for bit in range(8)
        ]
        damaged += [blob[:length] for length in range(1, len(blob))]
        damaged += [blob + bytes(extra) for extra in (1, 2, 16, 4096)] + [b"\0" + blob, blob + blob]
        answers = self.refusals([self.request(wrapped) for wrapped in damaged])
        error = self.assertInvalid(
            self.app.keys.UnwrapDataKey, self.request(blob, context={"table": "loans"}), reason="BLOB_REFUSED"
        )
        self.assertEqual(answers, {(error.code().value[0], error.details())})

    def test_rewrap_refuses_with_the_same_answer(self):
        blob = bytearray(self.good.wrapped)
        blob[40] ^= 1
        rewrap = rewrap_request(bytes(blob), context=self.CONTEXT)
        one = self.assertInvalid(self.app.keys.RewrapDataKey, rewrap, reason="BLOB_REFUSED")
        other = self.assertInvalid(self.app.keys.UnwrapDataKey, self.request(blob), reason="BLOB_REFUSED")
        self.assertEqual(one.details(), other.details())

    def test_another_customer_purpose_or_tenant(self):
        for fields in ({"customer": "customer 2"}, {"purpose": "kyc"}, {"tenant": "other"}, {"tenant": "other", "customer": "", "purpose": ""}):  # fmt: skip
            with self.subTest(fields=fields):
                request = self.request(self.good.wrapped, **fields)
                self.assertInvalid(self.app.keys.UnwrapDataKey, request, reason="BLOB_REFUSED")

    def test_parts_of_two_blobs_do_not_fit_together(self):
        other = self.generate(context=self.CONTEXT, customer="customer 2").wrapped
        mine = self.good.wrapped
        mixed = [mine[:cut] + other[cut:] for cut in (18, 30, 62)] + [other[:cut] + mine[cut:] for cut in (18, 30, 62)]
        self.assertEqual(len(self.refusals([self.request(wrapped) for wrapped in mixed])), 1)

    def test_a_future_format_and_unknown_key_specs(self):
        blob = self.good.wrapped
        strange = [bytes([version]) + blob[1:] for version in (0, 2, 255)]
        strange += [blob[:1] + bytes([spec]) + blob[2:] for spec in (0, 2, 3, 4, 5, 255)]
        self.assertEqual(len(self.refusals([self.request(wrapped) for wrapped in strange])), 1)

    def test_an_empty_and_a_huge_blob(self):
        for wrapped in (b"", bytes(1 << 20)):
            with self.subTest(length=len(wrapped)):
                self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, self.app.keys.UnwrapDataKey, self.request(wrapped))

    def test_the_cause_stands_in_the_audit_log_and_not_in_the_answer(self):
        blob = self.good.wrapped[:-1] + bytes([self.good.wrapped[-1] ^ 1])
        error = self.assertInvalid(self.app.keys.UnwrapDataKey, self.request(blob), reason="BLOB_REFUSED")
        request_id = details(error)["RequestInfo"].request_id
        (record,) = [r for r in self.home.audit_records() if r.get("request_id") == request_id]
        self.assertEqual((record["action"], record["outcome"]), ("datakey.unwrap", "BLOB_REFUSED"))
        self.assertNotEqual(record["reason"], error.details())


class Messages(DaemonTestCase):
    def raw(self, data, path=GENERATE):
        wire.raw(self.app.channel, path)(data, timeout=DEADLINE)

    def test_oversized_messages(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.raw(wire.field(9, bytes(4 << 20)))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, caught.exception.details())

    def test_a_message_just_below_the_limit_is_looked_at(self):
        padding = wire.field(9, bytes((4 << 20) - 200))  # an unknown field
        owner = generate_request().SerializeToString()
        self.assertLess(len(padding + owner), 4 << 20)
        self.raw(owner + padding)

    def test_malformed_messages(self):
        good = generate_request().SerializeToString()
        for bad in (
            b"\xff",
            good[:-1],
            good + b"\x0a\xff\xff\xff\xff\x0f",
            b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x08\x01",  # tenant as a number
            b"\x00\x00",  # field number 0
            good + b"\x0c",  # end of a group that never began
        ):
            with self.subTest(bad=bad[-12:]):
                call = wire.raw(self.app.channel, GENERATE)
                self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, call, bad)

    def test_deeply_nested_messages(self):
        nested = b""
        for _ in range(20_000):
            nested = wire.field(4, nested)
            if len(nested) > 1 << 20:
                break
        for bad in (nested, b"\x0b" * 100_000, b"\x23" * 100_000 + b"\x24" * 100_000):
            with self.subTest(bad=bad[:4]):
                call = wire.raw(self.app.channel, GENERATE)
                self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, call, bad)

    def test_an_empty_message(self):
        for path in (GENERATE, UNWRAP):
            with self.subTest(path=path):
                self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, wire.raw(self.app.channel, path), b"")

    def test_amplification_is_bounded(self):
        """A batch of empty requests is two bytes each on the wire."""
        with self.assertRaises(grpc.RpcError) as caught:
            self.raw(b"\x0a\x00" * 1_000_000, "kms.v1.DataKeyService/BatchGenerateDataKey")
        codes = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertIn(caught.exception.code(), codes, caught.exception.details())

    def test_a_bad_message_in_a_stream_ends_that_stream_only(self):
        stream = self.app.channel.stream_stream("/kms.v1.DataKeyService/StreamGenerateDataKey")
        good = generate_request().SerializeToString()
        with self.assertRaises(grpc.RpcError) as caught:
            list(stream(iter([good, b"\xff", good]), timeout=DEADLINE))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT, caught.exception.details())


if __name__ == "__main__":
    unittest.main()
