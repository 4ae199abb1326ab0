"""Goal: protobuf bytes made by hand, for messages that no well-behaved encoder would make."""


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, data):
    """A length-delimited field: string, bytes, message or map entry."""
    if isinstance(data, str):
        data = data.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


def entry(key, value):
    """An entry of a map<string, string>."""
    return field(1, key) + field(2, value)


def raw(channel, path):
    """A unary callable that sends and returns bytes as they are; `path` as in "kms.v1.DataKeyService/GenerateDataKey"."""
    return channel.unary_unary("/" + path)
