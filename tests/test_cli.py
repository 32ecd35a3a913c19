"""Every verb on the smoke recipe, and every kind of bad input: one sentence, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import fails, interrupt, msd
from msd.cli import VERBS
from msd.networks.folder import WEIGHTS
from msd.recipe import packaged_recipes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole demo on the smoke recipe."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    done = msd("demo", "smoke", "--out", folder, "--json")
    metrics = json.loads(done.stdout)
    assert metrics == json.loads((folder / "report" / "metrics.json").read_text())
    return folder


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['msd', '--help']\n"
        "from msd.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'torchmetrics', 'sklearn', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    assert f"Example: msd {verb}" in " ".join(msd(verb, "--help").stdout.split())


def test_the_demo_leaves_what_other_tools_rely_on(run: Path) -> None:
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    assert {"schema", "recipe", "seed", "device", "num_threads", "wall_seconds", "rows"} <= metrics.keys()
    assert metrics["schema"] == 2
    assert (metrics["reference"], metrics["main"]) == ("teacher-heun18", "cohort")
    names = {"teacher-heun18", "teacher-euler1", "teacher-euler4", "single", "single-equal-total", "cohort"}
    assert metrics["rows"].keys() == names
    for row in metrics["rows"].values():
        fields = "num_function_evaluations num_parameters_per_request frechet_distance kid precision recall"
        assert {*fields.split(), "label_accuracy", "per_part", "latency_ms", "num_samples"} <= row.keys()
        assert row["latency_ms"].keys() == {"1", "16", "256"}
        assert len(row["per_part"]) == 2
        assert {"reference_sha256", "feature_network_sha256", "evaluation_seed"} <= row["provenance"].keys()
    assert metrics["rows"]["teacher-heun18"]["num_function_evaluations"] == 35
    assert metrics["rows"]["single-equal-total"]["num_updates"] == 12
    assert (run / "cohort" / "cohort.json").exists()
    assert (run / "cohort" / "students" / "1" / "config.json").exists()
    assert "<html" in (run / "report" / "index.html").read_text()


def test_the_demo_again_trains_nothing(run: Path) -> None:
    made = [*run.glob("jobs/*/result/result.json"), run / "cohort" / "cohort.json"]
    assert len(made) == 6
    before = [path.stat().st_mtime_ns for path in made]
    msd("distill", "smoke", "--out", run)
    assert [path.stat().st_mtime_ns for path in made] == before


def test_the_demo_again_measures_nothing_and_tells_the_same_times(run: Path) -> None:
    kept = [*sorted((run / "evaluations").iterdir()), run / "report" / "index.html"]
    before = [path.stat().st_mtime_ns for path in kept]
    metrics, timings = (run / "report" / "metrics.json").read_bytes(), (run / "timings.json").read_bytes()
    value = json.loads(msd("demo", "smoke", "--out", run, "--json").stdout)
    assert (run / "report" / "metrics.json").read_bytes() == metrics
    assert (run / "timings.json").read_bytes() == timings
    assert len(list((run / "evaluations").iterdir())) == len(kept) - 1
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert value["seconds"].keys() == {"training", "evaluation"}
    assert value["wall_seconds"] == pytest.approx(sum(value["seconds"].values()), abs=0.1)


def test_status_tells_every_job(run: Path) -> None:
    value = json.loads(msd("status", run, "--json").stdout)
    assert value["jobs"].keys() == {"pairs", "student-0", "student-1", "single", "single-equal-total"}
    assert {job["state"] for job in value["jobs"].values()} == {"done"}
    assert "student-1" in msd("status", run).stdout


def test_sample_writes_a_grid_and_arrays(run: Path, tmp_path: Path) -> None:
    msd("sample", run / "cohort", "--labels", "3,7", "--num", 16, "--out", tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width > picture.height
    value = json.loads(
        msd("sample", run / "cohort", "--labels", "3,7", "--num", 2, "--out", tmp_path / "a.npz", "--json").stdout
    )
    assert value["students"] == {"3": 0, "7": 1}
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["images"].shape == (4, 1, 8, 8)
        assert arrays["labels"].tolist() == [3, 3, 7, 7]


def test_eval_and_report_stand_alone(run: Path) -> None:
    value = json.loads(msd("eval", run / "cohort", "--json").stdout)
    assert value["rows"].keys() == {"teacher-heun18", "cohort"}
    reported = json.loads((run / "report" / "metrics.json").read_text())["rows"]["cohort"]
    assert value["rows"]["cohort"]["frechet_distance"] == pytest.approx(reported["frechet_distance"], rel=1e-3)
    page = (run / "report" / "index.html").read_text()
    (run / "report" / "index.html").write_text("damaged")
    (run / "report" / "notes.txt").write_text("mine")
    metrics = (run / "report" / "metrics.json").read_bytes()
    (run / "report" / "metrics.json").write_text("{")
    assert "it is made again from what is kept" in msd("report", run).stderr
    assert (run / "report" / "metrics.json").read_bytes() == metrics
    assert (run / "report" / "notes.txt").read_text() == "mine"
    assert (run / "report" / "index.html").read_text() == page


def test_partition_pairs_and_distill_one_by_one(tmp_path: Path) -> None:
    out = tmp_path / "run"
    report = json.loads(
        msd("partition", "smoke", "--set", "partition.method=balanced-kmeans", "--out", out, "--json").stdout
    )
    assert [part["size"] for part in report["parts"]] == [5, 5]
    assert (out / "partition-report.json").exists()
    arguments = ("smoke", "--set", "partition.method=balanced-kmeans", "--out", out)
    assert json.loads(msd("pairs", *arguments, "--json").stdout)["made"] == [
        "shard-0000.safetensors",
        "shard-0001.safetensors",
    ]
    (shard,) = out.glob("jobs/pairs-*/result/shard-0001.safetensors")
    content = shard.read_bytes()
    shard.write_bytes(b"damaged")
    assert "shard-0001.safetensors" in msd("pairs", *arguments).stderr
    assert shard.read_bytes() == content
    summary = json.loads(msd("distill", *arguments, "--students", "1", "--json").stdout)
    assert summary["missing_students"] == [0]
    assert not (out / "cohort").exists()
    assert json.loads(msd("distill", *arguments, "--json").stdout)["cohort"] == str(out / "cohort")


def test_a_pretrained_teacher_can_be_distilled(tmp_path: Path) -> None:
    msd("pretrain", "smoke", "--out", tmp_path / "t")
    facts = json.loads((tmp_path / "t" / "teacher" / "denoiser.json").read_text())
    assert facts["quality"]["num_samples"] == 200
    assert facts["prior"][0] == pytest.approx(178 / 1797)
    source = f"teacher.source={tmp_path / 't' / 'teacher'}"
    msd("distill", "smoke", "--set", source, "--set", "dm.num_updates=2", "--out", tmp_path / "d")
    assert (tmp_path / "d" / "cohort" / "cohort.json").exists()


def test_recipes_lists_cost_and_expectation() -> None:
    rows = {row["name"]: row for row in json.loads(msd("recipes", "--json").stdout)}
    assert rows.keys() == set(packaged_recipes()) >= {"digits", "digits-small-71", "fashion", "smoke"}
    assert all(row["cost"] and row["expected"] for row in rows.values())


def test_recipes_explains_one_recipe() -> None:
    """Every key, and all that each row changes of them, a named one's too."""
    explained = json.loads(msd("recipes", "digits", "--json").stdout)
    keys = explained["keys"]
    assert explained["rows"]["single"]["overrides"] == {"partition.num_parts": 1}
    assert explained["rows"]["single-equal-total"]["equal"] == "total-updates"
    assert keys["student.sigma_init"]["value"] == 2.5
    assert keys["student.sigma_init"]["origin"] == "recipe"
    shown = msd("recipes", "digits").stdout
    assert all(key.rpartition(".")[2] in shown for key in keys)
    assert "partition.num_parts" in shown  # its value stands on the next line where there is little room
    assert "rows can also name: full-single, dmd, dmd2" in " ".join(shown.split())
    assert "did you mean digits?" in fails("recipes", "digit")


