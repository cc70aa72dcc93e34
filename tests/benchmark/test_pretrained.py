"""Weights of others: from folders and files as they are published, and never in silence something else."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("transformers", reason="the train extra is not installed")

from huggingface_hub import constants
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    ConvNextConfig,
    ConvNextForImageClassification,
    SwinConfig,
    SwinForImageClassification,
)

from risbench.benchmark.data.words import words_for
from risbench.benchmark.eval.evaluate import evaluate
from risbench.benchmark.load_settings import load_settings
from risbench.benchmark.models.backbones import Backbone
from risbench.benchmark.models.text import TextEncoder
from risbench.benchmark.settings import BackboneSettings
from risbench.benchmark.train.checkpoint import ABOUT, read_model
from risbench.benchmark.train.run import train
from risbench.core.errors import InputError, MissingRequirementError, OptionError
from tests.benchmark.conftest import FEW_STEPS


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks saved as their makers publish them: with heads that we have no use for."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(3)
    SwinForImageClassification(
        SwinConfig(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4, image_size=96)
    ).save_pretrained(folder / "swin")
    ConvNextForImageClassification(ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 64, 128])).save_pretrained(folder / "convnext")
    bert = BertConfig(vocab_size=120, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForMaskedLM(bert).save_pretrained(folder / "bert")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
        "the",
    ]
    (folder / "bert" / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "bert" / "vocab.txt")).save_pretrained(folder / "bert")
    return folder


def settings(kind: str, weights: Path | str) -> BackboneSettings:
    return load_settings("tiny", changes=[f"backbone.kind={kind}", f"backbone.weights='{weights}'"]).backbone


@pytest.mark.parametrize("kind", ["swin", "convnext"])
def test_a_published_folder_and_its_file_are_the_same_backbone(kind: str, published: Path) -> None:
    whole = Backbone(settings(kind, published / kind), 96)
    file = Backbone(settings(kind, published / kind / "model.safetensors"), 96)
    assert not torch.equal(next(whole.parameters()), next(Backbone(settings(kind, ""), 96).parameters()))
    image = torch.randn(1, 3, 96, 96)
    whole.eval(), file.eval()
    with torch.no_grad():
        for one, other in zip(whole(image), file(image), strict=True):
            assert torch.equal(one, other)


def test_what_stands_before_names_does_not_matter(published: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = {f"module.{name}": value for name, value in load_file(published / "swin" / "model.safetensors").items()}
    torch.save({"state_dict": state}, tmp_path / "trained.pth")
    whole, file = Backbone(settings("swin", published / "swin"), 96), Backbone(settings("swin", tmp_path / "trained.pth"), 96)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), file.parameters(), strict=True))


AUTHORS_SWIN = (
    ("swin.embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("swin.embeddings.norm", "patch_embed.norm"),
    ("swin.layernorm", "norm"),
    ("swin.encoder.", ""),
    ("classifier", "head"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("attention.self.relative", "attn.relative"),
    ("attention.output.dense", "attn.proj"),
    ("intermediate.dense", "mlp.fc1"),
    (".output.dense", ".mlp.fc2"),
)
AUTHORS_CONVNEXT = (
    ("convnext.embeddings.patch_embeddings", "downsample_layers.0.0"),
    ("convnext.embeddings.layernorm", "downsample_layers.0.1"),
    ("convnext.layernorm", "norm"),
    (r"convnext.encoder.stages.(\d).downsampling_layer", r"downsample_layers.\1"),
    (r"convnext.encoder.stages.(\d).layers", r"stages.\1"),
    ("classifier", "head"),
    ("layernorm", "norm"),
    ("layer_scale_parameter", "gamma"),
)
TIMMS_CONVNEXT = (
    ("convnext.embeddings.patch_embeddings", "stem.0"),
    ("convnext.embeddings.layernorm", "stem.1"),
    ("convnext.layernorm", "head.norm"),
    (r"convnext.encoder.stages.(\d).downsampling_layer", r"stages.\1.downsample"),
    (r"convnext.encoder.stages.(\d).layers", r"stages.\1.blocks"),
    ("classifier", "head.fc"),
    ("dwconv", "conv_dw"),
    ("layernorm", "norm"),
    (r"pwconv(\d)", r"mlp.fc\1"),
    ("layer_scale_parameter", "gamma"),
)


@pytest.mark.parametrize(
    ("kind", "names", "merged_first"),
    [
        ("swin", AUTHORS_SWIN, False),
        ("swin", AUTHORS_SWIN, True),
        ("convnext", AUTHORS_CONVNEXT, False),
        ("convnext", TIMMS_CONVNEXT, False),
    ],
    ids=["swin-authors", "swin-timm", "convnext-authors", "convnext-timm"],
)
def test_files_in_their_authors_names_and_in_timms_are_read(
    kind: str, names: tuple[tuple[str, str], ...], merged_first: bool, published: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    state = load_file(published / kind / "model.safetensors")
    for name in [name for name in state if ".self.query." in name]:
        parts = [state.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        state[name.replace("attention.self.query", "attn.qkv")] = torch.cat(parts)
    for theirs, other in names:
        state = {re.sub(theirs, other, name): value for name, value in state.items()}
    if merged_first:
        state = {
            re.sub(r"layers.(\d).downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", name): value
            for name, value in state.items()
        }
    if kind == "swin":
        state |= {
            "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16),
            "layers.0.blocks.0.attn_mask": torch.zeros(9, 16, 16),
        }
    assert not any("convnext" in name or "swin" in name for name in state)
    torch.save({"model": state}, tmp_path / "theirs.pth")
    whole, file = Backbone(settings(kind, published / kind), 96), Backbone(settings(kind, tmp_path / "theirs.pth"), 96)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), file.parameters(), strict=True))


def test_layers_that_the_settings_lack_are_not_left_out_in_silence(tmp_path: Path) -> None:
    ConvNextForImageClassification(ConvNextConfig(depths=[1, 1, 2, 1], hidden_sizes=[16, 32, 64, 128])).save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"has 9 tensors of layers that the settings lack, such as .*stages\.2\.layers\.1\..*; set as many depths"
    ):
        Backbone(settings("convnext", tmp_path / "model.safetensors"), 96)
    assert list(Backbone(settings("convnext", tmp_path), 96).net.config.depths) == [1, 1, 2, 1], "a folder says how many it has"


def test_weights_that_do_not_fit_are_never_random_in_silence(published: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks .* of the .* tensors"):
        Backbone(settings("swin", published / "convnext" / "model.safetensors"), 96)
    with pytest.raises(OptionError, match="is a convnext; settings ask for swin"):
        Backbone(settings("swin", published / "convnext"), 96)
    (tmp_path / "broken.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="broken.pth: cannot be read as a state dict"):
        Backbone(settings("swin", tmp_path / "broken.pth"), 96)
    for kind, name, odd in (
        ("swin", "mlp_ratio", 2.0),
        ("convnext", "hidden_act", "relu"),
        ("convnext", "hidden_sizes", [16, 32, 48, 64]),
        ("convnext", "layer_scale_init_value", 0.0),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        config = json.loads((published / kind / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, name: odd}))
        with pytest.raises(InputError, match=f"{name} = .* in config.json: (only|they must double|must be above 0)"):
            Backbone(settings(kind, tmp_path / name), 96)
    with pytest.raises(InputError, match="there is no such file"):
        Backbone(settings("swin", tmp_path / "gone.pth"), 96)
    with pytest.raises(InputError, match="holds no weights of this kind"):
        Backbone(settings("swin", tmp_path), 96)


def test_a_name_on_the_hub_without_the_hub_says_which_files_to_put_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        MissingRequirementError, match=r"download config.json and model.safetensors of https://huggingface.co/microsoft/nowhere"
    ):
        Backbone(settings("swin", "microsoft/nowhere"), 96)


def test_a_run_on_published_weights_trains_is_read_back_and_says_so(published: Path, release: Path, caches: Path, tmp_path: Path) -> None:
    own = [*FEW_STEPS, f"backbone.weights='{published / 'swin'}'", f"text.weights='{published / 'bert'}'"]
    train("crobim", release, out=tmp_path / "run", config="tiny", changes=own, cache=caches, quiet=True)
    about = json.loads((tmp_path / "run" / ABOUT).read_text())
    assert len(about["weights"]["backbone"]["model.safetensors"]) == 64
    assert about["vocabulary"]["from"] == str(published / "bert")
    model, words, _ = read_model(tmp_path / "run")
    assert model.text.width == 32
    assert words.pieces("The ab")[:3] == ["[CLS]", "the", "a"]
    assert evaluate(tmp_path / "run", release, cache=caches, quiet=True)["n"] > 0
    assert isinstance(Tokenizer.from_file(str(tmp_path / "run" / "tokenizer.json")), Tokenizer)
    file = [*FEW_STEPS, f"text.weights='{published / 'bert' / 'model.safetensors'}'"]
    with pytest.raises(OptionError, match="a file has no vocabulary"):
        train("crobim", release, out=tmp_path / "other", config="tiny", changes=file, cache=caches, quiet=True)


def with_code(folder: Path, auto_map: dict[str, object], mark: Path, **more: object) -> Path:
    """Write a hub folder whose code would touch `mark`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map, **more}))
    code = f"open({str(mark)!r}, 'a').write(__name__)\nfrom transformers import PretrainedConfig, PreTrainedTokenizerFast\n"
    (folder / "evil.py").write_text(
        code + "class C(PretrainedConfig):\n    model_type = 'evil'\nclass T(PreTrainedTokenizerFast):\n    pass\n"
    )
    tokenizer = {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("answer", ["y\n", ""])
def test_code_of_a_hub_folder_is_never_run_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answer: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer * 5))
    mark = tmp_path / "ran"
    folder = with_code(tmp_path / "folder", {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}, mark)
    words = load_settings("tiny", changes=[f"text.weights='{folder}'"]).text
    for ask in (lambda: Backbone(settings("swin", folder), 96), lambda: words_for(words, []), lambda: TextEncoder(words, 96)):
        with pytest.raises(InputError, match=rf"{folder}: brings Python code of its own, which is never run here"):
            ask()
    assert not mark.exists()
    assert "y/N" not in "".join(capfd.readouterr())


def test_a_folder_that_transformers_knows_is_loaded_without_the_code_beside_it(published: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = Path(shutil.copytree(published / "swin", tmp_path / "swin"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}))
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'a')\n")
    Backbone(settings("swin", folder), 96)
    assert not mark.exists()
