"""Sections of a recipe that say how networks learn: the stages, each with all its settings. No torch here."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from msd.recipe.values import (
    Batch,
    Count,
    Decay,
    Deviation,
    LogSigma,
    NonNegative,
    Positive,
    Section,
    Share,
    Sigma,
    Steps,
    Whole,
    Word,
)


class RoleSection(Section):
    """How a network learns: the settings of its optimiser and average. Every stage has them for what it trains."""

    learning_rate: Positive
    """Peak of Adam's rate."""
    warmup_updates: Whole = 0
    """Updates over which the rate rises from near 0 to its peak. Default: none."""
    final_rate: Decay = 0.0
    """Share of the peak to which the rate falls along a cosine. Default: to 0."""
    adam_beta1: Decay = 0.9
    """Adam's momentum. Default: Adam's own."""
    clip_norm: Positive = 10.0
    """Largest norm of a gradient; a longer one is scaled down to it. Default: DMD's, 10."""
    ema_decay: Decay | None = None
    """Decay a step of the weights' moving average, which is delivered in their place (null: no average)."""


class StageSection(RoleSection):
    """What every stage has: how long it is, how much it sees at a time, and what it needs. The learning settings are those
    of the role that it delivers."""

    prepares: ClassVar[bool] = False
    """Whether it only readies a start: what comes after it is the distillation proper."""

    num_updates: Count
    """Updates of that role."""
    batch_size: Batch
    """Samples an update."""

    @property
    def num_steps(self) -> int:
        """Steps of the whole stage."""
        return self.num_updates

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Of every batch that must be shared equally by processes and by the micro-batches of one."""
        return (self.batch_size,)

    @property
    def needs_pairs(self) -> bool:
        """Whether a student's stage with these settings reads pairs."""
        return False

    @property
    def needs_images(self) -> bool:
        """Whether it sees real images."""
        return False

    @property
    def is_shared(self) -> bool:
        """Whether it is one for all parts, from which every student starts."""
        return False


class PretrainSection(StageSection):
    """Training a teacher from images with the EDM loss (Karras et al. 2022)."""

    num_updates: Count = 6000
    """Updates of the teacher. Default: not tuned; the digits recipe does with 4000."""
    batch_size: Batch = 128
    """Images an update. Default: the prototype's."""
    learning_rate: Positive = 2e-3
    """Peak of Adam's rate. Default: the prototype's; lower it for networks above a few million parameters (EDM: 1e-4)."""
    warmup_updates: Whole = 100
    """Updates over which the rate rises to its peak. Default: not tuned."""
    final_rate: Decay = 0.0
    """Share of the peak to which the rate falls along a cosine. Default: to 0, as in the prototype."""
    adam_beta1: Decay = 0.9
    """Adam's momentum. Default: Adam's own."""
    clip_norm: Positive = 1e9
    """Largest norm of a gradient. Default: so large that nothing is clipped; lower it where the loss jumps."""
    ema_decay: Decay | None = 0.998
    """Decay an update of the weights' moving average, which is the teacher (null: the weights themselves are). Default: the
    prototype's on MNIST; nearer 1 for longer trainings."""
    sigma_data: Sigma = 0.5
    """Standard deviation to which the images are scaled. Default: EDM's."""
    sigma_min: Sigma = 0.002
    """Lowest noise level at which the teacher is sampled. Default: EDM's."""
    sigma_max: Sigma = 80.0
    """Highest noise level at which the teacher is sampled. Default: EDM's."""
    log_sigma_mean: LogSigma = -1.2
    """Mean of ln(sigma) in training. Default: EDM's."""
    log_sigma_deviation: Deviation = 1.2
    """Standard deviation of ln(sigma) in training. Default: EDM's."""


