import functools
import json
import os
import re
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcmjax.coding import container, container_format
from vcmjax.coding.container import Reader, Writer, pack
from vcmjax.coding.crc import crc32c
from vcmjax.coding.salvage import Lost, Salvage
from vcmjax.errors import (
    CorruptStream,
    DataError,
    TruncatedStream,
    UnsupportedVersion,
    VcmError,
    WrongModel,
)

MODEL = bytes.fromhex("0badcafe01234567")
SINGLE = pack([b"one image"], MODEL, 3)
HEADER = 16  # of a file of blocks without size and names
ANY = {"max_images": 1 << 40, "max_positions": 1 << 60}
OLD = json.loads((Path(__file__).parent / "container_v1.json").read_text())
"""Files that the last release to write version 1 made, and what it was given."""
PAGE = Path(__file__).parents[2] / "docs" / "format.md"


def payloads_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.bytes(int(n)) for n in lengths]


@functools.cache
def three_blocks():
    """A file of 600 images, at most 3 bytes each, and those images."""
    payloads = payloads_of(np.random.default_rng(1).integers(0, 4, 600))
    return pack(payloads, MODEL, 3), payloads


def read_all(data):
    """Everything a file says: payloads, levels, fingerprint, size, level."""
    reader = Reader(data, **ANY)
    images = list(reader)
    assert len(images) == len(reader) == reader.info.images
    assert sum(reader.parts()) == len(data)
    return [i.payload for i in images], [i.level for i in images], *reader.info[:3]


def names_of(data):
    """The names that a file stores, None if it has none."""
    reader = Reader(data, **ANY)
    return [entry.name for entry in reader.entries()] if reader.info.named else None


def repacked(data):
    """The file that a writer would make of what a reader finds."""
    payloads, levels, fingerprint, size, level = read_all(data)
    identity = None if len(payloads) == 1 else Reader(data, **ANY).header[-4:]
    own = levels if level is None else level
    return pack(payloads, fingerprint, own, size, names_of(data), identity)


def write(path, payloads):
    with Writer(path, MODEL, 3) as writer:
        for payload in payloads:
            writer.append(payload)


def resealed(data):
    """A file whose checksums fit again, after its fields were changed; None if there are none."""
    crc = container_format.checksum
    if data[2] & 1:
        return data[:-4] + crc(data[:-4])
    file = Salvage(data, **ANY)
    header = file.header
    at, seal, out = len(header), 0, bytearray(header)
    try:
        while True:
            record = file.record(at, 0)
            if not record.images:
                break
            body = data[at : record.end - 4]
            checksum = crc(body, crc32c(header))
            seal = crc32c(checksum, seal)
            out += body + checksum
            at = record.end
        end = data[at : record.body] + seal.to_bytes(4, "little")
        return bytes(out) + end + crc(end, crc32c(header)) + data[record.end :]
    except VcmError:
        return bytes(out) + data[at:]


def blocks_of(data):
    """(start, end) of each block and of the end record."""
    file, at, found = Salvage(data), len(Salvage(data).header), []
    while at < len(data):
        record = file.record(at, 0)
        found.append((at, record.end))
        at = record.end
    return found


def test_checksum_is_the_castagnoli_crc():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of its catalogue entry
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4, and so on
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


@given(st.binary(), st.binary())
def test_checksum_goes_on_from_where_it_stopped(first, second):
    assert crc32c(second, crc32c(first)) == crc32c(first + second)


LENGTHS = st.sampled_from([0, 1, 20, 127, 128, 150, 16383, 16384, 70000])
NAME = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40)
SIZES = st.none() | st.tuples(st.integers(1, 256), st.integers(1, 256))


