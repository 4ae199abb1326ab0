"""Goal: the weaknesses of the old gRPC library that are known are closed, each with a test that fails without it.

File descriptors run out, compression bombs, connections that never speak, garbage, resets, too many calls.
"""

import concurrent.futures
import gzip
import os
import queue
import random
import resource
import socket
import unittest

import grpc

import http2
from cases import DEADLINE, DaemonTestCase, KmsTestCase, generate_request, make_directory
from harness import Client, Daemon, Home, eventually, open_channel

GENERATE = "/kms.v1.DataKeyService/GenerateDataKey"


def memory_kib(pid, field):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith(field + ":")).split()[1])


def host_and_port(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


class Descriptors(KmsTestCase):
    LIMIT = 96

    def test_the_listener_survives_running_out_of_descriptors(self):
        """CVE-2023-4785: without its own accept4() the daemon would never accept again."""
        home = Home()
        self.addCleanup(home.cleanup)
        daemon = Daemon(home, before_exec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (self.LIMIT,) * 2)).start()
        self.addCleanup(daemon.kill)
        client = Client(daemon.channel("operator"))
        self.addCleanup(client.close)
        make_directory(client)
        with_limit = []
        self.addCleanup(lambda: [c.close() for c in with_limit])
        for _ in range(2 * self.LIMIT):
            with_limit.append(socket.create_connection(host_and_port(daemon.addresses[0]), timeout=DEADLINE))
        directory = f"/proc/{daemon.pid}/fd"
        if os.access(directory, os.R_OK | os.X_OK):
            eventually(lambda: len(os.listdir(directory)) >= self.LIMIT - 8, "descriptors used up")
        for connection in with_limit:
            connection.close()
        with_limit.clear()
        eventually(lambda: self.served(home, daemon), "a new connection is served")
        self.assertTrue(daemon.alive())
        self.assertEqual(daemon.stop(), 0)

    @staticmethod
    def served(home, daemon):
        """A new channel each time, so that the library's back-off plays no part."""
        client = Client(open_channel(home, daemon.addresses[0]))
        try:
            return len(client.keys.GenerateDataKey(generate_request(), timeout=5).plaintext) == 32
        except grpc.RpcError:
            return False
        finally:
            client.close()


