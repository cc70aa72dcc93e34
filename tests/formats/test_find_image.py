"""The image that a row means is found however producers and tools spell it, or the reason names what lies there; nothing outside is opened."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from risbench.core.errors import InputError, InvalidRowError
from risbench.core.imagery import encode_png
from risbench.formats.source.tree import SourceTree
from risbench.formats.source.unopened import packed_as, part_of
from tests.conftest import picture

PNG = encode_png(picture(0, 16, 16))
OTHER = encode_png(picture(1, 16, 16))


def tree_of(root: Path, **files: bytes) -> SourceTree:
    """Write files by path (`__` for a slash, `_dot_` for a dot) and list them."""
    for name, data in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return SourceTree.open(root)


@pytest.mark.parametrize(
    ("reference", "note"),
    [
        ("a.jpg", "image_found_in_other_case"),
        ("images/a.JPG", None),
        ("./images/a.JPG", None),
        ("images\\a.JPG", None),
        ("A.jpeg", "image_found_under_other_ending"),
        ("a.webp", "image_found_under_other_ending"),
        ("/data/upload/3/a.JPG", "image_found_by_name_only"),
        ("C:\\Users\\me\\a.JPG", "image_found_by_name_only"),
        ("../pictures/a.JPG", "image_found_by_name_only"),
        ("https://example.org/x/a.JPG?token=1", "image_found_by_name_only"),
        ("/data/local-files/?d=images%2Fa.JPG", "image_found_by_name_only"),
        ("/data/upload/3/0a1b2c3d-a.JPG", "image_found_by_name_only"),
        ("file:///home/me/a.JPG", "image_found_by_name_only"),
    ],
)
def test_an_image_is_found_under_every_spelling_and_what_was_assumed_is_counted(tmp_path: Path, reference: str, note: str | None) -> None:
    tree = tree_of(tmp_path, images__a_dot_JPG=PNG, notes_dot_txt=b"x")
    entry, found = tree.find_image_and_note(reference, "rows.json", ())
    assert (entry.path, found) == ("images/a.JPG", note)


@pytest.mark.parametrize(
    "reference", ["/etc/passwd", "../../etc/passwd.png", "..", ".", "./", "/", "~", "", " ", "http://h/b.png", "b\x00.png"]
)
def test_a_path_that_leaves_the_source_is_refused_where_no_file_of_its_name_is_in_it(tmp_path: Path, reference: str) -> None:
    with pytest.raises(InvalidRowError, match="unsafe_path"):
        tree_of(tmp_path, images__a_dot_png=PNG).find_image(reference)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("b.jp2", "JPEG 2000"), ("b.webp", "WebP"), ("b.GIF", "GIF"), ("b.img", "ERDAS"), ("b.npy", "array"), ("b.heic", "HEIC")],
)
@pytest.mark.parametrize("reference", ["b.png", "b.jp2", "b"])
def test_the_reason_names_a_picture_of_a_kind_that_is_not_read(tmp_path: Path, name: str, kind: str, reference: str) -> None:
    (tmp_path / name).write_bytes(b"\x00\x00\x00\x0cjP  ")
    with pytest.raises(InvalidRowError) as refusal:
        tree_of(tmp_path, a_dot_png=PNG).find_image(reference)
    assert refusal.value.code == "image_missing"
    assert name in refusal.value.bound
    assert kind in refusal.value.bound


def test_the_image_beside_the_annotation_file_is_meant_and_else_the_one_of_its_split(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, train__images__1_dot_png=PNG, valid__images__1_dot_png=OTHER, annotations__train_dot_json=b"[]")
    for beside, expected in (
        ("train/_annotations.coco.json", "train/images/1.png"),
        ("valid/_annotations.coco.json", "valid/images/1.png"),
        ("annotations/instances_train2017.json", "train/images/1.png"),
        ("annotations/instances_val2017.json", "valid/images/1.png"),
    ):
        assert tree.find_image("1.png", folders=("images",), beside=beside).path == expected
    assert tree.find_image("/home/me/valid/images/1.png", beside="all.json").path == "valid/images/1.png"
    with pytest.raises(InvalidRowError, match=r"image_ambiguous.*write the folder into the row"):
        tree.find_image("1.png", beside="all.json")


def test_several_endings_that_differ_are_ambiguous_and_a_mask_is_never_meant(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, a_dot_png=PNG, b__a_dot_bmp=OTHER, masks__c_dot_png=PNG)
    with pytest.raises(InvalidRowError, match="image_ambiguous"):
        tree.find_image("a.jpg")
    with pytest.raises(InvalidRowError, match="image_missing"):
        tree.find_image("c.jpg")


def test_names_whose_accents_are_parted_as_on_a_mac_are_found(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301.png").write_bytes(PNG)
    assert tree_of(tmp_path).find_image("caf\u00e9.png").name == "cafe\u0301.png"


@pytest.mark.parametrize(
    ("page", "name"), [("gb18030", "影像/港口1.png"), ("cp932", "港.png"), ("cp1251", "Порт.png"), ("utf-8", "港口.png")]
)
def test_zip_names_of_another_code_page_are_found_by_what_the_rows_call_them(tmp_path: Path, page: str, name: str) -> None:
    shown = name.encode(page).decode("cp437")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        info = zipfile.ZipInfo("x" * len(name.encode(page)))
        archive.writestr(info, PNG)
    data = (tmp_path / "images.zip").read_bytes().replace(b"x" * len(name.encode(page)), name.encode(page))
    (tmp_path / "images.zip").write_bytes(data)
    entry, note = tree_of(tmp_path, rows_dot_json=b"[]").find_image_and_note(name, "rows.json", ())
    assert (entry.path, note) == (f"images.zip/{shown}", "image_found_by_code_page")
    assert entry.read() == PNG
    with pytest.raises(InvalidRowError, match=r"images\.zip has names that are not UTF-8" if page != "cp1251" else "image_missing"):
        tree_of(tmp_path).find_image("another.png")


def test_resource_forks_of_a_mac_are_passed_over_and_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("Images/a.png", "__MACOSX/Images/._a.png", "Images/._b.png"):
            archive.writestr(name, PNG)
    tree = tree_of(tmp_path, **{"._c_dot_json": b"\x00\x05\x16\x07", "c_dot_json": b"[]"})
    assert [entry.path for entry in tree.entries] == ["a.zip/Images/a.png", "c.json"]
    assert (tree.refused, tree.passed_over) == ([], {"resource_fork": 3})


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["i.tar.gz"], "a .tar.gz file is not opened: unpack it"),
        (["i.7z"], "a .7z file is not opened"),
        (["i.rar"], "a .rar file is not opened"),
        (["rows.json.gz"], "a .gz file is not opened"),
        (["d.zip.001", "d.zip.002"], "cat d.zip.001 d.zip.002 > d.zip"),
        (["d.tar.gz.aa", "d.tar.gz.ab"], "cat d.tar.gz.aa d.tar.gz.ab > d.tar.gz"),
        (["d.z01", "d.z02"], "zip -s 0 d.zip --out whole.zip"),
        (["d.part1.rar", "d.part2.rar"], "unrar x d.part1.rar"),
        ([f"d.zip.{part:03d}" for part in range(1, 20)], "cat d.zip.* > d.zip"),
    ],
)
def test_archives_that_are_not_opened_are_named_with_what_to_do(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    tree = tree_of(tmp_path, rows_dot_json=b"[]")
    [(path, reason)] = tree.refused
    assert (path, reason.code) == (names[0], "archive_not_opened")
    assert said in reason.bound
    with pytest.raises(InvalidRowError) as refusal:
        tree.find_image("a.png")
    assert said in refusal.value.bound
    with pytest.raises(InputError) as error:
        SourceTree.open(tmp_path / names[0])
    assert said in str(error.value)


def test_what_is_packed_twice_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("images.zip", b"PK")
        archive.writestr("more.tar.gz", b"x")
        archive.writestr("rows.json", b"[]")
    assert sorted(path for path, reason in SourceTree.open(tmp_path).refused if reason.code == "archive_in_archive") == [
        "data.zip/images.zip",
        "data.zip/more.tar.gz",
    ]


@pytest.mark.parametrize("name", ["a.zip", "P0003.tar", "scene.001.tif", "a.json", "v1.2.zip", "x.z1", "tile.part1.png"])
def test_plain_names_are_neither_archives_nor_parts(name: str) -> None:
    assert (packed_as(name), part_of(name)) == (None, None)


def linked_source(root: Path) -> Path:
    """Return a source whose images are linked from outside, as a folder and as single files."""
    for name in ("disk/a.png", "disk/sub/b.png", "blobs/0f"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    source = root / "source"
    source.mkdir()
    (source / "Images").symlink_to(root / "disk")
    (source / "c.png").symlink_to(root / "blobs" / "0f")
    (source / "rows.json").write_text("[]")
    return source


def test_links_out_of_the_source_are_refused_with_the_option_and_read_with_it(tmp_path: Path) -> None:
    source = linked_source(tmp_path)
    tree = SourceTree.open(source)
    assert [(path, reason.code) for path, reason in tree.refused] == [("Images", "link_outside"), ("c.png", "link_outside")]
    assert all("--follow-links" in reason.bound for _, reason in tree.refused)
    with pytest.raises(InvalidRowError, match=r"image_missing.*Images: it is a link to a folder outside the source; --follow-links"):
        tree.find_image("a.png")
    followed = SourceTree.open(source, follow_links=True)
    assert [entry.path for entry in followed.entries] == ["Images/a.png", "Images/sub/b.png", "c.png", "rows.json"]
    assert (followed.refused, followed.find_image("a.png").read(), followed.find_image("c.png").read()) == ([], PNG, PNG)


def test_links_back_to_where_they_lie_end(tmp_path: Path) -> None:
    source = linked_source(tmp_path)
    (tmp_path / "disk" / "up").symlink_to(tmp_path)
    (tmp_path / "disk" / "self").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(source)
    (source / "Images2").symlink_to(tmp_path / "disk")
    tree = SourceTree.open(source, follow_links=True)
    assert {entry.path for entry in tree.entries} >= {"Images/a.png", "Images2/a.png"}
    assert sorted({reason.code for _, reason in tree.refused}) == ["link_loop"]
    assert len(tree.entries) == 6


def test_links_inside_the_source_and_links_to_nowhere_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "data1").mkdir()
    (tmp_path / "data1" / "a.png").write_bytes(PNG)
    os.symlink("data1", tmp_path / "Images")
    os.symlink("../.git/annex/objects/xx/key", tmp_path / "b.png")
    os.symlink("/nowhere/c.png", tmp_path / "c.png")
    tree = SourceTree.open(tmp_path)
    assert tree.passed_over == {"link_inside": 1}
    assert tree.find_image("Images/a.png").path == "data1/a.png"
    reasons = dict(tree.refused)
    assert {reason.code for reason in reasons.values()} == {"link_broken"}
    assert "git annex get" in reasons["b.png"].bound
    with pytest.raises(InvalidRowError, match=r"image_missing.*git annex get"):
        tree.find_image("b.png")


def test_links_in_archives_are_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    source = tmp_path / "s"
    source.mkdir()
    with tarfile.open(source / "a.tar", "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        archive.addfile(link)
    (source / "rows.json").write_text("[]")
    assert [reason.code for _, reason in SourceTree.open(source, follow_links=True).refused] == ["tar_link"]


def _place(folder: Path, *paths: str) -> SourceTree:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(bytes([number]) * 8)
    return SourceTree.open(folder)


@pytest.mark.parametrize(
    ("there", "reference", "beside", "found"),
    [
        ("valid/0001.png", "0001.png", "train/a.json", None),
        ("valid/0001.png", "train/0001.png", "instances.json", None),
        ("train/images/P0001.png", "P0001", "val/labelTxt/P0001.txt", None),
        ("Images_val/P0001.png", "P0001.png", "VRSBench_EVAL_referring.json", "Images_val/P0001.png"),
        ("Images_train/P0001.png", "P0001.png", "VRSBench_EVAL_referring.json", "Images_train/P0001.png"),
        ("train2014/P0001.png", "P0001.png", "refcoco/instances.json", "train2014/P0001.png"),
        ("val/P0001.png", "P0001.png", "test/instances.json", None),
        ("Images_val/P0001.png", "P0001.png", "eval/instances.json", "Images_val/P0001.png"),
        ("train/P0001.png", "/data/test_project/images/P0001.png", "instances.json", "train/P0001.png"),
        ("train/P0001.png", "C:\\test\\images\\P0001.png", "instances.json", "train/P0001.png"),
        ("train/P0001.png", "P0001.png", "eval/instances.json", None),
    ],
)
def test_an_image_of_the_other_split_is_not_taken_for_one_that_is_missing(
    tmp_path: Path, there: str, reference: str, beside: str, found: str | None
) -> None:
    tree = _place(tmp_path, there)
    if found is not None:
        assert tree.find_image(reference, beside=beside).path == found
        return
    with pytest.raises(InvalidRowError, match=f"{there} has this name and is of another split") as error:
        tree.find_image(reference, beside=beside)
    assert error.value.code == "image_missing"


def test_archives_in_a_tar_and_parts_of_one_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        for name in ("images.zip", "images.tar.gz", "images.zip.001", "a.txt"):
            (tmp_path / "x").write_bytes(b"x")
            archive.add(tmp_path / "x", name)
    (tmp_path / "x").unlink()
    refused = {path: str(reason) for path, reason in SourceTree.open(tmp_path).refused}
    assert set(refused) == {"data.tar/images.zip", "data.tar/images.tar.gz", "data.tar/images.zip.001"}
    assert "a part of images.zip, inside a tar is not opened; unpack the outer tar first" in refused["data.tar/images.zip.001"]
