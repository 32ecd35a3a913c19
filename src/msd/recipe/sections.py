"""The sections of a recipe, as frozen models. The text under a field is its documentation: `msd recipes NAME` prints it.

It says what the value means, its unit, where the default comes from and when to change it. "The prototype" is an experiment
on 8x8 digits that preceded this package; "not tuned" means that nobody looked for a better value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from msd.recipe.solver_words import read_solver_word
from msd.recipe.values import (
    Batch,
    Count,
    Decay,
    FeatureNetworkWord,
    GuidanceScale,
    ImageSize,
    Reduction,
    Section,
    Seed,
    Sigma,
    Steps,
    Threads,
    Width,
    Word,
)
from msd.recipe.words import (
    CLASSIFIER,
    DATA,
    DIGITS,
    INCEPTION,
    INCEPTION_PREFIX,
    ODE_METHODS,
    PACKAGED_PREFIX,
    PRETRAIN,
    SOLVER_METHODS,
    TEACHER,
    OdeMethod,
)


class DataSection(Section):
    """Real images: used to pretrain a teacher, to train the classifier behind a metric, and as its reference; never by the
    DM stage."""

    source: str = DIGITS
    """`packaged:digits` (1,797 scans of 8x8 pixels, which need no download), or the path of a folder, a zip, a .npz, or a
    folder of IDX, Parquet or shard files (docs/own-images.md); a relative one starts at the folder it is typed in."""
    split: Word | None = None
    """Part of a source that names its parts, e.g. train or test (null: all of it)."""
    name: Word | None = None
    """What metrics and tables call the images (null: the source's own name)."""
    classes: tuple[Word, ...] | None = None
    """Names of the classes in the order of their numbers, for a source that has numbers only (null: the source's own)."""
    size: ImageSize | None = None
    """Height and width to which images are brought, in pixels (null: their own, if all have the same)."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour (null: 3 if any image has colours)."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How an image that is not square, or of another size, is brought to `size`: `crop` cuts the longer sides off, `pad`
    shrinks it only if it is larger and puts it on the background, `stretch` keeps all and changes its shape. Resampled by
    Lanczos."""
    background: Word = "white"
    """Colour (a name, or "#rrggbb") behind transparent pixels and around padded images."""
    skip_damaged: bool = False
    """Go on without files that cannot be read, counting them. Default: off, so that none is lost unnoticed."""
    prior: Literal["data", "uniform"] = "data"
    """How often each class is to be made: as often as it occurs in the images, or all alike."""
    licence: str = Field(default="not stated", max_length=200)
    """Of the images; it is written beside whatever is made from them."""

    @model_validator(mode="after")
    def _packaged_is_as_it_is(self) -> DataSection:
        changed = sorted(self.model_fields_set - {"source", "prior"}) if self.is_packaged else []
        changed = [name for name in changed if getattr(self, name) != type(self).model_fields[name].default]
        if changed:
            raise ValueError(f"{changed[0]} changes nothing for {self.source}, which is as it is; leave it out")
        return self

    @property
    def is_packaged(self) -> bool:
        return self.source.startswith(PACKAGED_PREFIX)


class NetworkSection(Section):
    """The teacher's U-Net (diffusers UNet2DModel), one entry a resolution level."""

    block_out_channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=12)] = (24, 48)
    """Channels of each resolution level, the finest first. Default: the prototype's; more for larger images."""
    layers_per_block: Width = 1
    """Residual blocks a level. Default: the prototype's."""
    norm_num_groups: Width = 8
    """Groups of each group norm; must divide every width. Default: the prototype's."""
    attention: bool = False
    """Self-attention in the middle block. Default: off, as in the prototype; try it on images above 8x8."""
    fold: Literal[1, 2, 4] = 1
    """Side of the square of pixels that the network sees as channels of one place. Default: 1, none; 2 halves the time of
    an update at 28x28 and 32x32 (measured in the prototype)."""
    dropout: Decay = 0.0
    """Share of activations dropped while pretraining. Default: none; EDM's ImageNet-64 teacher had 0.1."""

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> NetworkSection:
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise ValueError(f"norm_num_groups {self.norm_num_groups} must divide every width, and {width} it does not")
        return self


