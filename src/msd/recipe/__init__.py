"""The recipe: one YAML file that says everything about a run, as frozen models.

Unknown keys, wrong types and impossible combinations fail here, before any weight is loaded, with the nearest valid name.
"""

from msd.recipe.baselines import BASELINES, Baseline
from msd.recipe.documentation import Explanation, SectionExplanation, explain
from msd.recipe.loading import load_recipe, packaged_recipes, restored, revised, validate
from msd.recipe.recipe import Recipe, section_of
from msd.recipe.rows import MAIN_ROW, BatchRule, Equal, Row
from msd.recipe.sections import (
    DataSection,
    EvaluationSection,
    FleetSection,
    NetworkSection,
    PairsSection,
    PartitionSection,
    SolverSection,
    StudentSection,
    TeacherSection,
)
from msd.recipe.solver_words import read_solver_word
from msd.recipe.stage_sections import (
    ADMSection,
    DMSection,
    MatchingSection,
    PairedSection,
    PretrainSection,
    RegressionSection,
    RoleSection,
    StageSection,
    TSMSection,
)
from msd.recipe.values import Section
from msd.recipe.words import (
    BALANCED,
    CLASSIFIER,
    DATA,
    DIGITS,
    HUB_PREFIX,
    INCEPTION_PREFIX,
    LITE0,
    PACKAGED_PREFIX,
    PATHS,
    PRETRAIN,
    RANDOM,
    ROW_PREFIX,
    STAGES,
    STUDENT,
    TEACHER,
    Precision,
    StageName,
)

__all__ = [
    "BALANCED",
    "BASELINES",
    "CLASSIFIER",
    "DATA",
    "DIGITS",
    "HUB_PREFIX",
    "INCEPTION_PREFIX",
    "LITE0",
    "MAIN_ROW",
    "PACKAGED_PREFIX",
    "PATHS",
    "PRETRAIN",
    "RANDOM",
    "ROW_PREFIX",
    "STAGES",
    "STUDENT",
    "TEACHER",
    "ADMSection",
    "Baseline",
    "BatchRule",
    "DMSection",
    "DataSection",
    "Equal",
    "EvaluationSection",
    "Explanation",
    "FleetSection",
    "MatchingSection",
    "NetworkSection",
    "PairedSection",
    "PairsSection",
    "PartitionSection",
    "Precision",
    "PretrainSection",
    "Recipe",
    "RegressionSection",
    "RoleSection",
    "Row",
    "Section",
    "SectionExplanation",
    "SolverSection",
    "StageName",
    "StageSection",
    "StudentSection",
    "TSMSection",
    "TeacherSection",
    "explain",
    "load_recipe",
    "packaged_recipes",
    "read_solver_word",
    "restored",
    "revised",
    "section_of",
    "validate",
]