class TSMSection(StageSection):
    """Teacher score matching: a student that is no copy of its teacher first learns to denoise like it (MSD, sec. 4.3)."""

    prepares: ClassVar[bool] = True

    num_updates: Count = 600
    """Updates at most; it ends before, on a plateau. Default: the prototype's."""
    batch_size: Batch = 128
    """Noised samples an update. Default: the prototype's."""
    learning_rate: Positive = 2e-3
    """Peak of the student's rate. Default: the prototype's, as for a teacher of that size."""
    warmup_updates: Whole = 25
    """Updates over which the rate rises to its peak. Default: not tuned."""
    final_rate: Decay = 0.05
    """Share of the peak to which the rate falls along a cosine. Default: not tuned."""
    adam_beta1: Decay = 0.9
    """Adam's momentum. Default: Adam's own: nothing chases anything here."""
    ema_decay: Decay | None = 0.99
    """Decay an update of the moving average. Default: the prototype's. The next stage goes on from the raw weights."""
    samples: Literal["pairs", "images"] = "pairs"
    """What is noised: `pairs`, samples that the teacher made (no real image is touched); `images`, the recipe's `data`, as
    in the paper."""
    scope: Literal["part", "all"] = "part"
    """`part`: each student on the conditions of its own part; `all`: once on all conditions, and every student starts from
    that one. The paper does not say which. Default: part, which runs side by side; at equal compute, all was better from
    random weights and level from the teacher's slices (docs/results.md)."""
    log_sigma_mean: LogSigma = -1.2
    """Mean of ln(sigma) of the noise. Default: EDM's, as the teacher's own training."""
    log_sigma_deviation: Deviation = 1.2
    """Standard deviation of ln(sigma) of the noise. Default: EDM's."""
    held_out: Decay = 0.1
    """Share of the samples, at most 256 of them, that are kept to judge by (0: no plateau is looked for)."""
    look_every: Count = 50
    """Updates between two looks at the loss on them. Default: not tuned."""
    patience: Count = 6
    """Looks in a row without an improvement after which the stage ends. Default: not tuned; a plateau is seldom reached
    before the rate has fallen."""
    improvement: Decay = 0.005
    """Share by which the loss must fall below its best so far to count as an improvement. Default: not tuned."""

    @property
    def needs_pairs(self) -> bool:
        return self.samples == "pairs"

    @property
    def needs_images(self) -> bool:
        return self.samples == "images"

    @property
    def is_shared(self) -> bool:
        return self.scope == "all"


class PairedSection(Section):
    """The paired loss: by far the largest single win on small problems (weight 0 switches it and the pairs off)."""

    weight: NonNegative = 1.0
    """Factor of the loss (mean squared error). Default: the prototype's; DMD has 0.25 with LPIPS, the digits recipe 4."""
    batch_size: Batch = 64
    """Pairs an update. Default: the prototype's; smaller ones favour specialists (measured: docs/results.md)."""
    own_share: Share = 0.0
    """Share of each batch drawn from the pairs of the student's own part; the rest comes from all pairs, whatever their
    part. Default: 0, MSD's choice (sec. 4.2); 1 shows a student its own part only. A single student owns everything either
    way. Raise it where students are small and pairs are many (measured: docs/results.md)."""
    with_replacement: bool = False
    """Allow a batch larger than the pair set, by drawing pairs more than once. Default: off, since few pairs are
    overfitted."""


class RegressionSection(PairedSection):
    """The paired loss: by far the largest single win on small problems (weight 0 switches it and the pairs off)."""

    head_start: Share = 0.0
    """Share of the student's updates that go by regression alone, before DM begins; each costs about a quarter of a full
    one. Default: 0, as the papers have none; the digits recipe's 0.8 is measured: docs/results.md."""


