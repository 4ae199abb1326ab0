#!/usr/bin/python3
"""Goal: learn the plaintext of KEKs and page keys from outside, to be able to look for it in the daemon's memory.

Walks the key tree in a copy of the database with a copy of the token through raw Cryptoki (ctypes). The top page key
leaves the token by a trick that needs the token, the PIN and the database: unwrapped with EXTRACTABLE, wrapped again
under a key that we know. Everything below it opens with that. This is also a second implementation of the tree's
format (kms/keys/page.h), made from its description.

usage: keytree.py HOME < {"wrapped": hex, "aad": hex, "plaintext": hex}
Prints {"keks": [hex...], "pages": [hex...], "opened": bool}: whether one of the KEKs opens the given blob.
"""

import ctypes
import json
import os
import pathlib
import shutil
import sqlite3
import struct
import sys
import tempfile

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
ULONG = ctypes.c_ulong
CKU_USER, CKF_RW_SERIAL = 1, 6
CKO_SECRET_KEY, CKK_AES = 4, 0x1F
CKA_CLASS, CKA_TOKEN, CKA_PRIVATE, CKA_VALUE, CKA_KEY_TYPE, CKA_ID = 0x0, 0x1, 0x2, 0x11, 0x100, 0x102
CKA_SENSITIVE, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP, CKA_EXTRACTABLE = 0x103, 0x105, 0x106, 0x107, 0x162
CKM_AES_KEY_WRAP, CKM_AES_GCM = 0x2109, 0x1087


class Attribute(ctypes.Structure):
    _fields_ = [("type", ULONG), ("value", ctypes.c_void_p), ("length", ULONG)]


class Mechanism(ctypes.Structure):
    _fields_ = [("mechanism", ULONG), ("parameter", ctypes.c_void_p), ("length", ULONG)]


class GcmParameters(ctypes.Structure):
    _fields_ = [
        ("iv", ctypes.c_char_p), ("iv_length", ULONG), ("iv_bits", ULONG),
        ("aad", ctypes.c_char_p), ("aad_length", ULONG), ("tag_bits", ULONG),
    ]  # fmt: skip


class Token:
    """Just enough of Cryptoki for this one purpose."""

    def __init__(self, label, pin):
        self.lib = ctypes.CDLL(MODULE)
        self.call("C_Initialize", None)
        slots, count = (ULONG * 64)(), ULONG(64)
        self.call("C_GetSlotList", ctypes.c_ubyte(1), slots, ctypes.byref(count))
        self.session = ULONG()
        for slot in slots[: count.value]:
            info = ctypes.create_string_buffer(512)
            self.call("C_GetTokenInfo", ULONG(slot), info)
            if info.raw[:32].decode().strip() == label:
                break
        else:
            raise LookupError(label)
        self.call("C_OpenSession", ULONG(slot), ULONG(CKF_RW_SERIAL), None, None, ctypes.byref(self.session))
        self.call("C_Login", self.session, ULONG(CKU_USER), pin, ULONG(len(pin)))

    def call(self, name, *arguments):
        rv = getattr(self.lib, name)(*arguments)
        if rv != 0:
            raise OSError(f"{name}: CKR {rv & 0xFFFFFFFF:#x}")

    @staticmethod
    def template(attributes):
        """A CK_ATTRIBUTE array; bool is CK_BBOOL, int is CK_ULONG. The second result keeps the values alive."""
        array, keep = (Attribute * len(attributes))(), []
        for slot, (kind, value) in zip(array, attributes.items()):
            if isinstance(value, bool):
                value = bytes([value])
            elif isinstance(value, int):
                value = bytes(ULONG(value))
            buffer = ctypes.create_string_buffer(value, len(value))
            keep.append(buffer)
            slot.type, slot.value, slot.length = kind, ctypes.cast(buffer, ctypes.c_void_p), len(value)
        return array, keep

    def find(self, attributes):
        array, keep = self.template(attributes)
        self.call("C_FindObjectsInit", self.session, array, ULONG(len(array)))
        handle, count = ULONG(), ULONG()
        self.call("C_FindObjects", self.session, ctypes.byref(handle), ULONG(1), ctypes.byref(count))
        self.call("C_FindObjectsFinal", self.session)
        del keep
        if count.value != 1:
            raise LookupError("no such object")
        return handle

    def import_key(self, value, usage):
        attributes = {CKA_CLASS: CKO_SECRET_KEY, CKA_KEY_TYPE: CKK_AES, CKA_TOKEN: False, CKA_VALUE: value}
        array, keep = self.template({**attributes, **{bit: True for bit in usage}})
        handle = ULONG()
        self.call("C_CreateObject", self.session, array, ULONG(len(array)), ctypes.byref(handle))
        del keep
        return handle

    def unwrap(self, parent, blob, sensitive):
        attributes = {CKA_CLASS: CKO_SECRET_KEY, CKA_KEY_TYPE: CKK_AES, CKA_TOKEN: False, CKA_PRIVATE: True}
        array, keep = self.template({**attributes, CKA_SENSITIVE: sensitive, CKA_EXTRACTABLE: True})
        mechanism, handle = Mechanism(CKM_AES_KEY_WRAP, None, 0), ULONG()
        self.call(
            "C_UnwrapKey", self.session, ctypes.byref(mechanism), parent, blob, ULONG(len(blob)), array,
            ULONG(len(array)), ctypes.byref(handle),
        )  # fmt: skip
        del keep
        return handle

    def wrap(self, parent, key):
        mechanism, out, length = Mechanism(CKM_AES_KEY_WRAP, None, 0), ctypes.create_string_buffer(64), ULONG(64)
        self.call("C_WrapKey", self.session, ctypes.byref(mechanism), parent, key, out, ctypes.byref(length))
        return out.raw[: length.value]

    def value(self, key):
        out = ctypes.create_string_buffer(32)
        array = (Attribute * 1)(Attribute(CKA_VALUE, ctypes.cast(out, ctypes.c_void_p), 32))
        self.call("C_GetAttributeValue", self.session, key, array, ULONG(1))
        return out.raw

    def plaintext_under(self, parent_value, blob):
        """The plaintext of an AES-KW blob when the wrapping key is known."""
        return self.value(self.unwrap(self.import_key(parent_value, [CKA_UNWRAP]), blob, False))

    def gcm_open(self, key_value, iv, aad, data):
        key = self.import_key(key_value, [CKA_DECRYPT])
        gcm = GcmParameters(iv, len(iv), len(iv) * 8, aad, len(aad), 128)
        mechanism = Mechanism(CKM_AES_GCM, ctypes.cast(ctypes.byref(gcm), ctypes.c_void_p), ctypes.sizeof(gcm))
        self.call("C_DecryptInit", self.session, ctypes.byref(mechanism), key)
        out, length = ctypes.create_string_buffer(len(data)), ULONG(len(data))
        self.call("C_Decrypt", self.session, data, ULONG(len(data)), out, ctypes.byref(length))
        return out.raw[: length.value]