@given(
    st.lists(LENGTHS, max_size=6) | st.sampled_from([[9] * n for n in (255, 256, 257, 512, 600)]),
    SIZES,
    st.none() | st.integers(0, 255),
    st.binary(min_size=8, max_size=8),
    st.none() | st.lists(NAME, min_size=1, max_size=8),
)
@settings(max_examples=60)
def test_what_is_read_is_what_was_written(
    tmp_path_factory, lengths, size, level, fingerprint, some
):
    payloads = payloads_of(lengths)
    levels = [level if level is not None else k * 7 % 256 for k in range(len(payloads))]
    own = levels if level is None else level
    names = some and [some[k % len(some)] for k in range(len(payloads))]
    data = pack(payloads, fingerprint, own, size, names, b"abcd")
    stored = levels[0] if level is None and len(payloads) == 1 else level
    assert read_all(data) == (payloads, levels, fingerprint, size, stored)
    assert names_of(data) == names
    reader = Reader(data, fingerprint, **ANY)
    assert [reader[k] for k in range(len(reader))] == list(zip(payloads, levels, strict=True))
    assert reader.parts().payload == sum(lengths)
    bare = pack(payloads, fingerprint, own, size, None, b"abcd")
    if payloads:  # beside the names themselves only a byte of flags and longer numbers of bytes
        assert 0 <= len(data) - len(bare) - reader.parts().names <= 1 + 2 * len(payloads)
    path = tmp_path_factory.mktemp("vcm") / "a.vcm"
    with Writer(
        path, fingerprint, level, size, named=names is not None, identity=b"abcd"
    ) as writer:
        for k, payload in enumerate(payloads):
            writer.append(payload, levels[k], names and names[k])
    assert path.read_bytes() == data and os.listdir(path.parent) == ["a.vcm"]


@pytest.mark.parametrize("length", [0, 20, 150, 16384])
def test_one_image_costs_16_bytes_over_its_payload(length):
    data = pack([bytes(length)], MODEL, 3)
    assert len(data) == length + 16
    assert Reader(data).parts() == (12, 0, 0, length, 4)


@pytest.mark.parametrize("case", OLD.values(), ids=OLD)
def test_files_of_version_1_read_as_ever(case):
    data, fingerprint = bytes.fromhex(case["file"]), bytes.fromhex(case["fingerprint"])
    payloads = [bytes.fromhex(payload) for payload in case["payloads"]]
    one = not isinstance(case["level"], list)
    levels = [case["level"]] * len(payloads) if one else case["level"]
    # A model's fingerprint is eight bytes now, of which these files hold the first four.
    reader = Reader(data, fingerprint + b"more")
    images = list(zip(payloads, levels, strict=True))
    assert list(reader) == images == [image for _, image in Salvage(data, fingerprint + b"more")]
    assert reader.info.size == (tuple(case["size"]) if case["size"] else None)
    assert reader.info.version == 1 and not reader.info.named
    assert sum(reader.parts()) == len(data)
    with pytest.raises(WrongModel):
        Reader(data, b"12345678")


def test_every_bit_flip_in_a_file_of_version_1_is_noticed():
    for name in ("one image of another size", "a level and a size of their own"):
        data = bytes.fromhex(OLD[name]["file"])
        for bit in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(VcmError):
                list(Reader(bytes(damaged)))


@pytest.mark.parametrize("count", [1, 2, 300])
def test_numbered_names_cost_a_few_bytes_each(count):
    names = [f"camera_front/frame_{k:06d}.png" for k in range(count)]
    data = pack([b"x"] * count, MODEL, 3, names=names)
    assert names_of(data) == names
    assert Reader(data).parts().names <= 32 + 5 * count


def test_names_that_a_reader_would_not_take_are_not_written():
    for name in ("", "a\0b", "x" * 1025, "é" * 513):
        with pytest.raises(ValueError, match="`name` is"):
            pack([b""], MODEL, 3, names=[name])
    undecodable = os.fsdecode(b"caf\xe9.png")
    assert names_of(pack([b""] * 2, MODEL, 3, names=[undecodable, "x" * 1024])) == [
        undecodable,
        "x" * 1024,
    ]
    with pytest.raises(ValueError, match="none in a file without names"):
        container._Encoder(MODEL, 3, None, False, None).append(b"", None, "a")


def test_names_that_inflate_without_end_are_refused_in_little_memory():
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(bytes(100 << 20)) + deflate.flush()
    header = pack([b""], MODEL, 3, names=["a"])[:13]
    for section in (packed, packed[:100], b"", b"\xff" * 9):
        data = header + container_format.encode_varint(len(section)) + section
        data += container_format.checksum(data)
        tracemalloc.start()
        with pytest.raises(CorruptStream, match=r"names that are not those|<= 4194304"):
            Reader(data)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
        tracemalloc.stop()


