"""Training: targets that say what they should, losses that a few steps reduce, and an export that equals torch."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra: pip install '.[train]'")
onnx = pytest.importorskip("onnx", reason="export needs the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
from hand_tracking_ros import lifting
from hand_tracking_ros.config import KeypointConfig
from hand_tracking_ros.errors import ConfigError, ModelError, SourceError
from hand_tracking_ros.geometry import Box, box_around
from hand_tracking_ros.training import augment
from hand_tracking_ros.training.crops import CropJitter, CropSampler, sampling_options
from hand_tracking_ros.training.export import export
from hand_tracking_ros.training.frames import (
    FrameHand,
    FrameSample,
    FrameSampler,
    dense_target,
    letterboxed,
    moved,
    similarity,
)
from hand_tracking_ros.training.labelled import LabelledHand, LabelledImage, held_out, load_labelled, texture_tiles
from hand_tracking_ros.training.losses import LossWeights
from hand_tracking_ros.training.mining import LIMITS, Draw
from hand_tracking_ros.training.networks.blocks import normalised
from hand_tracking_ros.training.networks.detnet import (
    DETNET_WEIGHTS,
    STRIDE,
    DetNet,
    DetNetRuntime,
    DetNetTarget,
    detnet_loss,
)
from hand_tracking_ros.training.networks.keynet import (
    HEATMAP_SIGMA,
    KEYNET_WEIGHTS,
    KeyNet,
    KeyNetConfig,
    KeyNetRuntime,
    KeyNetTarget,
    gaussian_maps,
    keynet_loss,
    soft_argmax,
)
from hand_tracking_ros.training.optimisers import Muon, optimisers, orthogonalised
from hand_tracking_ros.training.recipe import RECIPES, load_recipe, spread
from hand_tracking_ros.training.tasks import even, look_both_ways
from hand_tracking_ros.training.train import learning_rate
from hand_tracking_ros.training.weights import initialise, measure_norms, start_from

POINTS = np.array([(50, 90), (38, 80), (30, 70), (25, 60), (22, 50), (40, 55), (39, 40), (38, 30), (37, 22), (50, 53),
                   (50, 38), (50, 28), (50, 20), (59, 55), (61, 42), (62, 33), (63, 25), (67, 60), (70, 50), (72, 43),
                   (74, 37)], float)  # fmt: skip


def dotted(points: np.ndarray, wh=(100, 110)) -> np.ndarray:
    """A picture with a bright dot at every keypoint."""
    image = np.full((wh[1], wh[0]), 40, np.uint8)
    for x, y in points:
        cv2.circle(image, (int(x), int(y)), 2, 230, -1)
    return image


def labelled(kind="frame") -> LabelledImage:
    hand = LabelledHand(POINTS, np.zeros(21), 1.0, box_around(POINTS))
    return LabelledImage(
        "one", dotted(POINTS), (hand,), np.full((110, 100), 255, np.uint8) if kind == "cutout" else None
    )


BACKGROUNDS = [np.random.default_rng(0).integers(0, 60, (300, 400)).astype(np.uint8)]


@pytest.mark.parametrize("kind", ["frame", "tight", "cutout", "synthetic"])
def test_crop_samples_carry_their_labels_along(kind, monkeypatch):
    """The dots must lie under the keypoints of the sample, whatever turn, mirror, scale and background it got."""
    monkeypatch.setattr("hand_tracking_ros.training.crops.degrade", lambda image, rng: image)
    monkeypatch.setattr("hand_tracking_ros.training.crops.occlude", lambda image, pictures, rng: image)
    sampler = CropSampler([(kind, 1.0, [labelled(kind)])], BACKGROUNDS, absent=0.0)
    rng = np.random.default_rng(1)
    on, off, rights = [], [], set()
    for _ in range(30):
        sample = sampler.sample(rng)
        inside = sample.keypoints[np.all((sample.keypoints > 2) & (sample.keypoints < 94), axis=1)]
        x, y = inside.astype(int).T
        on.append(sample.crop[y, x].mean())
        off.append(np.median(sample.crop))
        rights.add(sample.right)
    assert np.mean(on) > np.mean(off) + 60
    assert rights == {0.0, 1.0}  # mirrored hands change their side


def test_samples_without_a_hand_say_so():
    sampler = CropSampler([("frame", 1.0, [labelled()])], BACKGROUNDS, absent=1.0)
    sample = sampler.sample(np.random.default_rng(0))
    assert sample.presence == 0.0 and sample.right == 0.5 and np.isnan(sample.depth).all()


def test_the_recipe_says_how_hard_samples_are():
    options = sampling_options({"absent": 0.0, "degraded": 0.0, "any_angle": 0.0, "angle_sigma": 0.0})
    assert options == {"absent": 0.0, "degraded": 0.0, "jitter": CropJitter(any_angle=0.0, angle_sigma=0.0)}
    sampler = CropSampler([("frame", 1.0, [labelled()])], BACKGROUNDS, **options)
    rng = np.random.default_rng(3)
    samples = [sampler.sample(rng) for _ in range(20)]
    assert all(sample.presence == 1.0 for sample in samples)
    # Never dark, never noisy: the dots keep their brightness. Always upright: the middle finger points up.
    tips, wrists = np.array([(sample.keypoints[12], sample.keypoints[0]) for sample in samples]).swapaxes(0, 1)
    assert (tips[:, 1] < wrists[:, 1]).all() and min(sample.crop.max() for sample in samples) > 120
    with pytest.raises(
        ConfigError, match=r"sampling: unknown key\(s\) abzent; known: absent, degraded, right, mistaken"
    ):
        sampling_options({"abzent": 0.1})


def test_most_hands_are_shown_as_right_ones_where_the_recipe_wants_that():
    left = LabelledHand(POINTS, np.zeros(21), 0.0, box_around(POINTS))
    both = [labelled(), LabelledImage("two", dotted(POINTS), (left,))]
    sampler = CropSampler([("frame", 1.0, both)], BACKGROUNDS, absent=0.0, right=0.8)
    rng = np.random.default_rng(4)
    shown = [sampler.sample(rng).right for _ in range(600)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.05) and set(shown) == {0.0, 1.0}


def test_the_side_is_learned_as_if_both_were_equally_frequent():
    """Pictures that say nothing, four of five right: the output that minimises the loss says nothing either."""
    logit = torch.zeros((), requires_grad=True)
    target = KeyNetTarget(
        torch.full((10, 21, 2), 48.0), torch.zeros(10, 21), torch.ones(10), torch.tensor([1.0] * 8 + [0.0] * 2)
    )
    outputs = (torch.zeros(10, 21, 24, 24), torch.zeros(10, 21), torch.zeros(10), logit.expand(10))
    keynet_loss(outputs, target, 96, right_share=0.8)["side"].backward()
    assert float(logit.grad) == pytest.approx(0.0, abs=1e-6)


def test_a_crop_is_looked_at_both_ways():
    """A network that knows right hands only: it follows a bright dot, and is sure when that is in the left half."""

    def run(feeds):
        crops = feeds["crop"][:, 0]
        x = crops.max(axis=1).argmax(axis=1) + 0.5
        points = np.stack([np.repeat(x[:, None], 21, axis=1), np.full((len(x), 21), 40.0)], axis=-1)
        return {"keypoints": points.astype(np.float32), "right": np.where(x < 48, 0.9, 0.3).astype(np.float32)}

    crops = np.zeros((2, 96, 96), np.uint8)
    crops[0, 40, 20] = crops[1, 40, 70] = 255
    points, right = look_both_ways(run, crops)
    np.testing.assert_allclose(points[:, 0], [(20.5, 40), (70.5, 40)])
    np.testing.assert_allclose(right, [0.9, 0.1], atol=1e-6)


def test_same_seed_same_samples():
    sampler = CropSampler([("tight", 1.0, [labelled()])], BACKGROUNDS)
    a, b = (sampler.sample(np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(a.crop, b.crop)


def test_dense_target_of_a_hand():
    hand = FrameHand(Box((101.0, 60.0), (64.0, 64.0), 0.5), 1.0, True)
    target = dense_target((hand,), (320, 240))
    row, column = np.unravel_index(target["centre"].argmax(), target["centre"].shape)
    assert (row, column) == (7, 12) and target["centre"].max() == 1.0 and (target["centre"] == 1.0).sum() == 1
    dx, dy, log_side, cos, sin, right = target["fields"][:, row, column]
    np.testing.assert_allclose(((column + 0.5 + dx) * STRIDE, (row + 0.5 + dy) * STRIDE), (101.0, 60.0), atol=1e-4)
    assert 32 * np.exp(log_side) == pytest.approx(64.0, rel=1e-5)
    assert np.arctan2(sin, cos) == pytest.approx(0.5, abs=1e-5) and right == 1.0
    assert dense_target((), (320, 240))["centre"].max() == 0.0


def test_mirroring_a_frame_changes_side_and_angle():
    matrix = similarity((50, 50), (160, 120), 1.0, 0.0, mirror=True)
    turned = LabelledHand(POINTS @ np.array([[0.8, 0.6], [-0.6, 0.8]]), np.zeros(21), 1.0, box_around(POINTS))
    straight = moved(turned, similarity((50, 50), (160, 120), 1.0, 0.0, mirror=False))
    mirrored = moved(turned, matrix)
    assert mirrored.right == 0.0 and straight.right == 1.0
    assert mirrored.box.angle_rad == pytest.approx(-straight.box.angle_rad, abs=1e-9)


def test_frame_samples_have_boxes_where_their_hands_are(monkeypatch):
    """The only bright dots lie on hands: they must lie in the boxes, whatever turn and mirror the frame got."""
    monkeypatch.setattr("hand_tracking_ros.training.frames.degrade", lambda image, rng: image)
    black = [np.zeros((300, 400), np.uint8)]
    sampler = FrameSampler([labelled()], [labelled("cutout")], [], black, shares=(0.0, 1.0, 0.0))
    rng = np.random.default_rng(3)
    inside = outside = 0
    for _ in range(40):
        sample = sampler.sample(rng)
        mask = np.zeros(sample.image.shape, np.uint8)
        for hand in sample.hands:
            cv2.fillPoly(mask, [hand.box.scaled(1.1).corners().astype(np.int32)], 1)
        bright = sample.image > 120
        inside += int(bright[mask == 1].sum())
        outside += int(bright[mask == 0].sum())
    assert inside > 1000 and outside < 0.02 * inside


@pytest.mark.parametrize(("aspect", "wh"), ((16 / 9, (320, 180)), (1.0, (240, 240)), (3 / 4, (180, 240))))
def test_a_letterboxed_frame_is_black_outside_and_keeps_the_hands_inside(aspect, wh):
    """The part that the detector's letterbox fills: as large as fits, at the top left."""
    image = np.full((240, 320), 90, np.uint8)
    hands = tuple(
        FrameHand(Box((x, y), (30.0, 30.0)), 1.0, True) for x, y in ((50.0, 60.0), (300.0, 60.0), (60.0, 200.0))
    )
    framed = letterboxed(FrameSample(image, hands), aspect)
    assert (framed.image[: wh[1], : wh[0]] == 90).all() and framed.image.sum() == 90 * wh[0] * wh[1]
    assert (image == 90).all()
    assert framed.hands == tuple(h for h in hands if h.box.center_px[0] < wh[0] and h.box.center_px[1] < wh[1])
    assert 1 <= len(framed.hands) < 3


