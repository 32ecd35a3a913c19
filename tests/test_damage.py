"""Whatever became of a file that we wrote or a user edits: one sentence with its name, or it is set aside with a warning."""

from __future__ import annotations

import copy
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import UNIFORM, in_memory, teacher_facts
from damages import DAMAGES, Read, check_sentence, complaint
from msd.cohort.manifest import read_manifest
from msd.commands.report import partition_report
from msd.conditions.partition import Partition, PartitionReport
from msd.conditions.splits import SplitRequest, make_partition
from msd.data.pairs import PairsPlan, make_pairs
from msd.data.shards import open_pairs
from msd.errors import DataError, MsdError, PartitionError, RecipeError, RunError, WeightsError
from msd.evaluation.features import load_classifier
from msd.evaluation.results import read_metrics
from msd.fleet import jobs
from msd.fleet.inputs import Inputs
from msd.fleet.jobs import Job, Status, read_result, read_status, result_folder, seal_result
from msd.fleet.plan import plan
from msd.fleet.stored import StoredPlan
from msd.networks.facts import read_config, read_facts
from msd.networks.folder import spec_from_json, spec_to_json
from msd.reading import read_kept
from msd.recipe import load_recipe
from msd.run import Run
from msd.training.records import read_records

READERS: dict[str, tuple[Read, type[MsdError]]] = {
    "mine.yaml": (lambda path: load_recipe(str(path)), RecipeError),
    "parts.yaml": (lambda path: make_partition("file", SplitRequest(10, 2, file=path), UNIFORM), PartitionError),
    "partition.json": (Partition.load, PartitionError),
    "recipe.json": (lambda path: Run.open(path.parent), RunError),
    "plan.json": (StoredPlan.load, RunError),
    "job.json": (lambda path: Job.load(path.parent), RunError),
    "cohort.json": (lambda path: read_manifest(path.parent), WeightsError),
    "denoiser.json": (lambda path: read_facts(path.parent), WeightsError),
    "config.json": (lambda path: read_config(path.parent), WeightsError),
    "features.json": (lambda path: load_classifier(path.parent), WeightsError),
    "metrics.json": (read_metrics, RunError),
    "pairs.json": (lambda path: open_pairs(path.parent), DataError),
}
KEPT: dict[str, tuple[Read, object]] = {
    "status.json": (lambda path: read_status(path.parent), Status()),
    "timings.json": (lambda path: Run(path.parent, load_recipe("smoke")).timings(), {}),
    "records.jsonl": (read_records, []),
    "job.json": (lambda path: Job.find(path.parent), None),
    "result/result.json": (lambda path: read_result(path.parent.parent), None),
    "partition-report.json": (lambda path: read_kept(path, PartitionReport, "a report", None), None),
}


def damage(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    DAMAGES[kind](path)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_damage_is_one_sentence(tmp_path: Path, name: str, kind: str) -> None:
    read, error = READERS[name]
    path = tmp_path / name
    damage(path, kind)
    if name == "config.json" and kind == "an unknown field":  # diffusers has many fields, and its own
        return
    with pytest.raises(error) as raised:
        read(path)
    check_sentence(str(raised.value), path)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", KEPT)
def test_damaged_bookkeeping_is_set_aside_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    read, default = KEPT[name]
    path = tmp_path / name
    damage(path, kind)
    if (
        name == "result/result.json" and kind == "an unknown field"
    ):  # of this version: one of another is no result, in silence
        path.write_text(json.dumps({"schema": jobs.SCHEMA, "wings": {"left": 1}}))
    if name == "records.jsonl" and kind == "cut short":
        path.write_text('{"schema": 2, "name\n{}\n')
    if name == "status.json" and kind == "an unknown field":  # another version may say more
        return
    if name == "records.jsonl" and kind == "a byte too large":  # records may be long
        return
    assert read(path) == default
    said = capsys.readouterr().err
    assert said.startswith("Warning: ")
    assert said.count("\n") == 1
    check_sentence(said.rstrip("\n"), path)
    assert f"set aside as {path.name}.broken," in said
    assert os.path.lexists(path.with_name(f"{path.name}.broken"))
    assert read(path) == default
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", READERS)
def test_a_missing_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    read, error = READERS[name]
    with pytest.raises(error) as raised:
        read(tmp_path / name)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_a_secret_file_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root may read everything, the system's answer is played."""
    path = tmp_path / "plan.json"
    path.write_text("{}")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunError, match=r"plan\.json \(a run's plan\) cannot be read \(permission denied\); remove it"):
        StoredPlan.load(path)


