"""torchvision's data sets by name, from small files in their own formats."""

import hashlib
import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import make_image, make_photos
from torchvision import datasets

from pipeline.errors import DataError, UsageError
from pipeline.sources.source import TEST, TRAIN, VAL
from pipeline.sources.vision import ARRAYS, FILES, NAMES, WITHOUT_LOADER, vision_source


def write_idx(path: Path, array: np.ndarray) -> None:
    head = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(head + array.tobytes())


def fashion(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    made = {}
    for name, count in (("train", 12), ("t10k", 5)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.permutation(count).astype(np.uint8) % 10
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels)
        made[name] = images, labels
    return made


@pytest.mark.parametrize("asked", ["FashionMNIST", "fashionmnist"])
def test_fashion_mnist_has_its_images_labels_splits_and_class_names(tmp_path, asked):
    made = fashion(tmp_path)
    source = vision_source(asked, tmp_path)
    listing = source.listing()
    assert source.spec == "torchvision:FashionMNIST"
    assert listing.classes[0] == "T-shirt/top"
    assert len(listing.classes) == 10
    assert listing.splits.tolist() == [TRAIN] * 12 + [TEST] * 5
    assert listing.labels.tolist() == made["train"][1].tolist() + made["t10k"][1].tolist()
    assert (listing.ids[3], listing.ids[-1]) == ("train/03", "test/04")
    assert np.array_equal(source.payload("train/03").array, made["train"][0][3])
    assert np.array_equal(source.payload("test/04").array, made["t10k"][0][4])


def test_cifar10_images_are_rows_columns_colours(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(1)
    lists, made = {"train_list": [], "test_list": []}, {}
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        made[name] = rng.integers(0, 256, (3, 3, 32, 32), np.uint8)
        data = pickle.dumps({"data": made[name].reshape(3, -1), "labels": [2, 0, 1]})
        (folder / name).write_bytes(data)
        md5 = hashlib.md5(data).hexdigest()
        lists["test_list" if name.startswith("test") else "train_list"].append([name, md5])
    meta = pickle.dumps({"label_names": ["plane", "car", "bird"]})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", lists["train_list"])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", lists["test_list"])
    md5 = hashlib.md5(meta).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5})

    source = vision_source("cifar10", tmp_path)
    listing = source.listing()
    assert listing.classes == ("plane", "car", "bird")
    assert listing.labels.tolist() == [2, 0, 1] * 3
    assert listing.splits.tolist() == [TRAIN] * 6 + [TEST] * 3
    theirs = np.asarray(datasets.CIFAR10(tmp_path, train=True)[4][0])
    assert np.array_equal(source.payload("train/4").array, theirs)
    assert np.array_equal(source.payload("test/2").array, made["test_batch"][2].transpose(1, 2, 0))


