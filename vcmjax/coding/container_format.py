"""What a `.vcm` file is made of: numbers, header, records. See docs/format.md; use `container`."""

import contextlib
import io
import os
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

MAGIC = b"\xd6V"  # no text starts so; "VV" once a seven-bit channel has spoilt it
VERSION = 1
SINGLE, SHAPE, LEVELS = 1, 2, 4
SYNC = b"\xe7\x1d"
BLOCK = 256  # images per block, fewer only in the last
MAX_PAYLOAD = 1 << 22  # bytes; 256 of them stay below what one system call reads
MAX_POSITIONS = 1 << 16
MAX_BODY = BLOCK * (MAX_PAYLOAD + 8)
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


class Info(NamedTuple):
    """What a file says of itself.

    Attributes:
      fingerprint: 4 bytes, of the model that wrote the payloads.
      size: (H, W) of the feature, or None for the model's own.
      level: rate level of all images, or None if each has its own.
      images: how many; None while unknown.
      length: bytes of the file.
    """

    fingerprint: bytes
    size: tuple[int, int] | None
    level: int | None
    images: int | None
    length: int


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


@contextlib.contextmanager
def naming(name: str, done: str) -> Iterator[None]:
    """Turns a failure of the system into one that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{name}: cannot be {done}: {reason}; check path, permissions and free space"
        ) from error


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


class File:
    """Checked access to header, records and images; the base of `Reader` and `Salvage`.

    Attributes:
      info: what the header says.
      header: its bytes.
      flags: `SINGLE`, `SHAPE` and `LEVELS`, or'ed.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, fingerprint: bytes | None):
        """Opens a file and reads its header; see `Reader`."""
        self._name = "<bytes>" if isinstance(source, bytes) else os.fspath(source)
        self._expected = fingerprint
        with naming(self._name, "read"):
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
        cursor = Cursor(self.read(0, 18), 0, self._name, "the header", TruncatedStream)
        magic = cursor.data[:2]
        if magic != MAGIC[: len(magic)]:
            what = f"starts with {magic.hex(' ')}, not with {MAGIC.hex(' ')}: not a .vcm file"
            raise self.corrupt(what)
        version, self.flags = divmod(cursor.take(3)[2], 16)
        if version != VERSION:
            what = f"has format version {version}; expected {VERSION}"
            raise refusal(UnsupportedVersion, self._name, what)
        if self.flags & 8 or self.flags & (SINGLE | LEVELS) == SINGLE | LEVELS:
            raise self.corrupt(f"has flags {self.flags}, which no version {VERSION} file has")
        fingerprint, size, level = cursor.take(4), None, None
        if self.flags & SHAPE:
            size = cursor.varint(), cursor.varint()
            if not 1 <= size[0] * size[1] <= MAX_POSITIONS:
                raise self.corrupt(f"has features of {size}; expected 1..{MAX_POSITIONS} in all")
        if not self.flags & LEVELS:
            level = cursor.take(1)[0]
        self.header = cursor.data[: cursor.at]
        self._header_crc = crc32c(self.header)
        self.info = Info(fingerprint, size, level, None, length)

    def check_model(self) -> None:
        """For when a checksum has proven the header, so that damage is not taken for this."""
        found = self.info.fingerprint
        if self._expected is not None and found != self._expected:
            what = f"was written by model {found.hex()}; expected {self._expected.hex()}"
            raise refusal(WrongModel, self._name, what)

    def single(self) -> Coded:
        """The image of a file that holds one."""
        start, end = len(self.header), self.info.length - 4
        if end < start:
            what = f"ends after {self.info.length} bytes inside the checksum; expected {start + 4}"
            raise refusal(TruncatedStream, self._name, f"{what} or more")
        if end - start > MAX_PAYLOAD:
            raise self.corrupt(f"has an image of {end - start} bytes; expected <= {MAX_PAYLOAD}")
        payload = self.prove(0, self.info.length, "the file")[start:]
        self.check_model()
        return Coded(payload, self.header[-1])

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

    def images(self, record: Record, where: str) -> list[Coded]:
        """The images of a block, checked."""
        data = self.prove(record.start, record.end, where)
        cursor = Cursor(data, record.start, self._name, where, CorruptStream)
        cursor.take(record.body - record.start)
        one = self.info.level
        levels = [one] * record.images if one is not None else cursor.numbers(record.images)
        lengths = cursor.numbers(record.images)
        room = len(data) - cursor.at
        if sum(lengths) != room or max(lengths) > MAX_PAYLOAD or max(levels) > 255:
            raise self.corrupt(f"{where} has {room} bytes of images; its lengths or levels differ")
        return [Coded(cursor.take(n), level) for n, level in zip(lengths, levels, strict=True)]
