"""Goal: an application that is not ours gets, opens and re-wraps data keys: unary, in batches and in streams.

Python's grpcio over mutual TLS with messages that protoc made from the project's .proto files, and once with nothing
but what server reflection says.
"""

import queue
import threading
import unittest

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool

import protos
from cases import (
    CUSTOMER, DEADLINE, PURPOSE, TENANT, D, DaemonTestCase, generate_request, rewrap_request, unwrap_request, wrap_request,
)  # fmt: skip
from harness import Client, eventually


class Unary(DaemonTestCase):
    def test_a_generated_key_opens_again_to_the_same_bytes(self):
        made = self.generate()
        self.assertEqual((len(made.plaintext), len(made.wrapped)), (32, 78))
        self.assertEqual((made.key_spec, made.kek_version), (D.KEY_SPEC_AES_256, 1))
        opened = self.unwrap(made.wrapped)
        self.assertEqual(opened.plaintext, made.plaintext)
        self.assertEqual((opened.key_spec, opened.kek_version), (D.KEY_SPEC_AES_256, 1))

    def test_every_key_is_another_one(self):
        made = [self.generate() for _ in range(50)]
        self.assertEqual(len({reply.plaintext for reply in made}), 50)
        self.assertEqual(len({reply.wrapped for reply in made}), 50)

    def test_key_specs_have_their_lengths(self):
        lengths = {D.KEY_SPEC_UNSPECIFIED: 32, D.KEY_SPEC_AES_256: 32, D.KEY_SPEC_AES_128: 16, D.KEY_SPEC_SM4: 16}
        for spec, length in lengths.items():
            with self.subTest(spec=spec):
                made = self.generate(key_spec=spec)
                self.assertEqual(len(made.plaintext), length)
                self.assertEqual(len(made.wrapped), length + 46)
                opened = self.unwrap(made.wrapped)
                self.assertEqual((opened.plaintext, opened.key_spec), (made.plaintext, made.key_spec))

    def test_raw_is_for_own_material_only(self):
        self.assertInvalid(self.app.keys.GenerateDataKey, generate_request(key_spec=D.KEY_SPEC_RAW))

    def test_without_plaintext_leaves_it_out(self):
        made = self.generate(without_plaintext=True)
        self.assertEqual(made.plaintext, b"")
        self.assertEqual(len(self.unwrap(made.wrapped).plaintext), 32)

    def test_the_context_is_bound_to_the_key(self):
        context = {"table": "accounts", "row": "17", "ключ": "значение"}
        made = self.generate(context=context)
        backwards = dict(reversed(context.items()))
        self.assertEqual(self.unwrap(made.wrapped, context=backwards).plaintext, made.plaintext)
        for other in ({}, {"table": "accounts"}, {**context, "row": "18"}, {**context, "more": ""}):
            with self.subTest(context=other):
                request = unwrap_request(made.wrapped, context=other)
                self.assertInvalid(self.app.keys.UnwrapDataKey, request, reason="BLOB_REFUSED")

    def test_customer_and_purpose_may_be_left_out_when_opening(self):
        made = self.generate()
        for left_out in ({"customer": ""}, {"purpose": ""}, {"customer": "", "purpose": ""}):
            with self.subTest(left_out=left_out):
                self.assertEqual(self.unwrap(made.wrapped, **left_out).plaintext, made.plaintext)

    def test_own_material_of_every_length_comes_back(self):
        for length in (16, 17, 32, 255, 1024, 4096):
            with self.subTest(length=length):
                material = bytes(i * 7 % 256 for i in range(length))
                made = self.app.keys.WrapDataKey(wrap_request(material, context={"a": "b"}), timeout=DEADLINE)
                opened = self.unwrap(made.wrapped, context={"a": "b"})
                self.assertEqual((opened.plaintext, opened.key_spec), (material, D.KEY_SPEC_RAW))

    def test_own_material_of_a_wrong_length_is_refused(self):
        for length in (0, 1, 15, 4097, 100_000):
            with self.subTest(length=length):
                self.assertInvalid(self.app.keys.WrapDataKey, wrap_request(bytes(length)))

    def test_rewrap_gives_another_blob_of_the_same_key_and_no_plaintext(self):
        made = self.generate(context={"a": "b"})
        again = self.app.keys.RewrapDataKey(rewrap_request(made.wrapped, context={"a": "b"}), timeout=DEADLINE)
        self.assertNotEqual(again.wrapped, made.wrapped)
        self.assertEqual((again.kek_version, again.previous_kek_version), (1, 1))
        self.assertNotIn(made.plaintext, again.SerializeToString())
        for blob in (made.wrapped, again.wrapped):
            self.assertEqual(self.unwrap(blob, context={"a": "b"}).plaintext, made.plaintext)

    def test_each_customer_and_purpose_has_its_own_kek(self):
        ids = {
            self.generate(customer=customer, purpose=purpose).wrapped[2:18]
            for customer in (CUSTOMER, "customer 2")
            for purpose in (PURPOSE, "kyc")
        }
        self.assertEqual(len(ids), 4)

    def test_the_unix_socket_serves_too(self):
        address = next(a for a in self.daemon.addresses if a.startswith("unix:"))
        client = Client(self.daemon.channel("app", address=address))
        self.addCleanup(client.close)
        self.assertEqual(len(self.generate(client).plaintext), 32)

    @classmethod
    def prepare(cls, home):
        home.config["listen"] = ["127.0.0.1:0", "unix:kms.sock"]