def test_soft_argmax_finds_a_gaussian_and_its_spread():
    points = torch.tensor([[[30.0, 50.5], [48.0, 48.0]]])
    logits = torch.log(gaussian_maps(points, 24, 96) + 1e-12)
    found, variance = soft_argmax(logits, 96)
    assert torch.allclose(found, points, atol=0.05)
    assert torch.allclose(variance, torch.full((1, 2), 2 * (96 * HEATMAP_SIGMA) ** 2), rtol=0.15)


def test_the_runtime_knows_how_wide_the_learned_heatmaps_are():
    learned = HEATMAP_SIGMA * KeypointConfig().crop_scale
    assert pytest.approx(learned) == lifting.HEATMAP_SIGMA


def test_normalisation_ignores_exposure():
    torch.manual_seed(0)
    image = torch.rand(2, 1, 96, 96) * 100 + 10
    assert torch.allclose(normalised(image), normalised(1.5 * image + 10), atol=0.1)
    assert normalised(torch.full((1, 1, 8, 8), 77.0)).abs().max() == 0


def keynet_batch():
    keypoints = torch.from_numpy(POINTS * 0.9).float().expand(4, 21, 2)
    crop = torch.from_numpy(dotted(POINTS * 0.9, (96, 96))).expand(4, 1, 96, 96).float()
    presence, right = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.5, 0.5])
    depth = torch.full((4, 21), 0.2)
    depth[0] = float("nan")
    return crop, KeyNetTarget(keypoints, depth, presence, right)


