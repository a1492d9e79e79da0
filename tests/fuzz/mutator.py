"""What a disk, a transfer or a stranger does to a file: seeded damages of bytes."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence

EXTREMES = (0, 1, -1, 2, 127, 128, 255, 32767, 32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))
WORDS = (
    *("", "null", "nan", "inf", "-1", "0", "1e999", "9" * 400, "[]", "{}", "true", "~", "a: b: c", "&a [*a]"),
    *("\x00", "é", "\u202e", "=1+1", '"', "\n", "\r", ",", ";", "\t", "..", "/etc/passwd", "%s{}", "!!python/name:x"),
)
HEADER = 512  # bytes in which most formats keep their numbers


def flip(data: bytearray, draw: random.Random) -> None:
    """Turn one to eight bits."""
    for _ in range(draw.randint(1, 8)):
        data[_place(data, draw)] ^= 1 << draw.randrange(8)


def cut(data: bytearray, draw: random.Random) -> None:
    """Keep the beginning."""
    del data[draw.randrange(len(data)) :]


def zero(data: bytearray, draw: random.Random) -> None:
    """A block of zeros."""
    start = _place(data, draw)
    stop = min(len(data), start + draw.choice((1, 4, 16, 512)))
    data[start:stop] = bytes(stop - start)


def extreme(data: bytearray, draw: random.Random) -> None:
    """A number at the edge of its type in the place of another."""
    size, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
    value = draw.choice(EXTREMES) % 2 ** (8 * size)
    start = _place(data, draw)
    data[start : start + size] = value.to_bytes(size, order)


def float_extreme(data: bytearray, draw: random.Random) -> None:
    """A floating-point number that is none, infinite, huge or tiny."""
    value = draw.choice((float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-42, 0.0))
    start = _place(data, draw) // 4 * 4
    data[start : start + 4] = struct.pack("<f", value)


def repeat(data: bytearray, draw: random.Random) -> None:
    """A block twice."""
    start = _place(data, draw)
    data[start:start] = data[start : start + draw.choice((1, 8, 64))]


def word(data: bytearray, draw: random.Random) -> None:
    """A word of a text in the place of some characters."""
    start = draw.randrange(len(data))
    data[start : start + draw.randint(0, 12)] = draw.choice(WORDS).encode(draw.choice(("utf-8", "utf-16-le")))


BINARY = (flip, cut, zero, extreme, extreme, float_extreme, repeat)
TEXT = (flip, cut, zero, repeat, word, word, word)


def mutated(seeds: Sequence[bytes], draw: random.Random, damages: Sequence[Callable[..., None]]) -> bytes:
    """One of the seeds after one to four damages, or with the end of another."""
    data = bytearray(draw.choice(seeds))
    if draw.random() < 0.1:
        other = draw.choice(seeds)
        data[draw.randrange(len(data)) :] = other[draw.randrange(len(other)) :]
    for _ in range(draw.randint(1, 4)):
        if data:
            draw.choice(damages)(data, draw)
    return bytes(data)


def with_checksums(png: bytes) -> bytes:
    """A PNG whose chunks have the checksums that fit them, so that damage is not found by those."""
    found, start = bytearray(png[:8]), 8
    while start + 12 <= len(png):
        length = int.from_bytes(png[start : start + 4], "big")
        chunk = png[start + 4 : start + 8 + length]
        found += png[start : start + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        start += 12 + length
    return bytes(found)


def _place(data: bytearray, draw: random.Random) -> int:
    """A position, every other time among the first bytes."""
    return draw.randrange(min(len(data), HEADER) if draw.random() < 0.5 else len(data))