# What each file says when it is whole, to be damaged value by value.


def whole_values(folder: Path) -> dict[str, Any]:
    recipe = load_recipe("smoke")
    planned = plan(recipe, Inputs(teacher_facts()))
    Run(folder, recipe).begin()
    StoredPlan.of(planned).save(folder / "plan.json")
    planned.jobs[-1].save(folder)
    partition = planned.main.partition
    partition.save(folder / "partition.json")
    Status(state="done", losses={"student/loss": 1.0}).write(folder)
    found = {
        name: json.loads((folder / name).read_text())
        for name in ("recipe.json", "plan.json", "job.json", "partition.json", "status.json")
    }
    return found | {
        "timings.json": {"pairs": 1.5},
        "partition-report.json": partition.report(None),
        "parts.yaml": {"parts": [list(part) for part in partition.parts], "rest": 0},
        "mine.yaml": recipe.model_dump(mode="json"),
        "cohort.json": {
            "schema": 2,
            "name": "smoke",
            "noise_shape": [1, 8, 8],
            "pixel_shape": [1, 8, 8],
            "partition": partition.to_json(),
            "teacher": {"hash": "0"},
            "students": [],
            "recipe": {},
        },
        "metrics.json": {
            "schema": 2,
            "reference": "a",
            "main": "b",
            "rows": {"a": {"kind": "teacher", "latency_ms": {"1": 2.0}}, "b": {"kind": "students", "equal": None}},
            "floor": {"10": 0.5},
        },
        "pairs.json": {"schema": 2, "identity": "x", "num_pairs": 2, "shards": {"shard-0000.safetensors": "0" * 64}},
        "features.json": {"sha256": "0" * 64, "num_conditions": 10, "data": "digits"},
        "denoiser.json": {
            "schema": 2,
            "network": "unet2d",
            "weights_sha256": "0",
            "config_sha256": "0",
            "spec": {
                "noise_shape": [1, 8, 8],
                "num_conditions": 10,
                "sigma_min": 0.1,
                "sigma_max": 1.0,
                "sigma_init": None,
                "licence": "CC0",
            },
            "prior": list(UNIFORM),
            "teacher": {"hash": "0"},
            "lineage": ["teacher"],
        },
        "result/result.json": {"schema": 2, "task": "x", "files": {"student/config.json": "0" * 64}},
    }