def test_keynet_learns_one_batch_and_unknown_labels_do_not_count():
    torch.manual_seed(0)
    network, (crop, target), weigh = KeyNet(), keynet_batch(), LossWeights(KEYNET_WEIGHTS)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = weigh(keynet_loss(network(normalised(crop)), target, 96))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all() and losses[-1] < 0.6 * losses[0]
    outputs = [o.detach() for o in network(normalised(crop))]
    changed = [outputs[0].clone(), outputs[1].clone(), outputs[2], outputs[3]]
    changed[0][3], changed[1][0] = 7.0, 9.0  # heatmaps where no hand is, depth where it is not known
    assert float(weigh(keynet_loss(changed, target, 96))) == pytest.approx(
        float(weigh(keynet_loss(outputs, target, 96))), rel=1e-5
    )


def test_detnet_learns_one_batch():
    torch.manual_seed(0)
    network, weigh = DetNet(), LossWeights(DETNET_WEIGHTS)
    hand = FrameHand(Box((160.0, 120.0), (80.0, 80.0), 0.3), 1.0, True)
    image = torch.zeros(2, 1, 240, 320)
    image[0, 0, 90:150, 130:190] = 200.0
    targets = [dense_target((hand,), (320, 240)), dense_target((), (320, 240))]
    target = DetNetTarget(**{k: torch.from_numpy(np.stack([t[k] for t in targets])) for k in targets[0]})
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(20):
        loss = weigh(detnet_loss(network(normalised(image)), target))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all() and losses[-1] < 0.5 * losses[0]


CARD = {
    "preprocessing": "none", "keypoint_order": "mediapipe_21",
    "precision": "fp32", "licence": "Apache-2.0",
    "training": {"data": [], "command": "", "seed": 0, "hours": 0.0, "notes": ""}, "accuracy": {},
}  # fmt: skip