class MatchingSection(StageSection):
    """What stages share in which a critic follows the student's outputs. The learning settings are the student's; the critic
    has the same, but for its own rate and no average (`critic_role`)."""

    num_updates: Count = 250
    """Student updates. Each is followed by `critic_turns` updates of the critic. Default: the prototype's; what more
    updates give is measured: docs/results.md."""
    batch_size: Batch = 64
    """Samples an update, of the student and of the critic. Default: the prototype's."""
    learning_rate: Positive = 8e-4
    """Peak of the student's rate. Default: the prototype's best of three; large networks need far less (DMD: 2e-6)."""
    critic_learning_rate: Positive = 1.5e-3
    """Peak of the critic's rate, which must keep up with the student. Default: the prototype's; DMD2 gives both the same."""
    critic_turns: Steps = 1
    """Critic updates after each student update. Default: DMD's, 1; DMD2 takes 5 where there is no regression."""
    warmup_updates: Whole = 25
    """Updates over which both rates rise to their peak. Default: not tuned; DMD's is 500 of 350,000."""
    final_rate: Decay = 0.05
    """Share of the peak to which both rates fall along a cosine. Default: not tuned."""
    adam_beta1: Decay = 0.0
    """Momentum of student and critic. Default: 0, as in SiD and the prototype, since each chases the other; DMD has 0.9."""
    clip_norm: Positive = 10.0
    """Largest norm of a gradient. Default: DMD's and DMD2's."""
    ema_decay: Decay | None = 0.995
    """Decay an update of the student's moving average, which is delivered (null: the last weights are). Default: the
    prototype's; nearer 1 for longer trainings."""
    weight: NonNegative = 1.0
    """Factor of the DM term; 0 leaves regression alone. Default: DMD's."""
    sigma_low: Sigma = 0.02
    """Lowest noise level of the DM gradient, on the Karras law up to `sigma_high`. Default: not tuned."""
    sigma_high: Sigma = 20.0
    """Highest noise level of the DM gradient. Default: the prototype's; above about 20 the levels say nothing about 8x8
    images. Larger images need up to 80 (DMD)."""
    critic_log_sigma_mean: LogSigma = -1.2
    """Mean of ln(sigma) in the critic's training. Default: EDM's, which SiD takes for its critic too."""
    critic_log_sigma_deviation: Deviation = 1.2
    """Standard deviation of ln(sigma) in the critic's training. Default: EDM's, as SiD."""
    regression: PairedSection = PairedSection()
    """The paired loss beside the DM term."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return (self.batch_size, self.regression.batch_size) if self.needs_pairs else (self.batch_size,)

    @property
    def needs_pairs(self) -> bool:
        return self.regression.weight > 0

    @property
    def critic_role(self) -> RoleSection:
        """How the critic learns: as the student does, but at its own rate and without an average."""
        return self._role_at(self.critic_learning_rate)

    def _role_at(self, rate: float) -> RoleSection:
        shared = {name: getattr(self, name) for name in RoleSection.model_fields}
        return RoleSection(**shared | {"learning_rate": rate, "ema_decay": None})


class DMSection(MatchingSection):
    """Distribution matching, the stage that makes the one-step student. Its learning settings are the student's; the critic
    has the same, but for its own rate and no average (`critic_role`)."""

    regression: RegressionSection = RegressionSection()
    """The paired loss beside the DM term."""

    @property
    def num_head_start(self) -> int:
        """Student updates by regression alone."""
        return round(self.regression.head_start * self.num_updates)


class ADMSection(MatchingSection):
    """Adversarial distribution matching, MSD's second stage (DMD2's GAN): DM's student learns from real images too.

    The learning settings are the student's; critic and discriminator have the same, but for their own rates and no average.
    Where a default is "the prototype's", it is the setting that learned on 8x8 digits; its others did not.
    """

    num_updates: Count = 60
    """Student updates; the discriminator's warm-up comes before them. DMD2 counts the critic's instead: its 200,000
    iterations at ratio 5 are 40,000 here. Default: the prototype's."""
    learning_rate: Positive = 2e-4
    """Peak of the student's rate. Default: the prototype's, a quarter of DM's, as in DMD2 (5e-7 after 2e-6)."""
    critic_learning_rate: Positive = 4e-4
    """Peak of the critic's rate. Default: the prototype's; DMD2 gives both the same."""
    discriminator_learning_rate: Positive = 2e-3
    """Peak of the discriminator's rate. Default: the prototype's: at 4e-4 it learned nothing in so short a stage. DMD2 and
    FastGen give it the critic's."""
    critic_turns: Steps = 5
    """Updates of critic and discriminator after each student update, the first on the same samples. Default: DMD2's;
    FastGen's ratio of 5 is 4 here, SiD has 1."""
    warmup_updates: Whole = 10
    """Updates over which all rates rise to their peak. Default: not tuned."""
    critic_weighting: Literal["edm", "unweighted"] = "edm"
    """How the critic's denoising loss weighs noise levels: edm (1/sigma^2 + 1/sigma_data^2: DMD2, SiD), or unweighted
    (FastGen), which leaves the high levels most. Default: DMD2's, and DM's."""
    features: Literal["critic", "teacher"] = "critic"
    """Whose features the discriminator sees: the critic's (DMD2, SiDA) or the frozen teacher's (FastGen), which no student
    can move. Default: DMD2's."""
    tap: Word = "bottleneck"
    """Where in that network: bottleneck, down.N or up.N of a U-Net, counted from the input. Default: DMD2's."""
    trains_critic: bool = True
    """Whether the discriminator's loss trains the critic's layers up to the tap too. Needs features: critic. Default:
    DMD2's, on; off, they learn from denoising alone."""
    head: Literal["pooled", "strided"] = "pooled"
    """What stands on the features: pooled (a 3x3 convolution, then a mean over places), or strided (convolutions of stride 2
    down to one place, DMD2's). Default: the prototype's, on 2x2 features; strided for 8x8 and more."""
    adversarial_weight: NonNegative = 1.0
    """Factor of the GAN term in the student's loss; DMD2 has 3e-3 at 64x64 pixels. Default: measured on digits together with
    `r1_weight` (docs/results.md); without that penalty, 0.1 improved recall and distance both, and 0.3 bought recall with
    precision. Go by the recorded ratio of the gradients' norms, GAN's to DM's."""
    discriminator_weight: NonNegative = 1.0
    """Factor of the discriminator's loss beside the critic's, which counts where it trains the critic. Default: the
    prototype's; DMD2 has 1e-2."""
    discriminator_sigma_low: Sigma = 0.02
    """Lowest noise level at which the discriminator compares, on the Karras law. Default: DM's; DMD2 has 0.002."""
    discriminator_sigma_high: Sigma = 2.0
    """Highest noise level at which the discriminator compares. Default: the prototype's: up to 80, DMD2's, most comparisons
    are of noise with noise, and it learned nothing."""
    discriminator_warmup: Whole = 40
    """Updates of the discriminator alone before the first one of the student. Default: the prototype's; DMD2 has none."""
    r1_weight: NonNegative = 10.0
    """Factor of the approximate R1 penalty, which keeps the discriminator from answering steeply around real images; DMD2
    has none (0), FastGen recommends 100 to 1000 where it is used. Default: measured on digits (docs/results.md)."""
    r1_sigma: Sigma = 0.1
    """Deviation of the noise by which that penalty moves real images. Default: FastGen's."""
    trained_layers: Literal["all", "no-convolutions"] = "all"
    """Which layers of the student learn: all, or all but convolutions, which GDD (Zheng and Yang 2024) freezes. Default:
    DMD2's, all."""

    @property
    def needs_images(self) -> bool:
        return True

    @property
    def discriminator_role(self) -> RoleSection:
        """How the discriminator learns: as the student does, but at its own rate and without an average."""
        return self._role_at(self.discriminator_learning_rate)

    @property
    def num_steps(self) -> int:
        """Steps of the whole stage: the discriminator's warm-up, then one a student update."""
        return self.discriminator_warmup + self.num_updates

    @model_validator(mode="after")
    def _possible(self) -> ADMSection:
        for name in ("sigma", "discriminator_sigma"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if low >= high:
                raise ValueError(f"{name}_low {low} must be below {name}_high {high}")
        if self.trains_critic and self.features == "teacher":
            raise ValueError("trains_critic needs features=critic: the teacher's train nothing; set trains_critic=false")
        if self.weight == 0 and self.adversarial_weight == 0 and self.regression.weight == 0:
            raise ValueError(
                "weight, adversarial_weight and regression.weight are all 0, so nothing would be learned; raise one"
            )
        return self
