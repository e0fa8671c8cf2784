"""MPEG-4 video of part 2 (DivX, Xvid): whether a packet brings a frame.

In: packets in their order in the file. Out: whether each is one frame, or none. Must hold: nothing is decoded, and what
cannot be told is taken for a frame.

AVI has no room for frames in another order than they are shown in. DivX 5 and Xvid therefore store a B-frame behind the
frame that it is shown before, in one packet ("packed bitstream"), and a placeholder in its own place. A placeholder
alone stands for a frame that the encoder dropped: what is there is shown on. FFmpeg gives no frame for it.
"""

from __future__ import annotations

import re

_PICTURE = re.compile(rb"\x00\x00\x01\xb6")
_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f]")
#: Bytes behind a start code that hold all that is asked of it.
_HEADER_BYTES = 24


class PicturePackets:
    """What the packets of a stream hold.

    Args:
        header: the stream's own, apart from its packets; b"": it has none.

    Attributes:
        is_packed: a packet held two pictures, neither of them a placeholder.
    """

    def __init__(self, header: bytes) -> None:
        self.is_packed = False
        self._num_held = 0
        self._time_bits = time_bits(header)

    def brings_frame(self, content: bytes) -> bool:
        """Whether a frame comes of the next packet."""
        self._time_bits = time_bits(content) or self._time_bits
        starts = [found.end() for found in _PICTURE.finditer(content)]
        if not starts:
            return len(content) > 1  # one byte: a frame that DivX dropped
        num_coded = sum(self._time_bits is None or is_coded(content[at:], self._time_bits) for at in starts)
        if num_coded > 1:
            self.is_packed = True
            self._num_held += num_coded - 1
        if num_coded:
            return True
        self._num_held -= 1
        if self._num_held < 0:
            self._num_held = 0
            return False
        return True


def time_bits(content: bytes) -> int | None:
    """Bits of a picture's time, by the layer's header (ISO 14496-2, 6.2.3: vop_time_increment_resolution); None: there
    is no header in it, or one of a form that cameras do not have.
    """
    found = _LAYER.search(content)
    if found is None:
        return None
    bits = _bits(content[found.end() :])
    at = 9
    at += 8 if bits[at : at + 1] == "1" else 1  # is_object_layer_identifier
    at += 20 if bits[at : at + 4] == "1111" else 4  # aspect_ratio_info
    if bits[at : at + 1] == "1":  # vol_control_parameters, and vbv_parameters in it
        at += 84 if bits[at + 4 : at + 5] == "1" else 5
    else:
        at += 1
    shape, resolution = bits[at : at + 2], bits[at + 3 : at + 19]
    return max(1, (int(resolution, 2) - 1).bit_length()) if shape == "00" and len(resolution) == 16 else None


def is_coded(picture: bytes, bits_of_time: int) -> bool:
    """Whether a picture is there behind its start code (ISO 14496-2, 6.2.5: vop_coded), and no placeholder."""
    bits = _bits(picture)
    end_of_seconds = bits.find("0", 2)
    coded = end_of_seconds + 3 + bits_of_time  # a marker bit before the time, and one behind it
    return end_of_seconds < 0 or bits[coded : coded + 1] != "0"


def _bits(content: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in content[:_HEADER_BYTES])
