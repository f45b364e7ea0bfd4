"""Coverage-guided search for bytes that the container reader mishandles, for as long as you like.

Run:    pip install atheris && python tests/coding/fuzz_container.py -max_total_time=180
Passes: ends by itself. Every input gave a typed error, or content that a writer would store in just
        these bytes.

Checksums count as right here, for no mutation would ever get past them.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["vcmjax.coding.container", "vcmjax.coding.salvage"]):
    from vcmjax.coding import container, container_format
    from vcmjax.coding.salvage import Salvage
from vcmjax.errors import VcmError


def no_checksum(data: bytes, start: int = 0) -> int:
    """In place of `crc32c`."""
    return 0


def read(data: bytes) -> None:
    """Reads bytes in every way, or fails with anything but a typed error."""
    try:
        reader = container.Reader(data)
        images = list(reader)
        assert sum(reader.parts()) == len(data)
    except VcmError:
        pass
    else:
        info = reader.info
        levels = [image.level for image in images] if info.level is None else info.level
        payloads = [image.payload for image in images]
        assert container.pack(payloads, info.fingerprint, levels, info.size) == data
    try:
        found = [index for index, _ in Salvage(data)]
        assert found == sorted(set(found))
    except VcmError:
        pass


def seeds(folder: Path) -> None:
    """Files to start from."""
    for k, (payloads, level, size) in enumerate(
        [
            ([b"payload"], 3, None),
            ([b"payload"], 3, (4, 300)),
            ([], 3, None),
            ([b"", b"ab", b"cdefg"], 3, None),
            ([b"abc", b"abd"], [3, 200], (16, 16)),
            ([b""] * 513 + [b"x"], 3, None),
        ]
    ):
        (folder / str(k)).write_bytes(container.pack(payloads, b"abcd", level, size))


if __name__ == "__main__":
    container.crc32c = container_format.crc32c = no_checksum
    with tempfile.TemporaryDirectory() as name:
        seeds(Path(name))
        atheris.Setup([*sys.argv, name], read)
        atheris.Fuzz()
