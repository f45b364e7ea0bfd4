import functools
import os
import re
import subprocess
import sys
import time
import tracemalloc
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

MODEL = bytes.fromhex("0badcafe")
SINGLE = pack([b"one image"], MODEL, 3)
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
    reader = Reader(data)
    images = list(reader)
    assert len(images) == len(reader) == reader.info.images
    return [i.payload for i in images], [i.level for i in images], *reader.info[:3]


def repacked(data):
    """The file that a writer would make of what a reader finds."""
    payloads, levels, fingerprint, size, level = read_all(data)
    return pack(payloads, fingerprint, levels if level is None else level, size)


def write(path, payloads):
    with Writer(path, MODEL, 3) as writer:
        for payload in payloads:
            writer.append(payload)


def resealed(data):
    """A file whose checksums fit again, after its fields were changed; None if there are none."""
    crc = container_format.checksum
    if data[2] & 1:
        return data[:-4] + crc(data[:-4])
    header = Salvage(data).header
    at, seal, out = len(header), 0, bytearray(header)
    try:
        while True:
            record = Salvage(data).record(at, 0)
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
SIZES = st.none() | st.tuples(st.integers(1, 256), st.integers(1, 256))


@given(
    st.lists(LENGTHS, max_size=6) | st.sampled_from([[9] * n for n in (255, 256, 257, 512, 600)]),
    SIZES,
    st.none() | st.integers(0, 255),
    st.binary(min_size=4, max_size=4),
)
@settings(max_examples=60)
def test_what_is_read_is_what_was_written(tmp_path_factory, lengths, size, level, fingerprint):
    payloads = payloads_of(lengths)
    levels = [level if level is not None else k * 7 % 256 for k in range(len(payloads))]
    data = pack(payloads, fingerprint, levels if level is None else level, size)
    stored = levels[0] if level is None and len(payloads) == 1 else level
    assert read_all(data) == (payloads, levels, fingerprint, size, stored)
    reader = Reader(data, fingerprint)
    assert [reader[k] for k in range(len(reader))] == list(zip(payloads, levels, strict=True))
    assert sum(reader.parts()) == len(data) and reader.parts().payload == sum(lengths)
    path = tmp_path_factory.mktemp("vcm") / "a.vcm"
    with Writer(path, fingerprint, level, size) as writer:
        for payload, own in zip(payloads, levels, strict=True):
            writer.append(payload, own)
    assert path.read_bytes() == data and os.listdir(path.parent) == ["a.vcm"]


@pytest.mark.parametrize("length", [0, 20, 150, 16384])
def test_one_image_costs_12_bytes_over_its_payload(length):
    data = pack([bytes(length)], MODEL, 3)
    assert len(data) == length + 12
    assert Reader(data).parts() == (8, 0, length, 4)


@pytest.mark.parametrize("lengths", [[150] * 256, [20, 150] * 128, range(20, 148, 1)])
@pytest.mark.parametrize("levels", [3, [k % 16 for k in range(256)]])
def test_an_image_among_256_costs_at_most_two_bytes_over_its_payload(lengths, levels):
    payloads = payloads_of([*lengths, *lengths][:256])
    data = pack(payloads, MODEL, levels)
    assert len(data) - sum(map(len, payloads)) <= 2 * 256


def test_every_single_bit_flip_is_noticed():
    several, _ = three_blocks()
    assert len(blocks_of(several)) == 4
    for data in (SINGLE, several):
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
        with pytest.raises(TruncatedStream if end < 12 else CorruptStream):
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
    other = pack([p[::-1] + b"!" for p in payloads], MODEL, 3)
    head = data[: blocks_of(data)[0][0]]
    a, b, c, end = (data[i:j] for i, j in blocks_of(data))
    foreign = other[slice(*blocks_of(other)[1])]
    for wrong in [(b, a, c), (a, c), (a, b), (a, a, b, c), (a, foreign, c)]:
        with pytest.raises(CorruptStream):
            Reader(head + b"".join(wrong) + end)


def test_another_model_is_named_beside_the_expected_one():
    for data in (SINGLE, three_blocks()[0]):
        with pytest.raises(WrongModel, match="model 0badcafe; expected 01020304"):
            Reader(data, b"\1\2\3\4")
        with pytest.raises(WrongModel):
            list(Salvage(data, b"\1\2\3\4"))


def test_a_later_version_asks_for_an_upgrade():
    data = SINGLE[:2] + bytes([SINGLE[2] + 0x10]) + SINGLE[3:]
    with pytest.raises(UnsupportedVersion, match="version 2; expected 1; upgrade"):
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
    data = pack([], MODEL, 3)[:8] + fake * (size // len(fake))
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
        assert sum(taken) <= 18 + 41 * 21 + 21
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
    head = pack([], MODEL, 3)[:8]
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
        ({"fingerprint": b"abc"}, "`fingerprint` has 3 bytes; expected 4"),
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
with Writer(sys.argv[1], b"abcd", 3) as writer:
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
    assert len(names) == 1 and re.fullmatch(r"a\.vcm\.part-[0-9a-f]{8}", names[0])


def test_opening_a_file_imports_no_jax():
    code = "import sys, vcmjax.coding.container; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


SAMPLES = [
    pack([b"payload"], MODEL, 3),
    pack([b"payload"], MODEL, 3, (4, 300)),
    pack([], MODEL, [], (4, 4)),
    pack([b"", b"ab", b"cdefg"], MODEL, 3),
    pack([b"abc", b"abd"], MODEL, [3, 200], (16, 16)),
    pack([b""] * 257, MODEL, 3),
    pack([b""] * 513 + [b"x"], b"\1\2\3\4", 3),
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
    if draw(3) == 0 and len(data) > 12:
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
            found = repacked(data)
        except VcmError:
            typed += 1
        else:
            intact += 1
            # A reader takes only what a writer makes of the content, so equal bytes are right data;
            # with checksums as they were, the bytes can only be those of a sample.
            assert found == data
            assert sealed or data in SAMPLES
        if trial % 8 == 0:
            salvage_or_error(data)
    assert intact > 1000 and typed > 100_000


def salvage_or_error(data):
    try:
        salvage = Salvage(data, MODEL)
        found = [index for index, _ in salvage]
    except VcmError:
        return
    assert salvage.info.fingerprint == MODEL
    assert found == sorted(set(found))
    lost = salvage.lost
    assert all(lost[k].end <= lost[k + 1].start for k in range(len(lost) - 1))


def test_the_page_on_the_format_shows_what_the_code_writes():
    dumps = re.findall(r"```hex\n(.*?)```", PAGE.read_text(), re.S)
    shown = [bytes.fromhex("".join(re.findall(r"^([0-9a-f ]+)\|", d, re.M))) for d in dumps]
    assert shown == [
        pack([b"\x5a\x01\x9c"], bytes.fromhex("3f9a6c01"), 3),
        pack([b"\x5a\x01\x9c", b"\x77"], bytes.fromhex("3f9a6c01"), [3, 5], (20, 30)),
    ]
    assert all(repacked(data) == data for data in shown)
