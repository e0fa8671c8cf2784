"""MPEG-4 video as DivX 5 and Xvid store it: two pictures in a packet, and placeholders."""

from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.conftest import frame_numbers, write_clip
from vlm_crash.video import FrameSampling, read_frames
from vlm_crash.video.container import scan_packets
from vlm_crash.video.mpeg4 import is_coded, time_bits
from vlm_crash.video.preflight import examine

PICTURE, DIVX = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p"


def placeholder(header: bytes) -> bytes:
    """A picture that is not there (ISO 14496-2, 6.2.5): P, no second more, time 0, vop_coded 0."""
    length = time_bits(header)
    assert length is not None
    bits = "0101" + "0" * length + "100"
    bits += "1" * (-len(bits) % 8)
    return PICTURE + int(bits, 2).to_bytes(len(bits) // 8, "big")


def packed(contents: list[bytes], header: bytes) -> list[bytes]:
    """I P B P B ... becomes I (PB) N (PB) N ..., and its first packet says so."""
    coding = [content[content.index(PICTURE) + 4] >> 6 for content in contents]
    found: list[bytes] = []
    for content, kind in zip(contents, coding, strict=True):
        if kind == 2:
            found[-1] += content
            found.append(placeholder(header))
        else:
            found.append(content)
    at = found[0].index(PICTURE)
    return [found[0][:at] + DIVX + found[0][at:], *found[1:]]


def stored(path: Path, source: Path, change) -> Path:
    """The packets of an AVI in another file, changed, their time stamps counted."""
    with av.open(str(source)) as opened, av.open(str(path), "w") as container:
        stream = opened.streams.video[0]
        copy = container.add_stream_from_template(stream)
        packets = [packet for packet in opened.demux(stream) if packet.size]
        header = stream.codec_context.extradata or bytes(packets[0])
        for number, content in enumerate(change([bytes(packet) for packet in packets], header)):
            packet = av.Packet(content)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = stream.time_base, copy
            packet.is_keyframe = number == 0
            container.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
def test_two_pictures_in_a_packet_are_two_frames(tmp_path, suffix):
    """Their time stamps are of packets in another order than the frames': FFmpeg gives 0, 2, 1, 4, 3 by them."""
    how = {"bf": "1", "g": "100", "qmin": "1", "qmax": "1", "b_strategy": "0"}
    source = write_clip(tmp_path / "plain.avi", num_frames=41, codec="mpeg4", **how)
    path = stored(tmp_path / f"packed.{suffix}", source, packed)
    facts, frames = examine(path), read_frames(path, FrameSampling(41))
    assert frame_numbers(frames.frames_FHWC) == list(range(41))
    np.testing.assert_allclose(frames.times_s, np.arange(41) / 10, atol=2e-3)
    assert (facts.num_frames, facts.damage, frames.damage) == (41, None, None)
    assert facts.duration_s == pytest.approx(frames.info.duration_s) == pytest.approx(4.1, abs=2e-3)
    few = read_frames(path, FrameSampling(8))
    assert frame_numbers(few.frames_FHWC) == list(few.indices)


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
def test_a_placeholder_shows_the_frame_before_it_on(tmp_path, suffix):
    """Frames that an encoder dropped are no damage, and the others keep their times."""
    source = write_clip(tmp_path / "plain.avi", codec="mpeg4", bf="0", g="1", qmin="1", qmax="1")
    dropped = (10, 11, 30)

    def drop(contents: list[bytes], header: bytes) -> list[bytes]:
        return [placeholder(header) if number in dropped else one for number, one in enumerate(contents)]

    path = stored(tmp_path / f"dropped.{suffix}", source, drop)
    facts, frames = examine(path), read_frames(path, FrameSampling(37))
    kept = [number for number in range(40) if number not in dropped]
    assert frame_numbers(frames.frames_FHWC) == kept
    np.testing.assert_allclose(frames.times_s, np.array(kept) / 10, atol=2e-3)
    assert (facts.num_frames, facts.damage, frames.damage) == (37, None, None)


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_a_placeholder_behind_a_picture_is_no_second_frame(tmp_path, suffix):
    """In its packet; those that stand alone later are still no frames, and the clip is entered at its keyframes."""
    source = write_clip(tmp_path / "plain.avi", codec="mpeg4", bf="0", g="1", qmin="1", qmax="1")

    def change(contents: list[bytes], header: bytes) -> list[bytes]:
        for number in (5, 6):
            contents[number] += placeholder(header)
        return [placeholder(header) if number in (10, 30) else one for number, one in enumerate(contents)]

    path = stored(tmp_path / f"odd.{suffix}", source, change)
    facts, frames, scan = examine(path), read_frames(path, FrameSampling(38)), scan_packets(path)
    kept = [number for number in range(40) if number not in (10, 30)]
    assert frame_numbers(frames.frames_FHWC) == kept and scan.info.num_frames == facts.packet_frames == 38
    np.testing.assert_allclose(frames.times_s, np.array(kept) / 10, atol=2e-3)
    assert (facts.num_frames, facts.damage, frames.damage) == (38, None, None) and scan.keyframes is not None


def test_headers_are_read_as_they_are_written():
    """Xvid's, at 25 frames a second, and its placeholder; without a header nothing is called one."""
    header = bytes.fromhex("000001b0f5000001b5090000010000000120 08bc04068400670c0810 18518f")
    assert time_bits(header) == 5 and time_bits(header[:16]) is None
    assert not is_coded(placeholder(header)[4:], 5) and is_coded(b"\x50\x7f", 5)
