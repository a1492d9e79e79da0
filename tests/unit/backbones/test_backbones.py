"""Backbones: agreement with the original DINOv2 code, shapes, layers, and what is said when one cannot be had."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from dinodp.backbones import embedding_options, load_backbone
from dinodp.backbones.preprocessing import preprocess
from dinodp.backbones.vision_transformer import resize_positions
from dinodp.errors import InputError

ROOT = Path(__file__).parents[3]
PARITY = ROOT / "tests" / "data" / "hub_parity_square_448"
VIT_TINY = ROOT.parent / "shared" / "weights" / "vit-tiny-patch16-224"
needs_vit_tiny = pytest.mark.skipif(not VIT_TINY.is_dir(), reason=f"no pretrained ViT-Tiny at {VIT_TINY}")


def pixels(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def image(height: int = 60, width: int = 100) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_patch_tokens_agree_with_the_original_dinov2_code() -> None:
    reference = np.load(PARITY / "io.npz")
    tokens = load_backbone(str(PARITY)).embed(torch.from_numpy(reference["pixel_values"]).float())
    assert tokens.shape == (1, 32, 32, 48)
    assert tokens.dtype == torch.float32
    assert np.abs(tokens.reshape(1, 1024, 48).numpy() - reference["patch_tokens"]).max() < 1e-5


def test_drops_cls_and_register_tokens(tiny: Path) -> None:
    backbone = load_backbone(str(tiny), resolution=64)
    batch = pixels(2, 3, 64, 64)  # the size of training: transformers resizes no positions
    with torch.inference_mode():
        expected = transformers.AutoModel.from_pretrained(tiny).eval()(batch).last_hidden_state[:, -16:]
    tokens = backbone.embed(batch)
    assert tokens.shape == (2, 4, 4, 24)
    assert torch.allclose(tokens.reshape(2, 16, 24), expected, atol=1e-5)


def test_layers_pass_the_final_norm(tiny: Path) -> None:
    batch = pixels(2, 3, 64, 64)
    model = transformers.AutoModel.from_pretrained(tiny).eval()
    norm = model.norm if hasattr(model, "norm") else model.layernorm
    with torch.inference_mode():
        hidden = model(batch, output_hidden_states=True).hidden_states
        first, second = (norm(hidden[block])[:, -16:].reshape(2, 4, 4, 24) for block in (1, 2))
    assert torch.allclose(load_backbone(str(tiny), resolution=64, layers=(1,)).embed(batch), first, atol=1e-5)
    several = load_backbone(str(tiny), resolution=64, layers=(-2, 1, 3))
    tokens = several.embed(batch)
    unit = torch.nn.functional.normalize
    assert several.dim == tokens.shape[-1] == 72
    assert torch.allclose(tokens[..., :24], unit(second, dim=-1), atol=1e-5)
    assert torch.allclose(tokens[..., 24:48], unit(first, dim=-1), atol=1e-5)
    last = load_backbone(str(tiny), resolution=64).embed(batch)
    assert torch.allclose(tokens[..., 48:], unit(last, dim=-1), atol=1e-5)


def test_non_square_images_are_deterministic_and_batch_invariant(tiny: Path) -> None:
    backbone = load_backbone(str(tiny), resolution=48)
    assert backbone.prepare(image()).shape == (3, 48, 80)
    batch = pixels(3, 3, 48, 80)
    tokens = backbone.embed(batch)
    assert tokens.shape == (3, 3, 5, 24)
    assert torch.equal(tokens, backbone.embed(batch))
    assert torch.allclose(tokens[1:2], backbone.embed(batch[1:2]), atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_and_returns_float32(tiny: Path, dtype: str) -> None:
    batch = pixels(1, 3, 64, 64)
    tokens = load_backbone(str(tiny), resolution=64, dtype=dtype).embed(batch)
    exact = load_backbone(str(tiny), resolution=64).embed(batch)
    assert tokens.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(tokens, exact, dim=-1).min() > 0.98


def test_resized_positions_by_hand() -> None:
    constant = torch.cat([torch.zeros(1, 1, 2), torch.ones(1, 16, 2)], dim=1)
    resized = resize_positions(constant, 3, 5)
    assert resized.shape == (1, 16, 2)
    assert torch.equal(resized[:, :1], constant[:, :1])
    assert torch.allclose(resized[:, 1:], torch.ones(1, 15, 2))
    assert resize_positions(constant, 4, 4) is constant


def test_images_are_resized_by_the_interpolation_of_the_entry(tiny: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    found = {}
    for name in ("bicubic", "bilinear"):
        entry = {"backbone": str(tiny), "resolution": 64, "interpolation": name}
        backbone = embedding_options(entry).load("cpu")
        assert backbone.provenance()["interpolation"] == name
        mean, std = backbone.mean, backbone.std
        found[name] = backbone.prepare(image)
        assert torch.equal(found[name], preprocess(image, 64, 16, mean, std, interpolation=name))
    assert not torch.equal(found["bicubic"], found["bilinear"])



@pytest.mark.parametrize("name", ["dinov2", "classical"])
def test_provenance_is_text(name: str) -> None:
    backbone = load_backbone(name if name == "classical" else str(PARITY), resolution=56, square=True)
    provenance = backbone.provenance()
    assert all(isinstance(value, str) for value in provenance.values())
    assert provenance["resolution"] == "56"
    assert provenance["patch_size"] == "14"
    assert backbone.prepare(image()).shape == (3, 56, 56)
    assert ("weights_sha256" in provenance) == (name != "classical")


def test_channel_statistics_default_to_imagenet() -> None:
    assert load_backbone(str(PARITY)).mean == (0.485, 0.456, 0.406)


@needs_vit_tiny
def test_pretrained_vit_tiny() -> None:
    backbone = load_backbone(str(VIT_TINY), layers=(-7,))
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    tokens = backbone.embed(backbone.prepare(image(512, 1024))[None])
    assert tokens.shape == (1, 28, 56, 192)
    flat = np.full((64, 64, 3), 90, np.uint8)
    flat[:32] = image(32, 64)
    textured = backbone.embed(backbone.prepare(flat)[None])[0]
    upper, lower = torch.nn.functional.normalize(textured, dim=-1).split(14)
    assert (lower[8:].mean((0, 1)) * upper[:8].mean((0, 1))).sum() < 0.9


def test_classical_descriptor() -> None:
    backbone = load_backbone("classical", resolution=112)
    batch = torch.stack([backbone.prepare(image(60, 100)), backbone.prepare(image(60, 100)[:, ::-1])])
    tokens = backbone.embed(batch)
    assert tokens.shape == (2, 8, 13, backbone.dim)
    assert torch.isfinite(tokens).all()
    assert torch.equal(tokens, load_backbone("classical", resolution=112).embed(batch))
    assert torch.allclose(tokens[1:], backbone.embed(batch[1:]), atol=1e-5)


def test_classical_descriptor_knows_no_position() -> None:
    tokens = load_backbone("classical").embed(torch.full((1, 3, 56, 84), 0.4))
    assert torch.allclose(tokens, tokens[:, :1, :1], atol=1e-4)


@pytest.mark.parametrize("change", ["brighter", "darker", "textured"])
def test_classical_descriptor_tells_lesions_from_tissue(change: str) -> None:
    generator = torch.Generator().manual_seed(0)
    pixel = 0.5 + 0.02 * torch.randn(1, 1, 280, 280, generator=generator)
    lesion = torch.zeros(20, 20, dtype=torch.bool)
    lesion[8:12, 8:12] = True
    if change == "textured":
        pixel[..., 112:168, 112:168] += 0.1 * torch.randn(56, 56, generator=generator)
    else:
        pixel[..., 112:168, 112:168] += 0.15 if change == "brighter" else -0.15
    tokens = load_backbone("classical").embed(pixel.expand(1, 3, 280, 280).clamp(0, 1))[0]
    unit = torch.nn.functional.normalize(tokens, dim=-1)
    distance = 1 - (unit @ unit[:5].reshape(-1, unit.shape[-1]).T).max(dim=-1).values
    assert distance[lesion].min() > 3 * distance[:5].max().clamp_min(0.01)


def directory(path: Path, config: object = None, weights: bytes | None = None) -> str:
    path.mkdir()
    if config is not None:
        (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        (path / "model.safetensors").write_bytes(weights)
    return str(path)


def parity_config() -> dict[str, object]:
    return dict(json.loads((PARITY / "config.json").read_text()))


@pytest.mark.parametrize(
    ("config", "weights", "words"),
    [
        (None, b"x", "no config.json"),
        ({"model_type": "dinov2"}, None, "no weights"),
        ({"model_type": "resnet"}, b"x", "choose one of dinov2, dinov2_with_registers, dinov3_vit, vit"),
        ({}, b"x", "model type None"),
        ("{", b"x", "cannot be read as JSON"),
        ("[]", b"x", "no JSON object"),
        (parity_config(), b"x", "cannot be loaded"),
        (parity_config(), (PARITY / "model.safetensors").read_bytes()[:-1000], "cannot be loaded"),
        ({**parity_config(), "num_hidden_layers": 3}, (PARITY / "model.safetensors").read_bytes(), "lack"),
    ],
)
def test_faulty_directories(tmp_path: Path, config: object, weights: bytes | None, words: str) -> None:
    expect_error(words, directory(tmp_path / "model", config, weights))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": (-3,)}, "Unknown layer -3 of .*choose 1 to 2"),
        ({"layers": (0,)}, "Unknown layer 0"),
        ({"layers": ()}, "layers: .* has too few values"),
        ({"dtype": "int8"}, "dtype: 'int8' is not allowed"),
        ({"resolution": 13}, "below the patch size.*at least 14"),
        ({"device": "abacus"}, "Unknown device"),
        ({"device": "cuda:99"}, "CUDA"),
    ],
)
def test_faulty_options(options: dict[str, object], words: str) -> None:
    expect_error(words, str(PARITY), **options)


@pytest.mark.parametrize("options", [{"layers": (1,)}, {"revision": "x"}, {"dtype": "float16"}, {"resolution": 5}])
def test_faulty_options_of_classical(options: dict[str, object]) -> None:
    expect_error("classical", "classical", **options)


@pytest.mark.parametrize("name", ["classical", str(PARITY)])
@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 1, 28, 28), (1, 3, 28, 30), (1, 3, 0, 28)])
def test_faulty_pixel_values(name: str, shape: tuple[int, ...]) -> None:
    backbone = load_backbone(name, resolution=28)
    with pytest.raises(InputError, match="multiples of 14"):
        backbone.embed(torch.zeros(shape))


@pytest.mark.parametrize("name", ["/no/such/place", "./models/dinov2", "a/b/c", str(PARITY / "config.json")])
def test_paths_that_are_no_directory(name: str) -> None:
    expect_error("no directory in Hugging Face format and no hub name", name)


def expect_error(words: str, name: str, **options: object) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_backbone(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("variables", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_unreachable_hub(tmp_path: Path, variables: dict[str, str]) -> None:
    code = (
        "from dinodp.backbones import load_backbone\n"
        "try:\n    load_backbone('facebook/dinov2-small', revision='ed25f3a')\n"
        "except ValueError as error:\n    print(error)"
    )
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = {**inherited, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "scripts"), **variables}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout.count("\n") == 1, run.stderr
    for words in ("facebook/dinov2-small", "revision ed25f3a", "hf download", "HF_HUB_OFFLINE=1", "local directory"):
        assert words in run.stdout


def test_hub_name_is_taken_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = tmp_path / "0123abc"
    snapshot.symlink_to(PARITY)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda **options: str(snapshot))
    backbone = load_backbone("someone/tiny-dinov2", revision="v1", resolution=28)
    assert backbone.provenance()["revision"] == "0123abc"
    assert backbone.provenance()["backbone"] == "someone/tiny-dinov2"
