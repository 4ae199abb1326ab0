"""Goal: kmsd starts, says so, drains, and refuses to start with a message that says what to do.

Exit codes: 0 after SIGTERM, 78 for a bad configuration, 2 for a wrong command line, 1 for everything else.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import unittest

import grpc

import http2
import protos
from cases import DEADLINE, KmsTestCase, generate_request, make_directory
from harness import KMSD, Client, Daemon, Home, eventually

EX_CONFIG = 78


class LifecycleTestCase(KmsTestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)

    def start(self, **options):
        daemon = Daemon(self.home, **options)
        self.addCleanup(daemon.kill)
        return daemon.start()

    def connect(self, daemon, name="operator"):
        client = Client(daemon.channel(name))
        self.addCleanup(client.close)
        return client


class Running(LifecycleTestCase):
    def test_ready_serve_and_end_with_zero(self):
        self.home.config["listen"] = ["127.0.0.1:0", "[::1]:0", "unix:kms.sock"]
        daemon = self.start()
        self.assertEqual(len(daemon.addresses), 3)
        self.assertRegex(daemon.addresses[0], r"^127\.0\.0\.1:[1-9]\d*$")
        self.assertEqual(daemon.addresses[2], f"unix:{self.home.path}/kms.sock")
        make_directory(self.connect(daemon))
        self.assertEqual(daemon.stop(), 0)
        for line in daemon.log().splitlines():
            json.loads(line)

    def test_everything_is_there_after_a_restart(self):
        daemon = self.start()
        make_directory(self.connect(daemon))
        made = self.connect(daemon, "app").keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
        self.assertEqual(daemon.stop(), 0)
        daemon = self.start()
        request = protos.datakeys.UnwrapDataKeyRequest(tenant="acme", wrapped=made.wrapped)
        opened = self.connect(daemon, "app").keys.UnwrapDataKey(request, timeout=DEADLINE)
        self.assertEqual(opened.plaintext, made.plaintext)
        self.assertEqual(daemon.stop(), 0)

    def test_the_service_manager_is_told(self):
        path = str(self.home.path / "notify.sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(DEADLINE)
            daemon = self.start(environment={"NOTIFY_SOCKET": path})
            self.assertIn(b"READY=1", notify.recv(4096))
            self.assertEqual(daemon.stop(), 0)

    def test_sigterm_tells_watchers_and_cuts_idle_streams_after_the_grace(self):
        self.home.config["limits"] = {"drain_seconds": 1}
        daemon = self.start()
        make_directory(self.connect(daemon))
        client = self.connect(daemon, "app")
        watch = client.health.Watch(protos.health.HealthCheckRequest(), timeout=DEADLINE)
        self.assertEqual(next(watch).status, protos.health.HealthCheckResponse.SERVING)
        waiting = queue.Queue()
        self.addCleanup(waiting.put, None)
        stream = client.keys.StreamGenerateDataKey(iter(waiting.get, None), timeout=DEADLINE)
        waiting.put(generate_request())
        next(stream)
        daemon.signal(signal.SIGTERM)
        self.assertEqual(next(watch).status, protos.health.HealthCheckResponse.NOT_SERVING)
        self.assertEqual(daemon.process.wait(timeout=DEADLINE), 0)
        with self.assertRaises(grpc.RpcError):
            next(stream)

    def test_idle_peers_do_not_delay_the_end(self):
        """One that does not answer the server's farewell must not hold it up for the whole grace."""
        self.home.config["limits"] = {"drain_seconds": 600}
        daemon = self.start()
        silent = http2.connect(self.home, daemon.addresses[0])
        self.addCleanup(silent.close)
        http2.start(silent)
        self.connect(daemon).health.Check(protos.health.HealthCheckRequest(), timeout=DEADLINE)
        self.assertEqual(daemon.stop(), 0)

    def test_sigint_and_a_second_signal_end_it_too(self):
        daemon = self.start()
        daemon.signal(signal.SIGINT)
        daemon.signal(signal.SIGTERM)
        self.assertEqual(daemon.process.wait(timeout=DEADLINE), 0)

    def test_files_that_it_makes_are_private(self):
        self.start()
        for path in [self.home.path / "kms.db", *(self.home.path / "audit").iterdir()]:
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)


