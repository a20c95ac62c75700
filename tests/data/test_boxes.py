"""Detection data: what is read is what was written, and every wrong file is named."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from signbit.data.boxes import Annotated, checked_boxes, fitted_size
from signbit.data.coco import is_coco, load_coco
from signbit.data.files import list_files
from signbit.data.voc import is_voc, load_voc
from signbit.errors import DataError
from tests.data.boxes_on_disk import PICTURES, VAL, coco_tree, pack, write_coco, write_voc

DATA = Path(os.environ.get("SIGNBIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
CLASSES = ("cat", "dog")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBIT_CACHE", str(tmp_path / "cache"))


def written(dataset):
    """Boxes and labels by the image's name, back in the files' pixels."""
    found = {}
    for index, name in enumerate(dataset.names):
        scale = np.tile(dataset.scales[index], 2)
        found[Path(name.split(": ")[-1]).stem] = [
            (CLASSES[label], *np.round(box / scale, 3).tolist(), bool(ignored))
            for box, label, ignored in zip(
                dataset.boxes[index],
                dataset.labels[index],
                dataset.ignored[index],
                strict=True,
            )
        ]
    return found


def expected(names):
    return {
        name: [(label, *map(float, box), label == "dog") for label, *box in PICTURES[name][1]]
        for name in names
    }


@pytest.mark.parametrize("layout", ["voc", "official", "flat", "exported"])
@pytest.mark.parametrize("archived", [False, True])
def test_both_formats_in_folders_and_archives(tmp_path, layout, archived):
    root = tmp_path / "set"
    voc = layout == "voc"
    write_voc(root) if voc else write_coco(root, layout)
    path = pack(root, tmp_path / "set.tar") if archived else root
    files = list_files(path)
    assert (is_voc(files), is_coco(files)) == (voc, not voc)
    source = (load_voc if voc else load_coco)(path, multiple=32, val_size=1)
    assert source.class_names == CLASSES
    assert source.input_shape == (3, 96, 96)
    assert written(source.test) == expected(VAL)
    train, val = written(source.train), written(source.val)
    assert len(train) == 3
    assert train | val == expected("abcd")
    # A canvas is black where the image is not, and has its pixels where it is.
    canvas = source.test.images[0]
    assert not canvas[:, 64:].any()
    assert canvas[:, :64].any((0, 2)).all()


def test_images_are_scaled_to_fit_and_boxes_with_them(tmp_path):
    source = load_voc(write_voc(tmp_path), image_size=[40, 60], multiple=16, val_size=1)
    assert source.input_shape == (3, 48, 64)
    assert written(source.test) == expected(VAL)
    (index,) = (i for i, name in enumerate(source.test.names) if name.endswith("e.png"))
    assert source.test.boxes[index][0] == pytest.approx(
        np.array([1, 2, 33, 44]) * 40 / 96, rel=0.05
    )
    assert source.test.images[index][:40, :27].any((0, 2)).all()
    assert not source.test.images[index][40:].any()
    assert fitted_size((480, 640), (192, 256)) == (192, 256)
    assert fitted_size((1, 1000), (32, 32)) == (1, 32)


def test_splits(tmp_path):
    full = {name: PICTURES[name] for name in "abde"}
    three = write_voc(tmp_path / "3", lists={"train": "ab", "val": "d", "test": "e"})
    source = load_voc(three)
    assert [len(source.split(s)) for s in ("train", "val", "test")] == [2, 1, 1]
    with pytest.raises(DataError, match="brings its own 1 validation images: leave out val_size=2"):
        load_voc(three, val_size=2)
    source = load_voc(write_voc(tmp_path / "1", full, {"train": full}), val_size=1)
    assert [len(source.split(s)) for s in ("train", "val", "test")] == [2, 1, 1]
    source = load_voc(write_voc(tmp_path / "0", full, {}), val_size=1)
    everything = {**written(source.train), **written(source.val), **written(source.test)}
    assert everything == expected(full)
    limited = source.limited(1)
    assert [len(limited.split(s)) for s in ("train", "val", "test")] == [1, 1, 1]
    with pytest.raises(DataError, match="cannot cut 3 validation images from 3"):
        load_voc(tmp_path / "1", val_size=3)


def test_listed_classes_give_the_order(tmp_path):
    source = load_voc(write_voc(tmp_path), classes=["dog", "cat"], val_size=1)
    assert source.class_names == ("dog", "cat")
    assert source.test.labels[0].tolist() == [1]
    with pytest.raises(DataError, match=r"\.xml: unknown class 'dog'; data.options.classes lists"):
        load_voc(tmp_path, classes=["cat", "bird"])
    with pytest.raises(DataError, match="a class stands twice"):
        load_voc(tmp_path, classes=["cat", "cat"])


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "Annotations/b.xml",
            "<xmax>36</xmax>",
            "<xmax>98</xmax>",
            r"b\.xml: object 1: box from x 4, y 8 to x 98, y 48 is outside its image of 96x64 "
            r"pixels; correct it, or set data.options.clip_boxes",
        ),
        ("Annotations/b.xml", "<xmin>5</xmin>", "<xmin>0</xmin>", "outside its image"),
        ("Annotations/b.xml", "<xmax>36</xmax>", "<xmax>4</xmax>", r"b\.xml.*without area"),
        ("Annotations/b.xml", "<xmax>36</xmax>", "<xmax>wide</xmax>", r"b\.xml.*xmax is 'wide'"),
        ("Annotations/b.xml", "<xmax>36</xmax>", "", r"b\.xml.*xmax is None"),
        ("Annotations/b.xml", "<name>dog</name>", "", r"b\.xml: object 1: no name"),
        ("Annotations/b.xml", "</annotation>", "", r"b\.xml: not readable XML"),
        (
            "Annotations/e.xml",
            "<name>cat</name>",
            "<name>cta</name>",
            r"e\.xml: unknown class 'cta'; the training split has cat, dog",
        ),
        ("ImageSets/Main/val.txt", "e", "", r"val\.txt: the split is empty"),
        ("ImageSets/Main/train.txt", "b", "zz", r"train\.txt: zz has no file in Annotations"),
        ("ImageSets/Main/train.txt", "b", "a", r"train\.txt: a stands twice"),
    ],
)
def test_wrong_files_of_voc_are_named(tmp_path, file, old, new, message):
    write_voc(tmp_path)
    change(tmp_path / file, old, new)
    with pytest.raises(DataError, match=message):
        load_voc(tmp_path)


def test_missing_and_broken_images_are_named(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "JPEGImages/b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png: not a readable image"):
        load_voc(tmp_path)
    (tmp_path / "JPEGImages/b.png").unlink()
    with pytest.raises(DataError, match=r"train\.txt: b has no file in JPEGImages"):
        load_voc(tmp_path)
    with pytest.raises(DataError, match="no Annotations"):
        load_voc(tmp_path / "ImageSets")
    write_voc(tmp_path / "VOC2007")
    with pytest.raises(DataError, match=r"2 data sets.*give the path of one"):
        load_voc(tmp_path)
    (tmp_path / "VOC2007/ImageSets/Main/train.txt").unlink()
    with pytest.raises(DataError, match=r"ImageSets/Main has no train\.txt"):
        load_voc(tmp_path / "VOC2007")


def test_images_too_small_for_the_stride_are_named(tmp_path):
    write_voc(tmp_path)
    with pytest.raises(DataError, match=r"a\.png: 96x64 pixels are too small.*stride 128"):
        load_voc(tmp_path, multiple=128)
    with pytest.raises(DataError, match=r"a\.png: 32x21 pixels .*larger data.image_size"):
        load_voc(tmp_path, image_size=32, multiple=32)


def test_boxes_are_clipped_on_demand(tmp_path):
    write_voc(tmp_path)
    change(tmp_path / "Annotations/e.xml", "<xmax>33</xmax>", "<xmax>77</xmax>")
    change(tmp_path / "Annotations/a.xml", "<xmin>1</xmin>", "<xmin>400</xmin>")
    source = load_voc(tmp_path, clip_boxes=True, val_size=1)
    assert written(source.test) == {"e": [("cat", 1.0, 2.0, 64.0, 44.0, False)]}
    everything = written(source.train) | written(source.val)
    assert [label for label, *_ in everything["a"]] == ["dog"]


def test_less_than_a_pixel_outside_is_rounding():
    item = Annotated(None, "file", np.array([[-0.6, 0, 10.4, 5]]), [0], [False])
    boxes, kept = checked_boxes(item, (5, 10), False)
    assert boxes.tolist() == [[0, 0, 10, 5]]
    assert kept.all()
    for bad in ([-1, 0, 5, 5], [0, 0, 11, 5], [0, np.nan, 5, 5], [3, 3, 3, 4]):
        item = Annotated(None, "file", np.array([bad], float), [0], [False])
        with pytest.raises(DataError, match="file: object 1: box"):
            checked_boxes(item, (5, 10), False)


def break_coco(key, value):
    def changed(split, tree):
        if split == "val":
            tree["annotations"][0][key] = value

    return changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (break_coco("bbox", [50, 2, 32, 42]), r"instances_val2017\.json: e\.png: object 1: box"),
        (break_coco("bbox", [1, 2, "x", 4]), r"annotations\[0\]: bbox is"),
        (break_coco("bbox", [1, 2, 3]), r"annotations\[0\]: bbox is"),
        (break_coco("category_id", 99), r"annotations\[0\]: unknown class: category_id 99"),
        (break_coco("image_id", 99), r"annotations\[0\]: image_id 99 is no image's"),
        (lambda _, tree: tree.pop("categories"), "no list 'categories'"),
        (lambda _, tree: tree["images"].clear(), "the split is empty"),
        (lambda _, tree: tree["images"][0].pop("file_name"), r"images\[0\] has no 'file_name'"),
        (
            lambda _, tree: tree["images"][0].update(file_name="zz.png"),
            "its image zz.png lies nowhere",
        ),
        (lambda _, tree: tree["images"].append(tree["images"][0]), "two images have one id"),
        (
            lambda split, tree: tree["categories"][0].update(
                name="wolf" if split == "val" else "x"
            ),
            None,
        ),
        (
            lambda split, tree: tree["categories"][1].update(
                name="lion" if split == "val" else "x"
            ),
            r"annotations\[0\]: unknown class 'lion'",
        ),
    ],
)
def test_wrong_files_of_coco_are_named(tmp_path, changed, message):
    write_coco(tmp_path, change=changed)
    if message is None:  # a class that nothing has does no harm
        load_coco(tmp_path, val_size=1)
        return
    with pytest.raises(DataError, match=message):
        load_coco(tmp_path)


def test_broken_and_doubled_json(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(DataError, match="a second list of train, beside"):
        load_coco(tmp_path)
    (tmp_path / "train.json").unlink()
    file = tmp_path / "annotations/instances_train2017.json"
    file.write_text(file.read_text()[:-5])
    with pytest.raises(DataError, match=r"instances_train2017\.json: not readable JSON"):
        load_coco(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match="no annotations/instances_train"):
        load_coco(tmp_path)
    assert coco_tree("e")["annotations"]


def test_splits_without_objects_are_refused(tmp_path):
    write_voc(tmp_path, lists={"train": "abd", "val": "c", "test": "e"})
    with pytest.raises(DataError, match="no image of the val split has an object"):
        load_voc(tmp_path)
    write_voc(tmp_path / "none", lists={"train": "c", "val": "e"})
    with pytest.raises(DataError, match="no object of any class"):
        load_voc(tmp_path / "none")


@pytest.mark.slow
def test_bccd_has_the_boxes_that_its_page_counts():
    archive = DATA / "bccd" / "bccd_trainval.tar"
    if not archive.exists():
        pytest.skip(f"{archive} is absent: set SIGNBIT_DATA")
    source = load_voc(archive, image_size=[96, 128], multiple=32)
    assert source.class_names == ("Platelets", "RBC", "WBC")
    assert source.input_shape == (3, 96, 128)
    train = np.concatenate(source.train.labels + source.val.labels)
    assert np.bincount(train).tolist() == [209, 2381, 214]
    assert np.bincount(np.concatenate(source.test.labels)).tolist() == [83, 967, 87]
    assert len(source.train) + len(source.val) == 205
    assert re.search(
        r"bccd_trainval\.tar: BCCD/JPEGImages/BloodImage_\d+\.jpg", source.test.names[0]
    )
