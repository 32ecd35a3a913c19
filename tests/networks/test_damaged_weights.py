"""Weights and configurations that became something else: a sentence each, and none of a library's advice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builders import tiny_denoiser
from damages import Damage, check_sentence
from msd.errors import WeightsError
from msd.files import has_sha256, sha256_file
from msd.networks.facts import CONFIG, FACTS, WEIGHTS, config_sha256
from msd.networks.folder import load_denoiser, save_denoiser
from msd.networks.tensors import load_array, load_tensors
from msd.teachers.facts import read_teacher, teacher_folder

BINARIES: dict[str, Damage] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "missing": lambda path: None,
    "empty": Path.touch,
    "garbage": lambda path: path.write_bytes(b"\xff" * 64),
}


@pytest.mark.parametrize("kind", BINARIES)
def test_damaged_weights_are_one_sentence(tmp_path: Path, kind: str) -> None:
    """Where they lie beside their checksums, and where they don't; and the array that is read without torch."""
    source = teacher_folder("packaged:digits")
    for name in (CONFIG, FACTS):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    path = tmp_path / WEIGHTS
    BINARIES[kind](path)
    for read in (
        lambda: load_denoiser(tmp_path),
        lambda: read_teacher(str(tmp_path)),
        lambda: load_tensors(path, "restore it"),
        lambda: load_array(path, "weight", "restore it"),
        lambda: sha256_file(path / "below", WeightsError),
    ):
        with pytest.raises(WeightsError) as raised:
            read()
        check_sentence(str(raised.value), path)
    assert not has_sha256(path, "0" * 64)
    assert not has_sha256(None, "0" * 64)


def test_what_diffusers_says_of_a_configuration_is_one_line(tmp_path: Path) -> None:
    """Checksums that fit, and values that build nothing."""
    save_denoiser(tiny_denoiser(0), tmp_path)
    for change in (
        {"block_out_channels": []},
        {"norm_num_groups": 0},
        {"down_block_types": [3]},
        {"sample_size": {}, "wings": 1},
    ):
        config = json.loads((tmp_path / CONFIG).read_text())
        (tmp_path / CONFIG).write_text(json.dumps(config | change))
        facts = json.loads((tmp_path / FACTS).read_text())
        (tmp_path / FACTS).write_text(json.dumps(facts | {"config_sha256": config_sha256(tmp_path)}))
        with pytest.raises(WeightsError, match="config") as raised:
            load_denoiser(tmp_path)
        check_sentence(str(raised.value), tmp_path / "config")
        (tmp_path / CONFIG).write_text(json.dumps(config))
