"""Coverage-guided search for bytes that the container reader mishandles, for as long as you like.

Run:    pip install atheris && python tests/coding/fuzz_container.py -max_total_time=180
Passes: ends by itself. Every input gave a typed error, or content that a writer would store in just
        these bytes.

Checksums count as right here, for no mutation would ever get past them.
"""

import json
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
        entries = list(reader.entries())
        assert sum(reader.parts()) == len(data)
    except VcmError:
        pass
    else:
        info = reader.info
        if info.version > 1:
            images = [entry.image for entry in entries]
            levels = [image.level for image in images] if info.level is None else info.level
            payloads = [image.payload for image in images]
            names = [entry.name for entry in entries] if info.named else None
            identity = reader.header[-4:] if len(entries) != 1 else None
            again = container.pack(payloads, info.fingerprint, levels, info.size, names, identity)
            # Names can be compressed in other ways than the writer's.
            assert again == data or names == [e.name for e in container.Reader(again).entries()]
    try:
        found = [index for index, _ in Salvage(data)]
        assert found == sorted(set(found))
    except VcmError:
        pass


def seeds(folder: Path) -> None:
    """Files to start from."""
    for k, (payloads, level, size, names) in enumerate(
        [
            ([b"payload"], 3, None, None),
            ([b"payload"], 3, (4, 300), None),
            ([b"payload"], 3, None, ["a.png"]),
            ([], 3, None, None),
            ([b"", b"ab", b"cdefg"], 3, None, None),
            ([b"", b"ab", b"cdefg"], 3, None, ["a/x.png", "b/x.png", "b/y.png"]),
            ([b"abc", b"abd"], [3, 200], (16, 16), None),
            ([b""] * 513 + [b"x"], 3, None, None),
        ]
    ):
        (folder / str(k)).write_bytes(container.pack(payloads, b"abcdefgh", level, size, names))
    old = json.loads((Path(__file__).parent / "container_v1.json").read_text())
    for name, case in old.items():
        (folder / name).write_bytes(bytes.fromhex(case["file"]))


if __name__ == "__main__":
    container.crc32c = container_format.crc32c = no_checksum
    with tempfile.TemporaryDirectory() as name:
        seeds(Path(name))
        atheris.Setup([*sys.argv, name], read)
        atheris.Fuzz()