@pytest.mark.slow
def test_20000_damaged_sections_of_names_give_as_many_names_or_a_typed_error():
    # The checksums fit, as a stranger would make them; what is inflated may be anything.
    rng = np.random.default_rng(0)
    names = [f"camera/{k:03d}.png" for k in range(300)]
    typed = 0
    for trial in range(20_000):
        count = (1, 2, 300)[trial % 3]
        data = bytearray(pack([b"x"] * count, MODEL, 3, names=names[:count]))
        file = Salvage(bytes(data))
        start = len(file.header) if count == 1 else file.record(len(file.header), 0).body
        stop = start + Reader(bytes(data)).parts().names if count < 256 else start + 300
        for at in rng.integers(start, stop, 1 + trial % 4):
            data[at] = rng.integers(256)
        try:
            found = names_of(resealed(bytes(data)))
        except VcmError:
            typed += 1
        else:
            assert len(found) == count and all(found) and not any("\0" in name for name in found)
    assert 5_000 < typed < 20_000


@pytest.mark.parametrize("several", [False, True])
def test_work_beyond_what_bytes_can_pay_for_needs_a_limit_raised_by_name(several):
    many = pack([b""] * 100_000, MODEL, 3)  # collapsed, as it were: no image takes a byte
    large = pack([b""] * (1 + several), MODEL, 3, (256, 256))
    for data, name, found in (
        (many, "images", 100_000),
        (large, "positions", 65536 * (1 + several)),
    ):
        for opened in (Reader, Salvage):
            with pytest.raises(DataError, match=f"announces .* {name} .* raise max_{name}"):
                list(opened(data))
            assert list(opened(data, **{f"max_{name}": found}))
            with pytest.raises(DataError, match=f"expected at most {found - 1}"):
                list(opened(data, **{f"max_{name}": found - 1}))


def test_the_poorest_real_streams_are_within_what_bytes_can_pay_for():
    # 20 bits for an image of 128×128 pixels, which has 16×16 positions.
    for count in (1, 2, 1000, 5000):
        data = pack([b"abc"] * count, MODEL, 3, (16, 16))
        assert len(Reader(data)) == len(list(Salvage(data))) == count


def test_the_tail_of_another_file_of_the_same_model_is_lost_not_joined():
    payloads = payloads_of([5] * 600)
    one, other = (pack(payloads, MODEL, 3) for _ in range(2))
    start, end = blocks_of(one)[1]
    for cut in (start, start + 40, end):
        salvage = Salvage(one[:cut] + other[start:])
        assert [k for k, _ in salvage] == list(range(256 if cut < end else 512))
        (lost,) = salvage.lost
        assert lost.first == (256 if cut < end else 512) and lost.stop is None


@pytest.mark.parametrize("lengths", [[150] * 256, [20, 150] * 128, range(20, 148, 1)])
@pytest.mark.parametrize("levels", [3, [k % 16 for k in range(256)]])
def test_an_image_among_256_costs_at_most_two_bytes_over_its_payload(lengths, levels):
    payloads = payloads_of([*lengths, *lengths][:256])
    data = pack(payloads, MODEL, levels)
    assert len(data) - sum(map(len, payloads)) <= 2 * 256


def test_every_single_bit_flip_is_noticed():
    several, _ = three_blocks()
    assert len(blocks_of(several)) == 4
    named = pack([b"abc", b"x"], MODEL, 3, names=["a.png", "b.png"])
    alone = pack([b"abc"], MODEL, 3, names=["a.png"])
    for data in (SINGLE, several, named, alone):
        for bit in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises((CorruptStream, TruncatedStream, UnsupportedVersion)):
                read_all(bytes(damaged))


