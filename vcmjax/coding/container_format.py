"""What a `.vcm` file is made of: numbers, header, records. See docs/format.md; use `container`."""

import io
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

from vcmjax.coding.crc import crc32c
from vcmjax.errors import (
    CorruptStream,
    DataError,
    TruncatedStream,
    UnsupportedVersion,
    VcmError,
    WrongModel,
)
from vcmjax.io.atomic import naming

MAGIC = b"\xd6V"  # no text starts so; "VV" once a seven-bit channel has spoilt it
VERSION = 2
FINGERPRINT = {1: 4, 2: 8}
"""Bytes of a model's fingerprint by the version of the file; the shorter begins the longer."""
IDENTITY = 4  # bytes, of a file of blocks
SINGLE, SHAPE, LEVELS, MORE = 1, 2, 4, 8
NAMES, LAYERS, FRAMES = 16, 32, 64  # of a second byte, four bits up
SYNC = b"\xe7\x1d"
BLOCK = 256  # images per block, fewer only in the last
MAX_PAYLOAD = 1 << 22  # bytes; 256 of them stay below what one system call reads
MAX_POSITIONS = 1 << 16
MAX_NAME = 1024  # bytes
MAX_BODY = BLOCK * (MAX_PAYLOAD + MAX_NAME + 16)
IMAGES_PER_BYTE, POSITIONS_PER_BYTE = 4, 256
"""What a byte of a file may ask for, unless its reader raises the limit: the poorest streams that
encoders make have twenty positions to a byte, and an image costs a byte at least."""
FREE_IMAGES = 1024
_REMEDY = {
    TruncatedStream: "the copy is incomplete: fetch it again",
    CorruptStream: "the copy is damaged: fetch it again, or read what is intact with `salvage`",
    UnsupportedVersion: "upgrade vcmjax, or fetch the file again if it may be damaged",
    WrongModel: "decode it with the model that wrote it",
}


class Coded(NamedTuple):
    """One image: its range-coder stream, and its rate level, 0..255."""

    payload: bytes
    level: int


class Entry(NamedTuple):
    """An image with its number in the file, and its name if the file has names."""

    number: int
    image: Coded
    name: str | None


class Block(NamedTuple):
    """Images that are stored together, their names, and the bytes that the names take."""

    images: list[Coded]
    names: Sequence[str | None]
    name_bytes: int

    def entries(self, first: int) -> Iterator[Entry]:
        """The images, numbered from `first`."""
        return map(Entry, range(first, first + len(self.images)), self.images, self.names)


class Info(NamedTuple):
    """What a file says of itself.

    Attributes:
      fingerprint: Of the model that wrote the payloads: 8 bytes, 4 in a file of version 1.
      size: (H, W) of the feature, or None for the model's own.
      level: rate level of all images, or None if each has its own.
      images: how many; None while unknown.
      length: bytes of the file.
      version: of its format.
      named: whether its images have names.
    """

    fingerprint: bytes
    size: tuple[int, int] | None
    level: int | None
    images: int | None
    length: int
    version: int
    named: bool


class Record(NamedTuple):
    """A block or, with no images, the end record, whose `number` is the images of the file."""

    start: int
    images: int
    number: int
    body: int
    end: int


def refusal(kind: type[VcmError], name: str, what: str) -> VcmError:
    """The error to raise about the file `name`, with its remedy."""
    return kind(f"{name}: {what}; {_REMEDY[kind]}")


def encode_varint(number: int) -> bytes:
    """Seven bits per byte, lowest first, the top bit set in all but the last."""
    low = []
    while number > 127:
        low.append(number & 127 | 128)
        number >>= 7
    return bytes([*low, number])


