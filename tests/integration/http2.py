"""Goal: HTTP/2 frames made by hand over mutual TLS, to send what no client library would."""

import socket
import ssl
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """An HPACK header field, literal, not indexed, no Huffman coding."""
    name, value = name.encode(), value.encode()
    return b"\0" + _length(len(name)) + name + _length(len(value)) + value


def _length(n):
    """An HPACK integer with a prefix of seven bits."""
    if n < 127:
        return bytes([n])
    out, n = [127], n - 127
    while n >= 128:
        out.append(n % 128 | 128)
        n //= 128
    return bytes(out + [n])


def request_headers(path, **more):
    fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost", "te": "trailers"}
    fields["content-type"] = "application/grpc"
    fields.update(more)
    return b"".join(literal(name, value) for name, value in fields.items())


def connect(home, address, name="app", timeout=20):
    """A TLS connection with ALPN h2 and the identity's certificate; the caller closes it."""
    pki = home.path / "pki"
    context = ssl.create_default_context(cafile=pki / "ca.pem")
    context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
    context.set_alpn_protocols(["h2"])
    host, port = address.rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), timeout=timeout)
    return context.wrap_socket(plain, server_hostname="localhost")


def start(connection):
    """Preface and empty settings."""
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))


def send_or_closed(connection, data):
    """Send; the peer may have hung up, which is its right."""
    try:
        connection.sendall(data)
        return True
    except (ConnectionError, ssl.SSLError, TimeoutError):
        return False