def test_every_truncation_is_noticed():
    several, _ = three_blocks()
    for end in range(len(several)):
        with pytest.raises(TruncatedStream, match=f"ends after {end} bytes inside"):
            Reader(several[:end])
    for end in range(len(SINGLE)):
        # Its length is stored nowhere, so that the checksum alone can tell.
        with pytest.raises(TruncatedStream if end < 16 else CorruptStream):
            Reader(SINGLE[:end])


def test_truncation_names_file_block_and_lengths(tmp_path):
    path = tmp_path / "x.vcm"
    several, _ = three_blocks()
    (start, end) = blocks_of(several)[2]
    path.write_bytes(several[: start + 37])
    message = (
        f"x.vcm: ends after {start + 37} bytes inside block 2; expected {end}; .*fetch it again"
    )
    with pytest.raises(TruncatedStream, match=message):
        Reader(path)


@pytest.mark.parametrize("extra", [b"\0", b"\n", SINGLE, container_format.SYNC + bytes(40)])
def test_trailing_bytes_are_refused(extra):
    several, _ = three_blocks()
    for data in (SINGLE, several, pack([], MODEL, 3)):
        with pytest.raises(CorruptStream):
            Reader(data + extra)


def test_a_moved_dropped_repeated_or_foreign_block_is_refused():
    data, payloads = three_blocks()
    other = pack(payloads, MODEL, 3)
    head = data[: blocks_of(data)[0][0]]
    a, b, c, end = (data[i:j] for i, j in blocks_of(data))
    foreign = other[slice(*blocks_of(other)[1])]
    for wrong in [(b, a, c), (a, c), (a, b), (a, a, b, c), (a, foreign, c)]:
        with pytest.raises(CorruptStream):
            Reader(head + b"".join(wrong) + end)


def test_another_model_is_named_beside_the_expected_one():
    for data in (SINGLE, three_blocks()[0]):
        other = MODEL[:-1] + b"!"
        with pytest.raises(WrongModel, match="model 0badcafe01234567; expected 0badcafe01234521"):
            Reader(data, other)
        with pytest.raises(WrongModel):
            list(Salvage(data, other))


def test_a_later_version_asks_for_an_upgrade():
    data = SINGLE[:2] + bytes([SINGLE[2] + 0x10]) + SINGLE[3:]
    with pytest.raises(UnsupportedVersion, match="version 3; expected 2 or less; upgrade"):
        Reader(data)
    for flags in (0, 2, 3, 4, 128):  # none, layers, layers and names, frames, one of no meaning
        data = SINGLE[:2] + bytes([SINGLE[2] | 8, flags]) + SINGLE[3:]
        with pytest.raises(UnsupportedVersion, match=f"flags {flags}, of layers, frames or others"):
            Reader(data)


def test_image_beside_a_damaged_block_still_reads():
    data, payloads = three_blocks()
    damaged = bytearray(data)
    damaged[blocks_of(data)[1][0] + 100] ^= 8
    reader = Reader(bytes(damaged))
    assert reader[0].payload == payloads[0] and reader[599].payload == payloads[599]
    with pytest.raises(CorruptStream, match="block 1 has checksum"):
        reader[256]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("place", ["sync", "count", "body", "checksum", "all", "gone"])
def test_salvage_gives_every_other_block_and_says_what_is_lost(number, place):
    data, payloads = three_blocks()
    start, end = blocks_of(data)[number]
    damaged = bytearray(data)
    where = {"sync": start, "count": start + 3, "body": start + 99, "checksum": end - 1}
    if place == "gone":
        del damaged[start:end]
        end = start
    else:
        for at in range(start, end) if place == "all" else [where[place]]:
            damaged[at] ^= 0x55
    salvage = Salvage(bytes(damaged))
    found = dict(salvage)
    first, stop = 256 * number, min(256 * number + 256, 600)
    assert found == {k: (p, 3) for k, p in enumerate(payloads) if not first <= k < stop}
    assert salvage.lost == [Lost(start, end, first, stop)] and salvage.info.images == 600


def test_salvage_of_a_truncated_file_gives_the_whole_blocks():
    data, payloads = three_blocks()
    start, _ = blocks_of(data)[1]
    salvage = Salvage(data[: start + 50])
    assert dict(salvage) == {k: (p, 3) for k, p in enumerate(payloads[:256])}
    assert salvage.lost == [Lost(start, start + 50, 256, None)]


