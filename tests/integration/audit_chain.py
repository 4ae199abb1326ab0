"""Goal: check an audit log from its description alone (kms/audit/audit.h), as an auditor without our code would."""

import hashlib
import json
import pathlib

MARK = b',"hash":"'


class BrokenChain(AssertionError):
    """Says which file and line."""


def verify(directory):
    """Every record of the log in order; BrokenChain when one was changed, removed, added or put elsewhere."""
    records, previous, number = [], bytes(32), None
    segments = sorted(pathlib.Path(directory).glob("audit-*.jsonl"))
    if not segments:
        raise BrokenChain(f"no segment in {directory}")
    for segment in segments:
        lines = segment.read_bytes().rstrip(b"\0").split(b"\n")
        if lines.pop() != b"":
            raise BrokenChain(f"{segment.name}: the last line is torn")
        for place, line in enumerate(lines, 1):
            where = f"{segment.name}:{place}"
            record = json.loads(line)
            covered = line[: line.rindex(MARK)]
            digest = hashlib.sha256(previous + covered).digest()
            if digest.hex() != record["hash"]:
                raise BrokenChain(f"{where}: the hash does not match")
            if number is not None and record["seq"] != number + 1:
                raise BrokenChain(f"{where}: record {record['seq']} follows {number}")
            if place == 1 and int(segment.stem.split("-")[1]) != record["seq"]:
                raise BrokenChain(f"{where}: the name of the segment is not its first record's number")
            previous, number = digest, record["seq"]
            records.append(record)
    return records