class SolverSection(Section):
    """Deterministic sampling of the teacher's ODE."""

    method: OdeMethod = "heun"
    """`heun` takes two evaluations a step (the last takes one) and is of second order; `dpmpp2m`, DPM-Solver++(2M) of Lu et
    al. (2022), takes one and is of second order too; `euler` takes one. Default: Heun (EDM, algorithm 1), as in DMD."""
    num_steps: Steps = 10
    """Steps from sigma_max down to 0. Default: the prototype's; more for larger images (DMD took 256 for ImageNet-64)."""
    sigma_min: Sigma | None = None
    """Lowest noise level before 0 (null: the teacher's own)."""
    sigma_max: Sigma | None = None
    """Noise level at the start (null: the teacher's own). A narrower range spends few steps where the data lives: with 8
    steps it took the distance of the digits teacher's samples from 4.3 to 1.4 (measured: docs/results.md)."""

    @field_validator("method", mode="before")
    @classmethod
    def _of_the_ode(cls, value: Any) -> Any:
        if value in SOLVER_METHODS and value not in ODE_METHODS:
            raise ValueError(
                f"{value} adds noise of its own, so the samples would not follow from the noise they are kept with; use "
                f"{', '.join(ODE_METHODS[:-1])} or {ODE_METHODS[-1]}"
            )
        return value

    @model_validator(mode="after")
    def _range_is_one(self) -> SolverSection:
        if self.sigma_min is not None and self.sigma_max is not None and self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min:g} must be below sigma_max {self.sigma_max:g}")
        return self


class TeacherSection(Section):
    """The frozen denoiser that is distilled."""

    source: str = DIGITS
    """`packaged:NAME`; `pretrain`, a teacher that the run trains first, from its data; the path of a folder made by
    `msd pretrain`, of an EDM pickle or of a folder of diffusers', a relative one from the folder it is typed in; or
    `hub:OWNER/NAME`, such a folder on the Hugging Face hub."""
    guidance: GuidanceScale | None = None
    """Scale of classifier-free guidance, which students learn as part of the teacher: D_null + scale (D_class - D_null).
    Default: null, the teacher as it is; 1 is none. DiT's authors sampled with 1.5 (FID) and 4 (pictures)."""
    blueprint: Word | None = None
    """What that file holds, where msd knows it by name (edm-imagenet64): `msd plan` then needs no file, and a file that is
    something else is refused. Default: none, as a file says this of itself."""

    @model_validator(mode="after")
    def _guided_where_it_can_be(self) -> TeacherSection:
        if self.guidance not in (None, 1) and self.source == PRETRAIN:
            raise ValueError("guidance asks for a network that knows `no class`, as none trained here does; leave it out")
        return self


class PartitionSection(Section):
    """How the conditions are divided among the students."""

    method: Literal["contiguous", "random", "balanced-kmeans", "file"] = "contiguous"
    """`contiguous`: runs of neighbouring labels, as MSD does on ImageNet; `random`; `balanced-kmeans`: equal groups of
    classes alike to the teacher; `file`: the user's own."""
    num_parts: Count = 4
    """Parts, and so students. Default: the number of most of MSD's experiments. With method file the file decides."""
    seed: Seed | None = None
    """Of random and balanced-kmeans (null: the recipe's seed)."""
    file: str | None = None
    """The user's YAML for method file, and only for it; a relative path starts at the folder it is typed in."""

    @model_validator(mode="after")
    def _file_fits_method(self) -> PartitionSection:
        if (self.method == "file") != (self.file is not None):
            raise ValueError("method file needs `file`, and only it does; set both or neither")
        return self


class StudentSection(Section):
    """What a student is before its first stage, and how it is sampled."""

    start: str = TEACHER
    """Whose weights it starts with: `teacher`, as MSD does for students of its size; `random`, nobody's; `row:NAME`, the one
    student of another row; or the path of a saved student or of a finished job's result (a relative one starts at the folder
    it is typed in)."""
    reduce: Reduction | None = None
    """Share of the start's parameters that the student does without (`msd shrink` shows what there is). What it starts with
    are then slices of the start's weights, the most important channels. Default: none, the start's own size."""
    critic: Literal["teacher", "student"] = "teacher"
    """Whose size and weights the critic begins with. Default: the teacher's, also for smaller students, as in DMD."""
    sigma_init: Sigma = 80.0
    """The student's one input noise level. Default: the highest, as in DMD; SiD uses 2.5, which the digits recipe needs, as
    its teacher was never trained near 80 (measured: docs/results.md)."""