def encode_numbers(numbers: Sequence[int]) -> bytes:
    """The smallest as a varint, then all differences from it in the fewest bits that hold each.

    Payloads of 20 to 150 bytes take 8 bits each, where varints would take up to 16.
    """
    low = min(numbers)
    width = (max(numbers) - low).bit_length()
    bits = 0
    for number in reversed(numbers):
        bits = bits << width | number - low
    return (
        encode_varint(low)
        + bytes([width])
        + bits.to_bytes((len(numbers) * width + 7) // 8, "little")
    )


def encode_names(names: Sequence[str]) -> bytes:
    """A varint and as many bytes: each name in UTF-8 and a zero byte, deflated (RFC 1951).

    Bytes of a file's name that are no UTF-8 travel as they are.
    """
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = b"".join(encode_name(name) + b"\0" for name in names)
    packed = deflate.compress(text) + deflate.flush()
    return encode_varint(len(packed)) + packed


def encode_name(name: str) -> bytes:
    """A name as it is stored. Raises ValueError where none can be."""
    data = name.encode("utf-8", "surrogateescape")
    if not 1 <= len(data) <= MAX_NAME or b"\0" in data:
        raise ValueError(f"`name` is {name!r:.99}; expected 1 to {MAX_NAME} bytes, none zero")
    return data


def checksum(data: bytes, start: int = 0) -> bytes:
    """CRC-32C as it stands in a file."""
    return crc32c(data, start).to_bytes(4, "little")


class Cursor:
    """Reads one field after another.

    Every method raises `short` where the bytes end too early, and CorruptStream where a number is
    not in the one form that a writer gives it.
    """

    def __init__(self, data: bytes, base: int, name: str, where: str, short: type[VcmError]):
        """Starts on `data`, which lie `base` bytes into the file `name`, in its part `where`."""
        self.data, self.at = data, 0
        self._base, self._name, self._where, self._short = base, name, where, short

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        end = self.at + n
        if end > len(self.data):
            what = f"ends after {self._base + len(self.data)} bytes inside {self._where}"
            raise refusal(self._short, self._name, f"{what}; expected {self._base + end} or more")
        data = self.data[self.at : end]
        self.at = end
        return data

    def varint(self) -> int:
        """Inverse of `encode_varint`; below 2**35."""
        number = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                if shift and not byte:
                    break
                return number
        what = f"{self._where} holds a number not in its shortest form of at most 5 bytes"
        raise refusal(CorruptStream, self._name, what)

    def numbers(self, count: int) -> list[int]:
        """Inverse of `encode_numbers`."""
        start = self.at
        low, width = self.varint(), self.take(1)[0]
        bits = int.from_bytes(self.take((count * width + 7) // 8), "little")
        mask = (1 << width) - 1
        numbers = [low + (bits >> i * width & mask) for i in range(count)]
        if encode_numbers(numbers) != self.data[start : self.at]:
            what = f"{self._where} holds a list of numbers not in its shortest form"
            raise refusal(CorruptStream, self._name, what)
        return numbers

    def names(self, count: int) -> list[str]:
        """Inverse of `encode_names`."""
        packed, inflate = self.take(self.varint()), zlib.decompressobj(-15)
        try:
            text = inflate.decompress(packed, count * (MAX_NAME + 1))
        except zlib.error:
            text = b""
        *names, rest = text.split(b"\0")
        whole = inflate.eof and not inflate.unused_data and not rest and len(names) == count
        if not whole or not all(1 <= len(name) <= MAX_NAME for name in names):
            what = f"{self._where} holds names that are not those of its {count} images"
            raise refusal(CorruptStream, self._name, what)
        return [name.decode("utf-8", "surrogateescape") for name in names]


class File:
    """Checked access to header, records and images; the base of `Reader` and `Salvage`.

    Attributes:
      info: what the header says.
      header: its bytes.
      flags: `SINGLE`, `SHAPE`, `LEVELS`, `MORE` and `NAMES`, or'ed.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes,
        fingerprint: bytes | None = None,
        *,
        max_images: int | None = None,
        max_positions: int | None = None,
    ):
        """Opens a file.

        Args:
          source: its path, or its content as bytes.
          fingerprint: of the model that will decode it, 8 bytes, of which a file of version 1 has
            four; None takes any.
          max_images: images that it may announce; None for `FREE_IMAGES` and what its bytes can
            pay for, four for each.
          max_positions: feature positions that its images may have in all, where they are not of
            the model's own size; None for what its bytes can pay for, 256 for each.

        Raises:
          DataError: it cannot be read, or announces more than these limits.
          TruncatedStream, CorruptStream, UnsupportedVersion: it is not a whole file of this format.
          WrongModel: another model wrote it.
        """
        self._name = "<bytes>" if isinstance(source, bytes) else os.fspath(source)
        self._expected = fingerprint
        self._max_images, self._max_positions = max_images, max_positions
        with naming(self._name, "read"):
            # Opening a pipe would wait for its writer, a device might do anything.
            if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
                raise DataError(f"{self._name}: cannot be read: it is no regular file")
            # Unbuffered: a buffer would fetch 8 KiB for each of the 20 bytes needed.
            self._file = (
                io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb", buffering=0)  # noqa: SIM115
            )
        try:
            with naming(self._name, "read"):
                length = self._file.seek(0, os.SEEK_END)
            self._read_header(length)
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        """What remains to be done before the file counts as open."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the file."""
        self.close()

    def corrupt(self, what: str) -> VcmError:
        """The error to raise about damage."""
        return refusal(CorruptStream, self._name, what)

    def read(self, start: int, end: int) -> bytes:
        """Bytes start:end, fewer where the file ends before."""
        with naming(self._name, "read"):
            self._file.seek(start)
            return self._file.read(end - start)

    def _read_header(self, length: int) -> None:
        cursor = Cursor(self.read(0, 32), 0, self._name, "the header", TruncatedStream)
        magic = cursor.data[:2]
        if magic != MAGIC[: len(magic)]:
            what = f"starts with {magic.hex(' ')}, not with {MAGIC.hex(' ')}: not a .vcm file"
            raise self.corrupt(what)
        version, self.flags = divmod(cursor.take(3)[2], 16)
        if version not in FINGERPRINT:
            what = f"has format version {version}; expected {VERSION} or less"
            raise refusal(UnsupportedVersion, self._name, what)
        if self.flags & MORE and version > 1:
            more = cursor.take(1)[0]
            if more != NAMES >> 4:
                what = f"has flags {more}, of layers, frames or others; expected names alone"
                raise refusal(UnsupportedVersion, self._name, what)
            self.flags |= more << 4
        elif self.flags & MORE or self.flags & (SINGLE | LEVELS) == SINGLE | LEVELS:
            raise self.corrupt(f"has flags {self.flags}, which no version {version} file has")
        fingerprint, size, level = cursor.take(FINGERPRINT[version]), None, None
        if self.flags & SHAPE:
            size = cursor.varint(), cursor.varint()
            if not 1 <= size[0] * size[1] <= MAX_POSITIONS:
                raise self.corrupt(f"has features of {size}; expected 1..{MAX_POSITIONS} in all")
        if not self.flags & LEVELS:
            level = cursor.take(1)[0]
        if version > 1 and not self.flags & SINGLE:
            cursor.take(IDENTITY)
        self.header = cursor.data[: cursor.at]
        self._header_crc = crc32c(self.header)
        named = bool(self.flags & NAMES)
        self.info = Info(fingerprint, size, level, None, length, version, named)

    def check_model(self) -> None:
        """For when a checksum has proven the header, so that damage is not taken for this."""
        found, expected = self.info.fingerprint, self._expected
        if expected is not None and found != expected[: len(found)]:
            what = f"was written by model {found.hex()}; expected {expected.hex()}"
            raise refusal(WrongModel, self._name, what)

    def check_work(self, images: int) -> None:
        """Refuses so many images in a file of so few bytes, before there is work on them."""
        length = self.info.length
        limits = [("images", images, self._max_images, FREE_IMAGES + IMAGES_PER_BYTE * length)]
        if self.info.size:
            positions = images * self.info.size[0] * self.info.size[1]
            limit = POSITIONS_PER_BYTE * length
            limits.append(("positions", positions, self._max_positions, limit))
        for what, found, given, paid in limits:
            limit = paid if given is None else given
            if found > limit:
                raise DataError(
                    f"{self._name}: announces {found} {what} in {length} bytes; expected at most "
                    f"{limit}. If that is meant, raise max_{what}."
                )

    def single(self) -> Block:
        """The image of a file that holds one."""
        start, end = len(self.header), self.info.length - 4
        if end < start:
            what = f"ends after {self.info.length} bytes inside the checksum; expected {start + 4}"
            raise refusal(TruncatedStream, self._name, f"{what} or more")
        if end - start > MAX_PAYLOAD + (MAX_NAME + 16) * self.info.named:
            raise self.corrupt(f"has an image of {end - start} bytes; expected <= {MAX_PAYLOAD}")
        data = self.prove(0, self.info.length, "the file")
        self.check_model()
        self.check_work(1)
        cursor = Cursor(data, 0, self._name, "the file", CorruptStream)
        cursor.take(start)
        names, name_bytes = self._names(cursor, 1)
        payload = cursor.take(end - cursor.at)
        if len(payload) > MAX_PAYLOAD:
            raise self.corrupt(f"has an image of {len(payload)} bytes; expected <= {MAX_PAYLOAD}")
        return Block([Coded(payload, self.info.level or 0)], names, name_bytes)

    def prove(self, start: int, end: int, where: str) -> bytes:
        """Bytes start:end - 4 if the four after them are their checksum."""
        data = self.read(start, end)
        found = data[-4:]
        expected = checksum(data[:-4], self._header_crc if start else 0)
        if found != expected:
            what = f"{where} has checksum {found.hex()}; expected {expected.hex()}"
            raise self.corrupt(what + (", as if damaged or cut short" if not start else ""))
        return data[:-4]

    def record(self, at: int, number: int) -> Record:
        """The record at a position, block `number` if a block; its checksum is yet to be proven."""
        where = f"block {number} or the end record"
        cursor = Cursor(self.read(at, at + 17), at, self._name, where, TruncatedStream)
        sync = cursor.take(2)
        if sync != SYNC:
            raise self.corrupt(f"{where} starts with {sync.hex(' ')}, not with {SYNC.hex(' ')}")
        images, found = cursor.varint(), cursor.varint()
        length = cursor.varint() if images else 4
        where = f"block {number}" if images else "the end record"
        if images > BLOCK or length > MAX_BODY:
            raise self.corrupt(f"{where} claims {images} images in {length} bytes")
        body = at + cursor.at
        end = body + length + 4
        if end > self.info.length:
            what = f"ends after {self.info.length} bytes inside {where}; expected {end}"
            raise refusal(TruncatedStream, self._name, what)
        return Record(at, images, found, body, end)

    def block(self, record: Record, where: str) -> Block:
        """The images of a block, checked."""
        data = self.prove(record.start, record.end, where)
        cursor = Cursor(data, record.start, self._name, where, CorruptStream)
        cursor.take(record.body - record.start)
        one = self.info.level
        levels = [one] * record.images if one is not None else cursor.numbers(record.images)
        names, name_bytes = self._names(cursor, record.images)
        lengths = cursor.numbers(record.images)
        room = len(data) - cursor.at
        if sum(lengths) != room or max(lengths) > MAX_PAYLOAD or max(levels) > 255:
            raise self.corrupt(f"{where} has {room} bytes of images; its lengths or levels differ")
        images = [Coded(cursor.take(n), level) for n, level in zip(lengths, levels, strict=True)]
        return Block(images, names, name_bytes)

    def _names(self, cursor: Cursor, count: int) -> tuple[Sequence[str | None], int]:
        """Names of as many images, and the bytes that they take."""
        if not self.info.named:
            return [None] * count, 0
        start = cursor.at
        return cursor.names(count), cursor.at - start