BAD = {
    "unknown recipe": (("distill", "digit"), "did you mean digits?"),
    "unknown key": (("distill", "smoke", "--set", "dm.learning_rat=1"), "did you mean learning_rate?"),
    "wrong type": (("distill", "smoke", "--set", "dm.num_updates=many"), "dm.num_updates"),
    "not an override": (("distill", "smoke", "--set", "dm.num_updates"), "KEY=VALUE"),
    "more parts than classes": (("partition", "smoke", "--set", "partition.num_parts=11"), "cannot be split into 11 parts"),
    "batch larger than pairs": (("distill", "smoke", "--set", "dm.regression.batch_size=999"), "with_replacement"),
    "no such student": (("distill", "smoke", "--students", "5"), "there is no student 5"),
    "students not numbers": (("distill", "smoke", "--students", "a"), "not a list of numbers"),
    "no such teacher": (("distill", "smoke", "--set", "teacher.source=packaged:cats"), "there is no packaged teacher"),
    "no such device": (("distill", "smoke", "--device", "cuda:9"), "cuda:9 is not there"),
    "not a device": (("distill", "smoke", "--device", "toaster"), "is not a device"),
    "no such network": (("pretrain", "smoke", "--network", "critic"), "choose teacher or features"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_sentence(case: str, tmp_path: Path) -> None:
    arguments, expected = BAD[case]
    assert expected in fails(*arguments, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_partition_files(tmp_path: Path) -> None:
    for content, expected in (
        ("parts: [[0, 1], [2, 3]]", "class 4 is in no part; list it or set rest: 1"),
        ("parts: [[0, 1], []]\nrest: 0", "part 1 is empty"),
        ("parts: [[0, 1, 12], [2]]\nrest: 0", "class 12"),
    ):
        (tmp_path / "mine.yaml").write_text(content)
        arguments = ("--set", "partition.method=file", "--set", f"partition.file={tmp_path / 'mine.yaml'}")
        assert expected in fails("partition", "smoke", *arguments, "--out", tmp_path / "run")
        assert not (tmp_path / "run" / "partition.json").exists()


def test_bad_folders(run: Path, tmp_path: Path) -> None:
    assert "was made by another recipe (it differs in dm.learning_rate)" in fails(
        "distill", "smoke", "--set", "dm.learning_rate=0.1", "--out", run
    )
    assert "is outside the partition" in fails("sample", run / "cohort", "--labels", "11", "--out", tmp_path / "a.png")
    assert "neither .png nor .npz" in fails("sample", run / "cohort", "--out", tmp_path / "a.gif")
    assert "does not exist" in fails("sample", tmp_path / "nowhere", "--out", tmp_path / "a.png")
    assert "is not a run's folder" in fails("status", tmp_path)
    assert "is not a run's folder" in fails("report", tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails("distill", "smoke", "--out", tmp_path / "file" / "run")
    assert "cannot be written" in fails("sample", run / "cohort", "--out", tmp_path / "file" / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_failed_student_is_exit_code_1_and_the_others_finish(tmp_path: Path) -> None:
    arguments = ("distill", "smoke", "--out", tmp_path / "run")
    msd(*arguments, "--students", "1")
    key = next(job["key"] for job in json.loads(msd("plan", "smoke", "--json").stdout)["jobs"] if job["name"] == "student-0")
    blocked = tmp_path / "run" / "jobs" / key
    blocked.mkdir(parents=True)
    (blocked / "stages").write_text("in the way")
    assert "student-0" in fails(*arguments, code=1)
    (blocked / "stages").unlink()
    msd(*arguments)
    assert (tmp_path / "run" / "cohort" / "cohort.json").exists()


def test_ctrl_c_saves_everything_and_the_same_command_goes_on(tmp_path: Path) -> None:
    arguments = [
        "distill",
        "smoke",
        "--set",
        "dm.num_updates=100",
        "--set",
        "fleet.checkpoint_every=20",
        "--out",
        str(tmp_path / "run"),
    ]
    key = next(
        job["key"] for job in json.loads(msd("plan", *arguments[1:4], "--json").stdout)["jobs"] if job["name"] == "student-0"
    )
    status = tmp_path / "run" / "jobs" / key / "status.json"
    interrupt(arguments, lambda: status.exists() and json.loads(status.read_text())["step"] > 3)
    saved = json.loads(status.read_text())
    assert saved["state"] == "stopped"
    assert 3 < saved["step"] < 100
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert json.loads(msd(*arguments, "--json").stdout)["missing_students"] == []
    steps = [
        json.loads(line)["step"] for line in (status.parent / "stages" / "0-dm" / "records.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(1, 101))


def test_a_pretraining_stopped_by_ctrl_c_ends_with_the_same_teacher(tmp_path: Path) -> None:
    arguments = ["pretrain", "smoke", "--set", "pretrain.num_updates=120", "--set", "fleet.checkpoint_every=20"]
    stopped = tmp_path / "stopped"
    interrupt(
        [*arguments, "--out", str(stopped)], lambda: bool(list(stopped.glob("jobs/*/stages/0-pretrain/checkpoints/*.pt")))
    )
    assert list(stopped.glob("jobs/*/stages/0-pretrain/checkpoints/checkpoints.json"))
    for name in ("stopped", "whole"):
        msd(*arguments, "--out", tmp_path / name)
    weights = [tmp_path / name / "teacher" / WEIGHTS for name in ("stopped", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_ctrl_c_before_anything_is_made_leaves_nothing_half_written(tmp_path: Path) -> None:
    arguments = ["pairs", "smoke", "--set", "pairs.num_pairs=40000", "--out", str(tmp_path / "run")]
    interrupt(arguments, lambda: len(list(tmp_path.glob("run/jobs/pairs-*/result/*.safetensors"))) > 1)
    made = sorted(path.name for path in tmp_path.glob("run/jobs/pairs-*/result/*"))
    assert all(name == "pairs.json" or name.endswith(".safetensors") for name in made)
