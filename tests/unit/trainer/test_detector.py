"""The student: its noise head shapes the backbone, and its plain graph knows nothing of it."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from trainer.config import DetectorConfig
from trainer.detector import (
    Detector,
    DetectorError,
    Gate,
    TargetShape,
    Windows,
    cut,
    dense_stem,
    load_backbone,
    local_mean,
    pooled,
)

CONFIG = DetectorConfig(backbone="test_efficientnet", head_width=8, dropout_p=0.0)


def images(count: int = 2, side_px: int = 64) -> torch.Tensor:
    """Random crops."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, 256, (count, side_px, side_px, 3), dtype=torch.uint8, generator=generator
    )


def test_noise_is_predicted_at_full_resolution() -> None:
    """A value for every pixel of every channel."""
    detector = Detector(CONFIG)
    assert detector.predict_noise(images()).shape == (2, 3, 64, 64)


def test_the_noise_loss_reaches_the_stem_and_shallow_features() -> None:
    """Learning noise moves the very weights that the classifier uses."""
    detector = Detector(CONFIG)
    torch.autograd.backward([detector.predict_noise(images()).square().mean()])
    stem = detector.backbone.conv_stem.weight.grad
    assert stem is not None
    assert stem.abs().max() > 0
    shallow = next(detector.backbone.blocks[0].parameters()).grad
    assert shallow is not None
    assert shallow.abs().max() > 0


def test_the_noise_loss_leaves_the_classifier_alone() -> None:
    """The last layer gets no gradient from it."""
    detector = Detector(CONFIG)
    torch.autograd.backward([detector.predict_noise(images()).square().mean()])
    assert detector.classifier.weight.grad is None


def test_the_dense_stem_has_the_filters_of_the_stem() -> None:
    """Its features, at every second pixel, are the stem's own but for a gain and the ReLU."""
    stem = Detector(CONFIG).backbone.conv_stem
    x_NCHW = torch.randn(1, 3, 32, 32)
    strided = functional.conv2d(x_NCHW, stem.weight, stride=2, padding=1)
    gain_C11 = stem.weight.abs().sum(dim=(1, 2, 3))[:, None, None] + 1e-3
    expected = functional.relu(strided / gain_C11)
    assert torch.allclose(dense_stem(x_NCHW, stem)[:, :, ::2, ::2], expected, atol=1e-5)


def test_the_local_mean_of_a_flat_picture_is_itself() -> None:
    """At the border, too: the residual of what is flat is nothing."""
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert torch.allclose(local_mean(flat), flat)
    dot = torch.zeros(1, 1, 5, 5)
    dot[0, 0, 2, 2] = 9.0
    assert torch.allclose(local_mean(dot)[0, 0, 1:4, 1:4], torch.ones(3, 3))


def test_a_window_has_the_noise_of_the_whole() -> None:
    """Computing a window with its halo gives what cutting the whole would."""
    detector = Detector(CONFIG).eval()
    windows = Windows(((8, 16), (24, 8)), 32)
    with torch.no_grad():
        part = detector(images(), windows, gated=False).eps_BCHW
        whole = cut(detector.predict_noise(images()), windows)
    assert torch.allclose(part, whole, atol=1e-5)


@pytest.mark.parametrize("channels", [4, 16])
def test_a_latent_target_has_its_channels_and_stride(channels: int) -> None:
    """Whole crops and windows alike; a window computed by itself is the cut of the whole."""
    detector = Detector(CONFIG, TargetShape(channels, 8)).eval()
    assert detector.predict_noise(images()).shape == (2, channels, 8, 8)
    windows = Windows(((8, 16), (16, 8)), 32)
    with torch.no_grad():
        part = detector(images(), windows, gated=False).eps_BCHW
        gated = detector(images(), windows, gated=True)
        whole = cut(detector.predict_noise(images()), windows, 8)
    assert part.shape == (2, channels, 4, 4)
    assert torch.allclose(part, whole, atol=1e-5)
    assert torch.allclose(gated.eps_BCHW, whole, atol=1e-5)
    assert gated.attention_BHW.shape == (2, 2, 2)


