import pytest
import torch

from imaging_core.augment import AUGMENTATIONS
from imaging_core.seeding import torch_generator


def symmetries(image, kinds):
    out = [image]
    if "lr" in kinds:
        out += [x.flip(2) for x in out]
    if "ud" in kinds:
        out += [x.flip(1) for x in out]
    if "transpose" in kinds:
        out += [x.transpose(1, 2) for x in out]
    return out


@pytest.mark.parametrize(
    ("name", "kinds", "count"),
    [("flips", ("lr", "ud"), 4), ("flips-transposes", ("lr", "ud", "transpose"), 8)],
)
def test_each_image_gets_its_own_symmetry(name, kinds, count):
    image = torch.arange(9.0).view(1, 3, 3)
    batch = image.repeat(400, 1, 1, 1)
    out = AUGMENTATIONS[name](batch, torch_generator(0, "augment"))
    wanted = {tuple(x.flatten().tolist()) for x in symmetries(image, kinds)}
    tally = {}
    for row in out:
        key = tuple(row.flatten().tolist())
        tally[key] = tally.get(key, 0) + 1
    assert set(tally) == wanted
    assert len(wanted) == count
    # binomial, 5 standard deviations
    share, spread = 400 / count, (400 / count * (1 - 1 / count)) ** 0.5
    assert all(abs(n - share) < 5 * spread for n in tally.values())


def test_none_changes_nothing():
    x = torch.rand(4, 1, 3, 3, generator=torch_generator(0, "x"))
    generator = torch_generator(0, "augment")
    state = generator.get_state()
    assert AUGMENTATIONS["none"](x, generator) is x
    assert torch.equal(generator.get_state(), state)


def test_transposing_needs_a_square():
    with pytest.raises(ValueError, match=r'needs square images, got \(2, 3\); use "flips"'):
        AUGMENTATIONS["flips-transposes"](torch.zeros(1, 1, 2, 3), torch_generator(0, "a"))


def test_traditional_jitters_each_image_within_its_bounds():
    image = torch.rand(3, 6, 6, generator=torch_generator(0, "x"))
    out = AUGMENTATIONS["traditional"](image.repeat(300, 1, 1, 1), torch_generator(0, "augment"))
    # undo: contrast is the ratio of the spreads within a channel, the shift what is left
    contrast = out.std(dim=(2, 3)) / image.std(dim=(1, 2))
    assert torch.allclose(contrast, contrast[:, :1].expand(-1, 3), atol=1e-5)
    assert 0.8 <= float(contrast.min()) < 0.82
    assert 1.18 < float(contrast.max()) <= 1.2
    moved = out.mean(dim=(2, 3)) - (
        (image.mean(dim=(1, 2)) - image.mean()) * contrast + image.mean()
    )
    assert -0.2001 <= float(moved.min()) < -0.18
    assert 0.18 < float(moved.max()) <= 0.2001
    assert len(torch.unique(moved[:, 0])) > 290
    undone = (out - out.mean(dim=(2, 3), keepdim=True)) / contrast[..., None, None]
    centred = image - image.mean(dim=(1, 2), keepdim=True)
    mirrored = (undone - centred.flip(2)).abs().amax(dim=(1, 2, 3)) < 1e-4
    plain = (undone - centred).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert bool((mirrored ^ plain).all())
    assert 100 < int(mirrored.sum()) < 200
