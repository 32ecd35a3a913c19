"""Folders of diffusers as teachers: what they answer is what diffusers itself makes of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusers_folders import autoencoder, ddpm_folder, dit_folder, dit_model, edit, model_folder, unet_model
from msd.diffusion.denoiser import GuidedDenoiser
from msd.errors import MsdError, RecipeError, WeightsError
from msd.networks.folder import load_denoiser, save_denoiser
from msd.networks.taps import Tap
from msd.teachers.converted import convert, converted
from msd.teachers.folder import load_teacher
from msd.teachers.pipeline import read_pipeline

LABELS = torch.tensor([0, 3, 1])
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "schedule",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
        {"trained_betas": [0.01, 0.02, 0.05, 0.1, 0.2, 0.4], "num_train_timesteps": 6},
    ],
)
def test_the_clean_image_is_the_one_that_the_scheduler_predicts(
    tmp_path: Path, prediction: str, schedule: dict[str, Any]
) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction, clip_sample=False, **schedule)
    teacher = load_teacher(ddpm_folder(tmp_path / "ddpm", scheduler))
    network = unet_model()
    for share in (0.0, 0.3, 0.8):
        step = int(share * (scheduler.config["num_train_timesteps"] - 1))
        kept = float(scheduler.alphas_cumprod[step])
        noisy = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            answer = network(noisy, step, class_labels=LABELS).sample
        wanted = scheduler.step(answer, step, noisy).pred_original_sample  # pyright: ignore[reportAttributeAccessIssue]
        sigma = torch.full((3,), ((1 - kept) / kept) ** 0.5)
        found = teacher.denoiser(noisy * (1 + sigma[0] ** 2).sqrt(), sigma, LABELS)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_schedulers_of_one_family_say_the_same_of_the_noise(tmp_path: Path) -> None:
    folders = [
        ddpm_folder(tmp_path / "ddim", DDIMScheduler(clip_sample=False)),
        ddpm_folder(tmp_path / "euler", EulerDiscreteScheduler()),
    ]
    first, second = (read_pipeline(folder).spec for folder in folders)
    assert first == second


def test_a_network_of_edms_scheduler_is_preconditioned_as_that_does(tmp_path: Path) -> None:
    scheduler = EDMEulerScheduler(sigma_min=0.01, sigma_max=50, sigma_data=0.6)
    teacher = load_teacher(model_folder(tmp_path / "edm", scheduler))
    assert (teacher.denoiser.spec.sigma_min, teacher.denoiser.spec.sigma_max) == (0.01, 50)
    x, sigma = torch.randn(1, 3, 8, 8), torch.tensor([0.7])
    with torch.no_grad():
        entering = scheduler.precondition_inputs(x, sigma)
        answer = unet_model()(entering, scheduler.precondition_noise(sigma), class_labels=LABELS[:1]).sample
    wanted = scheduler.precondition_outputs(x, answer, sigma)
    torch.testing.assert_close(teacher.denoiser(x, sigma, LABELS[:1]), wanted, rtol=1e-4, atol=1e-5)


def test_a_flow_matching_transformer_is_asked_along_its_straight_path(tmp_path: Path) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    teacher = load_teacher(dit_folder(tmp_path / "flow", scheduler, out_channels=4))
    time, clean, noise = 0.4, torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    between = scheduler.scale_noise(clean, torch.tensor([1000 * time]), noise)
    torch.testing.assert_close(between, (1 - time) * clean + time * noise)
    with torch.no_grad():
        velocity = dit_model(out_channels=4)(between, torch.full((3,), 1000 * time), class_labels=LABELS).sample
    found = teacher.denoiser(between / (1 - time), torch.full((3,), time / (1 - time)), LABELS)
    torch.testing.assert_close(found, between - time * velocity, rtol=1e-4, atol=1e-5)


def _predicted(latents: Tensor, step: int, labels: Tensor, scale: float) -> Tensor:
    """The clean latents as DiTPipeline takes them: eps guided by `scale`, the learned variance left out."""
    scheduler, network = DDIMScheduler(clip_sample=False), dit_model()
    with torch.no_grad():
        twice = torch.cat([latents, latents])
        answer = network(
            twice, torch.full((2 * len(latents),), step), class_labels=torch.cat([labels, labels * 0 + 4])
        ).sample
    with_class, without = answer[:, :4].chunk(2)
    kept = scheduler.alphas_cumprod[step]
    return (latents - (1 - kept).sqrt() * (without + scale * (with_class - without))) / kept.sqrt()


@pytest.mark.parametrize("scale", [None, 1.0, 1.5, 4.0])
def test_a_dit_is_guided_as_its_pipeline_does(tmp_path: Path, scale: float | None) -> None:
    teacher = load_teacher(dit_folder(tmp_path / "dit"), guidance=scale)
    step, latents = 300, torch.randn(3, 4, 8, 8)
    kept = float(DDIMScheduler().alphas_cumprod[step])
    sigma = torch.full((3,), ((1 - kept) / kept) ** 0.5)
    found = teacher.denoiser(latents / kept**0.5, sigma, LABELS)
    torch.testing.assert_close(found, _predicted(latents, step, LABELS, scale or 1.0), rtol=1e-3, atol=1e-3)
    assert teacher.denoiser.spec.guidance == (scale or 1.0)
    assert teacher.facts.guidance == (scale or 1.0)


def test_another_guidance_is_another_teacher(tmp_path: Path) -> None:
    folder = dit_folder(tmp_path / "dit")
    plain, none, some = (load_teacher(folder, guidance=scale) for scale in (None, 1.0, 1.5))
    assert plain.hash == none.hash != some.hash


def test_a_copy_of_a_guided_teacher_is_the_network_alone(tmp_path: Path) -> None:
    folder = dit_folder(tmp_path / "dit")
    guided, plain = load_teacher(folder, guidance=3.0).denoiser, load_teacher(folder).denoiser
    x, sigma = torch.randn(3, 4, 8, 8), torch.full((3,), 2.0)
    copy = guided.copy()
    assert isinstance(guided, GuidedDenoiser)
    torch.testing.assert_close(copy(x, sigma, LABELS), plain(x, sigma, LABELS))
    assert not torch.allclose(guided(x, sigma, LABELS), plain(x, sigma, LABELS))
    assert all(value.requires_grad for value in copy.parameters())
    # Its student goes on to say by which scale it was guided.
    save_denoiser(copy, tmp_path / "student")
    assert load_denoiser(tmp_path / "student").spec.guidance == 3.0
    with torch.no_grad():
        _, features = Tap(guided, "bottleneck")(guided, x, sigma, LABELS)
        _, wanted = Tap(plain, "bottleneck")(plain, x, sigma, LABELS)
    torch.testing.assert_close(features, wanted)
    assert features.shape == (3, 16, 4, 4)


def test_only_networks_that_know_no_class_are_guided(tmp_path: Path) -> None:
    folder = ddpm_folder(tmp_path / "ddpm")
    with pytest.raises(WeightsError, match=r"knows no null class, so it cannot be guided; leave teacher\.guidance out"):
        load_teacher(folder, guidance=1.5)
    assert load_teacher(folder, guidance=1.0).hash == load_teacher(folder).hash


def test_latents_are_those_of_the_pipelines_autoencoder(tmp_path: Path) -> None:
    teacher = load_teacher(dit_folder(tmp_path / "dit"))
    codec, model, pixels = teacher.denoiser.spec.codec, autoencoder(), torch.rand(3, 3, 16, 16) * 2 - 1
    assert codec.pixel_shape((4, 8, 8)) == (3, 16, 16)
    assert codec.noise_shape((3, 16, 16)) == (4, 8, 8)
    with torch.no_grad():
        latents = model.encode(pixels).latent_dist.mean * 0.18215  # pyright: ignore[reportAttributeAccessIssue]
        decoded = model.decode(latents / 0.18215).sample.clamp(-1, 1)  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(codec.encode(pixels), latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(codec.decode(latents), decoded, rtol=1e-4, atol=1e-5)


def test_an_autoencoder_goes_where_its_denoiser_goes(tmp_path: Path) -> None:
    first = load_teacher(dit_folder(tmp_path / "dit"))
    save_denoiser(first.denoiser, tmp_path / "other")
    shutil.rmtree(tmp_path / "cache")
    other = load_denoiser(tmp_path / "other")
    assert other.spec.codec == first.denoiser.spec.codec
    assert {path.name for path in (tmp_path / "other" / "vae").iterdir()} == {"config.json", WEIGHTS}
    model = AutoencoderKL.from_pretrained(tmp_path / "other" / "vae")
    latents = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        wanted = model.decode(latents / 0.18215).sample.clamp(-1, 1)
    torch.testing.assert_close(other.spec.codec.decode(latents), wanted, rtol=1e-4, atol=1e-5)


def test_a_pipeline_says_its_names_and_its_licence(tmp_path: Path) -> None:
    folder = dit_folder(tmp_path / "dit", id2label={0: "tench, Tinca", 1: "crane, bird", 2: "dog", 3: "crane, machine"})
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\ntags: [x]\n---\nA model.\n")
    teacher = load_teacher(folder)
    assert teacher.facts.classes == ("tench", "crane 1", "dog", "crane 3")
    assert teacher.licence == "cc-by-nc-4.0"
    assert teacher.facts.origin is not None
    assert teacher.facts.origin.format == "diffusers folder"
    embeddings = teacher.facts.embeddings()
    assert embeddings is not None
    assert embeddings.shape == (4, 16)


def test_without_a_card_no_licence_is_made_up(tmp_path: Path) -> None:
    found = read_pipeline(ddpm_folder(tmp_path / "ddpm"))
    assert found.spec.licence == "not stated"
    assert any("licence" in doubt for doubt in found.doubts)


def test_an_unconditional_network_has_one_condition(tmp_path: Path) -> None:
    folder = ddpm_folder(tmp_path / "ddpm", num_class_embeds=None)
    teacher, x = load_teacher(folder), torch.randn(2, 3, 8, 8)
    assert teacher.facts.num_conditions == 1
    assert teacher.denoiser(x, torch.ones(2), torch.zeros(2, dtype=torch.long)).shape == x.shape
    assert any("unconditional" in doubt for doubt in read_pipeline(folder).doubts)


def test_a_learned_variance_is_dropped(tmp_path: Path) -> None:
    folder = ddpm_folder(tmp_path / "ddpm", DDPMScheduler(variance_type="learned_range", clip_sample=False), out_channels=6)
    x = torch.randn(2, 3, 8, 8)
    assert load_teacher(folder).denoiser(x, torch.ones(2), LABELS[:2]).shape == x.shape
    assert any("variance" in doubt for doubt in read_pipeline(folder).doubts)


def test_weights_are_found_in_every_way_that_diffusers_keeps_them(tmp_path: Path) -> None:
    """In one file, in half precision, in shards, in torch's file, and by the names of attention of long ago."""
    first = ddpm_folder(tmp_path / "first")
    tensors = load_file(first / "unet" / WEIGHTS)
    wanted = load_denoiser(converted(first))

    def other(name: str) -> Path:
        shutil.copytree(first, tmp_path / name)
        (tmp_path / name / "unet" / WEIGHTS).unlink()
        return tmp_path / name

    shards = other("shards")
    unet_model().save_pretrained(shards / "unet", max_shard_size="20KB")
    assert len(list((shards / "unet").glob("*.safetensors"))) > 1
    plain = other("plain")
    torch.save(tensors, plain / "unet" / "diffusion_pytorch_model.bin")
    old = other("old")
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    names = {name: re.sub(r"to_q|to_k|to_v|to_out\.0", lambda found: renamed[found[0]], name) for name in tensors}
    save_file({names[name]: value for name, value in tensors.items()}, old / "unet" / WEIGHTS)
    assert set(names.values()) != set(tensors)
    for folder in (shards, plain, old):
        found = load_denoiser(converted(folder))
        for name, value in wanted.state_dict().items():
            assert torch.equal(found.state_dict()[name], value), (folder.name, name)
    half = other("half")
    save_file(
        {name: value.half() for name, value in tensors.items()}, half / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    )
    first_value = next(iter(load_denoiser(converted(half)).parameters()))
    assert first_value.dtype == torch.float32


