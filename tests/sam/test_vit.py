from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")

from risbench.core.errors import MissingRequirementError, OptionError  # noqa: E402
from risbench.core.metrics import mask_iou  # noqa: E402
from risbench.ingest import ingest  # noqa: E402
from risbench.learn.device import fast_precision, keep_freed_memory  # noqa: E402
from risbench.refine import refine_masks  # noqa: E402
from risbench.refine.engines.base import Prompt  # noqa: E402
from risbench.refine.sam_engine import sam_engine  # noqa: E402
from risbench.sam import vit  # noqa: E402
from tests.conftest import eval_row, picture  # noqa: E402
from tests.sam.sam_files import tiny_mobile_sam, tiny_sam, write_sam  # noqa: E402


@pytest.mark.parametrize("side", [128, 96], ids=["windows fit", "windows are padded"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_fused_encoder_equals_segment_anythings(side: int, dtype: str) -> None:
    theirs, images = tiny_sam(image_size=side).image_encoder, torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs(images)
        found = vit.fused(tiny_sam(image_size=side).image_encoder, getattr(torch, dtype))(images)
    assert found.dtype == torch.float32
    away = float((found - expected).norm() / expected.norm())
    assert away < (1e-5 if dtype == "float32" else 0.02)
    assert away > 0 or dtype == "float32"


def test_the_bias_written_out_for_few_heads_at_a_time_and_folded_into_the_keys_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 30, 8, generator=random) for _ in range(3))
    rows, columns = torch.randn(2, 3, 30, 5, generator=random), torch.randn(2, 3, 30, 6, generator=random)
    index = torch.arange(30)
    places = torch.zeros(30, 11)
    places[index, index // 6] = places[index, 5 + index % 6] = 1
    bias = rows[..., index // 6] + columns[..., index % 6]
    expected = ((q @ k.transpose(-1, -2)) * 8**-0.5 + bias).softmax(-1) @ v
    assert torch.allclose(vit.with_bias(q, k, v, rows, columns), expected, atol=1e-5)
    assert torch.allclose(vit.folded(q, k, v, rows, columns, places), expected, atol=1e-5)
    monkeypatch.setattr(vit, "_BIAS_BYTES", 2 * 30 * 30 * 4)
    assert torch.allclose(vit.with_bias(q, k, v, rows, columns), expected, atol=1e-5)


def test_an_encoder_of_another_kind_is_left_as_it_is_or_runs_in_bf16() -> None:
    encoder, images = tiny_mobile_sam().image_encoder, torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    assert vit.fused(encoder, torch.float32) is encoder
    quick = vit.fused(encoder, torch.bfloat16)
    assert quick.img_size == encoder.img_size
    with torch.inference_mode():
        expected, found = encoder(images), quick(images)
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.05


def test_engines_of_both_precisions_agree_and_their_scores_too(tmp_path: Path) -> None:
    path, image = write_sam(tmp_path / "sam.pth"), picture(1, 90, 120)
    asked = [Prompt((5.0 + 7 * k, 5.0 + 3 * k, 50.0 + 7 * k, 45.0 + 4 * k), None, "ship") for k in range(8)]
    answers = {}
    for precision in ("fp32", "bf16"):
        engine = sam_engine(path, "cpu", precision)
        engine.load(image)
        answers[precision] = engine.segment(asked)
    ious = [mask_iou(a.values > 0, b.values > 0) for a, b in zip(answers["fp32"], answers["bf16"], strict=True)]
    assert np.mean(ious) >= 0.99
    for a, b in zip(answers["fp32"], answers["bf16"], strict=True):
        assert a.scores == pytest.approx(b.scores, abs=0.05)


def test_refine_says_its_precision_and_refuses_others(make_source: Callable[..., Path], tmp_path: Path) -> None:
    workspace, path = tmp_path / "w", write_sam(tmp_path / "sam.pth")
    ingest(make_source([eval_row("S0000_0000.png", 1)]), workspace=workspace, fit="keep", quiet=True)
    for choice, expected in (("fp32", "fp32"), ("auto", fast_precision("cpu"))):
        done = refine_masks(workspace=workspace, engine="sam", checkpoint=path, precision=choice, quiet=True)
        assert done["options"]["precision"] == expected
    assert refine_masks(workspace=workspace, engine="builtin", quiet=True)["options"]["precision"] == "fp32"
    with pytest.raises(OptionError, match="--precision half: must be auto, fp32 or bf16"):
        refine_masks(workspace=workspace, precision="half", quiet=True)
    with pytest.raises(OptionError, match="--precision bf16: is for engines builtin, sam and pasam, not for box"):
        refine_masks(workspace=workspace, engine="box", precision="bf16", quiet=True)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library here is not glibc")
def test_freed_memory_is_kept() -> None:
    """Tensors of 64 MB made and freed again and again: without the setting every one of their pages is faulted in anew."""
    script = (
        "import resource, sys, torch\n"
        "from risbench.learn.device import keep_freed_memory\n"
        "if sys.argv[1] == 'kept': assert keep_freed_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(8): torch.empty(1 << 24).fill_(1)\n"
        "before = faults()\n"
        "for _ in range(8): torch.empty(1 << 24).fill_(1)\n"
        "print(faults() - before)\n"
    )
    faults = {
        way: int(subprocess.run([sys.executable, "-c", script, way], capture_output=True, text=True, check=True).stdout)
        for way in ("kept", "given back")
    }
    assert faults["kept"] < 0.2 * faults["given back"]


def test_masks_are_made_in_smaller_pieces_where_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, image = sam_engine(write_sam(tmp_path / "sam.pth"), "cpu"), picture(1, 90, 120)
    asked = [Prompt((5.0 + 7 * k, 5.0 + 3 * k, 50.0 + 7 * k, 45.0 + 4 * k), None, "ship") for k in range(7)]
    engine.load(image)
    whole, inner, sizes = engine.segment(asked), engine._segment, []

    def narrow(prompts: list[Prompt]) -> object:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return inner(prompts)

    monkeypatch.setattr(engine, "_segment", narrow)
    again = engine.segment(asked)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    for a, b in zip(whole, again, strict=True):
        assert np.allclose(a.values, b.values, atol=1e-4)
        assert a.scores == pytest.approx(b.scores, abs=1e-4)
    monkeypatch.setattr(engine, "_segment", lambda _: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("CUDA out of memory. x")))
    with pytest.raises(MissingRequirementError, match="^CUDA out of memory; take a smaller model"):
        engine.segment(asked)