NUMBERS = [True, -1, 0, 3, 2**63, 2**80, 0.5, 1e300, float("nan")]
OTHERS = [None, *NUMBERS, "", "x", "../../x", "a\nb", "\ud800", [], [[]], {}, {"x": 1}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there is something to damage: every key and index, at every depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, entry in list(inner)[:12]:
        found += places(entry, (*path, key))
    return found


def damaged(value: Any, chance: random.Random) -> Any:
    value = copy.deepcopy(value)
    *above, last = chance.choice(places(value))
    holder = value
    for step in above:
        holder = holder[step]
    how = chance.randrange(4)
    if how == 0:
        del holder[last]
    elif how == 1 and isinstance(holder, dict):
        holder["wings"] = holder.pop(last)
    else:
        holder[last] = chance.choice(OTHERS)
    return value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return whole_values(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("name", sorted({*READERS, *KEPT} - {"config.json", "records.jsonl"}))
def test_a_damaged_value_is_a_sentence_or_does_no_harm(
    tmp_path: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Types, names and keys, one at a time at random places: nothing but a sentence, or a warning, comes of it."""
    readers = [*([READERS[name]] if name in READERS else []), *([(KEPT[name][0], None)] if name in KEPT else [])]
    path, chance = tmp_path / name, random.Random(name)
    path.parent.mkdir(exist_ok=True)
    for _ in range(60):
        text = json.dumps(damaged(whole[name], chance))
        for read, error in readers:
            path.write_text(text)
            if raised := complaint(read, path):
                assert error is not None, text
                assert "\n" not in str(raised), text
                assert isinstance(raised, error | PartitionError), text
                assert str(raised).endswith(("?", ".", ")", "rest: 0", "rest: 1")), text
        said = capsys.readouterr().err
        assert said.count("\n") == said.count("Warning: ")


@given(st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_a_damaged_spec_is_a_sentence(chance: random.Random) -> None:
    from msd.diffusion.denoiser import DenoiserSpec, VPParameterisation

    value = json.loads(json.dumps(spec_to_json(DenoiserSpec((1, 8, 8), 10, VPParameterisation("v", (0.9, 0.5))))))
    if raised := complaint(spec_from_json, damaged(value, chance)):
        check_sentence(str(raised), Path("denoiser.json"))


@pytest.mark.parametrize("name", ["../../mine", "/etc/passwd", "a/b", ""])
def test_a_job_or_plan_names_no_path(tmp_path: Path, whole: dict[str, Any], name: str) -> None:
    for file, change, field in (
        ("job.json", {"needs": {"pairs": name}}, r"needs\.pairs"),
        ("job.json", {"name": name}, "name"),
        ("plan.json", {"jobs": [name]}, r"jobs\.0"),
        ("pairs.json", {"shards": {name: "0" * 64}}, r"shards\."),
    ):
        path = tmp_path / file
        path.write_text(json.dumps(whole[file] | change))
        with pytest.raises((RunError, DataError), match=rf"{file} is not .* \({field}.* should be a plain name"):
            READERS[file][0](path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"stages": [{"name": "nothing", "settings": {}}]}, "there is no stage 'nothing'"),
        ({"stages": [{"name": "dm", "settings": {"weight": "x"}}]}, "weight should be a valid number, not 'x'"),
        ({"stages": [{"name": "dm", "settings": {"wings": 2}}]}, "it has an unknown field 'wings'"),
        ({"part": 7}, "it has no part 7"),
        ({"partition": {"schema": 2}}, r"its partition is not a saved partition \(it lacks 'method'\)"),
        ({"partition": {}}, r"its partition is not a saved partition \(it says no schema\)"),
        ({"network": {"attention": 1}}, "attention should be a valid boolean, not 1"),
    ],
)
def test_what_a_task_holds_is_checked(tmp_path: Path, whole: dict[str, Any], change: dict[str, Any], why: str) -> None:
    value = whole["job.json"]
    (tmp_path / "job.json").write_text(json.dumps(value | {"task": value["task"] | change}))
    with pytest.raises(RunError, match=rf"job\.json is not a job \({why}.*\); remove it and give the command[^;]*$"):
        Job.load(tmp_path)


def test_a_result_names_files_in_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = result_folder(tmp_path)
    result.mkdir()
    seal_result(result, "x")
    value = json.loads((result / "result.json").read_text())
    (result / "result.json").write_text(json.dumps(value | {"files": {"../secret": "0" * 64}}))
    assert read_result(tmp_path) is None
    assert "should be a path below its own folder" in capsys.readouterr().err
    seal_result(result, "x")
    assert json.loads((result / "result.json").read_text())["files"] == {}  # not what was set aside


def test_records_lose_only_the_broken_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.jsonl"
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "lo', '{"step": 3, "loss": null}', '{"step": 4, "lo']
    path.write_text("\n".join(lines))
    records = read_records(path)
    assert [record["step"] for record in records] == [1, 3]
    assert records[1]["loss"] != records[1]["loss"]
    assert "line 2 in" in capsys.readouterr().err
    assert (tmp_path / "records.jsonl.broken").read_text() == "\n".join(lines)
    assert path.read_text() == f"{lines[0]}\n{lines[2]}\n"
    path.write_text("\n".join([lines[0], lines[3]]))
    assert read_records(path) == [{"step": 1, "loss": 2.0}]
    assert capsys.readouterr().err == ""  # cut short by a crash, as may be


def test_a_broken_list_of_shards_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    settings = PairsPlan(4, 2, UNIFORM, 0, "x")
    make = lambda: make_pairs(lambda noise, keys: -noise, (1, 2, 2), tmp_path, settings)  # noqa: E731
    make()
    before = in_memory(tmp_path)
    (tmp_path / "pairs.json").write_text('{"schema": 2')
    with pytest.raises(DataError, match=r"pairs\.json .* cannot be read .*; run `msd pairs` again, which makes"):
        open_pairs(tmp_path)
    assert len(make().made) == 2
    assert "set aside as pairs.json.broken" in capsys.readouterr().err
    assert torch.equal(in_memory(tmp_path).noise, before.noise)


def test_a_broken_report_of_a_partition_is_derived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path, load_recipe("smoke"))
    Partition(((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), UNIFORM).save(run.partition)
    run.partition_report.write_text("{")
    report = partition_report(run)
    assert report["num_parts"] == 2
    assert report["parts"][0]["coherence"] is not None
    assert "set aside as partition-report.json.broken" in capsys.readouterr().err
    run.partition_report.write_text(json.dumps(report))
    assert partition_report(run) == report
    assert capsys.readouterr().err == ""
