from __future__ import annotations

import os
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from risbench.core.errors import InputError, InvalidRowError
from risbench.core.imagery import encode_png
from risbench.formats.source.tree import SourceTree, check_reference
from tests.conftest import picture


def write_zip(path: Path, members: dict[str, bytes], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        if link:
            info = zipfile.ZipInfo("link.png")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, link)
    return path


@pytest.mark.parametrize(
    "reference", ["../a.png", "/etc/passwd", "x/../../a.png", "C:\\a.png", "..\\a.png", "http://h/a.png", "", "a\0.png", "~/a.png"]
)
def test_references_that_leave_the_source_are_refused(reference: str) -> None:
    with pytest.raises(InvalidRowError, match="unsafe_path"):
        check_reference(reference)


def test_zip_slip_links_and_bombs_are_refused_and_the_rest_is_listed(tmp_path: Path) -> None:
    members = {"Images/a.png": encode_png(picture(0)), "../evil.png": b"x", "/abs.png": b"x", "bomb.png": bytes(30 << 20)}
    tree = SourceTree.open(write_zip(tmp_path / "source.zip", members, link="/etc/passwd"))
    assert [item.path for item in tree.entries] == ["Images/a.png"]
    assert sorted(reason.code for _, reason in tree.refused) == ["zip_bomb", "zip_link", "zip_slip", "zip_slip"]
    assert not (tmp_path / "evil.png").exists()
    assert sorted(os.listdir(tmp_path)) == ["source.zip"]


def test_a_member_that_lies_about_its_size_is_refused_when_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "lie.zip", {"Images/a.png": bytes(500_000)})
    data = bytearray(path.read_bytes())
    where = data.rfind((500_000).to_bytes(4, "little"))
    data[where : where + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    tree = SourceTree.open(path)
    with pytest.raises(InvalidRowError, match="zip_bomb|damaged_archive"):
        tree.entries[0].read()


def test_a_link_out_of_the_source_is_refused_and_one_inside_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encode_png(picture(1)))
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.png").write_bytes(encode_png(picture(0)))
    (source / "inside.png").symlink_to(source / "a.png")
    (source / "outside.png").symlink_to(secret)
    (source / "folder").symlink_to(tmp_path)
    (source / "nowhere.png").symlink_to(tmp_path / "gone")
    tree = SourceTree.open(source)
    assert [item.path for item in tree.entries] == ["a.png", "inside.png"]
    assert sorted(path for path, _ in tree.refused) == ["folder", "nowhere.png", "outside.png"]


def test_zips_inside_a_folder_are_part_of_it(tmp_path: Path) -> None:
    write_zip(tmp_path / "Images_train.zip", {"Images_train/P1_0000.png": encode_png(picture(0))})
    (tmp_path / "rows.json").write_text("[]")
    tree = SourceTree.open(tmp_path)
    assert tree.find_image("P1_0000.png").path == "Images_train.zip/Images_train/P1_0000.png"


def test_two_different_files_of_one_name_are_ambiguous_and_two_equal_ones_are_not(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 1), ("c", 0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(encode_png(picture(seed)))
    tree = SourceTree.open(tmp_path)
    with pytest.raises(InvalidRowError, match="image_ambiguous: image = x.png; 3 different files"):
        tree.find_image("x.png")
    assert tree.find_image("b/x.png").path == "b/x.png"
    (tmp_path / "b" / "x.png").unlink()
    assert SourceTree.open(tmp_path).find_image("x.png").path == "a/x.png"


def test_a_source_that_is_not_there_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        SourceTree.open(tmp_path / "nothing")
    with pytest.raises(InputError, match="no file in it can be read"):
        SourceTree.open(tmp_path)


def test_folders_nested_deeper_than_pythons_calls_are_listed(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 200
    places = [str(tmp_path) + "/a" * (level + 1) for level in range(depth)]
    for place in places:
        os.mkdir(place)
    (tmp_path / "y.png").touch()
    Path(places[-1], "x.png").touch()
    try:
        assert [entry.path for entry in SourceTree.open(tmp_path).entries] == ["a/" * depth + "x.png", "y.png"]
    finally:  # whoever tidies up after the tests goes through folders by recursion
        os.unlink(f"{places[-1]}/x.png")
        for place in reversed(places):
            os.rmdir(place)