class Hostile(DaemonTestCase):
    @classmethod
    def prepare(cls, home):
        home.config["limits"] = {"max_live_calls": 50}

    def raw_call(self, payload, **headers):
        """One unary call by hand; returns the bytes that came back until the stream or connection ended."""
        with http2.connect(self.home, self.daemon.addresses[0]) as connection:
            http2.start(connection)
            fields = http2.request_headers(GENERATE, **headers)
            connection.sendall(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, fields))
            for at in range(0, len(payload), 16_384):
                last = at + 16_384 >= len(payload)
                data = http2.frame(http2.DATA, http2.END_STREAM if last else 0, 1, payload[at : at + 16_384])
                if not http2.send_or_closed(connection, data):
                    break
            got = b""
            try:
                while b"grpc-status" not in got and len(got) < 1 << 20:
                    chunk = connection.recv(65_536)
                    if not chunk:
                        break
                    got += chunk
            except OSError:
                pass
            return got

    def test_a_compressed_bomb_is_refused_before_it_is_inflated(self):
        """200 MB of zeros in 200 KB: the library would inflate it before it looks at the size limit."""
        self.generate()
        before = memory_kib(self.daemon.pid, "VmHWM")
        bomb = gzip.compress(b"\x4a" + bytes(200 << 20), 6)
        message = b"\x01" + len(bomb).to_bytes(4, "big") + bomb
        self.assertLess(len(message), 1 << 20)
        for _ in range(3):
            self.raw_call(message, **{"grpc-encoding": "gzip"})
        self.assertLess(memory_kib(self.daemon.pid, "VmHWM") - before, 64 << 10)

    def test_compressed_messages_are_refused_by_a_clear_status(self):
        call = self.app.channel.unary_unary(GENERATE)
        with self.assertRaises(grpc.RpcError) as caught:
            data = generate_request(context={"k": "v" * 4000}).SerializeToString()
            call(data, timeout=DEADLINE, compression=grpc.Compression.Gzip)
        refused = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
        self.assertIn(caught.exception.code(), refused)

    def test_a_length_prefix_of_four_gigabytes_allocates_nothing(self):
        before = memory_kib(self.daemon.pid, "VmHWM")
        self.raw_call(b"\x00\xff\xff\xff\xff" + bytes(100))
        self.assertLess(memory_kib(self.daemon.pid, "VmHWM") - before, 32 << 10)

    def test_connections_that_never_speak_do_not_stop_others(self):
        silent = [socket.create_connection(host_and_port(self.daemon.addresses[0]), timeout=DEADLINE) for _ in range(200)]
        self.addCleanup(lambda: [connection.close() for connection in silent])
        client = Client(self.daemon.channel("app"))
        self.addCleanup(client.close)
        self.assertEqual(len(self.generate(client).plaintext), 32)

    def test_garbage_before_and_after_the_handshake(self):
        noise = random.Random(4711)
        for _ in range(30):
            with socket.create_connection(host_and_port(self.daemon.addresses[0]), timeout=DEADLINE) as connection:
                http2.send_or_closed(connection, noise.randbytes(2000))
            with http2.connect(self.home, self.daemon.addresses[0]) as connection:
                http2.send_or_closed(connection, noise.randbytes(2000))
            with http2.connect(self.home, self.daemon.addresses[0]) as connection:
                http2.start(connection)
                kind, stream = noise.randrange(12), noise.randrange(5)
                for _ in range(20):
                    payload = noise.randbytes(noise.randrange(300))
                    if not http2.send_or_closed(connection, http2.frame(kind, noise.randrange(256), stream, payload)):
                        break

    def test_streams_that_are_reset_at_once(self):
        """HTTP/2 rapid reset: the daemon may hang up, but it goes on for others."""
        with http2.connect(self.home, self.daemon.addresses[0]) as connection:
            http2.start(connection)
            headers = http2.request_headers(GENERATE)
            for first in range(1, 10_000, 200):
                burst = b"".join(
                    http2.frame(http2.HEADERS, http2.END_HEADERS, stream, headers)
                    + http2.frame(http2.RST_STREAM, 0, stream, b"\0\0\0\x08")
                    for stream in range(first, first + 200, 2)
                )
                if not http2.send_or_closed(connection, burst):
                    break
        # the last of them may still stand for open calls, of which this daemon takes 50, until they are cleared away
        eventually(self.is_served, "others are served", 5)

    def is_served(self):
        try:
            return len(self.generate().plaintext) == 32
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            return False

    def test_metadata_that_is_too_large_is_refused(self):
        call = self.app.channel.unary_unary(GENERATE)
        with self.assertRaises(grpc.RpcError):
            call(generate_request().SerializeToString(), timeout=DEADLINE, metadata=[("x-large", "v" * 200_000)])

    def test_a_header_block_without_end(self):
        with http2.connect(self.home, self.daemon.addresses[0]) as connection:
            http2.start(connection)
            connection.sendall(http2.frame(http2.HEADERS, 0, 1, http2.literal("x-0", "v")))
            before = memory_kib(self.daemon.pid, "VmHWM")
            for i in range(2000):
                block = http2.literal(f"x-{i}", "v" * 8000)
                if not http2.send_or_closed(connection, http2.frame(http2.CONTINUATION, 0, 1, block)):
                    break
            self.assertLess(memory_kib(self.daemon.pid, "VmHWM") - before, 32 << 10)

    def test_too_many_calls_at_once_are_refused_and_counted(self):
        queues = [queue.Queue() for _ in range(80)]
        self.addCleanup(lambda: [q.put(None) for q in queues])
        streams = [self.app.keys.StreamGenerateDataKey(iter(q.get, None), timeout=DEADLINE) for q in queues]
        codes = []
        for waiting, stream in zip(queues, streams):
            waiting.put(generate_request())
            try:
                next(stream)
                codes.append(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.append(error.code())
        self.assertEqual(set(codes), {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED})
        self.assertLessEqual(codes.count(grpc.StatusCode.OK), 50)
        for stream in streams:
            stream.cancel()
        for waiting in queues:
            waiting.put(None)

    def test_many_clients_that_come_and_go(self):
        def visit(number):
            client = Client(self.daemon.channel("app"))
            try:
                made = client.keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
                if number % 3 == 0:
                    client.keys.GenerateDataKey.future(generate_request(), timeout=DEADLINE)
                return len(made.plaintext)
            finally:
                client.close()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            self.assertEqual(set(pool.map(visit, range(120))), {32})


if __name__ == "__main__":
    unittest.main()