def test_a_dit_of_before_it_had_a_class_of_its_own(tmp_path: Path) -> None:
    new, old = dit_folder(tmp_path / "new"), dit_folder(tmp_path / "old")
    others = {
        "cross_attention_dim": None,
        "only_cross_attention": False,
        "num_vector_embeds": None,
        "use_linear_projection": False,
    }
    path = old / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | others | {"_class_name": "Transformer2DModel"}))
    edit(old / "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    assert load_teacher(old).hash == load_teacher(new).hash


def test_a_model_is_found_with_its_scheduler_beside_it(tmp_path: Path) -> None:
    pipeline, alone = ddpm_folder(tmp_path / "pipeline"), model_folder(tmp_path / "alone")
    hashes = {load_teacher(place).hash for place in (pipeline, pipeline / "unet", alone)}
    assert len(hashes) == 1


def test_a_folder_is_converted_once_and_again_when_it_changed(tmp_path: Path) -> None:
    folder = ddpm_folder(tmp_path / "ddpm")
    first = converted(folder)
    assert converted(folder) == first
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert converted(tmp_path / "elsewhere").name.split("-")[-1] == first.name.split("-")[-1]
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    assert converted(folder) != first


def test_a_converted_folder_loads_where_diffusers_does(tmp_path: Path) -> None:
    convert(ddpm_folder(tmp_path / "ddpm"), tmp_path / "teacher", licence="MIT")
    model, x = UNet2DModel.from_pretrained(tmp_path / "teacher"), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(x, 7, class_labels=LABELS[:2]).sample, unet_model()(x, 7, class_labels=LABELS[:2]).sample)
    assert load_teacher(tmp_path / "teacher").licence == "MIT"