def slots_of(body):
    """(slot number, KEK id, blob) of a page's canonical bytes."""
    tag, used = body[:8], struct.unpack(">H", body[52:54])[0]
    if tag != b"KMSPAGE1":
        raise ValueError("not a page")
    at = 54
    for slot in range(16):
        if used >> slot & 1:
            length = body[at + 37]
            yield slot, body[at : at + 16], body[at + 38 + length : at + 78 + length]
            at += 78 + length
    if at != len(body):
        raise ValueError("bytes after the last slot")


def walk(token, database):
    """The plaintext of every page key and KEK: ({(tenant, level, index): key}, {KEK id: key})."""
    pages, keks = {}, {}
    known = os.urandom(32)
    rows = "SELECT no, master_id, root_blob, height FROM tenant WHERE height > 0"
    for number, master_id, root_blob, height in database.execute(rows).fetchall():
        master = token.find({CKA_CLASS: CKO_SECRET_KEY, CKA_ID: master_id})
        top = token.unwrap(master, root_blob, True)
        top_blob = token.wrap(token.import_key(known, [CKA_WRAP]), top)
        waiting = [(height - 1, 0, token.plaintext_under(known, top_blob))]
        while waiting:
            level, index, key = waiting.pop()
            pages[number, level, index] = key
            query = "SELECT body FROM tree_page WHERE tenant_no = ? AND level = ? AND page_index = ?"
            (body,) = database.execute(query, (number, level, index)).fetchone()
            for slot, kek_id, blob in slots_of(body):
                child = token.plaintext_under(key, blob)
                if level == 0:
                    keks[kek_id] = child
                else:
                    waiting.append((level - 1, index * 16 + slot, child))
    return pages, keks


def main():
    home, sample = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
    wrapped, aad, plaintext = (bytes.fromhex(sample[name]) for name in ("wrapped", "aad", "plaintext"))
    with tempfile.TemporaryDirectory(prefix="kms-keytree-") as copy:
        copy = pathlib.Path(copy)
        shutil.copytree(home / "tokens", copy / "tokens")
        conf = (home / "softhsm2.conf").read_text().replace(str(home), str(copy))
        (copy / "softhsm2.conf").write_text(conf)
        os.environ["SOFTHSM2_CONF"] = str(copy / "softhsm2.conf")
        for file in home.glob("kms.db*"):
            shutil.copy(file, copy)
        token = Token("kms", (home / "user.pin").read_bytes())
        pages, keks = walk(token, sqlite3.connect(copy / "kms.db"))
        kek = keks[wrapped[2:18]]
        opened = token.gcm_open(kek, wrapped[18:30], wrapped[:18] + aad, wrapped[30:]) == plaintext
    json.dump({"keks": [k.hex() for k in keks.values()], "pages": [k.hex() for k in pages.values()], "opened": opened}, sys.stdout)  # fmt: skip


if __name__ == "__main__":
    main()