def test_a_strided_head_looks_at_every_pixel() -> None:
    """No pixel's gradient is nothing: the last layer strides, none before it."""
    detector = Detector(CONFIG, TargetShape(4, 8))
    x_NCHW = torch.rand(1, 3, 64, 64, requires_grad=True)
    shallow = torch.zeros(1, detector.backbone.feature_info.channels()[0], 32, 32)
    detector.head(x_NCHW, shallow, detector.backbone.conv_stem).square().sum().backward()
    assert x_NCHW.grad is not None
    assert (x_NCHW.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("target", [TargetShape(), TargetShape(16, 8), TargetShape(4, 4)])
def test_weights_say_which_target_they_were_trained_for(target: TargetShape) -> None:
    """A detector restored from its weights alone is the same."""
    trained = Detector(CONFIG, target).eval()
    again = Detector.restored(CONFIG, trained.state_dict())
    assert again.target == target
    assert torch.equal(again.predict_noise(images()), trained.predict_noise(images()))


def test_a_stride_that_fits_no_window_is_refused() -> None:
    """Windows lie on a grid of 8 px: an autoencoder that shrinks by 16 has no place in it."""
    with pytest.raises(DetectorError, match=r"every 16 px, .* choose a teacher"):
        TargetShape(32, 16)


def test_only_crops_with_targets_get_noise() -> None:
    """The first two of four have windows; the logits are of all four."""
    output = Detector(CONFIG)(images(4), Windows(((8, 8), (8, 8)), 32), gated=False)
    assert output.eps_BCHW.shape == (2, 3, 32, 32)
    assert output.logit_N.shape == (4,)
    assert output.attention_BHW is None


def test_the_gate_changes_the_logit_and_has_a_gradient() -> None:
    """Gated and plain logits differ; the gate's own weights learn."""
    detector = Detector(CONFIG)
    output = detector(images(4), Windows(((8, 8),), 32), gated=True)
    assert output.attention_BHW.shape == (4, 2, 2)
    assert not torch.allclose(output.logit_N, detector.classify(images(4)))
    output.logit_N.sum().backward()
    assert detector.gate.scale.weight.grad is not None


def test_even_attention_doubles_the_features() -> None:
    """F * (1 + A / mean A): the same noise everywhere weighs every place alike."""
    feature = torch.rand(1, 5, 4, 4)
    weighed, _ = Gate()(feature, torch.ones(1, 3, 16, 16))
    assert torch.allclose(weighed, feature * 2, atol=1e-5)


def test_noisy_places_weigh_more() -> None:
    """With a positive scale, the corner that has noise is raised above the others."""
    gate = Gate()
    nn.init.constant_(gate.scale.weight, 3.0)
    eps = torch.zeros(1, 3, 16, 16)
    eps[:, :, :4, :4] = 2.0
    weighed, energy = gate(torch.ones(1, 1, 4, 4), eps)
    assert weighed[0, 0, 0, 0] > weighed[0, 0, 3, 3]
    assert energy[0, 0, 0] == pytest.approx(2.0)


def test_pooling_is_the_mean_of_equal_cells() -> None:
    """8 x 8 to 2 x 2: each cell is the mean of its 4 x 4."""
    energy = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert pooled(energy, (2, 2))[0, 0, 0, 0] == energy[0, 0, :4, :4].mean()


def test_normalisation_is_of_raw_bytes() -> None:
    """0 and 255 become (0 - mean) / std and (1 - mean) / std, channels first."""
    detector = Detector(CONFIG)
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    image[0, 0, 5, 1] = 255
    x_NCHW = detector.normalise(image)
    assert x_NCHW.shape == (1, 3, 32, 32)
    assert x_NCHW[0, 1, 0, 5] == 1
    assert x_NCHW[0, 0, 0, 5] == -1


def test_weights_are_loaded_by_name_or_by_order(tmp_path: Path) -> None:
    """The state of the whole model fits, under its own names or others in the same order."""
    torch.manual_seed(5)
    whole = timm.create_model(CONFIG.backbone, pretrained=False).state_dict()
    for number, renamed in enumerate((whole, {f"_{key}": one for key, one in whole.items()})):
        path = tmp_path / f"{number}.pth"
        torch.save(dict(renamed), path)
        backbone = Detector(CONFIG).backbone
        load_backbone(backbone, CONFIG.model_copy(update={"weights": str(path)}))
        assert torch.equal(backbone.conv_stem.weight, whole["conv_stem.weight"])


@pytest.mark.parametrize("weights", ["absent.pth", "package:no_such_package/x.pth"])
def test_absent_weights_are_named(weights: str) -> None:
    """A file or package that is not there is an error, never a random backbone."""
    with pytest.raises(
        DetectorError, match=weights.split("/", maxsplit=1)[0].removeprefix("package:")
    ):
        Detector(CONFIG.model_copy(update={"weights": weights}))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """Shapes that do not fit are an error."""
    torch.save({"a": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(DetectorError, match="does not fit"):
        Detector(CONFIG.model_copy(update={"weights": str(tmp_path / "x.pth")}))