@pytest.mark.parametrize("task, network, runtime, shape", [
    ("keynet", KeyNet, KeyNetRuntime, (3, 1, 96, 96)), ("detnet", DetNet, DetNetRuntime, (1, 1, 240, 320)),
])  # fmt: skip
def test_the_exported_model_runs_and_equals_torch(task, network, runtime, shape, tmp_path):
    from hand_tracking_ros.backends import create_backend
    from hand_tracking_ros.config import InferenceConfig
    from hand_tracking_ros.manifest import load_manifest

    torch.manual_seed(1)
    model = network().eval()
    export(task, model, tmp_path, task, CARD)
    manifest = load_manifest(tmp_path / f"{task}.yaml")
    backend = create_backend(manifest, InferenceConfig(backend="onnxruntime"))
    feed = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    outputs = backend.run({next(iter(manifest.inputs)): feed})
    with torch.no_grad():
        expected = runtime(model)(torch.from_numpy(feed))
    for name, value in zip(runtime.outputs, expected):
        np.testing.assert_allclose(outputs[name], value.numpy(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_int8_version_stays_close_and_decoding_stays_exact(backend, tmp_path):
    from hand_tracking_ros.backends import backend_status, create_backend
    from hand_tracking_ros.config import InferenceConfig
    from hand_tracking_ros.manifest import load_manifest
    from hand_tracking_ros.training.quantise import quantise

    if not backend_status(backend).usable:
        pytest.skip(f"{backend} cannot run here: {backend_status(backend).detail}")
    torch.manual_seed(1)
    export("keynet", KeyNet().eval(), tmp_path, "keynet", CARD)
    original = load_manifest(tmp_path / "keynet.yaml")
    rng = np.random.default_rng(0)
    crops = np.stack([cv2.GaussianBlur(rng.integers(0, 256, (96, 96)).astype(np.uint8), (0, 0), 3) for _ in range(8)])
    int8 = quantise(original, [{"crop": crop[None, None]} for crop in crops])
    assert (int8.name, int8.precision, int8.outputs) == ("keynet_int8", "int8", original.outputs)
    assert int8.file.stat().st_size < 0.4 * original.file.stat().st_size
    graph = onnx.load(int8.file).graph
    in_fp32 = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert not [node.name for node in graph.node if node.op_type == "Relu" and in_fp32 & set(node.input)]  # folded
    outputs = [
        create_backend(original, InferenceConfig(backend=backend, precision=precision)).run({"crop": crops[:2, None]})
        for precision in ("fp32", "int8")
    ]
    assert np.abs(outputs[0]["keypoints"] - outputs[1]["keypoints"]).max() < 1.0  # crop px
    assert np.abs(outputs[0]["presence"] - outputs[1]["presence"]).max() < 0.05
    assert np.abs(outputs[0]["keypoints"] - outputs[1]["keypoints"]).max() > 0  # it really is another network


def test_held_out_files_are_the_same_everywhere_and_about_as_many_as_asked():
    names = [f"gesture/{i:08x}-aaaa-bbbb-cccc-{i:012x}.jpg" for i in range(5000)]
    part = [held_out(name, 6.0) for name in names]
    assert 0.045 < np.mean(part) < 0.075
    assert held_out("call/x.jpg", 50) == held_out("none/x.jpg", 50)  # both hands of a photo


def test_labels_and_boxes_are_joined(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), dotted(POINTS))
    hand = {"side": "left", "keypoints_px": POINTS.tolist(), "relative_depth": [0.1] * 21}
    (tmp_path / "labels.jsonl").write_text(json.dumps({"file": "a.png", "hands": [hand]}) + "\n")
    boxes = {"file": "a.png", "boxes": [[20, 20, 75, 92], [0, 0, 10, 10]]}  # the first is the labelled hand
    (tmp_path / "boxes.jsonl").write_text(json.dumps(boxes) + "\n")
    (image,) = load_labelled(tmp_path, tmp_path / "labels.jsonl", boxes=tmp_path / "boxes.jsonl")
    assert [h.has_keypoints for h in image.hands] == [True, False]
    assert image.hands[0].right == 0.0
    with pytest.raises(SourceError, match="a.png"):
        load_labelled(tmp_path / "nowhere", tmp_path / "labels.jsonl")


def test_texture_tiles_are_cut_out_of_the_sheet():
    sheet = np.full((300, 500), 255, np.uint8)
    sheet[20:120, 30:150] = 90
    sheet[20:120, 250:370] = 160
    assert [int(np.median(tile)) for tile in texture_tiles(sheet)] == [90, 160]


def test_learning_rate_warms_up_and_cools_down():
    assert learning_rate(0.0, 1.0) < 0.05 < 0.9 < learning_rate(0.05, 1.0)
    assert learning_rate(1.0, 1.0) == pytest.approx(0.01)


def test_degraded_pictures_stay_visible():
    rng = np.random.default_rng(0)
    image = dotted(POINTS, (96, 110))
    for _ in range(50):
        out = augment.degrade(image, rng)
        assert out.shape == image.shape and out.dtype == np.uint8 and out.max() - out.min() >= 4


def test_a_hand_mask_covers_the_hand_and_not_the_corners():
    mask = augment.hand_mask(POINTS, (100, 110), np.random.default_rng(0))
    x, y = POINTS.astype(int).T
    assert mask[y, x].min() > 0.5
    assert mask[0, 0] < 0.05 and mask[0, -1] < 0.05


def test_muon_makes_all_directions_of_an_update_equally_long():
    rng = torch.Generator().manual_seed(0)
    for rows, columns in ((8, 40), (40, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(3, rows, columns, generator=rng)))
        assert values.min() > 0.6 and values.max() < 1.3
    weight = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
    weight.grad = torch.randn(8, 4, 3, 3, generator=rng)
    Muon([weight], lr=0.1).step()
    step = -weight.detach().reshape(8, -1)
    assert torch.linalg.svdvals(step).max() < 1.3 * 0.1 * 0.2 * 36**0.5
    assert (step * weight.grad.reshape(8, -1)).sum() > 0  # downhill


def test_muon_takes_the_convolutions_that_mix_channels_and_adamw_the_rest():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3, groups=4), torch.nn.Conv2d(4, 6, 1), torch.nn.BatchNorm2d(6)
    )
    muon, adamw = optimisers("muon", network, [], 1e-3)
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(network[2].weight)]
    assert len(adamw.param_groups[0]["params"]) == len(list(network.parameters())) - 1
    (everything,) = optimisers("adamw", network, [], 1e-3)
    assert len(everything.param_groups[0]["params"]) == len(list(network.parameters()))