class Batches(DaemonTestCase):
    def test_a_batch_of_a_thousand_round_trips(self):
        requests = [generate_request(context={"row": str(i)}) for i in range(1000)]
        made = self.app.keys.BatchGenerateDataKey(D.BatchGenerateDataKeyRequest(requests=requests), timeout=DEADLINE)
        self.assertEqual(len(made.results), 1000)
        keys = [result.response for result in made.results]
        self.assertEqual(len({key.plaintext for key in keys}), 1000)
        opens = [unwrap_request(key.wrapped, context={"row": str(i)}) for i, key in enumerate(keys)]
        opened = self.app.keys.BatchUnwrapDataKey(D.BatchUnwrapDataKeyRequest(requests=opens), timeout=DEADLINE)
        self.assertEqual([r.response.plaintext for r in opened.results], [key.plaintext for key in keys])

    def test_errors_are_per_item_and_stand_in_order(self):
        good = self.generate()
        damaged = bytearray(good.wrapped)
        damaged[-1] ^= 1
        requests = [
            unwrap_request(good.wrapped),
            unwrap_request(bytes(damaged)),
            unwrap_request(good.wrapped, customer="nobody"),
            unwrap_request(good.wrapped),
        ]
        reply = self.app.keys.BatchUnwrapDataKey(D.BatchUnwrapDataKeyRequest(requests=requests), timeout=DEADLINE)
        kinds = [result.WhichOneof("result") for result in reply.results]
        self.assertEqual(kinds, ["response", "error", "error", "response"])
        self.assertEqual(reply.results[1].error.code, grpc.StatusCode.INVALID_ARGUMENT.value[0])
        self.assertNotEqual(reply.results[1].error.message, "")

    def test_wrap_and_rewrap_in_batches(self):
        material = [bytes([i]) * 24 for i in range(10)]
        wrapped = self.app.keys.BatchWrapDataKey(
            D.BatchWrapDataKeyRequest(requests=[wrap_request(m) for m in material]), timeout=DEADLINE
        )
        again = self.app.keys.BatchRewrapDataKey(
            D.BatchRewrapDataKeyRequest(requests=[rewrap_request(r.response.wrapped) for r in wrapped.results]),
            timeout=DEADLINE,
        )
        opened = [self.unwrap(result.response.wrapped).plaintext for result in again.results]
        self.assertEqual(opened, material)

    def test_empty_and_too_large_batches_are_refused(self):
        call = self.app.keys.BatchGenerateDataKey
        self.assertInvalid(call, D.BatchGenerateDataKeyRequest())
        self.assertInvalid(call, D.BatchGenerateDataKeyRequest(requests=[generate_request()] * 1001))