def test_svhn_images_are_rows_columns_colours(tmp_path, monkeypatch):
    from scipy.io import savemat

    rng = np.random.default_rng(2)
    made, lists = {}, {}
    for split, labels in (("train", [10, 3, 1, 2]), ("test", [1, 10, 3])):
        made[split] = rng.integers(0, 256, (32, 32, 3, len(labels)), np.uint8)
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": made[split], "y": np.array(labels, np.uint8)[:, None]})
        lists[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    source = vision_source("svhn", tmp_path)
    listing = source.listing()
    assert listing.labels.tolist() == [0, 3, 1, 2, 1, 0, 3]  # the file calls zero ten
    assert listing.splits.tolist() == [TRAIN] * 4 + [TEST] * 3
    assert listing.classes == ("0", "1", "2", "3")
    assert np.array_equal(source.payload("train/2").array, made["train"][..., 2])
    assert np.array_equal(
        source.payload("test/1").array, np.asarray(datasets.SVHN(tmp_path, split="test", download=True)[1][0])
    )


def test_stl10_images_are_rows_columns_colours(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for split, labels in (("train", [1, 2]), ("test", [2])):
        rng.integers(0, 256, (len(labels), 3, 96, 96), np.uint8).tofile(folder / f"{split}_X.bin")
        np.array(labels, np.uint8).tofile(folder / f"{split}_y.bin")
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda _self: True)
    source = vision_source("STL10", tmp_path)
    listing = source.listing()
    assert listing.labels.tolist() == [0, 1, 1]
    assert listing.classes == ("airplane", "bird")
    theirs = np.asarray(datasets.STL10(tmp_path, split="train")[1][0])
    assert np.array_equal(source.payload("train/1").array, theirs)


def test_eurosat_is_listed_by_file_and_not_decoded(tmp_path):
    folder = make_photos(tmp_path / "eurosat" / "2750", 2, ("Forest", "AnnualCrop", "River"))
    (folder / "River" / "00.jpg").write_bytes(b"not an image at all")
    source = vision_source("EuroSAT", tmp_path)
    listing = source.listing()
    assert listing.classes == ("AnnualCrop", "Forest", "River")
    assert list(listing.ids) == [
        f"eurosat/2750/{name}/0{index}.jpg" for name in ("AnnualCrop", "Forest", "River") for index in (0, 1)
    ]
    assert listing.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert set(listing.splits.tolist()) == {TRAIN}
    path = folder / "Forest" / "01.jpg"
    facts = path.stat()
    assert listing.stats[3].tolist() == [facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
    assert Path(source.payload(listing.ids[3]).path).read_bytes() == path.read_bytes()
    assert source.describe() == {"kind": "torchvision", "location": "EuroSAT"}


def test_a_data_set_may_be_a_link_to_another_disk(tmp_path):
    make_photos(tmp_path / "disk" / "2750", 2, ("Forest", "River"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "eurosat").symlink_to(tmp_path / "disk")
    source = vision_source("EuroSAT", tmp_path / "data")
    listing = source.listing()
    assert len(listing) == 4
    assert all(Path(source.payload(sample_id).path).is_file() for sample_id in listing.ids)


def test_imagenette_classes_are_called_by_their_first_name(tmp_path):
    for split, count in (("train", 2), ("val", 1)):
        for wnid in ("n01440764", "n03028079"):
            folder = tmp_path / "imagenette2" / split / wnid
            folder.mkdir(parents=True)
            for index in range(count):
                make_image(index).save(folder / f"{index}.JPEG")
    listing = vision_source("imagenette", tmp_path).listing()
    assert listing.classes == ("tench", "church")
    assert listing.splits.tolist() == [TRAIN] * 4 + [VAL] * 2
    assert listing.labels.tolist() == [0, 0, 1, 1, 0, 1]
    assert listing.ids[-1] == "imagenette2/val/n03028079/0.JPEG"


def test_oxford_pets_are_listed_by_file(tmp_path):
    root = tmp_path / "oxford-iiit-pet"
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    pets = [("Abyssinian_1", 1, 1), ("american_bulldog_7", 2, 2), ("Abyssinian_2", 1, 1), ("american_bulldog_9", 2, 2)]
    for split, rows in (("trainval", pets[:3]), ("test", [pets[3], pets[0]])):
        lines = [f"{name} {label} {species} 1\n" for name, label, species in rows]
        (root / "annotations" / f"{split}.txt").write_text("".join(lines))
    for name, _, _ in pets:
        (root / "images" / f"{name}.jpg").write_bytes(b"not decoded: " + name.encode())
    source = vision_source("OxfordIIITPet", tmp_path)
    listing = source.listing()
    assert listing.classes == ("Abyssinian", "American Bulldog")
    assert listing.labels.tolist() == [0, 1, 0, 1, 0]
    assert listing.splits.tolist() == [TRAIN] * 3 + [TEST] * 2
    assert listing.ids[1] == "oxford-iiit-pet/images/american_bulldog_7.jpg"
    assert Path(source.payload(listing.ids[1]).path).read_bytes().endswith(b"american_bulldog_7")


def test_stanford_cars_put_there_by_hand_are_opened(tmp_path):
    from scipy.io import savemat

    root = tmp_path / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    rows = np.array([("00.jpg", 1), ("01.jpg", 2)], [("fname", "O"), ("class", "i4")])
    savemat(root / "devkit" / "cars_train_annos.mat", {"annotations": rows})
    savemat(root / "cars_test_annos_withlabels.mat", {"annotations": rows})
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array(["one", "two"], dtype=object)})
    for folder in ("cars_train", "cars_test"):
        (root / folder).mkdir()
        for index in (0, 1):
            make_image(index).save(root / folder / f"0{index}.jpg")
    listing = vision_source("StanfordCars", tmp_path).listing()
    assert listing.labels.tolist() == [0, 1, 0, 1]


def test_stanford_cars_that_are_not_there_are_told_in_a_line(tmp_path):
    with pytest.raises(DataError, match="StanfordCars"):
        vision_source("StanfordCars", tmp_path)


def test_a_download_that_fails_names_the_data_set_and_the_folder(tmp_path, monkeypatch, capsys):
    def no_network(*_args: object, **_more: object) -> None:
        print("Downloading …")
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.eurosat.download_and_extract_archive", no_network)
    with pytest.raises(DataError, match=r"EuroSAT is not whole under .*no network") as caught:
        vision_source("eurosat", tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "--data-root" in caught.value.hint
    said = capsys.readouterr()
    assert said.out == ""
    assert "Downloading" in said.err


def test_an_unknown_name_is_met_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'CIFAR10'") as caught:
        vision_source("ciphar10", tmp_path)
    assert "EuroSAT" in caught.value.hint


@pytest.mark.parametrize("name", NAMES.values())
def test_torchvision_takes_the_arguments_in_the_table(name):
    accepted = inspect.signature(getattr(datasets, name)).parameters
    catches_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for _, arguments in (ARRAYS | FILES)[name]:
        wanted = {*arguments, "download", *(["loader"] if name in FILES and name not in WITHOUT_LOADER else [])}
        assert catches_all or wanted <= set(accepted)