def test_loss_weights_are_as_given_and_learned_ones_follow_the_losses():
    parts = {"a": torch.tensor(2.0), "b": torch.tensor(0.1)}
    assert float(LossWeights({"a": 0.5, "b": 3.0})(parts)) == pytest.approx(1.3)
    with pytest.raises(KeyError):
        LossWeights({"c": 1.0})(parts)
    weigh = LossWeights({"a": 1.0, "b": 1.0}, learned=True)
    optimiser = torch.optim.Adam(weigh.parameters(), 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        weigh(parts).backward()
        optimiser.step()
    assert weigh.weights() == pytest.approx({"a": 1 / 2.0, "b": 1 / 0.1}, rel=0.02)  # the optimum: one over the loss


def test_hard_images_are_drawn_more_often_within_limits():
    rng = np.random.default_rng(0)
    draw = Draw(100, strength=1.0)
    assert len({draw(rng) for _ in range(2000)}) == 100
    draw.learn(np.arange(10), np.array([0.1] * 9 + [10.0]))  # the others count as mean ones
    counts = np.bincount([draw(rng) for _ in range(20000)], minlength=100)
    ordinary = counts[10:].mean()
    assert counts[9] / ordinary == pytest.approx(LIMITS[1], rel=0.15)
    assert counts[:9].mean() / ordinary == pytest.approx(LIMITS[0], rel=0.15)
    plain = Draw(100, strength=0.0)
    plain.learn(np.arange(100), np.linspace(0, 1, 100))
    assert np.bincount([plain(rng) for _ in range(20000)], minlength=100).min() > 140


FORKED_DRAW = """
import numpy as np, torch
from hand_tracking_ros.training.mining import Draw

draw = Draw(4, strength=1.0)
context = torch.multiprocessing.get_context("fork")
ask, answer = context.Event(), context.Queue()

def work():
    ask.wait(20)
    rng = np.random.default_rng(0)
    answer.put(np.bincount([draw(rng) for _ in range(4000)], minlength=4).tolist())

process = context.Process(target=work)
process.start()
draw.learn(np.arange(4), np.array([1.0, 1.0, 1.0, 5.0]))
ask.set()
print(*answer.get(timeout=20))
process.join(20)
"""


def test_the_workers_of_a_loader_see_what_is_learned():
    """The weights lie in shared memory: a forked process draws by what its parent learned later."""
    done = subprocess.run([sys.executable, "-c", FORKED_DRAW], capture_output=True, text=True, timeout=60, check=True)
    counts = [int(count) for count in done.stdout.split()]
    assert counts[3] > 2.5 * max(counts[:3])


def test_shares_become_repetitions():
    assert sorted(even([(1.0, ["a"]), (1.0, ["b", "c"]), (4.0, ["d", "e"])])) == list("aabcddddeeee")
    assert even([]) == []


def test_weights_come_back_from_onnx(tmp_path):
    torch.manual_seed(3)
    for task, kind, size in (("keynet", KeyNet, (96, 96)), ("detnet", DetNet, (240, 320))):
        model = kind()
        with torch.no_grad():  # statistics that are not those of a new network
            model.train()(torch.randn(4, 1, *size))
        export(task, model.eval(), tmp_path, task, CARD)
        other = kind()
        start_from(other, str(tmp_path / f"{task}.yaml"))
        image = torch.randn(1, 1, *size)
        with torch.no_grad():
            for mine, theirs in zip(other.eval()(image), model(image)):
                torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    with pytest.raises(ModelError, match="layers with weights"):
        start_from(KeyNet(), str(tmp_path / "detnet.yaml"))
    xception = KeyNet(KeyNetConfig(block="xception", width=0.5))
    export("keynet", xception.eval(), tmp_path, "xception", CARD)
    with pytest.raises(ModelError, match="cannot be taken back"):
        start_from(KeyNet(KeyNetConfig(block="xception", width=0.5)), str(tmp_path / "xception.yaml"))


def test_norms_are_measured_without_changing_the_network():
    torch.manual_seed(5)
    network = KeyNet(KeyNetConfig(width=0.5))
    with torch.no_grad():
        network.train()(torch.randn(4, 1, 96, 96))
    for module in network.modules():  # as after load_onnx: statistics that are nobody's
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(0.3)
            module.running_var.fill_(2.0)
    images = torch.randn(64, 1, 96, 96)
    with torch.no_grad():
        before = network.eval()(images)
        count = measure_norms(network, lambda: network(images), batches=2)
        after, live = network.eval()(images), network.train()(images)
    assert count == sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    for old, new, trained in zip(before, after, live):
        torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(trained, old, rtol=2e-2, atol=2e-2)  # norms that learn see the same statistics


TOGETHER = """
import json, sys, functools, torch
from hand_tracking_ros.training import parallel

def work(folder):
    first, second = torch.full((2, 3), float(parallel.rank())), torch.tensor(10.0 * parallel.rank())
    turned = first.t()  # not contiguous
    parallel.average([turned, second])
    told = {"size": parallel.size(), "first": first.tolist(), "second": float(second)}
    told["mean"] = parallel.mean(parallel.rank())
    open(f"{folder}/{parallel.rank()}.json", "w").write(json.dumps(told))

if __name__ == "__main__":
    parallel.run_processes(int(sys.argv[1]), functools.partial(work, sys.argv[2]))
"""


@pytest.mark.parametrize(("count", "mean"), [(1, 0.0), (3, 1.0)])
def test_processes_that_train_together_share_their_mean(tmp_path, count, mean):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    subprocess.run([sys.executable, str(script), str(count), str(tmp_path)], timeout=120, check=True)
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(count)]
    for one in told:
        assert one == {"size": count, "first": [[mean] * 3] * 2, "second": 10 * mean, "mean": mean}


@pytest.mark.parametrize(("text", "message"), [
    ("task: keynet\nsources: [{kind: frame}]", "must have images"),
    ("task: keynet\nsources: [{kind: synthetic, images: a}]", "must not have images"),
    ("task: keynet\nsources: [{kind: photo, images: a}]", "kind of a source must be one of frame, tight"),
    ("task: posenet\nsources: []", "task must be one of keynet, detnet"),
    ("task: keynet\nsources: []\nepochs: 3", "unknown key.s. epochs"),
    ("task: keynet\nsources: []\nminutes: long", "minutes must be float"),
    ("task: keynet", "sources"),
    ("- a", "must map keys to values"),
    ("a: [", "cannot read recipe"),
])  # fmt: skip
def test_a_wrong_recipe_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    if text == "task: keynet":
        assert load_recipe(path).sources == ()
        return
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_an_unknown_recipe_is_told_of_the_shipped_ones():
    with pytest.raises(ConfigError, match="detnet, detnet_permissive, keynet, keynet_permissive"):
        load_recipe("keynet_permisive")


