"""Every named baseline, and the teacher by every kind of solver: one table, trained and measured."""

from __future__ import annotations

import json
from pathlib import Path

from command import msd
from msd.networks.facts import read_facts
from msd.recipe import BASELINES
from msd.run import Run

SETTINGS = (
    "stages=[tsm, dm, adm]",
    "student={reduce: 0.4, start: random}",
    "pairs={num_pairs: 32, shard_size: 32, solver: {num_steps: 2}}",
    "tsm={num_updates: 1, batch_size: 4}",
    "dm={num_updates: 2, batch_size: 4, regression: {batch_size: 4}}",
    "adm={num_updates: 1, batch_size: 4, critic_turns: 1, discriminator_warmup: 1, regression: {batch_size: 4}}",
    "evaluation={teacher: [heun18, dpmpp2m10, heun-sde18], num_samples: 20, latency_batches: [1], latency_repeats: 1}",
    f"rows=[{', '.join(BASELINES)}]",
)
TEACHERS = {"teacher-heun18": 35, "teacher-dpmpp2m10": 10, "teacher-heun-sde18": 35}


def test_every_baseline_is_trained_and_measured(tmp_path: Path) -> None:
    """With as many updates as its row says, students as large as it says, and the start that it says."""
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    metrics = json.loads(msd("demo", "smoke", *options, "--out", tmp_path / "run", "--json").stdout)
    rows = metrics["rows"]
    assert list(rows) == [*TEACHERS, *BASELINES, "cohort"]
    assert all(row["frechet_distance"] > 0 and row["latency_ms"] for row in rows.values())
    assert {name: rows[name]["num_function_evaluations"] for name in TEACHERS} == TEACHERS
    assert {name: (rows[name]["note"], rows[name]["equal"]) for name in BASELINES} == {
        name: (baseline.note, baseline.equal) for name, baseline in BASELINES.items()
    }
    # Each with all that its students started from: the pruned one with those of the best single student.
    assert {name: (row["num_students"], row["num_updates"]) for name, row in rows.items() if name not in TEACHERS} == {
        "single": (1, 4), "single-equal-total": (1, 8), "full-single": (1, 6), "dmd": (1, 2), "dmd2": (1, 3),
        "paper-dm": (2, 2), "paper-adm": (2, 3), "post-distilled": (2, 4), "pruned": (1, 6 + 3), "small-random": (2, 3),
        "cohort": (2, 4),
    }  # fmt: skip
    sizes = {name: row["num_parameters_per_request"] for name, row in rows.items()}
    whole = {"full-single", "dmd", "dmd2", "paper-dm", "paper-adm"}
    assert {name for name, size in sizes.items() if size == sizes["teacher-heun18"]} == whole | set(TEACHERS)
    assert {size for name, size in sizes.items() if name not in whole | set(TEACHERS)} == {sizes["cohort"]}

    run = Run.open(tmp_path / "run")
    assert run.recipe.rows == {name: {"baseline": name} for name in BASELINES}
    lineages = {name: read_facts(run.row(name) / "students" / "0")["lineage"] for name in ("pruned", "dmd")}
    assert (len(lineages["pruned"]), len(lineages["dmd"])) == (2, 1)
