"""Detection: COCO's own numbers, the losses by hand, learning, and what recipes may not say."""

import contextlib
import io

import numpy as np
import pytest
import torch

from signbit.data.boxes import BoxDataset, BoxSource
from signbit.errors import DataError
from signbit.models import create_model
from signbit.runtime.detection import Boxes, find_boxes
from signbit.tasks import get_task
from signbit.tasks.base import bootstrap, torch_predict
from signbit.tasks.detection import Detection, average_precision, focal_loss, match_boxes
from signbit.training.recipe import DataRecipe
from tests.data.boxes_on_disk import pack, write_coco, write_voc


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBIT_CACHE", str(tmp_path / "cache"))


def fields(**data):
    return DataRecipe(**{"name": "auto", **data}).model_dump()


def scene(generator, classes=3):
    """Random objects, and detections near some of them, with equal scores among them."""
    count = int(generator.integers(0, 9))
    corners = generator.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 40, (count, 2))], 1)
    labels = generator.integers(0, classes, count)
    ignored = generator.random(count) < 0.2
    near = boxes[generator.integers(0, count, 12)] if count else np.zeros((0, 4))
    near = near + generator.uniform(-2.4, 2.4, near.shape)
    far = np.sort(generator.uniform(0, 100, (4, 2, 2)), 1).reshape(4, 4)
    found = np.concatenate([near, far])
    scores = np.sort(np.round(generator.random(len(found)), 1))[::-1]
    chosen = generator.integers(0, classes, len(found))
    detected = Boxes(found.astype(np.float32), scores.astype(np.float32), chosen)
    return detected, boxes.astype(np.float32), labels, ignored


