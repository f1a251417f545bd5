"""ICC profiles of a few hundred bytes, and what their numbers mean in sRGB."""

import struct

import numpy as np

# X, Y, Z of red, green and blue, adapted to D50: public colorimetry; and the curve's exponent.
RGB = {
    "P3": (((0.5151, 0.2412, -0.0011), (0.292, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), 2.2),
    "Adobe": (((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)), 2.2),
    "ProPhoto": (((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249)), 1.8),
}  # fmt: skip
SRGB = np.array([(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)])


def fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def curve(exponent: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IHH", 1, round(exponent * 256), 0)


def xyz(*numbers: float) -> bytes:
    return b"XYZ " + bytes(4) + fixed(*numbers)


def profile(space: bytes, tags: dict[bytes, bytes], *, kind: bytes = b"mntr") -> bytes:
    """A profile of version 2 by its tags; one of inks meets its colours in Lab."""
    words = b"test\0"
    described = struct.pack(">4s4xI", b"desc", len(words)) + words + bytes(78)
    tags = {b"desc": described, b"wtpt": xyz(0.9642, 1, 0.8249), **tags}
    table, data, at = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack(">II", at + len(data), len(value))
        data += value
    pcs = b"Lab " if kind == b"prtr" else b"XYZ "
    size = at + len(data)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02100000, kind, space, pcs, b"acsp")
    head += bytes(28) + fixed(0.9642, 1, 0.8249) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + data


def of_rgb(name: str) -> bytes:
    primaries, exponent = RGB[name]
    tags = {}
    for letter, primary in zip(b"rgb", primaries, strict=True):
        tags |= {bytes([letter]) + b"XYZ": xyz(*primary), bytes([letter]) + b"TRC": curve(exponent)}
    return profile(b"RGB ", tags)


def of_grey(exponent: float) -> bytes:
    return profile(b"GRAY", {b"kTRC": curve(exponent)})


def of_inks() -> bytes:
    """Inks that all print the same grey: any of them alone at full strength is black."""
    nodes = [[255 if not any(node) else 0, 128, 128] for node in np.ndindex(2, 2, 2, 2)]
    line = bytes(range(256))
    table = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 2) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return profile(
        b"CMYK",
        {b"A2B0": table + line * 4 + bytes(np.array(nodes, np.uint8)) + line * 3},
        kind=b"prtr",
    )


def in_srgb(levels: np.ndarray, name: str) -> np.ndarray:
    """The levels, (..., 3) of 255, that a profile's numbers have in sRGB."""
    primaries, exponent = RGB[name]
    linear = (levels / 255) ** exponent @ np.array(primaries) @ np.linalg.inv(SRGB)
    return encoded(linear.clip(0, 1))


def encoded(linear: np.ndarray) -> np.ndarray:
    """sRGB's levels of light in [0, 1]."""
    return 255 * np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
