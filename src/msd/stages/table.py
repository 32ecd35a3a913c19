"""The stages by name. A new stage is its section in the recipe, its file here, and a line in this table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msd.stages.adm import AdversarialMatching
from msd.stages.dm import DistributionMatching
from msd.stages.materials import Materials
from msd.stages.pretrain import Pretraining
from msd.stages.tsm import TeacherMatching
from msd.training.loop import Stage

STAGES: dict[str, Callable[[Any, Materials], Stage]] = {
    Pretraining.name: Pretraining,
    TeacherMatching.name: TeacherMatching,
    DistributionMatching.name: DistributionMatching,
    AdversarialMatching.name: AdversarialMatching,
}