def coco_scores(scenes, classes):
    """The same by pycocotools from end to end: (map, map50, precisions [T, C])."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box):
        left, top, right, bottom = (float(value) for value in box)
        return [left, top, right - left, bottom - top]

    truth = {"images": [], "annotations": [], "categories": [{"id": c} for c in range(classes)]}
    results = []
    for number, (found, boxes, labels, ignored) in enumerate(scenes, 1):
        truth["images"].append({"id": number})
        for box, label, crowd in zip(boxes, labels, ignored, strict=True):
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": xywh(box),
                    "area": float(np.prod(np.subtract(box[2:], box[:2]))),
                    "iscrowd": int(crowd),
                }
            )
        results += [
            {"image_id": number, "category_id": int(c), "bbox": xywh(b), "score": float(s)}
            for b, s, c in zip(found.boxes, found.scores, found.labels, strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"][:, :, :, 0, 2].mean(1)
    return evaluator.stats[0], evaluator.stats[1], precision


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_pycocotools(seed):
    generator = np.random.default_rng(seed)
    classes = 3
    scenes = [scene(generator, classes) for _ in range(25)]
    records = [match_boxes(*each, classes) for each in scenes]
    mean, at_half, precision = coco_scores(scenes, classes)
    np.testing.assert_allclose(average_precision(records), precision, rtol=0, atol=1e-12)
    scores = get_task("detection").summarize(records)
    assert scores["map"] == pytest.approx(mean, abs=1e-12)
    assert scores["map50"] == pytest.approx(at_half, abs=1e-12)
    assert 0.02 < mean < at_half < 1


def test_classes_without_objects_do_not_count():
    generator = np.random.default_rng(7)
    scenes = []
    while len(scenes) < 8:
        found, boxes, labels, ignored = scene(generator, 2)
        if len(boxes):
            scenes.append((found, boxes, np.zeros_like(labels), ignored))
    records = [match_boxes(*each, 2) for each in scenes]
    assert np.isnan(average_precision(records)[:, 1]).all()
    mean, _, _ = coco_scores(scenes, 2)
    assert get_task("detection").summarize(records)["map"] == pytest.approx(mean, abs=1e-12)
    nothing = match_boxes(
        Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)),
        np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), 2,
    )  # fmt: skip
    assert get_task("detection").summarize([nothing]) == {"map50": 0.0, "map": 0.0}


def test_drawing_images_twice_counts_them_twice():
    generator = np.random.default_rng(1)
    scenes = [scene(generator) for _ in range(6)]
    drawn = [0, 3, 3, 5, 0, 2]
    records = [match_boxes(*each, 3) for each in scenes]
    mean, _, _ = coco_scores([scenes[i] for i in drawn], 3)
    task = get_task("detection")
    assert task.summarize([records[i] for i in drawn])["map"] == pytest.approx(mean, abs=1e-12)
    intervals = bootstrap(task, records, rounds=40)
    assert 0 <= intervals["map50"][0] < intervals["map50"][1] <= 1


def test_focal_loss_by_hand():
    logits = torch.tensor([[[[0.0, 2.0, -1.0]]]])
    heatmap = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    p = 1 / (1 + np.exp(-np.array([0.0, 2.0, -1.0])))
    wanted = -(
        (1 - p[0]) ** 2 * np.log(p[0])
        + 0.5**4 * p[1] ** 2 * np.log(1 - p[1])
        + p[2] ** 2 * np.log(1 - p[2])
    )
    assert focal_loss(logits, heatmap).item() == pytest.approx(wanted, rel=1e-5)
    # Two images with one object each: the sum over objects.
    both = focal_loss(logits.repeat(2, 1, 1, 1), heatmap.repeat(2, 1, 1, 1))
    assert both.item() == pytest.approx(wanted, rel=1e-5)
    huge = focal_loss(1e4 * logits, heatmap)
    assert torch.isfinite(huge)


def test_the_loss_adds_size_and_offset_at_centres_alone():
    task = get_task("detection")
    heatmap = torch.zeros(1, 2, 4, 4)
    heatmap[0, 1, 2, 3] = 1
    size, offset, centre = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), heatmap[:, 1:].clone()
    size[0, :, 2, 3] = torch.tensor([5.0, 3.0])
    offset[0, :, 2, 3] = torch.tensor([0.5, 0.25])
    targets = {"heatmap": heatmap, "size": size, "offset": offset, "centre": centre}
    logits = torch.randn(1, 2, 4, 4)
    wrong = torch.full((1, 2, 4, 4), 1.0)
    heat = focal_loss(logits, heatmap)
    found = task.loss((logits, size + wrong, offset), targets)
    assert found.item() == pytest.approx(heat.item() + 0.1 * 2, rel=1e-5)
    found = task.loss((logits, size, offset + wrong), targets)
    assert found.item() == pytest.approx(heat.item() + 2, rel=1e-5)


def tiny_source(count=4):
    """Bright squares and dark ones on grey."""
    generator = np.random.default_rng(0)
    images = np.full((count, 64, 64, 3), 128, np.uint8)
    boxes, labels = [], []
    for image in images:
        label = int(generator.integers(2))
        side = int(generator.integers(16, 28))
        left, top = (int(v) for v in generator.integers(0, 64 - side, 2))
        image[top : top + side, left : left + side] = 255 * label
        boxes.append(np.array([[left, top, left + side, top + side]], np.float32))
        labels.append(np.array([label]))
    part = BoxDataset(
        images, tuple(boxes), tuple(labels), tuple(np.zeros(1, bool) for _ in images),
        tuple(map(str, range(count))), np.ones((count, 2), np.float32),
    )  # fmt: skip
    return BoxSource("tiny", part, part, part, ("dark", "bright"), (0.5,) * 3, (0.3,) * 3)


def test_perfect_maps_score_one():
    task, source = get_task("detection"), tiny_source()
    data = fields()
    examples = task.examples(source, "test", data, False)
    records = []
    for index in range(len(examples)):
        _, targets = examples.example(index, None)
        heat = np.where(targets["heatmap"] == 1, 4, -8).astype(np.float32)
        outputs = tuple(y[None] for y in (heat, targets["size"], targets["offset"]))
        records += task.records(outputs, {name: v[None] for name, v in targets.items()})
    assert task.summarize(records) == {"map50": pytest.approx(1), "map": pytest.approx(1)}
    assert len(find_boxes(outputs, 4)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate", "least"),
    [("centernet_resnet18", 3e-3, 0.9), ("centernet_bineal18", 1e-2, 0.3)],
)
def test_a_network_learns_a_few_images_by_heart(name, rate, least):
    """The binary one is at 0.54 after so few steps; at random it would be near 0."""
    torch.manual_seed(0)
    task, source = get_task("detection"), tiny_source()
    data = fields(batch_size=4)
    loader = task.loader(source, "train", data, training=True)
    model = create_model(name, num_classes=2, width=0.25)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for epoch in range(120):
        loader.set_epoch(epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - epoch / 120)
        for images, targets in loader:
            optimizer.zero_grad()
            task.loss(model(images), targets).backward()
            optimizer.step()
    predict = torch_predict(model, source.mean, source.std)
    scores = task.summarize(list(task.evaluate(predict, source, "test", data)))
    assert scores["map50"] > least


def test_the_format_is_told_from_the_files(tmp_path):
    task = get_task("detection")
    voc, coco = write_voc(tmp_path / "voc"), write_coco(tmp_path / "coco")
    assert task.load(fields(val_size=1), voc).name == "voc"
    assert task.load(fields(val_size=1), coco).name == "coco"
    (tmp_path / "packed").mkdir()
    pack(voc, tmp_path / "packed" / "set.tar")
    source = task.load(fields(val_size=1, options={"classes": ["dog", "cat"]}), tmp_path / "packed")
    assert source.class_names == ("dog", "cat")
    assert task.model_arguments(source, fields()) == {"num_classes": 2, "in_channels": 3}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"neither Pascal VOC .* nor COCO"):
        task.load(fields(), tmp_path / "empty")


def test_the_embedded_scenes():
    task = get_task("detection")
    source = task.load(fields(image_size=[64, 96], val_size=3), None)
    assert (source.name, source.input_shape, len(source.val)) == ("digit_scenes", (3, 64, 96), 3)
    assert source.class_names == tuple("0123456789")
    facts = task.facts(source, fields(image_size=[64, 96]))
    assert facts == {"stride": 4, "multiple": 32, "image_size": [64, 96]}
    assert task.facts(source, fields())["image_size"] is None


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ({"name": "vok"}, None, "unknown data source 'vok'.*'voc'"),
        ({"name": "coco"}, None, "coco is not embedded: say where it lies"),
        ({"name": "digit_scenes"}, "here", "is embedded and takes no path"),
        ({"options": {"clas": ["a"]}}, None, "data.options.clas: unknown.*'classes'"),
        ({"options": {"clip_boxes": 1}}, None, "clip_boxes is true or false"),
        ({"options": {"classes": "a"}}, None, "data.options.classes is a list"),
        ({"options": {"classes": ["a"]}}, None, "digit_scenes has no options"),
        ({"image_size": 50}, None, "multiples of 32, not 50x50"),
    ],
)
def test_what_recipes_may_not_say(data, path, message, tmp_path):
    with pytest.raises(DataError, match=message):
        get_task("detection").load(fields(**data), path and tmp_path / path)


def test_crops_have_sides_that_the_network_takes():
    task = get_task("detection")
    with pytest.raises(
        DataError, match=r"data.crop_size: sides are multiples of 32, not \[40, 64\]"
    ):
        task.examples(tiny_source(), "train", fields(crop_size=[40, 64]), True)
    examples = task.examples(tiny_source(), "train", fields(crop_size=32), True)
    pixels, _ = examples.example(0, np.random.default_rng(0))
    assert pixels.shape == (1, 32, 32, 3)


def test_every_field_that_it_honours_is_one():
    known = set(fields()) | {f"augment.{name}" for name in fields()["augment"]}
    assert known >= Detection.data_fields
    assert set(Detection.units) == {"map50", "map"}
