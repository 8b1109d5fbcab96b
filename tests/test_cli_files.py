"""What commands write is checked before they begin: no input is overwritten, nothing fails at the end."""

from __future__ import annotations

import pytest

from hand_tracking_ros.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("track clip.mp4 --output clip.mp4", "--output clip.mp4 would overwrite SOURCE, which is read: name another"),
        ("track file://clip.mp4 --overlay ./clip.mp4", "--overlay clip.mp4 would overwrite SOURCE"),
        ("track clip.mp4 --output linked.mp4", "--output linked.mp4 would overwrite SOURCE"),
        ("track 0 --camera-info cam.yaml --output cam.yaml", "--output cam.yaml would overwrite --camera-info"),
        ("track 0 --camera-info cam.yaml:left --output cam.yaml", "--output cam.yaml would overwrite --camera-info"),
        ("track 0 --rig cam.yaml --also clip.mp4 --output clip.mp4", "would overwrite --also"),
        ("track 0 --rig cam.yaml --save-hand-size cam.yaml", "--save-hand-size cam.yaml would overwrite --rig"),
        ("track 0 --stereo 1 cam.yaml --output cam.yaml", "--output cam.yaml would overwrite --stereo"),
        ("track 0 --depth clip.mp4 --overlay clip.mp4", "--overlay clip.mp4 would overwrite --depth"),
        ("track 0 --params p.yaml --output p.yaml", "--output p.yaml would overwrite --params"),
        ("track 0 --set pose.size_file=cam.yaml --output cam.yaml", "would overwrite pose.size_file"),
        ("track images --output images/1.png", "--output images/1.png would overwrite SOURCE"),
        ("track 0 --output new.mp4 --overlay images/../new.mp4", "and --overlay images/../new.mp4 are one file"),
        ("track 0 --output images", "cannot write images: it is a folder; give the name of a file"),
        ("track 0 --output clip.mp4/hands.jsonl", "cannot write clip.mp4/hands.jsonl: cannot make clip.mp4"),
        ("track 0 --save-hand-size me.yaml", "--save-hand-size needs what measures hands: two cameras"),
        ("track 0 --rig cam.yaml --save-hand-size images", "cannot write images: it is a folder"),
        ("demo --params p.yaml --output p.yaml", "--output p.yaml would overwrite --params"),
        ("demo --overlay a.mp4 --output a.mp4", "--overlay a.mp4 and --output a.mp4 are one file"),
        ("urdf --side left --size-file cam.yaml --output cam.yaml", "would overwrite --size-file"),
        ("rig cam.yaml p.yaml --output p.yaml", "--output p.yaml would overwrite SOURCE"),
        ("rig images --output images/c0.dat", "--output images/c0.dat would overwrite SOURCE"),
        ("size --show cam.yaml --output cam.yaml", "--output cam.yaml would overwrite --show"),
        ("label images --output images/1.png", "--output images/1.png would overwrite FOLDER"),
        ("label images --output clip.mp4", "--output goes on with labels that are there: name another file"),
    ],
)
def test_nothing_that_is_read_is_overwritten(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    files = {name: tmp_path / name for name in ("clip.mp4", "cam.yaml", "images/1.png", "images/c0.dat")}
    for file in files.values():
        file.write_bytes(b"precious")
    (tmp_path / "p.yaml").write_text("track: {max_hands: 1}")
    (tmp_path / "linked.mp4").symlink_to("clip.mp4")
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert all(file.read_bytes() == b"precious" for file in files.values())
    assert not (tmp_path / "new.mp4").exists() and not (tmp_path / "a.mp4").exists()