def test_a_check_on_some_of_the_images_takes_them_from_the_whole_folder():
    """Folders are sorted by gesture: the first ones would all be the same."""
    assert spread(list(range(100)), 4) == [0, 25, 50, 75] and spread([1, 2, 3], 3) == [1, 2, 3]


SHARE_ALIKE = ("hagrid_hand_crops", "backgrounds_office")


def test_the_permissive_recipes_train_on_no_share_alike_pictures():
    for name in ("keynet_permissive", "detnet_permissive"):
        recipe = load_recipe(name)
        used = {*recipe.backgrounds, *(source.images for source in recipe.sources)}
        assert used and not used & set(SHARE_ALIKE)


def test_the_shipped_recipes_hold_their_checks_out():
    for path in RECIPES.glob("*.yaml"):
        recipe = load_recipe(path.stem)
        trained = {(source.images, source.held_out_percent, source.without) for source in recipe.sources}
        for check in (check for checks in recipe.checks.values() for check in checks):
            for images, held_out_percent, without in trained:
                if images == check.images:
                    assert held_out_percent == check.held_out_percent or set(without) == set(check.only)


@pytest.mark.parametrize("wrong", [
    {"minutes": 0.0}, {"samples": -1}, {"batch": 0}, {"kept": 0.5}, {"learning_rate": -1.0}, {"seed": -3},
    {"mining": -3.0}, {"learning_rate": float("nan")},
])  # fmt: skip
def test_a_training_without_an_end_or_a_direction_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} of a training must be"):
        dataclasses.replace(load_recipe("keynet"), **wrong)


def test_fine_tuning_on_own_images_with_one_command(tmp_path):
    """The shipped network on labelled own images: resumes, reports, improves on what it trains on."""

    def train(*arguments: str) -> subprocess.CompletedProcess:
        """In a process of its own, as users do: it forks workers."""
        command = [sys.executable, "-m", "hand_tracking_ros.cli", "train", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    folder, lines = tmp_path / "own", []
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(24):
        points = POINTS * rng.uniform(0.9, 1.1) + rng.uniform(0, 20, 2)
        cv2.imwrite(str(folder / f"{index}.png"), dotted(points, (140, 140)))
        hand = {"side": "left", "keypoints_px": points.tolist(), "relative_depth": [0.1] * 21}
        lines.append(json.dumps({"file": f"{index}.png", "hands": [hand]}))
    (folder / "labels.jsonl").write_text("\n".join(lines) + "\n")
    own = ["keynet", "--images", str(folder), "--run", str(tmp_path / "run"), "--learning-rate", "2e-3"]
    first = train(*own, "--samples", "24", "--batch", "8", "--save-every-s", "0")
    assert first.returncode == 0 and "convolutions of" in first.stdout, first.stderr
    (before,) = [json.loads(line)["before"] for line in first.stdout.splitlines() if line.startswith('{"before"')]
    assert 0 < before["held_out_palm_percent"] < 500
    second = train(*own, "--minutes", "0.25", "--batch", "8", "--mining", "1", "--processes", "2")
    assert second.returncode == 0 and "resumed" in second.stdout, second.stderr
    reports = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [report["samples"] for report in reports[:-1]] == [8, 16, 24] and reports[-1]["samples"] > 24
    assert reports[-1]["kp"] < reports[0]["kp"]
    state, shipped = torch.load(tmp_path / "run" / "checkpoint.pt"), KeyNet(KeyNetConfig(verdict=64))
    start_from(shipped, "keynet")
    for name, value in shipped.state_dict().items():  # half of what it learned is added, also after the interruption
        torch.testing.assert_close(state["start"][name], value)
        if value.dtype.is_floating_point:
            torch.testing.assert_close(state["average"][name], (value + state["trained"][name]) / 2)
    assert any((state["trained"][name] - value).abs().max() > 1e-3 for name, value in shipped.state_dict().items())
    wrong = train("detnet", "--images", str(tmp_path / "nowhere"), "--run", str(tmp_path / "r"))
    assert wrong.returncode == 2 and "nowhere is not a folder" in wrong.stderr


def test_weights_of_another_width_are_refused():
    with pytest.raises(ModelError, match=r"do not fit: .* must be that of their training"):
        initialise(KeyNet(KeyNetConfig(width=0.5)), KeyNet(KeyNetConfig(width=0.75)).state_dict())


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "No such file or directory"), (b"", "no weights of PyTorch"), (b"text", "no weights of PyTorch")],
)
def test_weights_that_cannot_be_read_are_named(tmp_path, content, what):
    path = tmp_path / "start.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"cannot read .*start\.pt: {what}; give the checkpoint.pt of a"):
        start_from(KeyNet(KeyNetConfig(width=0.5)), str(path))


def test_a_part_of_the_loss_may_weigh_nothing_but_not_less():
    weigh = LossWeights({"a": 2.0, "b": 0.0})
    assert weigh({"a": torch.tensor(3.0), "b": torch.tensor(5.0)}).item() == pytest.approx(6.0)
    assert weigh.weights() == pytest.approx({"a": 2.0, "b": 0.0})
    with pytest.raises(ConfigError, match="weight of 'b' must be 0 or more"):
        LossWeights({"a": 1.0, "b": -1.0})
    with pytest.raises(ConfigError, match="weight of 'b' must be above 0, where weights are learned"):
        LossWeights({"a": 1.0, "b": 0.0}, learned=True)