class Streams(DaemonTestCase):
    def test_one_result_for_each_request_in_order(self):
        requests = [generate_request(context={"row": str(i)}) for i in range(500)]
        made = list(self.app.keys.StreamGenerateDataKey(iter(requests), timeout=DEADLINE))
        self.assertEqual(len(made), 500)
        opens = [unwrap_request(r.response.wrapped, context={"row": str(i)}) for i, r in enumerate(made)]
        opened = list(self.app.keys.StreamUnwrapDataKey(iter(opens), timeout=DEADLINE))
        self.assertEqual([r.response.plaintext for r in opened], [r.response.plaintext for r in made])

    def test_a_stream_answers_before_it_is_half_closed(self):
        """Ping-pong: each request is sent only after the answer to the one before it."""
        to_send = queue.Queue()
        stream = self.app.keys.StreamGenerateDataKey(iter(to_send.get, None), timeout=DEADLINE)
        for _ in range(5):
            to_send.put(generate_request())
            self.assertEqual(len(next(stream).response.plaintext), 32)
        to_send.put(None)
        self.assertEqual(list(stream), [])

    def test_a_bad_message_is_answered_in_its_place_and_the_stream_goes_on(self):
        requests = [generate_request(), generate_request(customer="nobody"), generate_request()]
        results = list(self.app.keys.StreamGenerateDataKey(iter(requests), timeout=DEADLINE))
        self.assertEqual([r.WhichOneof("result") for r in results], ["response", "error", "response"])
        self.assertEqual(results[1].error.code, grpc.StatusCode.NOT_FOUND.value[0])

    def test_wrap_and_rewrap_in_streams(self):
        wrapped = list(self.app.keys.StreamWrapDataKey(iter([wrap_request(b"k" * 32)] * 3), timeout=DEADLINE))
        requests = [rewrap_request(r.response.wrapped) for r in wrapped]
        again = list(self.app.keys.StreamRewrapDataKey(iter(requests), timeout=DEADLINE))
        self.assertEqual({self.unwrap(r.response.wrapped).plaintext for r in again}, {b"k" * 32})

    def test_a_cancelled_stream_frees_its_call(self):
        stop = threading.Event()
        self.addCleanup(stop.set)

        def requests():
            yield generate_request()
            stop.wait()

        stream = self.app.keys.StreamGenerateDataKey(requests(), timeout=DEADLINE)
        next(stream)
        stream.cancel()
        with self.assertRaises(grpc.RpcError) as caught:
            next(stream)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)
        eventually(lambda: self.live_calls() <= 1, "no live call but the one that asks")

    def live_calls(self):
        status = self.operator.server.GetServerStatus(protos.server.GetServerStatusRequest(), timeout=DEADLINE)
        return status.calls.live


class HealthAndReflection(DaemonTestCase):
    def test_health_check_of_the_server_and_of_each_service(self):
        serving = protos.health.HealthCheckResponse.SERVING
        for service in ("", "kms.v1.DataKeyService", "kms.v1.DirectoryService"):
            with self.subTest(service=service):
                self.assertEqual(self.health_status(service), serving)

    def test_health_of_an_unknown_service(self):
        request = protos.health.HealthCheckRequest(service="kms.v1.Nothing")
        with self.assertRaises(grpc.RpcError) as caught:
            self.app.health.Check(request, timeout=DEADLINE)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_health_watch_answers_at_once(self):
        stream = self.app.health.Watch(protos.health.HealthCheckRequest(), timeout=DEADLINE)
        self.assertEqual(next(stream).status, protos.health.HealthCheckResponse.SERVING)
        stream.cancel()

    def reflect(self, *requests):
        requests = [protos.reflection.ServerReflectionRequest(**fields) for fields in requests]
        return list(self.app.reflection.ServerReflectionInfo(iter(requests), timeout=DEADLINE))

    def test_reflection_lists_the_services(self):
        (reply,) = self.reflect({"list_services": ""})
        names = {service.name for service in reply.list_services_response.service}
        self.assertLessEqual(
            {"kms.v1.DataKeyService", "kms.v1.DirectoryService", "kms.v1.ServerService", "grpc.health.v1.Health"}, names
        )

    def test_reflection_of_an_unknown_symbol_and_file(self):
        replies = self.reflect({"file_containing_symbol": "kms.v1.Nothing"}, {"file_by_filename": "no.proto"})
        codes = [reply.error_response.error_code for reply in replies]
        self.assertEqual(codes, [grpc.StatusCode.NOT_FOUND.value[0]] * 2)

    def test_a_client_that_knows_only_reflection_gets_a_data_key(self):
        pool = descriptor_pool.DescriptorPool()
        waiting, known = [{"file_containing_symbol": "kms.v1.DataKeyService"}], {}
        while waiting:
            (reply,) = self.reflect(waiting.pop())
            for data in reply.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(data)
                known[file.name] = file
                waiting += [{"file_by_filename": name} for name in file.dependency if name not in known]
        while known:
            name = next(n for n, file in known.items() if not set(file.dependency) & set(known))
            pool.Add(known.pop(name))
        service = pool.FindServiceByName("kms.v1.DataKeyService")
        stub = protos.Stub(self.app.channel, service)
        request_class = protos.message_class(service.FindMethodByName("GenerateDataKey").input_type)
        self.assertIsNot(request_class, D.GenerateDataKeyRequest)
        request = request_class(tenant=TENANT, customer=CUSTOMER, purpose=PURPOSE)
        self.assertEqual(len(stub.GenerateDataKey(request, timeout=DEADLINE).plaintext), 32)

    def test_an_unknown_method_is_unimplemented(self):
        call = self.app.channel.unary_unary("/kms.v1.DataKeyService/Nothing")
        with self.assertRaises(grpc.RpcError) as caught:
            call(b"", timeout=DEADLINE)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)


if __name__ == "__main__":
    unittest.main()
