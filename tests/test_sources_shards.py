"""Tar shards: read in place, named by keys, refused in one line."""

import gzip
import io
import os
import tarfile

import pytest
from conftest import make_photos
from images import rows_of, write_shards, write_tar

from pipeline.errors import DataError, UsageError
from pipeline.loading.decode import BadImageError, read_file
from pipeline.sources.braces import expand
from pipeline.sources.members import open_archive
from pipeline.sources.reading import Reading
from pipeline.sources.resolve import open_source
from pipeline.sources.shards import ShardsSource
from pipeline.sources.source import TEST, TRAIN, VAL


@pytest.fixture
def place(tmp_path, monkeypatch):
    make_photos(tmp_path / "photos", 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shards(place):
    return write_shards(place / "shards", rows_of(place / "photos"))


@pytest.mark.parametrize(
    "spec", ["shards", "tar:shards", "shards/{000..001}.tar", "shards/*.tar", "shards/00{0,1}.tar"]
)
def test_samples_are_keys_and_images_are_read_in_place(place, shards, spec):
    source = open_source(spec)
    assert isinstance(source, ShardsSource)
    listing = source.listing()
    assert list(listing.ids) == [f"{key:06d}" for key in (*range(0, 12, 2), *range(1, 12, 2))]
    assert listing.classes == ("apple", "beet", "corn")
    files = rows_of(place / "photos")
    assert listing.stats is not None
    assert len({tuple(row) for row in listing.stats[:].tolist()}) == len(set(listing.stats[:][:, 0].tolist())) == 12
    for row, key in enumerate(listing.ids):
        payload = source.payload(key)
        data, _, facts = read_file(payload.path, payload.span)
        assert data == files[int(key)][0].read_bytes()
        assert facts == tuple(listing.stats[row].tolist())
        assert listing.classes[listing.labels[row]] == files[int(key)][1]
    assert open_source(source.spec).listing().ids == listing.ids


def test_labels_and_groups_come_from_json_where_asked(shards):
    listing = open_source("shards", reading=Reading(label_column="patient", group_by="patient")).listing()
    assert listing.groups == [f"p{int(key) // 3}" for key in listing.ids]
    assert listing.classes == ("p0", "p1", "p2", "p3")
    with pytest.raises(DataError, match=r"000000\.json: field 'patent' is not there\. Did you mean 'patient'"):
        open_source("shards", reading=Reading(group_by="patent")).listing()


def test_shards_named_by_split_are_split(place):
    for name in ("train-000", "val_0", "Test"):
        write_tar(place / "s" / f"{name}.tar", [("a.jpg", b"image"), ("a.cls", name[:1].encode())])
    listing = open_source("s/{train-000,val_0,Test}.tar").listing()
    assert list(listing.ids) == ["train/a", "val/a", "test/a"]
    assert listing.splits.tolist() == [TRAIN, VAL, TEST]
    write_tar(place / "s" / "training.tar", [("b.jpg", b"image"), ("b.cls", b"1")])
    with pytest.raises(DataError, match="1 of 4 shards are not named by a split"):
        open_source("s").listing()


def test_keys_keep_their_folders_and_other_members_are_passed_over(place):
    members = [
        ("./a/x.JPG", b"1"),
        ("./a/x.cls", b"7"),
        ("a/x.seg.png", b"mask"),
        ("b/x.png", b"2"),
        ("b/x.cls", b"10"),
    ]
    write_tar(place / "s.tar", [*members, ("README", b"hello"), ("c.txt", b"words")])
    listing = open_source("s.tar").listing()
    assert (list(listing.ids), listing.classes) == (["a/x", "b/x"], ("7", "10"))
    assert listing.notes == ("1 keys in the shards have no image and are left out: c",)
    assert open_source("s.tar", reading=Reading(group_by="folder:1")).listing().groups == ["a", "b"]


def test_without_labels_only_images_are_looked_at(place):
    write_tar(place / "s.tar", [("a.jpg", b"1"), ("b.jpg", b"2")])
    listing = open_source("s.tar", reading=Reading(unlabelled=True)).listing()
    assert (listing.classes, listing.labels.tolist()) == ((), [-1, -1])


IMAGE = ("a.jpg", b"1")
BAD = {
    "no label": ([IMAGE], r"1 samples have neither \.cls nor \.json: a"),
    "one without": ([IMAGE, ("a.cls", b"1"), ("b.jpg", b"2")], r"1 samples have no \.cls: b"),
    "two images": ([IMAGE, ("a.png", b"2")], "a has two images, a.jpg and a.png"),
    "empty label": ([IMAGE, ("a.cls", b" \n")], r"1 labels in \.cls are no text: a"),
    "no text": ([IMAGE, ("a.cls", b"\xff")], r"1 labels in \.cls are no text: a"),
    "no JSON": ([IMAGE, ("a.json", b"{")], r"a\.json is not JSON"),
    "no fields": ([IMAGE, ("a.json", b"[1]")], r"a\.json holds no fields"),
    "no field": ([IMAGE, ("a.json", b"{}")], r"field 'label' is not there"),
    "a list": ([IMAGE, ("a.json", b'{"label": [1]}')], r"field 'label' is '\[1\]', no name"),
    "huge": ([IMAGE, ("a.cls", bytes(2 << 20))], "larger than any label"),
    "no image": ([("a.cls", b"1")], "has no images in it"),
    "above": ([("../a.jpg", b"1")], "leads out of the archive"),
}


@pytest.mark.parametrize(("members", "message"), BAD.values(), ids=BAD)
def test_bad_shards_are_one_clear_line(place, members, message):
    write_tar(place / "s.tar", members)
    with pytest.raises(DataError, match=message):
        open_source("s.tar").listing()


def test_a_key_in_two_shards_is_refused(place):
    for name in ("a", "b"):
        write_tar(place / f"{name}.tar", [IMAGE, ("a.cls", b"1")])
    with pytest.raises(DataError, match=r"b\.tar and .*a\.tar both have a sample a"):
        open_source("{a,b}.tar").listing()


def test_compressed_truncated_and_damaged_files_are_refused(shards):
    whole = (shards / "000.tar").read_bytes()
    for name, data, message in (
        ("gzip.tar", gzip.compress(whole), "is compressed \\(gzip\\)"),
        ("text.tar", b"no tar file at all" * 100, "no tar file"),
        ("empty.tar", b"", "no tar file"),
        ("half.tar", whole[: len(whole) // 2], "truncated"),
        ("middle.tar", whole[:512] + b"\x07" * 5000 + whole[5512:], "truncated|damaged"),
    ):
        (shards / name).write_bytes(data)
        with pytest.raises(DataError, match=message):
            open_source(f"tar:{shards / name}").listing()
    with pytest.raises(DataError, match="no file .*gone.tar"):
        open_source("shards/{gone,000}.tar").listing()
    for length in range(1024, len(whole.rstrip(b"\0")), 999):
        (shards / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match="truncated"):
            open_source(f"tar:{shards / 'cut.tar'}").listing()


def test_a_member_that_has_gone_since_is_a_bad_image_and_links_in_archives_lead_nowhere(shards):
    source = open_source("shards")
    source.listing()
    payload = source.payload("000010")
    os.truncate(payload.path, payload.span[0] + 10)
    with pytest.raises(BadImageError, match="beyond the end of its archive"):
        read_file(payload.path, payload.span)
    link = tarfile.TarInfo("a.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(shards / "link.tar", "w") as tar:
        tar.addfile(link)
        info = tarfile.TarInfo("b.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"1"))
    assert list(open_source(f"{shards}/link.tar", reading=Reading(unlabelled=True)).listing().ids) == ["b"]


def test_braces_stand_for_names_in_their_order(place):
    assert expand("{08..11}.tar") == ["08.tar", "09.tar", "10.tar", "11.tar"]
    assert expand("{b,a}-{0..1}") == ["b-0", "b-1", "a-0", "a-1"]
    assert expand("x{train-{0..1},test-0}.tar") == ["xtrain-0.tar", "xtrain-1.tar", "xtest-0.tar"]
    for wrong in ("{0..1", "0}", "{3..1}", "{abc}", "{0..999999999}"):
        with pytest.raises(UsageError):
            expand(wrong)
    with pytest.raises(DataError, match="no file fits"):
        expand("nothing-*.tar")


def test_archives_of_every_kind_are_listed_alike(place):
    names = ["a/x.jpg", "ä" * 40 + ".jpg", "long/" * 30 + "y.jpg"]
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for mtime in (0, 1.5):
            with tarfile.open(place / "s.tar", "w", format=kind) as tar:
                folder = tarfile.TarInfo("a")
                folder.type = tarfile.DIRTYPE
                tar.addfile(folder)
                for name in names:
                    info = tarfile.TarInfo(name)
                    info.size, info.mtime = 700, mtime
                    tar.addfile(info, io.BytesIO(name.encode()[:5] * 140))
            with tarfile.open(place / "s.tar") as tar:
                told = [(item.name, item.offset_data, item.size) for item in tar if item.isreg()]
            found = open_archive(place / "s.tar")
            assert [(item.name, item.offset, item.size) for item in found.members] == told
            with tarfile.open(place / "t.tar", "w", format=kind) as tar:  # nothing but plain headers
                info = tarfile.TarInfo("z.jpg")
                info.size, info.mtime = 700, mtime
                tar.addfile(info, io.BytesIO(b"z" * 700))
            assert [item.name for item in open_archive(place / "t.tar").members] == ["z.jpg"]