def test_a_deeper_network_starts_as_the_one_that_it_continues():
    torch.manual_seed(2)
    plain, deeper = KeyNet(KeyNetConfig(width=0.5)), KeyNet(KeyNetConfig(width=0.5, depth=1.3))
    with torch.no_grad():
        plain.train()(torch.randn(4, 1, 96, 96))
    assert initialise(deeper, plain.state_dict()) == len(plain.state_dict())
    assert len(deeper.to_stride16) == len(plain.to_stride16) + 2
    crop = torch.randn(2, 1, 96, 96)
    for mine, theirs in zip(deeper.eval()(crop), plain.eval()(crop)):
        torch.testing.assert_close(mine, theirs)
    deeper.train()(crop)[0].sum().backward()
    assert all(block.body[1][1].weight.grad.abs().sum() > 0 for block in deeper.to_stride16[-2:])  # and can learn


def test_keynet_f_starts_as_its_keynet_and_learns_to_use_what_it_is_told():
    from hand_tracking_ros.training.networks.keynet import prior_maps

    torch.manual_seed(0)
    plain, temporal = KeyNet(KeyNetConfig(width=0.5)), KeyNet(KeyNetConfig(width=0.5, temporal=True))
    initialise(temporal, plain.state_dict())
    crop, points = torch.randn(2, 1, 96, 96), 20 + 56 * torch.rand(2, 21, 2)
    maps = prior_maps(points, torch.ones(2, 21), 24, 96)
    assert maps.shape == (2, 21, 24, 24) and float(maps.amax(dim=(2, 3)).min()) > 0.75
    for mine, theirs in zip(temporal.eval()(crop, maps), plain.eval()(crop)):
        torch.testing.assert_close(mine, theirs)

    weigh, errors = LossWeights(KEYNET_WEIGHTS), []
    optimiser = torch.optim.Adam(temporal.parameters(), 3e-3)
    unknown, same = torch.full((8, 21), float("nan")), torch.randn(1, 1, 96, 96).expand(8, 1, 96, 96)
    points = 20 + 56 * torch.rand(8, 21, 2)
    maps = prior_maps(points, torch.ones(8, 21), 24, 96)
    for _ in range(60):  # one picture for all: only the expectation tells the hands apart
        target = KeyNetTarget(points, unknown, torch.ones(8), torch.full((8,), 0.5))
        outputs = temporal.train()(same, maps)
        errors.append(float((soft_argmax(outputs[0], 96)[0] - points).detach().norm(dim=-1).mean()))
        optimiser.zero_grad()
        weigh(keynet_loss(outputs, target, 96)).backward()
        optimiser.step()
    assert np.mean(errors[-5:]) < 0.6 * np.mean(errors[:5])


def test_simulated_expectations_are_near_and_now_and_then_absent():
    from hand_tracking_ros.training.priors import NONE, simulated_prior

    rng = np.random.default_rng(0)
    priors = [simulated_prior(POINTS, 96, rng) for _ in range(1000)]
    told = [(points, scores) for points, scores in priors if scores.any()]
    assert 1 - len(told) / 1000 == pytest.approx(NONE, abs=0.05)
    gaps = np.array([np.linalg.norm(points - POINTS, axis=1).mean() for points, _ in told])
    assert 1.5 < np.median(gaps) < 6 and np.percentile(gaps, 75) < 8
    assert 0.85 < np.mean([scores.mean() for _, scores in told]) < 0.95
    others = [simulated_prior(POINTS, 96, rng, [POINTS + 40]) for _ in range(1000)]
    far = [np.linalg.norm(points - POINTS, axis=1).mean() > 35 for points, scores in others if scores.any()]
    assert 0.03 < np.mean(far) < 0.1


def test_some_expectations_are_of_a_hand_that_was_read_the_wrong_way_round():
    from hand_tracking_ros.training.priors import simulated_prior

    rng = np.random.default_rng(0)
    turn = lambda p: np.linalg.det([p[9] - p[0], p[2] - p[0]])  # noqa: E731
    expected = [points for points, scores in (simulated_prior(POINTS, 96, rng) for _ in range(2000)) if scores.any()]
    wrong = np.mean([turn(p) * turn(POINTS) < 0 for p in expected])
    assert 0.03 < wrong < 0.1


def test_backgrounds_are_relit_without_being_folded():
    """Brightness keeps the order of grey levels: nothing that is dark comes back bright."""
    from hand_tracking_ros.training.augment import random_patch

    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    for seed in range(30):
        row = random_patch([ramp], (64, 64), np.random.default_rng(seed))[32].astype(int)
        steps = np.diff(row) if row[-1] >= row[0] else -np.diff(row)
        assert (steps >= 0).all()


def test_noise_of_far_hands_is_enlarged_with_them():
    """Some crops have noise of a coarser grain than their pixels, as those of small hands have on a sensor."""
    from hand_tracking_ros.training.augment import degrade

    flat, grains = np.full((96, 96), 128, np.uint8), []
    for seed in range(150):
        noise = degrade(flat, np.random.default_rng(seed)).astype(float)
        noise -= cv2.blur(noise, (15, 15))
        if noise.std() > 4:
            grains.append((noise[:, 1:] * noise[:, :-1]).mean() / noise.var())
    assert np.mean(np.array(grains) < 0.1) > 0.4 and np.mean(np.array(grains) > 0.3) > 0.1


