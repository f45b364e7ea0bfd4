"""The `.vcm` file: coded images behind a small header, in checksummed blocks. See docs/format.md.

    with container.Writer("a.vcm", fingerprint, level=3) as writer:
        writer.append(payload)
    with container.Reader("a.vcm", fingerprint) as reader:
        payload, level = reader[0]

Files are written in version 2, and read in versions 1 and 2. `pack` gives the bytes of a file, and
`Reader` takes bytes too. Whatever the bytes are, reading them ends in what was written or in an
error of `vcmjax.errors`. Module `salvage` reads what damage has left.
"""

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from vcmjax.coding import container_format as form
from vcmjax.coding.container_format import BLOCK, MAX_PAYLOAD, MAX_POSITIONS, Block, Coded, Entry
from vcmjax.coding.crc import crc32c
from vcmjax.io import atomic


class Parts(NamedTuple):
    """Bytes of a file by purpose; they sum to its length. `framing` finds the images."""

    header: int
    framing: int
    names: int
    payload: int
    checksums: int


class _Encoder:
    """Turns images into the bytes of a file, a block at a time."""

    def __init__(
        self,
        fingerprint: bytes,
        level: int | None,
        size: tuple[int, int] | None,
        named: bool,
        identity: bytes | None,
    ):
        length = form.FINGERPRINT[form.VERSION]
        if len(fingerprint) != length:
            found = len(fingerprint)
            raise ValueError(f"`fingerprint` has {found} bytes; expected {length}")
        if size and not (min(size) >= 1 and int(size[0]) * int(size[1]) <= MAX_POSITIONS):
            raise ValueError(f"`size` is {size}; expected H, W >= 1 and H * W <= {MAX_POSITIONS}")
        self._identity = secrets.token_bytes(form.IDENTITY) if identity is None else identity
        if len(self._identity) != form.IDENTITY:
            found = len(self._identity)
            raise ValueError(f"`identity` has {found} bytes; expected {form.IDENTITY}")
        self._fingerprint, self._size, self._named = bytes(fingerprint), size, named
        self._level = None if level is None else _check_level(level)
        self._pending: list[Coded] = []
        self._names: list[str] = []
        self._blocks, self._total = 0, 0
        self._header, self._seal = b"", bytes(4)

    def append(self, payload: bytes, level: int | None, name: str | None) -> bytes:
        """Takes an image; gives the bytes that are ready to be written."""
        data = bytes(memoryview(payload))
        if len(data) > MAX_PAYLOAD:
            raise ValueError(f"`payload` has {len(data)} bytes; expected at most {MAX_PAYLOAD}")
        if level is not None and self._level not in (None, level):
            raise ValueError(f"`level` is {level} in a file of level {self._level}; omit it")
        if (name is not None) != self._named:
            expected = "a name for every image" if self._named else "none in a file without names"
            raise ValueError(f"`name` is {name!r:.99}; expected {expected}")
        coded = Coded(data, _check_level(self._level if level is None else level))
        if name is not None:
            form.encode_name(name)
            self._names.append(name)
        self._pending.append(coded)
        self._total += 1
        return self._block() if len(self._pending) == BLOCK else b""

    def finish(self) -> bytes:
        """The rest of the file."""
        if self._total == 1:
            header = self._make_header(form.SINGLE, self._pending[0].level)
            data = header + self._take_names() + self._pending[0].payload
            return data + form.checksum(data)
        data = self._block() if self._pending else self._open()
        end = form.SYNC + b"\0" + form.encode_varint(self._total) + self._seal
        return data + end + form.checksum(end, crc32c(self._header))

    def _make_header(self, flags: int, level: int | None) -> bytes:
        flags |= (form.SHAPE if self._size else 0) | (form.LEVELS if level is None else 0)
        flags |= form.MORE if self._named else 0
        more = bytes([form.NAMES >> 4]) if self._named else b""
        shape = b"".join(form.encode_varint(int(n)) for n in self._size or ())
        own = b"" if level is None else bytes([level])
        identity = b"" if flags & form.SINGLE else self._identity
        opening = form.MAGIC + bytes([form.VERSION << 4 | flags]) + more
        return opening + self._fingerprint + shape + own + identity

    def _open(self) -> bytes:
        """The header, the first time."""
        if self._header:
            return b""
        self._header = self._make_header(0, self._level)
        return self._header

    def _block(self) -> bytes:
        opening, images = self._open(), self._pending
        own = self._level is None
        levels = form.encode_numbers([image.level for image in images]) if own else b""
        lengths = form.encode_numbers([len(image.payload) for image in images])
        payloads = b"".join(image.payload for image in images)
        body = levels + self._take_names() + lengths + payloads
        numbers = map(form.encode_varint, (len(images), self._blocks, len(body)))
        block = form.SYNC + b"".join(numbers) + body
        checksum = form.checksum(block, crc32c(self._header))
        self._seal = form.checksum(checksum, int.from_bytes(self._seal, "little"))
        self._blocks, self._pending = self._blocks + 1, []
        return opening + block + checksum

    def _take_names(self) -> bytes:
        names, self._names = self._names, []
        return form.encode_names(names) if self._named else b""


def _check_level(level: int | None) -> int:
    if level is None or not 0 <= level <= 255:
        raise ValueError(f"`level` is {level}; expected 0..255, for the file or for every image")
    return int(level)


