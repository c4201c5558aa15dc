"""torchvision's weights in our networks: the same features, or clear words why not."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import densenet169, resnet34
from torchvision.models.vgg import cfgs, make_layers

from imaging_core.classifiers import build_classifier
from imaging_core.fields import ConfigError
from imaging_core.pretrained import imagenet_file, load_pretrained
from imaging_core.seeding import torch_generator
from imaging_core.stamps import stamped_file

SIZE = 96  # above 64 px the stem is ImageNet's


def ours(name: str, *, channels: int = 3, classes: int = 2, size: int = SIZE):
    generator = torch_generator(0, "pretrained")
    return build_classifier(
        name, channels=channels, classes=classes, size=size, generator=generator
    ).eval()


def resnet_features(net, x):
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return net.layer4(net.layer3(net.layer2(net.layer1(x)))).mean((2, 3))


def densenet_features(net, x):
    return torch.relu(net.features(x)).mean((2, 3))


NETWORKS = {
    "resnet34": (resnet34, resnet_features),
    "densenet169": (densenet169, densenet_features),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Networks of torchvision with random weights, and the files of their state dicts."""
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for name, (make, _) in NETWORKS.items():
        torch.manual_seed(0)
        found[name] = make(weights=None).eval(), folder / f"{name}.pth"
        torch.save(found[name][0].state_dict(), found[name][1])
    return found


@pytest.mark.long
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_features_are_torchvisions_own(name, channels, files):
    theirs, path = files[name]
    x = torch.randn(2, channels, SIZE, SIZE, generator=torch_generator(1, "x"))
    expected = NETWORKS[name][1](theirs, x.expand(2, 3, SIZE, SIZE))
    model = ours(name, channels=channels)
    before = model.features(x)
    loaded = load_pretrained(model, name, path)
    found = model.features(x)
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-5 * scale
    assert float((before - expected).abs().max()) > 1e-2 * scale
    assert loaded.new == ("head",)
    assert len(loaded.adapted) == (channels == 1)
    assert ("summed over RGB" in str(loaded)) == (channels == 1)


@torch.no_grad()
def test_the_same_classes_keep_the_head(files):
    theirs, path = files["resnet34"]
    model = ours("resnet34", classes=1000)
    assert load_pretrained(model, "resnet34", path).new == ()
    x = torch.randn(1, 3, SIZE, SIZE, generator=torch_generator(1, "x"))
    expected = theirs(x)
    assert float((model(x) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_a_small_images_stem_stays_new_and_is_named(files):
    loaded = load_pretrained(ours("resnet34", size=32), "resnet34", files["resnet34"][1])
    assert loaded.new == ("head", "trunk.0")


def test_old_densenet_names_are_read(files, tmp_path):
    state = files["densenet169"][0].state_dict()
    old = {k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for k, v in state.items()}
    assert old.keys() != state.keys()
    path = tmp_path / "old.pth"
    torch.save({k: v for k, v in old.items() if "num_batches" not in k}, path)
    assert load_pretrained(ours("densenet169"), "densenet169", path).new == ("head",)


@pytest.mark.long
def test_vgg_fills_the_policys_encoder(tmp_path):
    from apga_core.networks import POLICIES

    torch.manual_seed(0)
    layers, path = make_layers(cfgs["A"]), tmp_path / "vgg11.pth"
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    torch.save({**state, "classifier.0.bias": torch.zeros(4096)}, path)
    network = POLICIES["unet-vgg11"](1)
    loaded = load_pretrained(network, "unet-vgg11", path, field="policy_weights_path")
    assert torch.equal(network.encoder.features[0].weight, layers[0].weight.sum(1, keepdim=True))
    assert torch.equal(network.encoder.features[3].weight, layers[3].weight)
    assert loaded.new == ("decoder", "segmentation_head")


def test_another_networks_weights_are_refused_by_name(files, tmp_path):
    with pytest.raises(ConfigError, match=r"does not fit densenet169: it lacks head\.bias"):
        load_pretrained(ours("densenet169"), "densenet169", files["resnet34"][1])
    state = files["resnet34"][0].state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(2, 2, 3, 3)
    path = tmp_path / "odd.pth"
    torch.save(state, path)
    with pytest.raises(ConfigError, match=r"trunk\.4\.0\.conv1\.weight is \(2, 2, 3, 3\) instead"):
        load_pretrained(ours("resnet34"), "resnet34", path)


def test_imagenet_comes_from_torchs_cache_and_is_missed_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(ConfigError, match=r"put torchvision's file densenet169-\w+\.pth there"):
        imagenet_file("densenet169")
    with pytest.raises(ConfigError, match="exist for resnet34, densenet169, unet-vgg11"):
        imagenet_file("tiny-resnet")
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "densenet169-b2777c0a.pth"
    place.write_bytes(b"here")
    assert imagenet_file("densenet169") == place


def test_a_file_is_its_content(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    first = stamped_file(str(path))
    assert first.startswith(f"{path}#")
    assert stamped_file(first) == first
    path.write_bytes(b"two!")
    assert stamped_file(str(path)) != first
    with pytest.raises(ValueError, match="holds a file other than when the study was planned"):
        stamped_file(first)
    with pytest.raises(ValueError, match="must name a file"):
        stamped_file(str(tmp_path / "nowhere.pt"))
    assert stamped_file("") == ""


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_our_own_weights_from_a_file(tmp_path, suffix):
    source, path = ours("tiny-resnet", size=32), tmp_path / f"w{suffix}"
    torch.nn.init.ones_(source.head.weight)
    (torch.save if suffix == ".pt" else save_file)(source.state_dict(), path)
    target = ours("tiny-resnet", size=32)
    loaded = load_pretrained(target, "tiny-resnet", path)
    assert torch.equal(target.head.weight, source.head.weight)
    assert (loaded.adapted, loaded.new) == ((), ())


class Trap:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_what_is_no_state_dict_is_refused_and_never_run(tmp_path, capsys):
    path, target = tmp_path / "w.pt", ours("small-resnet", size=32)
    torch.save(ours("tiny-resnet", size=32).state_dict(), path)
    with pytest.raises(ConfigError, match=r"does not fit small-resnet: .* is \(8, "):
        load_pretrained(target, "small-resnet", path)
    torch.save({"a": 1}, path)
    with pytest.raises(ConfigError, match="must hold a state dict"):
        load_pretrained(target, "small-resnet", path)
    path.write_bytes(b"no weights at all")
    with pytest.raises(ConfigError, match="must be a torch file"):
        load_pretrained(target, "small-resnet", path)
    with pytest.raises(ConfigError, match="weights_path must be a file"):
        load_pretrained(target, "small-resnet", tmp_path / "absent.pt")
    torch.save({"a": Trap()}, path)
    with pytest.raises(ConfigError, match="tensors only"):
        load_pretrained(target, "small-resnet", path)
    assert "must not run" not in capsys.readouterr().out