def test_salvage_of_an_intact_file_loses_nothing():
    for data in (SINGLE, three_blocks()[0], pack([], MODEL, 3)):
        salvage = Salvage(data)
        assert [image for _, image in salvage] == list(Reader(data)) and not salvage.lost


def test_salvage_says_when_the_header_is_damaged():
    data = bytearray(three_blocks()[0])
    data[5] ^= 1
    with pytest.raises(CorruptStream, match="all is lost: the header is damaged"):
        list(Salvage(bytes(data)))


def test_salvage_of_nothing_but_false_blocks_takes_no_quadratic_time():
    # Each of the million candidates claims all that follows, which its checksum would cover.
    size = 1 << 23
    fake = container_format.SYNC + b"\x01\x00" + container_format.encode_varint(size // 2)
    data = pack([], MODEL, 3)[:HEADER] + fake * (size // len(fake))
    began = time.process_time()
    with pytest.raises(CorruptStream):
        list(Salvage(data))
    assert time.process_time() - began < 5  # two hours without a limit


def test_random_access_reads_the_headers_and_one_block(tmp_path, monkeypatch):
    path, payloads = tmp_path / "a.vcm", payloads_of([60] * 256 * 40)
    path.write_bytes(pack(payloads, MODEL, 3))
    taken, read = [], container_format.File.read
    monkeypatch.setattr(
        container_format.File, "read", lambda *a: taken.append(len(read(*a))) or read(*a)
    )
    with Reader(path) as reader:
        assert sum(taken) <= 32 + 41 * 21 + 21
        assert len(taken) <= 2 + 41 * 2
        taken.clear()
        assert reader[5000].payload == payloads[5000] and reader[-1].payload == payloads[-1]
        assert sum(taken) <= 2 * (256 * 61 + 30)
        with pytest.raises(IndexError):
            reader[len(payloads)]


def test_writing_and_reading_take_the_memory_of_a_block(tmp_path):
    path, payload = tmp_path / "a.vcm", bytes(1 << 12)
    crc32c(b"")  # compiled outside the measurement
    tracemalloc.start()
    try:
        with Writer(path, MODEL, 3) as writer:
            for _ in range(256 * 24):
                writer.append(payload)
        with Reader(path) as reader:
            assert sum(len(image.payload) for image in reader) == 24 << 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20  # the file has 24 MiB, a block 1
    finally:
        tracemalloc.stop()


def lying_files():
    """Files whose checksums are right and whose numbers promise what is not there."""
    head = pack([], MODEL, 3)[:HEADER]
    body = container_format.encode_numbers([2, 2]) + b"abcd"
    for images, number, length in [
        (2**34, 0, len(body)),
        (257, 0, len(body)),
        (2, 2**34, len(body)),
        (2, 0, 2**34),
        (2, 0, 2**30),
        (256, 0, len(body)),
        (1, 0, len(body)),
    ]:
        numbers = map(container_format.encode_varint, (images, number, length))
        block = container_format.SYNC + b"".join(numbers) + body
        block += container_format.checksum(block, crc32c(head))
        seal = container_format.checksum(block[-4:])
        end = container_format.SYNC + b"\0" + container_format.encode_varint(images) + seal
        yield head + block + end + container_format.checksum(end, crc32c(head))
    for lengths in [
        b"\xff\xff\xff\xff\x7f\x00",
        b"\x02\xff",
        b"\x02\x16" + bytes(6),
        b"\x02\x01\x03",
    ]:
        block = container_format.SYNC + bytes([2, 0, len(lengths) + 4]) + lengths + b"abcd"
        block += container_format.checksum(block, crc32c(head))
        seal = container_format.checksum(block[-4:])
        end = container_format.SYNC + b"\0\x02" + seal
        yield head + block + end + container_format.checksum(end, crc32c(head))


def test_numbers_that_promise_too_much_allocate_nothing():
    crc32c(b"")
    for data in lying_files():
        tracemalloc.start()
        try:
            with pytest.raises((CorruptStream, TruncatedStream)):
                read_all(data)
            assert tracemalloc.get_traced_memory()[1] < 200_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("size", [b"\x00\x04", b"\x80\x80\x04\x02", b"\x84\x00\x04", b"\xff" * 6])
def test_feature_sizes_beyond_the_limit_are_refused(size):
    head = SINGLE[:2] + bytes([SINGLE[2] | 2]) + MODEL + size + b"\x03"
    with pytest.raises((CorruptStream, TruncatedStream)):
        Reader(head + b"payload" + container_format.checksum(head + b"payload"))


def test_a_single_image_beyond_the_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.vcm"
    with path.open("wb") as file:
        file.write(SINGLE)
        file.truncate(1 << 40)  # sparse
    with pytest.raises(CorruptStream, match="expected <= 4194304"):
        Reader(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fingerprint": b"abcd"}, "`fingerprint` has 4 bytes; expected 8"),
        ({"identity": b"abc"}, "`identity` has 3 bytes; expected 4"),
        ({"names": [None]}, "`name` is None; expected a name for every image"),
        ({"level": 256}, "`level` is 256; expected 0..255"),
        ({"level": [-1]}, "`level` is -1"),
        ({"level": [None]}, "`level` is None"),
        ({"size": (0, 3)}, "`size` is"),
        ({"size": (257, 256)}, "<= 65536"),
        ({"payloads": [bytes(container.MAX_PAYLOAD + 1)]}, "at most 4194304"),
    ],
)
def test_what_no_reader_would_take_is_not_written(given, message):
    arguments = {"payloads": [b"p"], "fingerprint": MODEL, "level": 3} | given
    with pytest.raises(ValueError, match=re.escape(message)):
        pack(**arguments)


def test_a_missing_file_or_a_directory_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.vcm"):
        for opening in (Reader, Salvage):
            with pytest.raises(DataError, match=f"{path}: cannot be read: "):
                opening(path)
    with (
        pytest.raises(DataError, match=r"none/a\.vcm: cannot be written: No such file"),
        Writer(tmp_path / "none" / "a.vcm", MODEL, 3),
    ):
        pass
    (tmp_path / "dir").mkdir()
    with (
        pytest.raises(DataError, match="dir: cannot be written: "),
        Writer(tmp_path / "dir", MODEL, 3),
    ):
        pass
    assert os.listdir(tmp_path) == ["dir"]


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")  # POSIX; a limit on file size acts like a full disk
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(DataError, match=r"a\.vcm: cannot be written: .*free space"):
            write(tmp_path / "a.vcm", [bytes(1000)] * 600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_an_exception_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.vcm"
    path.write_bytes(SINGLE)
    with pytest.raises(TypeError):
        write(path, [b"new"] * 300 + ["no bytes"])
    assert path.read_bytes() == SINGLE and os.listdir(tmp_path) == ["a.vcm"]


def test_an_image_after_the_end_is_refused(tmp_path):
    with Writer(tmp_path / "a.vcm", MODEL, 3) as writer:
        writer.append(b"in time")
    with pytest.raises(ValueError, match="not open"):
        writer.append(b"late")


WRITE_FOR_EVER = """
import sys
from vcmjax.coding.container import Writer
with Writer(sys.argv[1], b"abcdefgh", 3) as writer:
    for k in range(10**9):
        writer.append(bytes(200))
        if k == 3000:
            print("writing", flush=True)
"""


def test_a_killed_writer_leaves_no_file_under_the_final_name(tmp_path):
    path = tmp_path / "a.vcm"
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.kill()
    names = os.listdir(tmp_path)
    assert len(names) == 1 and re.fullmatch(r"a\.vcm\.part-[0-9a-f]{16}", names[0])
    write(path, [b"new"] * 3)
    assert os.listdir(tmp_path) == ["a.vcm"]


def test_a_pipe_or_device_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        for opened in (Reader, Salvage):
            with pytest.raises(DataError, match="cannot be read: it is no regular file"):
                opened(path)
        with pytest.raises(DataError, match="cannot be written: it is no regular file"):
            write(path, [b""])


def test_opening_a_file_imports_no_jax():
    code = "import sys, vcmjax.coding.container; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


FIXED = {"identity": b"same"}
SAMPLES = [
    pack([b"payload"], MODEL, 3),
    pack([b"payload"], MODEL, 3, (4, 300)),
    pack([b"payload"], MODEL, 3, names=["a.png"]),
    pack([], MODEL, [], (4, 4), **FIXED),
    pack([b"", b"ab", b"cdefg"], MODEL, 3, **FIXED),
    pack([b"", b"ab", b"cdefg"], MODEL, 3, names=["a/x.png", "b/x.png", "b/y.png"], **FIXED),
    pack([b"abc", b"abd"], MODEL, [3, 200], (16, 16), **FIXED),
    pack([b""] * 257, MODEL, 3, **FIXED),
    pack([b""] * 513 + [b"x"], b"\1\2\3\4\5\6\7\x08", 3, **FIXED),
    *(bytes.fromhex(case["file"]) for case in OLD.values()),
]


def mutated(rng, draw):
    """A file that is damaged, and, for one in three, given the checksums that fit the damage."""
    data = bytearray(SAMPLES[draw(len(SAMPLES))])
    for _ in range(1 + draw(3)):
        kind, at = draw(6), draw(len(data) + 1)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw(8)
        elif kind == 1 and at < len(data):
            data[at] = (0, 1, 127, 128, 255)[draw(5)]
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + draw(6)]
        elif kind == 4:
            other = SAMPLES[draw(len(SAMPLES))]
            start = draw(len(other))
            data[at:at] = other[start : start + draw(40)]
        elif kind == 5:
            data[at : at + draw(9)] = rng.bytes(draw(9))
    if draw(3) == 0 and len(data) > 16:
        try:
            return resealed(bytes(data)), True
        except VcmError:
            pass
    return bytes(data), False


def test_200000_damaged_files_end_in_the_right_data_or_a_typed_error():
    rng = np.random.default_rng(0)
    numbers = iter(rng.integers(0, 1 << 30, 6_000_000).tolist())

    def draw(n):
        return next(numbers) % n

    intact, typed = 0, 0
    for trial in range(200_000):
        data, sealed = mutated(rng, draw) if trial % 20 else (rng.bytes(draw(64)), False)
        try:
            read_all(data)
        except VcmError:
            typed += 1
        else:
            intact += 1
            # A reader takes only what a writer makes of the content, so equal bytes are right data;
            # with checksums as they were, the bytes can only be those of a sample. Of names the
            # writer's compression is one of several; what they are is compared instead.
            assert sealed or data in SAMPLES
            if Reader(data, **ANY).info.version > 1:
                again = repacked(data)
                assert again == data or names_of(again) == names_of(data) is not None
        if trial % 8 == 0:
            salvage_or_error(data)
    assert intact > 1000 and typed > 100_000


def salvage_or_error(data):
    try:
        salvage = Salvage(data, MODEL, **ANY)
        found = [index for index, _ in salvage]
    except VcmError:
        return
    assert salvage.info.fingerprint in (MODEL, MODEL[:4])
    assert found == sorted(set(found))
    lost = salvage.lost
    assert all(lost[k].end <= lost[k + 1].start for k in range(len(lost) - 1))


def test_the_page_on_the_format_shows_what_the_code_writes():
    dumps = re.findall(r"```hex\n(.*?)```", PAGE.read_text(), re.S)
    shown = [bytes.fromhex("".join(re.findall(r"^([0-9a-f ]+)\|", d, re.M))) for d in dumps]
    model, identity = bytes.fromhex("3f9a6c0158e2d7b4"), bytes.fromhex("c4910f2e")
    two = [b"\x5a\x01\x9c", b"\x77"], model, [3, 5], (20, 30)
    old, *new = shown
    assert new == [
        pack([b"\x5a\x01\x9c"], model, 3),
        pack(*two, identity=identity),
        pack([b"\x5a\x01\x9c"], model, 3, names=["a/1.png"]),
    ]
    assert all(repacked(data) == data for data in new)
    assert read_all(old) == ([b"\x5a\x01\x9c"], [3], model[:4], None, 3)