def pack(
    payloads: Sequence[bytes],
    fingerprint: bytes,
    level: int | Sequence[int],
    size: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    identity: bytes | None = None,
) -> bytes:
    """The bytes of a file.

    Args:
      payloads: of each image, at most `MAX_PAYLOAD` bytes.
      fingerprint: 8 bytes that name the model.
      level: 0..255, of all images or one for each.
      size: (H, W) of the feature if not the model's own; H * W <= `MAX_POSITIONS`.
      names: of each image, 1 to 1024 bytes in UTF-8 without a zero; None stores none.
      identity: 4 bytes by which blocks of this file are told from those of another; None draws
        them at random. A file of one image has no need of them.

    Returns:
      For one image, 16 bytes more than its payload (18 or more with `size`, names apart).

    Raises:
      ValueError: an argument is outside its range.
    """
    levels = level if isinstance(level, Iterable) else [level] * len(payloads)
    shared = None if isinstance(level, Iterable) else level
    encoder = _Encoder(fingerprint, shared, size, names is not None, identity)
    called = [None] * len(payloads) if names is None else names
    parts = [encoder.append(*image) for image in zip(payloads, levels, called, strict=True)]
    return b"".join(parts) + encoder.finish()


class Writer:
    """Writes a file image by image, in the memory of one block.

    Under its name the file appears whole, at the end of the `with` statement, or not at all. What
    a writer leaves behind that is killed, the next one of the same name removes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fingerprint: bytes,
        level: int | None = None,
        size: tuple[int, int] | None = None,
        *,
        named: bool = False,
        identity: bytes | None = None,
    ):
        """Takes the arguments of `pack`, but for `level` None: `append` names one per image.

        With `named`, `append` is told the name of each image.
        """
        self._encoder = _Encoder(fingerprint, level, size, named, identity)
        self._path = os.fspath(path)
        self._whole: AbstractContextManager[BinaryIO] = atomic.file(path)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Opens a file beside the final one. Raises DataError if that cannot be done."""
        self._file = self._whole.__enter__()
        return self

    def append(self, payload: bytes, level: int | None = None, name: str | None = None) -> None:
        """Adds an image.

        Args:
          payload: at most `MAX_PAYLOAD` bytes.
          level: 0..255; None for that of the file.
          name: as of `pack`, in a file that is `named`.

        Raises:
          ValueError: an argument is outside its range, or the `with` statement has ended.
          DataError: the disk is full or fails.
        """
        if self._file is None:
            raise ValueError("append: the file is not open; call it inside `with Writer(...)`")
        with atomic.naming(self._path, "written"):
            self._file.write(self._encoder.append(payload, level, name))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives the file its name, or removes it after an exception. Raises DataError."""
        file, self._file = self._file, None
        if file is None:
            return
        if kind is None:
            try:
                file.write(self._encoder.finish())
            except OSError as full:
                kind, error, trace = type(full), full, full.__traceback__
        self._whole.__exit__(kind, error, trace)


class Reader(form.File):
    """A file opened for reading, by one thread at a time.

    Opening reads the header, 21 bytes per block and the end record, and so proves that no block is
    missing, moved or foreign; a block is proven when an image of it is read. `len(reader)`,
    `reader[k]`, and iteration, in the memory of one block; `entries` gives names too.

    Attributes:
      info: what the file says of itself.
    """

    def _start(self) -> None:
        self._blocks: list[form.Record] = []
        self._cache: tuple[int, Block]
        if self.flags & form.SINGLE:
            self._cache, images = (0, self.single()), 1
        else:
            self._cache, images = (-1, Block([], [], 0)), self._scan()
        self.info = self.info._replace(images=images)

    def _scan(self) -> int:
        """Lists the blocks and checks them against the end record; gives the number of images."""
        blocks, at, seal = self._blocks, len(self.header), 0
        while (record := self.record(at, len(blocks))).images:
            if record.number != len(blocks) or (blocks and blocks[-1].images < BLOCK):
                what = f"block {record.number} of {record.images} images is out of place"
                raise self.corrupt(f"{what}; expected number {len(blocks)}, after full blocks")
            blocks.append(record)
            self.check_work((len(blocks) - 1) * BLOCK + record.images)
            at = record.end
            seal = crc32c(self.read(at - 4, at), seal)
        found = self.prove(at, record.end, "the end record")[-4:]
        self.check_model()
        if found != seal.to_bytes(4, "little"):
            raise self.corrupt("has blocks that are not those it was written with")
        images = sum(block.images for block in blocks)
        if record.number != images or images == 1:
            raise self.corrupt(f"has {images} images in blocks; its end says {record.number}")
        if record.end != self.info.length:
            extra = self.info.length - record.end
            raise self.corrupt(f"has {extra} bytes after its end; expected {record.end} bytes")
        return images

    def __len__(self) -> int:
        """Images in the file."""
        return self.info.images or 0

    def __getitem__(self, k: int) -> Coded:
        """Image k, reading its block alone. Raises IndexError, or CorruptStream if damaged."""
        number, within = divmod(range(len(self))[k], BLOCK)
        return self._load(number).images[within]

    def __iter__(self) -> Iterator[Coded]:
        """All images in order. Raises CorruptStream at the first damaged block."""
        return (entry.image for entry in self.entries())

    def entries(self) -> Iterator[Entry]:
        """All images in order, with number and name. Raises as iteration does."""
        for number in range(-(-len(self) // BLOCK)):
            yield from self._load(number).entries(number * BLOCK)

    def _load(self, number: int) -> Block:
        if self._cache[0] != number:
            self._cache = number, self.block(self._blocks[number], f"block {number}")
        return self._cache[1]

    def parts(self) -> Parts:
        """Where the bytes of the file go. Reads all of it, and raises as iteration does."""
        header, names, payload = len(self.header), 0, 0
        for number in range(-(-len(self) // BLOCK)):
            block = self._load(number)
            names += block.name_bytes
            payload += sum(len(image.payload) for image in block.images)
        checksums = 4 if self.flags & form.SINGLE else 4 * len(self._blocks) + 8
        framing = self.info.length - header - names - payload - checksums
        return Parts(header, framing, names, payload, checksums)