class CommandLine(LifecycleTestCase):
    def kmsd(self, *arguments):
        return subprocess.run(
            [KMSD, *arguments], env=dict(os.environ, **self.home.environment), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def test_version_help_and_usage(self):
        done = self.kmsd("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"\d+\.\d+")
        self.assertEqual(self.kmsd("--help").returncode, 0)
        for arguments in ((), ("--nonsense",), ("--config",)):
            self.assertEqual(self.kmsd(*arguments).returncode, 2, arguments)

    def test_check_validates_and_starts_nothing(self):
        self.home.write()
        done = self.kmsd("--check", "--config", str(self.home.path / "kmsd.yaml"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse((self.home.path / "kms.db").exists())
        (self.home.path / "kmsd.yaml").write_text("listen: 17\n")
        done = self.kmsd("--check", "--config", str(self.home.path / "kmsd.yaml"))
        self.assertEqual(done.returncode, EX_CONFIG)
        self.assertRegex(done.stderr, r"kmsd\.yaml:1")


class Refusals(LifecycleTestCase):
    def refuses(self, code, says):
        daemon = Daemon(self.home)
        self.addCleanup(daemon.kill)
        got, log = daemon.refuse()
        self.assertEqual(got, code, log)
        self.assertRegex(log, says)
        return log

    def test_a_configuration_that_does_not_exist(self):
        done = subprocess.run([KMSD, "--config", "/nonexistent/kmsd.yaml"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, EX_CONFIG)
        self.assertIn("/nonexistent/kmsd.yaml", done.stderr)

    def test_configurations_that_are_not_valid(self):
        good = json.dumps(self.home.config)
        for change, says in (
            ({"listen": []}, "listen"),
            ({"listen": ["nonsense"]}, "listen|nonsense"),
            ({"unknown": 1}, "unknown"),
            ({"policy": ""}, "policy"),
            ({"limits": {"threads": -1}}, "threads"),
            ({"log": {"level": "shout"}}, "level"),
        ):
            with self.subTest(change=change):
                self.home.config = {**json.loads(good), **change}
                self.refuses(EX_CONFIG, says)
        self.home.config = json.loads(good)

    def test_certificates_that_are_missing_or_garbage(self):
        for name in ("server.pem", "server.key", "ca.pem", "ca.crl"):
            path = self.home.path / "pki" / name
            good = path.read_bytes()
            with self.subTest(name=name):
                path.write_bytes(b"garbage")
                self.refuses(EX_CONFIG, name.replace(".", r"\."))
                path.unlink()
                self.refuses(EX_CONFIG, name.replace(".", r"\."))
            path.write_bytes(good)

    def test_a_policy_that_is_wrong(self):
        self.home.bindings[0]["role"] = "emperor"
        self.refuses(EX_CONFIG, r"policy\.yaml:\d+.*emperor|emperor.*policy\.yaml:\d+|policy\.yaml:\d+")

    def test_a_pin_file_that_others_can_read(self):
        os.chmod(self.home.path / "user.pin", 0o644)
        self.refuses(EX_CONFIG, r"user\.pin")

    def test_a_port_that_is_taken(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.home.config["listen"] = [address]
            self.refuses(EX_CONFIG, address.replace(".", r"\."))

    def test_a_second_instance_on_the_same_home(self):
        self.home.config["listen"] = ["127.0.0.1:0", "unix:kms.sock"]
        first = self.start()
        second = Daemon(self.home)
        self.addCleanup(second.kill)
        code, log = second.refuse()
        self.assertEqual(code, 1, log)
        self.assertRegex(log, str(first.pid))
        make_directory(self.connect(first))
        client = Client(first.channel("app", address=first.addresses[1]))
        self.addCleanup(client.close)
        self.assertEqual(len(client.keys.GenerateDataKey(generate_request(), timeout=DEADLINE).plaintext), 32)

    def test_a_socket_file_that_was_left_behind_is_no_obstacle(self):
        self.home.config["listen"] = ["unix:kms.sock"]
        daemon = self.start()
        daemon.kill()
        self.assertTrue((self.home.path / "kms.sock").exists())
        daemon = self.start()
        eventually(lambda: self.connect(daemon, "app").health.Check(protos.health.HealthCheckRequest()).status, "served")

    def test_locked_memory_that_is_not_allowed(self):
        if os.geteuid() == 0:
            before_exec = drop_privileges(self.home.path)
            self.addCleanup(lambda: None)
        else:
            before_exec = None
        import resource

        def limited():
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
            if before_exec:
                before_exec()

        daemon = Daemon(self.home, before_exec=limited)
        self.addCleanup(daemon.kill)
        code, log = daemon.refuse()
        self.assertNotEqual(code, 0)
        self.assertRegex(log, "LimitMEMLOCK|ulimit -l")


def drop_privileges(path):
    """Become nobody, who owns the directory from then on."""
    import pwd

    nobody = pwd.getpwnam("nobody")
    for directory, _, files in os.walk(path):
        for name in [directory, *(os.path.join(directory, file) for file in files)]:
            os.chown(name, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)

    def drop():
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)

    return drop


if __name__ == "__main__":
    unittest.main()
