"""Reads the intact blocks of a damaged `.vcm` file."""

from collections.abc import Iterator
from typing import NamedTuple

from vcmjax.coding import container_format as form
from vcmjax.coding.container_format import BLOCK, Block, Coded, Entry, Record
from vcmjax.errors import CorruptStream, TruncatedStream


class Lost(NamedTuple):
    """Bytes start:end that salvage could not use, and the images first:stop (None: unknown)."""

    start: int
    end: int
    first: int
    stop: int | None


class Salvage(form.File):
    """Iterates over (number, image) of all blocks that are intact in a damaged file.

        salvage = Salvage("a.vcm", fingerprint)
        images = dict(salvage)
        print(salvage.lost)

    Attributes:
      info: what the file says of itself; `images` is None until its end record is reached.
      lost: list of `Lost`, complete when iteration has ended.
    """

    def _start(self) -> None:
        """Of what opening promises, only the header is looked at."""
        self.lost: list[Lost] = []

    def __iter__(self) -> Iterator[tuple[int, Coded]]:
        """As `entries`, without names."""
        return ((entry.number, entry.image) for entry in self.entries())

    def entries(self) -> Iterator[Entry]:
        """Reads on, past damage, block by block. Blocks of another file count as damage.

        Raises:
          CorruptStream: nothing is intact, as when the header is damaged.
          WrongModel: another model wrote the file.
          DataError: the file announces more than its bytes can pay for, see `File`.
        """
        if self.flags & form.SINGLE:
            single = self.single()
            self.info = self.info._replace(images=1)
            yield from single.entries(0)
            return
        self.info, self.lost = self.info._replace(images=None), []
        at = good = len(self.header)
        reached = given = 0  # images up to `good`, and those of them that are intact
        # Bytes to spend on what only looks like a block: a file made of nothing else must not
        # take a time that grows with the square of its length.
        budget = 2 * self.info.length + (1 << 24)
        while self.info.images is None and budget > 0 and (at := self._find(at)) < self.info.length:
            record, block = self._attempt(at, reached)
            if record is None or block is None:
                budget -= 4096 + (record.end - at if record else 0)
                at += 1
                continue
            self.check_model()
            first = record.number * BLOCK if record.images else record.number
            given += record.images
            self.check_work(given)
            if at > good or first > reached:
                self.lost.append(Lost(good, at, reached, first))
            if not record.images:
                self.info = self.info._replace(images=record.number)
            yield from block.entries(first)
            at, good, reached = record.end, record.end, first + record.images
        if good == len(self.header):
            raise self.corrupt("all is lost: the header is damaged, or every block is")
        if good < self.info.length or self.info.images is None:
            self.lost.append(Lost(good, self.info.length, reached, self.info.images))

    def _find(self, at: int) -> int:
        """Where the next record may start, or the end of the file."""
        while at < self.info.length:
            data = self.read(at, at + (1 << 16))
            hit = data.find(form.SYNC)
            if hit >= 0:
                return at + hit
            if not data:  # cut off since it was opened
                break
            at += max(len(data) - 1, 1)
        return self.info.length

    def _attempt(self, at: int, reached: int) -> tuple[Record | None, Block | None]:
        """The record at a position, and its block if it is intact and not of the past."""
        record = None
        try:
            record = self.record(at, 0)
            if record.number * (BLOCK if record.images else 1) < reached:
                return record, None
            if record.images:
                return record, self.block(record, "a block")
            self.prove(at, record.end, "the end record")
            return record, Block([], [], 0)
        except (CorruptStream, TruncatedStream):
            return record, None
