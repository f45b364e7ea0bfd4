"""Files found and read in folders and tars of every layout."""

import gc
import io
import os
import tarfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vcmjax.data import taskonomy_files
from vcmjax.data.dataset import directory
from vcmjax.data.rooms import Rooms, write_taskonomy
from vcmjax.data.taskonomy import Taskonomy
from vcmjax.errors import DataError

MINE, DOMAINS = ("hanson", "merom"), ("rgb", "normal")
LAYOUTS = {  # Tar (or none) and member of a domain d of a building b.
    "folders": ("", "{d}/{b}/"),
    "building_domain": ("{b}_{d}.tar", "{d}/"),
    "building_domain, flat": ("{b}_{d}.tar", ""),
    "domain/building": ("{d}/{b}.tar", "./{b}_{d}/"),
    "building/domain": ("{b}/{d}.tar", ""),
    "building": ("{b}.tar", "{d}/"),
    "domain": ("{d}.tar", "{d}/taskonomy/{b}/"),
    "all in one": ("taskonomy.tar", "{b}/{d}/"),
}


def write(root: Path, layout: str, buildings=MINE, domains=DOMAINS) -> dict:
    """Three files per domain and building; their content by (building, domain, key)."""
    content = {}
    for building in buildings:
        for domain in domains:
            for point in (2, 10, 0):
                name = f"point_{point}_view_7_domain_{domain}.png"
                data = f"{building} {domain} {point}".encode()
                content[building, domain, point << 32 | 7] = data
                tar, folder = (part.format(b=building, d=domain) for part in LAYOUTS[layout])
                file = root / tar / folder / name if not tar else root / tar
                file.parent.mkdir(parents=True, exist_ok=True)
                if not tar:
                    file.write_bytes(data)
                    continue
                with tarfile.open(file, "a") as archive:
                    member = tarfile.TarInfo(folder + name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return content


def read(index) -> dict:
    return {
        (building, domain, int(key)): files.get(int(key)).read_bytes()
        for building, domains in index.items()
        for domain, files in domains.items()
        for key in files.keys
    }


@pytest.mark.parametrize("named", [MINE, ()])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_each_file_its_content(tmp_path, layout, named):
    content = write(tmp_path, layout)
    index = taskonomy_files.index(tmp_path, DOMAINS, named)
    assert read(index) == content
    assert index["hanson"]["rgb"].keys.tolist() == [7, 2 << 32 | 7, 10 << 32 | 7]
    assert index["hanson"]["rgb"].get(1) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_buildings_and_domains_are_left_out(tmp_path, layout):
    content = write(tmp_path, layout)
    index = taskonomy_files.index(tmp_path, {"rgb"}, {"merom"}, {"hanson"})
    assert read(index) == {k: v for k, v in content.items() if k[:2] == ("merom", "rgb")}


def test_folders_and_tars_may_be_mixed(tmp_path):
    content = write(tmp_path, "folders", MINE[:1], DOMAINS[:1])
    content |= write(tmp_path, "building_domain", MINE[:1], DOMAINS[1:])
    content |= write(tmp_path, "building", MINE[1:])
    assert read(taskonomy_files.index(tmp_path, DOMAINS)) == content


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_header_with_long_names_is_read(tmp_path, form):
    prefix = f"{'x' * 90}/{'100%' * 15}/"  # Too long for one field; a % that is no format.
    with tarfile.open(tmp_path / "hanson_rgb.tar", "w", format=form) as archive:
        for point in (1, 2):
            member = tarfile.TarInfo(f"{prefix}point_{point}_view_0_domain_rgb.png")
            member.size = 1000
            archive.addfile(member, io.BytesIO(bytes([point]) * 1000))
    files = taskonomy_files.index(tmp_path, {"rgb"}, {"hanson"})["hanson"]["rgb"]
    assert files.get(2 << 32).read_bytes() == b"\2" * 1000
    assert str(files.get(2 << 32)).endswith("100%/point_2_view_0_domain_rgb.png")


def test_tars_of_other_buildings_and_domains_are_not_opened(tmp_path):
    content = write(tmp_path, "building_domain")
    for name in ("other_rgb.tar", "hanson_depth_zbuffer.tar", "other_rgb.tar.gz"):
        (tmp_path / name).write_bytes(b"not a tar")
    assert read(taskonomy_files.index(tmp_path, DOMAINS, MINE, {"other"})) == content


@pytest.mark.parametrize("cut", [100, 512, 600, 1024, 1100, 1536, 2560, 3072])
def test_a_cut_tar_is_named_with_its_last_member(tmp_path, cut):
    write(tmp_path, "building_domain")  # Members of 1024 bytes: header and a block.
    tar = tmp_path / "merom_normal.tar"
    os.truncate(tar, cut)
    with pytest.raises(DataError, match=f"merom_normal.tar: expected a whole.*found {cut}") as info:
        taskonomy_files.index(tmp_path, DOMAINS)
    if cut >= 512:
        assert f"point_{[2, 10, 0][(cut - 512) // 1024]}_view_7" in str(info.value)
    assert "\n" not in str(info.value)


def test_a_garbled_header_within_a_tar_is_not_taken_for_its_end(tmp_path):
    write(tmp_path, "building_domain")
    with open(tmp_path / "merom_normal.tar", "r+b") as file:
        file.seek(1024)
        file.write(b"x" * 512)
    with pytest.raises(DataError, match=r"damaged at normal/point_2_view_7_domain_normal\.png"):
        taskonomy_files.index(tmp_path, DOMAINS)


@pytest.mark.parametrize("name", ["hanson_rgb.tar.gz", "hanson_rgb.tgz"])
def test_a_compressed_tar_is_refused_with_the_remedy(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"{name}: rgb: expected a plain tar.*gunzip"):
        taskonomy_files.index(tmp_path, DOMAINS)


def test_a_compressed_tar_named_plain_is_refused(tmp_path):
    with tarfile.open(tmp_path / "hanson_rgb.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("rgb/point_0_view_0_domain_rgb.png"))
    with pytest.raises(DataError, match=r"hanson_rgb\.tar: expected a whole plain tar"):
        taskonomy_files.index(tmp_path, DOMAINS)


@pytest.mark.parametrize("domain", ["normal", "class_scene"])
def test_a_tar_cut_after_indexing_gives_an_error_naming_tar_and_member(tmp_path, domain):
    write_taskonomy(tmp_path, {"train": Rooms("train", 1, 32)}, tar=True)
    source = Taskonomy(tmp_path, "train", [domain])
    tar = next(tmp_path.glob(f"*_{domain}.tar"))
    os.truncate(tar, 512 + 48)
    with pytest.raises(DataError, match=rf"{domain}\.tar/{domain}/point_0_.* ends after 48 of"):
        source[0]
    tar.unlink()
    with pytest.raises(DataError, match=rf"{domain}\.tar/{domain}/point_0_.*[Nn]o.* file"):
        source[0]


def test_sixteen_threads_read_the_same_bytes_as_one(tmp_path):
    write_taskonomy(tmp_path, {"train": Rooms("train", 4, 32)}, tar=True)
    source = Taskonomy(tmp_path, "train", ["normal"], None)
    alone = [source[index]["normal"] for index in range(4)]
    with ThreadPoolExecutor(16) as pool:
        for index, example in enumerate(pool.map(source.__getitem__, [0, 1, 2, 3] * 50)):
            np.testing.assert_array_equal(example["normal"], alone[index % 4])


def test_a_view_is_held_in_28_bytes_and_indexing_holds_no_headers(tmp_path):
    count = 5000
    with tarfile.open(tmp_path / "hanson_rgb.tar", "w") as archive:
        for point in range(count):
            archive.addfile(tarfile.TarInfo(f"rgb/point_{point}_view_0_domain_rgb.png"))
    taskonomy_files.index(tmp_path, {"rgb"})  # Imports and caches first.
    tracemalloc.start()
    index = taskonomy_files.index(tmp_path, {"rgb"})
    gc.collect()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index["hanson"]["rgb"].keys) == count
    assert held < 40 * count and peak < 500 * count


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_with_a_list_of_buildings_is_known_as_taskonomy(tmp_path, layout):
    write(tmp_path, layout)
    (tmp_path / "splits.csv").write_text("id,train,val,test\nhanson,1,0,0\n")
    data = directory(tmp_path, 8, ["normal"])
    assert list(data.tasks) == ["normal"] and len(data.open("train")) == 3


def test_identity_of_a_copy_changes_with_its_tars_draw_and_subset(tmp_path):
    write(tmp_path, "building_domain")
    first = directory(tmp_path, 8, ["normal"]).identity
    assert directory(tmp_path, 8, ["normal"]).identity == first
    others = {
        directory(tmp_path, 8, ["normal"], counts=(2, 1, 1), seed=seed).identity for seed in (0, 1)
    }
    others.add(directory(tmp_path, 8, ["normal"], subset="tiny").identity)
    os.utime(tmp_path / "hanson_rgb.tar", (1, 1))
    others.add(directory(tmp_path, 8, ["normal"]).identity)
    assert first not in others and len(others) == 4


def test_a_file_that_is_no_tar_is_not_called_damaged(tmp_path):
    (tmp_path / "hanson_rgb.tar").write_bytes(b"a letter" * 99)
    with pytest.raises(DataError, match=r"found 792 bytes that do not begin as one") as info:
        taskonomy_files.index(tmp_path, DOMAINS)
    assert "damaged" not in str(info.value)


def test_links_in_circles_and_pipes_named_as_tars_do_not_hold_the_search_up(tmp_path):
    content = write(tmp_path, "folders")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "rgb" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "merom_normal.tar")
    assert read(taskonomy_files.index(tmp_path, DOMAINS)) == content


def test_buildings_on_another_disk_are_found_through_links(tmp_path):
    content = write(tmp_path / "disk", "folders")
    (tmp_path / "copy").mkdir()
    for domain in DOMAINS:
        (tmp_path / "copy" / domain).symlink_to(tmp_path / "disk" / domain)
    assert read(taskonomy_files.index(tmp_path / "copy", DOMAINS)) == content
