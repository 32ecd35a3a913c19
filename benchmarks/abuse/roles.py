"""The files of a run: what each is to the verbs that read it, and what is promised when it is damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Nature = Literal["books", "result", "identity", "index"]
"""`books`: times, last words, curves; a broken one is set aside, never a dead end. `result`: made again by the verb that
makes it, refused by the verbs that only read it. `identity`: what the run is; refused. `index`: what is needed to go on;
refused or made again, never followed blindly."""


@dataclass(frozen=True)
class Role:
    """`pattern` finds the file below `base`; `makers` can make it again, `readers` cannot do without it."""

    name: str
    pattern: str
    nature: Nature
    makers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    base: Literal["run", "whole", "halted"] = "run"

    def find(self, base: Path) -> Path:
        found = sorted(base.glob(self.pattern))
        if not found:
            raise LookupError(f"{self.name}: nothing matches {self.pattern}")
        return found[-1]

    @property
    def is_json(self) -> bool:
        return self.pattern.endswith((".json", ".jsonl"))

    @property
    def verbs(self) -> tuple[str, ...]:
        return (*self.makers, *self.readers)


WEIGHTS = "diffusion_pytorch_model.safetensors"
STUDENT, PAIRS = "jobs/student-0-*", "jobs/pairs-*"

ROLES = (
    Role("recipe", "recipe.json", "identity", readers=("status", "report", "distill")),
    Role("plan", "plan.json", "index", makers=("distill",), readers=("report", "status")),
    Role("partition", "partition.json", "result", makers=("partition", "distill")),
    Role("partition-report", "partition-report.json", "result", makers=("partition", "report")),
    Role("timings", "timings.json", "books", makers=("status",)),
    Role("job", f"{STUDENT}/job.json", "index", makers=("distill",), readers=("status", "report")),
    Role("status", f"{STUDENT}/status.json", "books", makers=("status", "distill", "report")),
    Role("log", f"{STUDENT}/log.txt", "books", makers=("distill",)),
    Role("records", f"{STUDENT}/stages/*/records.jsonl", "books", makers=("report",), readers=("distill",)),
    Role("result", f"{STUDENT}/result/result.json", "result", makers=("distill",)),
    Role("bundle", f"{STUDENT}/result/bundle.safetensors", "result", makers=("distill",)),
    Role("student-weights", f"{STUDENT}/result/student/{WEIGHTS}", "result", makers=("distill",)),
    Role("student-config", f"{STUDENT}/result/student/config.json", "result", makers=("distill",)),
    Role("student-facts", f"{STUDENT}/result/student/denoiser.json", "result", makers=("distill",)),
    Role("pairs-result", f"{PAIRS}/result/result.json", "result", makers=("pairs",)),
    Role("pairs-manifest", f"{PAIRS}/result/pairs.json", "result", makers=("pairs",)),
    Role("pairs-shard", f"{PAIRS}/result/shard-0001.safetensors", "result", makers=("pairs", "distill")),
    Role("cohort", "cohort/cohort.json", "result", makers=("distill",), readers=("sample", "eval", "report")),
    Role(
        "cohort-weights", f"cohort/students/0/{WEIGHTS}", "result", makers=("distill",), readers=("sample", "report", "eval")
    ),
    Role("cohort-config", "cohort/students/0/config.json", "result", makers=("distill",), readers=("sample", "report")),
    Role("cohort-facts", "cohort/students/0/denoiser.json", "result", makers=("distill",), readers=("sample", "eval")),
    Role("row-cohort", "rows/single/cohort.json", "result", readers=("report",)),
    Role("metrics", "report/metrics.json", "index", makers=("report",)),
    Role("page", "report/index.html", "index", makers=("report",)),
    Role("checkpoint", "jobs/student-*/stages/*/checkpoints/step-*.pt", "result", makers=("distill",), base="halted"),
    Role("checkpoints", "jobs/student-*/stages/*/checkpoints/checkpoints.json", "index", makers=("distill",), base="halted"),
    Role("history", "jobs/student-*/stages/0-*/history.json", "result", makers=("distill",), base="halted"),
    Role("stage-bundle", "jobs/student-*/stages/0-*/bundle.safetensors", "result", makers=("distill",), base="halted"),
    Role("head-bundle", f"{STUDENT}/result/bundle.safetensors", "result", makers=("distill",), base="whole"),
    Role("halted-records", "jobs/student-*/stages/*/records.jsonl", "books", makers=("distill",), base="halted"),
    Role("halted-status", "jobs/student-0-*/status.json", "books", makers=("distill", "status"), base="halted"),
    Role("halted-job", "jobs/student-0-*/job.json", "index", makers=("distill",), base="halted"),
)
