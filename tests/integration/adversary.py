"""Goal: what an adversary of the shred protocol keeps and does: every copy of everything, and all tries that today's HSM allows.

Copies keeps what lies in a home at one moment: the files as they are (database, WAL, audit log) and a consistent copy of the database
through SQLite's backup API. attack() runs kms-adversary on a copy of today's token with any number of them.
"""

import json
import pathlib
import shutil
import sqlite3
import subprocess
import tempfile

from harness import BUILD, SOFTHSM

DATABASE = "kms.db"


class Copies:
    """A directory of copies, each in a directory of its own, oldest first."""

    def __init__(self, home, directory):
        self.home = home
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(exist_ok=True)
        self.taken = []
        self.last = None

    def take(self, label):
        """Copy what is there now; a moment in which the files are as they were in the last copy is not another one."""
        files = {path.name: path.read_bytes() for path in self.home.path.glob(DATABASE + "*") if path.suffix != ".lock"}
        for segment in (self.home.path / "audit").glob("*.jsonl"):
            files[segment.name] = segment.read_bytes().rstrip(b"\0")
        if files == self.last:
            return None
        self.last = files
        copy = self.directory / f"{len(self.taken):04d}-{label}"
        (copy / "raw").mkdir(parents=True)
        for name, data in files.items():
            (copy / "raw" / name).write_bytes(data)
        with sqlite3.connect(self.home.path / DATABASE) as source, sqlite3.connect(copy / DATABASE) as target:
            source.backup(target)
        source.close()
        target.close()
        self.taken.append(copy)
        return copy


def token_copy(home, directory):
    """Today's token in a directory of its own; returns the environment that leads to it."""
    directory = pathlib.Path(directory)
    shutil.copytree(home.path / "tokens", directory / "tokens")
    conf = (home.path / "softhsm2.conf").read_text().replace(str(home.path), str(directory))
    (directory / "softhsm2.conf").write_text(conf)
    return {"SOFTHSM2_CONF": str(directory / "softhsm2.conf")}


def values_of(database):
    """Every binary value of every table: whole ones, however SQLite has spread them over its pages."""
    with sqlite3.connect(database) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        values = [v for table in tables for row in db.execute(f'SELECT * FROM "{table}"') for v in row]
    db.close()
    return {bytes(value) for value in values if isinstance(value, bytes)}


def masters_of(database):
    """CKA_IDs of the master keys that the database knows."""
    with sqlite3.connect(database) as db:
        found = {bytes(value) for (value,) in db.execute("SELECT master_id FROM tenant")}
    db.close()
    return found


def material(copies, scratch):
    """What kms-adversary is to read of those copies."""
    lines, values = [], set()
    for number, copy in enumerate(copies):
        lines += [f"file {path}" for path in sorted((copy / "raw").iterdir()) if path.stat().st_size > 0]
        lines.append(f"file {copy / DATABASE}")
        lines += [f"id {master.hex()}" for master in masters_of(copy / DATABASE)]
        values |= values_of(copy / DATABASE)
        # the raw files once more as SQLite would recover them, which may be a moment before or after
        recovered = scratch / f"recovered-{number}"
        recovered.mkdir()
        for path in (copy / "raw").glob(DATABASE + "*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, recovered)
        try:
            values |= values_of(recovered / DATABASE)
        except sqlite3.DatabaseError:  # torn by the moment of the copy: it stays in the list as bytes
            pass
    (scratch / "values").write_bytes(b"\0".join(sorted(values)))
    lines.append(f"file {scratch / 'values'}")
    lines += [f"blob {value.hex()}" for value in values if len(value) == 40]
    return lines


def attack(home, copies, targets, keys=(), files=()):
    """Try to open targets, {name: (wrapped, canonical context)}; returns kms-adversary's findings, plaintexts as bytes. `keys` are plaintext
    keys that were had otherwise, `files` further files to look through."""
    with tempfile.TemporaryDirectory(prefix="kms-adversary-") as scratch:
        scratch = pathlib.Path(scratch)
        environment = token_copy(home, scratch)
        lines = material(copies, scratch)
        lines += [f"key {key.hex()}" for key in keys] + [f"file {path}" for path in files]
        lines += [f"target {name} {wrapped.hex()} {context.hex()}" for name, (wrapped, context) in targets.items()]
        done = subprocess.run(
            [BUILD / "tests" / "kms-adversary", SOFTHSM, "kms", home.path / "user.pin"],
            input="\n".join(lines) + "\n", env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"kms-adversary: {done.stderr}")
    found = json.loads(done.stdout)
    found["opened"] = {name: bytes.fromhex(value) for name, value in found["opened"].items()}
    return found