class PairsSection(Section):
    """(noise, condition, target) triples for the regression loss; the target is the teacher's ODE sample."""

    source: str = TEACHER
    """Whose samples the targets are: `teacher` by its ODE, as in DMD, or the name of a row of this recipe by its one
    step."""
    num_pairs: Count = 3000
    """Pairs of all parts together. Default: the prototype's; more pay where regression dwells on a part's own ones
    (measured: docs/results.md)."""
    shard_size: Batch = 500
    """Pairs a file; what is damaged or missing is made again by the file. Default: not tuned."""
    solver: SolverSection = SolverSection()
    """How the teacher's ODE is solved."""


class EvaluationSection(Section):
    """What is measured, against what, on how many samples."""

    features: str = DIGITS
    """What distances are measured in: `packaged:NAME`; `classifier`, one that the run trains on its own data; `lite0`,
    ImageNet's EfficientNet-Lite0 (extra `features`); `inception:FILE`, the network of published FIDs with its weights
    (docs/protocol.md); or a folder made by `msd pretrain --network features`."""
    reference: str = DATA
    """What distances are measured to: `data`, the recipe's images; `packaged:NAME` or a file of features made by
    `msd data reference`, where the images are not at hand; or an .npz of their mean and covariance, made by the same
    command or published by EDM, which only a Frechet distance can be measured to."""
    also: tuple[FeatureNetworkWord, ...] = ()
    """Feature networks of second opinions, e.g. [lite0]: each gives every row one more distance to the images."""
    teacher: Annotated[tuple[Word, ...], Field(min_length=1, max_length=20)] = ("heun18", "euler4", "euler1")
    """The table's rows of the teacher, each a solver and its number of steps: heun, euler, dpmpp2m (second order for half
    of Heun's cost, e.g. dpmpp2m10) or heun-sde (Heun with fresh noise in each step, by EDM's settings for ImageNet-64). The
    first is the reference that speed and distance are compared with. Default: a good one, then what a user in a hurry would
    otherwise pick."""
    num_samples: Count = 10000
    """Images of each row. Distances fall with it, so compare at equal numbers only. Default: as in docs/results.md; the
    papers' protocol takes 50,000."""
    conditions: Literal["prior", "balanced"] = "prior"
    """Which conditions they are made for: drawn as often as each is to be made (`data.prior`), or as many of each, one more
    of some where they do not divide the images. The papers' protocol is balanced."""
    batch_size: Batch = 500
    """Images generated at a time. Lower it where memory is short; it doesn't change what is measured."""
    nearest_neighbours: Batch = 3
    """k of precision and recall. Default: that of Kynkäänniemi et al. (2019)."""
    seed: Seed = 1234
    """Noise and labels of the evaluation set: the same for every row of a table. Another one shows how far chance goes."""
    latency_batches: tuple[Batch, ...] = (1, 16, 256)
    """Batch sizes at which a request is timed. Default: one user, a few, and throughput."""
    latency_repeats: Steps = 20
    """Requests timed at each batch size. Default: not tuned."""

    @property
    def needs_classifier(self) -> bool:
        """Whether the run trains a feature network of its own."""
        return CLASSIFIER in (self.features, *self.also)

    @field_validator("features")
    @classmethod
    def _inception_has_a_file(cls, value: str) -> str:
        if value in (INCEPTION, INCEPTION_PREFIX):
            raise ValueError(f"{INCEPTION} needs the file of its weights; write {INCEPTION_PREFIX}FILE (docs/protocol.md)")
        return value

    @field_validator("teacher")
    @classmethod
    def _known_solvers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            read_solver_word(word)
            if value.count(word) > 1:
                raise ValueError(f"{word} is there twice; leave one of them out")
        return value

    @model_validator(mode="after")
    def _has_neighbours(self) -> EvaluationSection:
        if self.nearest_neighbours >= self.num_samples:
            raise ValueError(
                f"nearest_neighbours {self.nearest_neighbours} must be below num_samples {self.num_samples}, as a sample is "
                "no neighbour of its own"
            )
        return self


class FleetSection(Section):
    """How the students are trained side by side on one machine."""

    max_parallel: Threads | None = None
    """Processes at a time (null: as many as there are cores or devices, and as fit into memory)."""
    threads: Threads = 1
    """CPU threads of each process. Default: 1, since small networks gain more from processes than from threads."""
    checkpoint_every: Count = 50
    """Student updates between two checkpoints: the most that a crash can cost. Default: not tuned."""
    num_micro_batches: Count = 1
    """Parts in which a process takes its share of each batch, one after the other, adding up their gradients, where all of
    it at once does not fit into memory. Must divide every batch; to rounding, the training is the same. Default: one."""