def test_each_hand_has_its_own_box_at_its_peak_where_hands_cross():
    from hand_tracking_ros.training.frames import FrameHand, dense_target
    from hand_tracking_ros.training.networks.detnet import SIDE_UNIT_PX, STRIDE

    small = FrameHand(Box((100.0, 100.0), (40.0, 40.0)), 1.0, True)
    large = FrameHand(Box((112.0, 104.0), (200.0, 200.0)), 0.0, True)
    for hands in ((small, large), (large, small)):
        fields = dense_target(hands, (320, 240))["fields"]
        for hand in hands:
            x, y = np.array(hand.box.center_px) / STRIDE
            assert np.exp(fields[2, int(y), int(x)]) * SIDE_UNIT_PX == pytest.approx(hand.box.size_px[0], rel=1e-5)


def test_outlines_of_hands_that_are_cut_out_do_not_tell_where_the_joints_are():
    """Masks of one hand differ by more than keypoints may be off, and often fill the gaps between fingers."""
    from hand_tracking_ros.training.augment import hand_mask

    masks = np.stack([hand_mask(POINTS, (96, 96), np.random.default_rng(seed)) > 0.5 for seed in range(40)])
    always, ever = masks.all(axis=0).sum(), masks.any(axis=0).sum()
    assert ever > 1.8 * always
    assert all(mask[tuple(np.clip(POINTS[9].astype(int)[::-1], 0, 95))] for mask in masks)


def test_colour_images_are_grey_as_different_sensors_see_them_but_not_when_measured(tmp_path):
    names = [f"{k}.png" for k in range(40)]
    records = [{"file": n, "width": 8, "height": 8, "hands": [{"side": None, "box": [1, 1, 6, 6]}]} for n in names]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, records)))
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), (20, 60, 200), np.uint8))
    load = functools.partial(load_labelled, tmp_path, tmp_path / "labels.jsonl")
    assert {image.mono[0, 0] for image in load()} == {97}  # 0.114 * 20 + 0.587 * 60 + 0.299 * 200
    mixed = [int(image.mono[0, 0]) for image in load(mixed=True)]
    assert len(set(mixed)) >= 3 and mixed == [int(image.mono[0, 0]) for image in load(mixed=True)]
    assert not any(hand.has_keypoints for image in load() for hand in image.hands)  # boxes alone are labels, too


def test_transparent_parts_of_a_cut_out_go_on_as_its_edge(tmp_path):
    """Blended over anything, the edge of a cut-out is as bright as its inside: no dark rim."""
    from hand_tracking_ros.geometry import warp

    image = np.zeros((64, 64, 4), np.uint8)
    image[16:48, 16:48] = (200, 200, 200, 255)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    record = {"file": "a.png", "width": 64, "height": 64, "hands": [{"side": None, "box": [16, 16, 48, 48]}]}
    (tmp_path / "labels.jsonl").write_text(json.dumps(record))
    (cut,) = load_labelled(tmp_path, tmp_path / "labels.jsonl")
    small = np.array([[0.7, 0.0, 0.0], [0.0, 0.7, 0.0]])
    mono, alpha = (warp(part, small, (44, 44)) for part in (cut.mono, cut.alpha))
    assert (mono[alpha > 10] > 190).all()


def test_keynet_f_is_exported_with_its_inputs_and_tracks(tmp_path):
    from hand_tracking_ros.config import InferenceConfig, KeypointConfig
    from hand_tracking_ros.keypoints import KeypointEstimator
    from hand_tracking_ros.types import HandBox, Source

    torch.manual_seed(1)
    network = KeyNet(KeyNetConfig(width=0.5, temporal=True))
    torch.nn.init.normal_(network.prior.weight, std=0.2)
    export("keynet", network.eval(), tmp_path, "keynet_f", CARD)
    model = KeypointConfig(model=str(tmp_path / "keynet_f.yaml"))
    estimator = KeypointEstimator(model, InferenceConfig(backend="onnxruntime"), max_hands=2)
    assert set(estimator.manifest.inputs) == {"crop", "prior", "prior_scores"}
    box, image = box_around(POINTS), dotted(POINTS)
    told = HandBox(box, 0.9, id=1, source=Source.PROPAGATED, expected_px=POINTS)
    with_prior, without = estimator.estimate(image, [told, HandBox(box, 0.9, id=2, source=Source.PROPAGATED)])
    assert np.abs(with_prior.keypoints_px - without.keypoints_px).max() > 0.1


def test_a_network_starts_from_one_of_another_resolution():
    """The layers that see the whole map are resampled: on a picture without detail both say nearly the same."""
    torch.manual_seed(0)
    big, small = KeyNet(KeyNetConfig(verdict=8)).eval(), KeyNet(KeyNetConfig(verdict=8, resolution=2 / 3)).eval()
    with torch.no_grad():
        for value in (big.vector[2].weight, big.verdict[2].weight):  # smooth over the map, as learned ones are
            value.copy_(value.reshape(len(value), 32, 36).mean(dim=2, keepdim=True).expand(-1, -1, 36).flatten(1))
    taken = initialise(small, big.state_dict())
    assert taken == len(big.state_dict())
    maps = torch.randn(2, 32, 1, 1)
    with torch.no_grad():
        for name in ("vector", "verdict"):
            wide = getattr(big, name)[2](maps.expand(-1, -1, 6, 6).flatten(1))
            narrow = getattr(small, name)[2](maps.expand(-1, -1, 4, 4).flatten(1))
            torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="do not fit"):
        initialise(KeyNet(KeyNetConfig(verdict=8, width=0.5)), big.state_dict())
