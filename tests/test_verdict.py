"""KeyNet's head for the presence: learned from what the network takes for hands, while all else stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra: pip install '.[train]'")
pytest.importorskip("onnx", reason="export needs the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
import tiny_training

from hand_tracking_ros.errors import ConfigError
from hand_tracking_ros.geometry import box_around, iou
from hand_tracking_ros.training.crops import MARGIN, CropJitter, CropSampler, _box_off_hands
from hand_tracking_ros.training.export import export
from hand_tracking_ros.training.labelled import LabelledHand, LabelledImage
from hand_tracking_ros.training.mining import Mistakes
from hand_tracking_ros.training.networks.keynet import KeyNet, KeyNetConfig
from hand_tracking_ros.training.search.measure import UNTRAINED
from hand_tracking_ros.training.tasks import KeyNetTask
from hand_tracking_ros.training.train import Trainer, freeze_all_but
from hand_tracking_ros.training.weights import start_from

torch.set_num_threads(1)
SMALL = {"width": 0.25, "resolution": 0.5}
PRESENCE = 2


def test_a_verdict_starts_by_saying_nothing(tmp_path):
    torch.manual_seed(1)
    plain, judged = KeyNet(KeyNetConfig(**SMALL)), KeyNet(KeyNetConfig(**SMALL, verdict=8))
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    start_from(judged, str(tmp_path / "plain.pt"))
    crops = torch.randn(5, 1, 48, 48)
    for old, new in zip(plain.eval()(crops), judged.eval()(crops)):
        assert torch.equal(old, new)
    torch.nn.init.ones_(judged.verdict[-1].weight)
    changed = [not torch.equal(old, new) for old, new in zip(plain(crops), judged(crops))]
    assert [index for index, differs in enumerate(changed) if differs] == [PRESENCE]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_verdict_is_added_to_an_exported_network_that_has_none(tmp_path):
    shipped, plain = KeyNet(KeyNetConfig(**SMALL)), KeyNet(KeyNetConfig(**SMALL))
    judged = KeyNet(KeyNetConfig(**SMALL, verdict=8))
    shipped(torch.randn(4, 1, 48, 48))  # norms that are not those of a new network
    export("keynet", shipped.eval(), tmp_path, "plain", UNTRAINED)
    for network in (plain, judged):
        start_from(network, str(tmp_path / "plain.yaml"))
    crops = torch.randn(2, 1, 48, 48)
    for old, new in zip(plain.eval()(crops), judged.eval()(crops)):
        assert torch.equal(old, new)


def test_only_the_named_parts_learn(tmp_path):
    folder = tiny_training.pictures(tmp_path / "own")
    recipe, data = tiny_training.recipe(folder, network={**SMALL, "verdict": 8}, only=("verdict",))
    trainer = Trainer(recipe, KeyNetTask(recipe, data), tmp_path / "run")
    trainer.resume("")
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    batch = trainer.task.batch(np.random.default_rng(0), 8)
    trainer.spent_s = 0.1
    for _ in range(3):
        trainer.step(batch)
    after = trainer.network.state_dict()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"verdict"}
    with pytest.raises(ConfigError, match="no part of the network is called ear; it has .*heatmaps, vector, verdict"):
        freeze_all_but(trainer.network, ("ear",))


@pytest.mark.parametrize("temporal", [False, True])
def test_the_network_itself_is_asked_for_mistakes(tmp_path, temporal):
    recipe, data = tiny_training.recipe(
        tiny_training.pictures(tmp_path / "own"), network={**SMALL, "verdict": 8, "temporal": temporal},
        sampling={"absent": 0.5, "mistaken": 0.5},
    )  # fmt: skip
    trainer = Trainer(recipe, KeyNetTask(recipe, data), tmp_path / "run")
    with torch.no_grad():
        for network in (trainer.network, trainer.average.network):
            network.verdict[-1].bias.fill_(10.0)  # sees hands everywhere
    assert len(trainer.task.sampler.mistakes) == 0
    trainer.mine()
    assert len(trainer.task.sampler.mistakes) > 500
    assert trainer.task.batch(np.random.default_rng(0), 16)["presence"].mean() < 1


HAND = LabelledHand(tiny_training.HAND, np.zeros(21), 1.0, box_around(tiny_training.HAND))
LAMP, WALL = np.full((160, 160), 220, np.uint8), np.full((300, 400), 20, np.uint8)


def sampler(*negatives: LabelledImage) -> CropSampler:
    """Draws samples without a hand only."""
    hands = [LabelledImage("one", np.full((140, 140), 40, np.uint8), (HAND,))]
    return CropSampler([("frame", 1.0, hands)], [WALL], negatives, degraded=0.0, absent=1.0, mistaken=1.0)


def sees_hands_where_it_is_bright(crops: np.ndarray, expected=None) -> tuple[np.ndarray, np.ndarray]:
    """A network, for look_for_mistakes."""
    return np.stack([tiny_training.HAND] * len(crops)), (np.median(crops, axis=(1, 2)) > 128).astype(float)


def test_what_is_taken_for_a_hand_is_shown_again():
    draw, rng = sampler(LabelledImage("lamp", LAMP, ())), np.random.default_rng(0)
    assert draw.sample(rng).presence == 0.0  # until there are mistakes, something else
    draw.look_for_mistakes(sees_hands_where_it_is_bright, rng, 50)
    assert 10 < len(draw.mistakes) < 45  # in the lamp, and not on the wall
    picture, keypoints = draw.mistakes(rng)
    assert picture.shape == (round(96 * MARGIN),) * 2 and keypoints.shape == (21, 2)
    shown = [draw.sample(rng) for _ in range(20)]
    assert all(sample.presence == 0.0 and sample.crop.shape == (96, 96) for sample in shown)
    assert np.mean([np.median(sample.crop) == 220 for sample in shown]) > 0.9


def upright(crops: np.ndarray) -> np.ndarray:
    """A hand in the middle of every crop."""
    middle = tiny_training.HAND - tiny_training.HAND.mean(axis=0) + 48
    return np.stack([middle] * len(crops))


def test_a_false_hand_is_shown_again_with_what_was_seen_there_expected():
    """A tracker tells the network what it saw itself: that must not make it believe in a false hand."""
    draw, rng = sampler(LabelledImage("lamp", LAMP, ())), np.random.default_rng(0)
    told = []

    def sees_a_hand_in_the_corner(crops, expected):
        told.append(expected)
        return np.stack([tiny_training.HAND / 3] * len(crops)), np.ones(len(crops))

    draw.look_for_mistakes(sees_a_hand_in_the_corner, rng, 40)
    assert told[0] is None
    middles = told[1].mean(axis=1)  # in the crop around what was seen first: in its middle
    assert told[1].shape == (40, 21, 2) and np.abs(middles - 48).max() < 16
    drawn = [draw.sample(rng) for _ in range(200)]
    expected = [(s.prior - s.prior.mean(axis=0)) for s in drawn if s.prior_scores.any()]
    assert 0.5 < len(expected) / len(drawn) < 0.8
    # What was seen last fills the crops that are drawn, as a tracked hand does.
    palms = [np.linalg.norm(shape[9] - shape[0]) for shape in expected]
    crop_side = HAND.box.scaled(CropJitter().scale).size_px[0]
    palm = np.linalg.norm(tiny_training.HAND[9] - tiny_training.HAND[0]) * 96 / crop_side
    assert np.median(palms) == pytest.approx(palm, rel=0.1)


def test_a_hand_is_no_mistake():
    draw, rng = sampler(), np.random.default_rng(0)
    for hands, kept in (((), 10), ((HAND,), 10)):  # the second time there is a hand where the box leads to
        draw._picture_without_hand = lambda rng, hands=hands: (LAMP, hands, HAND.box.scaled(1.4))
        draw.look_for_mistakes(lambda crops, expected: (upright(crops), np.ones(len(crops))), rng, 10)
        assert len(draw.mistakes) == kept


def test_the_oldest_mistakes_are_forgotten():
    kept = Mistakes(3, 2)
    for value in range(5):
        kept.add(np.full((2, 2), value, np.uint8), np.full((21, 2), 10.0 * value))
    rng = np.random.default_rng(0)
    drawn = {(int(picture[0, 0]), float(points[20, 1])) for picture, points in (kept(rng) for _ in range(50))}
    assert len(kept) == 3 and drawn == {(2, 20.0), (3, 30.0), (4, 40.0)}


def test_an_arm_with_its_hand_is_no_hand():
    """Boxes for pictures without a hand lie beside the hands, or are far too wide: an arm has a hand at its end."""
    frame = LabelledImage("arm", np.full((480, 640), 40, np.uint8), (HAND,))
    rng = np.random.default_rng(0)
    boxes = [box for _ in range(300) if (box := _box_off_hands(frame, rng))]
    assert len(boxes) > 250 and all(iou(box, HAND.box) < 0.05 for box in boxes)
    gaps = [np.abs(np.subtract(box.center_px, HAND.box.center_px)).max() / max(box.size_px) for box in boxes]
    around = [box for box, gap in zip(boxes, gaps) if gap < 0.35]
    ratios = [max(box.size_px) / max(HAND.box.size_px) for box in around]
    assert 50 < len(around) < 200 and min(ratios) > 4 and max(ratios) > 7
