"""A teacher's outputs as targets: the distance is what it says, and a student trained by it comes nearer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra: pip install '.[train]'")
pytest.importorskip("onnx", reason="weights from ONNX need the 'train' extra: pip install '.[train]'")

# ruff: noqa: E402
import tiny_training

from hand_tracking_ros.errors import ConfigError, ModelError
from hand_tracking_ros.training.distillation import detnet_distance, keynet_distance, load_teacher
from hand_tracking_ros.training.networks.detnet import DETNET_WEIGHTS, DetNetConfig
from hand_tracking_ros.training.networks.keynet import KEYNET_WEIGHTS, KeyNet, KeyNetConfig
from hand_tracking_ros.training.networks.zoo import set_progress
from hand_tracking_ros.training.tasks import KeyNetTask
from hand_tracking_ros.training.train import Trainer

torch.set_num_threads(1)


def keynet_outputs(presence: float = 10.0) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 21, 6, 6), torch.randn(2, 21), torch.full((2,), presence), torch.randn(2)]


def test_keynet_is_at_distance_0_of_itself_and_each_output_counts():
    wanted = keynet_outputs()
    assert float(keynet_distance(wanted, wanted)) == pytest.approx(0.0, abs=1e-6)
    deeper = [wanted[0], wanted[1] + 0.5, *wanted[2:]]
    seen = 1 / (1 + np.exp(-10.0))
    assert float(keynet_distance(deeper, wanted)) == pytest.approx(KEYNET_WEIGHTS["depth"] * (0.5 - 0.05) * seen)
    shifted = [wanted[0] + 3.0, *wanted[1:]]  # the same probabilities
    assert float(keynet_distance(shifted, wanted)) == pytest.approx(0.0, abs=1e-5)
    flat = [torch.zeros(2, 21, 6, 6), *wanted[1:]]
    q = torch.softmax(wanted[0].flatten(2), dim=-1)
    divergence = float((q * (q * 36).log()).sum(dim=-1).mean())
    assert float(keynet_distance(flat, wanted)) == pytest.approx(divergence * seen, rel=1e-4)


def test_where_the_teacher_sees_no_hand_only_presence_counts():
    wanted = keynet_outputs(presence=-30.0)
    other = [-wanted[0], wanted[1] + 2, wanted[2], -wanted[3]]
    assert float(keynet_distance(other, wanted)) == pytest.approx(0.0, abs=1e-6)
    other[2] = torch.zeros(2)  # undecided: log 2
    assert float(keynet_distance(other, wanted)) == pytest.approx(KEYNET_WEIGHTS["presence"] * np.log(2), rel=1e-4)


def test_detnet_boxes_count_where_the_teacher_has_centres():
    torch.manual_seed(0)
    centre, fields = torch.full((1, 1, 4, 5), -30.0), torch.randn(1, 6, 4, 5)
    centre[0, 0, 1, 2] = 30.0
    assert float(detnet_distance((centre, fields), (centre, fields))) == pytest.approx(0.0, abs=1e-6)
    away = fields.clone()
    away[0, :3, 3, 3] += 9.0  # no centre there
    assert float(detnet_distance((centre, away), (centre, fields))) == pytest.approx(0.0, abs=1e-6)
    away[0, 0, 1, 2] += 1.0
    assert float(detnet_distance((centre, away), (centre, fields))) == pytest.approx(DETNET_WEIGHTS["box"] * 0.95)


def test_teachers_come_from_checkpoints_and_models(tmp_path):
    config = KeyNetConfig(width=0.25, block="conv")
    path = tmp_path / "big.pt"
    torch.save({"average": KeyNet(config).state_dict(), "config": dataclasses.asdict(config)}, path)
    teacher = load_teacher("keynet", str(path), KeyNetConfig())
    assert teacher.config == config and not any(p.requires_grad for p in teacher.parameters()) and not teacher.training
    assert load_teacher("detnet", "detnet", DetNetConfig()).config == DetNetConfig()
    with pytest.raises(ConfigError, match="teacher .*big.pt takes images of 96 px, the network to train of 48 px"):
        load_teacher("keynet", str(path), KeyNetConfig(resolution=0.5))
    with pytest.raises(ModelError, match=r"cannot read .*nowhere\.pt: No such file"):
        load_teacher("keynet", str(tmp_path / "nowhere.pt"), KeyNetConfig())
    with pytest.raises(ModelError, match="is no checkpoint of a detnet"):
        load_teacher("detnet", str(path), DetNetConfig())


def test_a_student_comes_nearer_to_its_teacher(tmp_path):
    folder = tiny_training.pictures(tmp_path / "own")
    torch.manual_seed(1)
    config = KeyNetConfig(width=0.5, resolution=0.5)
    teacher = KeyNet(config).train()
    set_progress(teacher, 1.0)
    with torch.no_grad():
        for _ in range(20):
            teacher(torch.randn(8, 1, 48, 48))
    path = tmp_path / "teacher.pt"
    torch.save({"average": teacher.state_dict(), "config": dataclasses.asdict(config)}, path)
    loss = {"kp": 1e-6, "depth": 1e-6, "presence": 1e-6, "side": 1e-6, "teacher": 2.0}  # hardly any labels
    recipe, data = tiny_training.recipe(folder, loss=loss, minutes=1.0, learning_rate=3e-3)
    trainer = Trainer(recipe, KeyNetTask(recipe, data), tmp_path / "run", str(path))
    assert trainer.weigh.weights()["teacher"] == pytest.approx(2.0)
    batch = trainer.task.batch(np.random.default_rng(0), 8)
    trainer.spent_s = 6.0  # behind the warm-up
    distances = [trainer.step(batch)["teacher"] for _ in range(25)]
    assert distances[-1] < 0.5 * distances[0]
    assert "teacher" not in Trainer(recipe, trainer.task, tmp_path / "other").weigh.weights()