Damage = Callable[[Path], None]


def _config(**changes: Any) -> Damage:
    return lambda folder: edit(folder / "unet" / "config.json", **changes)


def _scheduler(**changes: Any) -> Damage:
    return lambda folder: edit(folder / "scheduler" / "scheduler_config.json", **changes)


def _weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "unet" / WEIGHTS
        save_file(change(load_file(path)), path)

    return damage


def _file(name: str, content: bytes | None) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)

    return damage


def _pickled(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")


BROKEN: dict[str, tuple[Damage, str]] = {
    "no weights": (_file(f"unet/{WEIGHTS}", None), "has no weights"),
    "no scheduler": (_file("scheduler/scheduler_config.json", None), r"lacks scheduler/scheduler_config\.json"),
    "no configuration": (_file("unet/config.json", None), r"lacks unet/config\.json"),
    "index is no JSON": (_file("model_index.json", b"{"), r"model_index\.json"),
    "index is a list": (_file("model_index.json", b"[]"), r"model_index\.json"),
    "weights are a pointer": (
        _file(f"unet/{WEIGHTS}", b"version https://git-lfs.github.com/spec/v1\noid sha256:00"),
        "git-LFS",
    ),
    "weights are a page": (_file(f"unet/{WEIGHTS}", b"<!DOCTYPE html><html>"), "a web page"),
    "weights are cut": (lambda folder: _cut(folder / "unet" / WEIGHTS), "cannot be read as safetensors"),
    "weights run code": (_pickled, "cannot be read as tensors"),
    "a weight is missing": (_weights(lambda all: dict(list(all.items())[1:])), "lacks the weights of"),
    "a weight too many": (_weights(lambda all: all | {"more.weight": torch.ones(1)}), r"has weights of more\.weight"),
    "a weight of another shape": (_weights(lambda all: all | {"conv_in.bias": torch.ones(3)}), "have shape"),
    "a weight is no number": (_weights(lambda all: all | {"conv_in.bias": torch.full((16,), torch.nan)}), "not finite"),
    "a weight is whole": (_weights(lambda all: all | {"conv_in.bias": torch.ones(16).long()}), "no floating-point"),
    "network of prompts": (_config(_class_name="UNet2DConditionModel"), "cannot be a teacher yet"),
    "network of no class": (_config(_class_name=None), "does not say of which class"),
    "an unknown key": (_config(brand_new=1), "has 'brand_new', which a UNet2DModel of this diffusers does not know"),
    "a size of nothing": (_config(sample_size=None), "sample_size is None"),
    "a size that is no square": (_config(sample_size=[8, 16]), "only square"),
    "channels in words": (_config(in_channels="three"), "in_channels is 'three'"),
    "answers of other channels": (_config(out_channels=5), "out_channels is 5"),
    "classes below one": (_config(num_class_embeds=0), "num_class_embeds is 0"),
    "embedding by time": (_config(class_embed_type="timestep"), "class_embed_type is 'timestep'"),
    "learned times": (_config(time_embedding_type="learned"), "time_embedding_type is 'learned'"),
    "blocks that nobody knows": (_config(down_block_types=["Odd", "Odd"]), "describes no network that can be built"),
    "widths that are words": (_config(block_out_channels="wide"), "describes no network that can be built"),
    "other weights": (_config(block_out_channels=[16, 64]), "have shape|lacks|has weights"),
    "unknown scheduler": (
        _scheduler(_class_name="ScoreSdeVeScheduler"),
        "is of a 'ScoreSdeVeScheduler', which is not known",
    ),
    "scheduler of no class": (_scheduler(_class_name=None), "is of a None"),
    "unknown schedule": (_scheduler(beta_schedule="magic"), "beta_schedule 'magic'"),
    "unknown prediction": (_scheduler(prediction_type="score"), "has prediction_type 'score'"),
    "steps in words": (_scheduler(num_train_timesteps="many"), "num_train_timesteps 'many'"),
    "noise that does not grow": (_scheduler(trained_betas=[0.0] * 1000), "alphas_cumprod"),
    "noise that is negative": (_scheduler(beta_start=-1.0), "alphas_cumprod"),
    "a variance that is not there": (_scheduler(variance_type="learned_range"), "says that half is a variance"),
    "a text encoder": (
        lambda folder: edit(folder / "model_index.json", text_encoder=["transformers", "CLIPTextModel"]),
        r"parts that are not known: text_encoder \(CLIPTextModel\)",
    ),
    "no network": (
        lambda folder: edit(folder / "model_index.json", unet=["x", "y"]),
        r"parts that are not known: unet \(y\)",
    ),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(("damage", "match"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_or_not_understood_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage, match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = ddpm_folder(tmp_path / "ddpm")
    damage(folder)
    with pytest.raises(MsdError, match=match) as caught:
        load_teacher(folder)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scaling_factor": None}, r"does not say how its latents are scaled \(scaling_factor\); add it .* 0\.18215"),
        ({"_class_name": "AutoencoderTiny"}, "only an AutoencoderKL is known"),
        ({"latent_channels": 5}, "no autoencoder that can be built"),
        ({"latents_mean": [0.0] * 4}, "scales each channel"),
        ({"scaling_factor": -1}, "scale of the codec"),
        ({"brand_new": 1}, "brand_new"),
    ],
)
def test_an_autoencoder_that_is_not_understood_is_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    folder = dit_folder(tmp_path / "dit")
    edit(folder / "vae" / "config.json", **changes)
    with pytest.raises(MsdError, match=match):
        load_teacher(folder)


def test_an_autoencoder_of_other_channels_is_refused(tmp_path: Path) -> None:
    folder = dit_folder(tmp_path / "dit")
    shutil.rmtree(folder / "vae")
    autoencoder(latent_channels=3).save_pretrained(folder / "vae")
    with pytest.raises(WeightsError, match=r"has 3 latent channels and .* takes 4"):
        load_teacher(folder)


def test_a_damaged_autoencoder_is_noticed_when_it_is_asked(tmp_path: Path) -> None:
    folder = convert_to(tmp_path)
    save_file({name: value + 1 for name, value in load_file(folder / "vae" / WEIGHTS).items()}, folder / "vae" / WEIGHTS)
    with pytest.raises(WeightsError, match="is damaged: it is not the recorded autoencoder"):
        load_denoiser(folder).spec.codec.decode(torch.zeros(1, 4, 8, 8, dtype=torch.float32))


def convert_to(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    source = dit_folder(tmp_path / "dit")
    tensors = load_file(source / "vae" / WEIGHTS)  # an autoencoder that no other test has loaded
    save_file({name: value * 1.01 for name, value in tensors.items()}, source / "vae" / WEIGHTS)
    convert(source, tmp_path / "teacher")
    return tmp_path / "teacher"


def test_guidance_of_a_teacher_that_is_trained_here_is_refused() -> None:
    from msd.recipe import TeacherSection

    with pytest.raises(RecipeError, match="guidance asks for a network that knows `no class`"):
        TeacherSection(source="pretrain", guidance=2.0)


def test_a_folder_on_the_hub_is_fetched_only_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, list[str]]] = []

    def snapshot_download(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        return str(folder)

    folder = ddpm_folder(tmp_path / "snapshot")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load_teacher("hub:someone/model@main").hash == load_teacher(folder).hash
    assert {(name, revision) for name, revision, _ in asked} == {("someone/model", "main")}
    assert not any("*.bin" in patterns for *_, patterns in asked), "pickles are fetched only where there is nothing else"


def test_offline_a_name_on_the_hub_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"hub:nobody/nothing-here cannot be had from the hub .* give its path") as caught:
        load_teacher("hub:nobody/nothing-here")
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="names nothing on the hub; write hub:OWNER/NAME"):
        load_teacher("hub:just a name")
