"""Weights as people save them: every way of tests/saved_teachers.py, on a net that is quick to save."""

import zipfile
from pathlib import Path

import pytest
import torch

from bantam.errors import BadCheckpoint
from bantam.nets.weights import file_and_name, load_weights
from saved_teachers import WAYS, other, under, weights
from saved_teachers import Small as Net


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    net = Net().train()
    with torch.no_grad():
        net(torch.randn(4, 3, 8, 8))  # so that the statistics are of their own
    return net.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WAYS)
def test_every_way_of_saving_loads_exactly_or_is_refused_in_one_line(
    name: str, net: Net, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    way, path, fresh, said = WAYS[name], tmp_path / "teacher.ckpt", Net().eval(), list[str]()
    before = weights(fresh)
    way.save(net, path)
    capfd.readouterr()
    asked = path.with_name(f"{path.name}#{way.name}") if way.name else path
    if way.loads:
        load_weights(fresh, asked, said.append)
        images = torch.randn(2, 3, 8, 8)
        exact = {"half precision": 2e-3, "bfloat16": 2e-2}.get(name, 0.0)
        with torch.no_grad():
            torch.testing.assert_close(fresh(images), net(images), atol=exact, rtol=exact)
    else:
        with pytest.raises(BadCheckpoint) as refused:
            load_weights(fresh, asked, said.append)
        assert not said
        said = [str(refused.value)]
        assert str(path) in said[0]
        assert all(torch.equal(value, before[key]) for key, value in fresh.state_dict().items())
    if not way.says:
        assert said == []
    else:
        assert len(said) == 1
        assert way.says in said[0]
        assert "\n" not in said[0]
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_sets_of_weights_the_named_one_is_taken(net: Net, tmp_path: Path):
    path, fresh = tmp_path / "t.ckpt", Net()
    torch.save({"state_dict": weights(net), "state_dict_ema": under("module.", other(net))}, path)
    for name, wanted in (("state_dict", weights(net)), ("state_dict_ema", other(net))):
        load_weights(fresh, tmp_path / f"t.ckpt#{name}")
        assert all(torch.equal(value, wanted[key]) for key, value in fresh.state_dict().items())
    torch.save({"a": under("teacher.", other(net)) | under("student.", weights(net)), "b": weights(net)}, path)
    for name in ("a.student", "b"):
        load_weights(fresh, tmp_path / f"t.ckpt#{name}")
        assert torch.equal(fresh.fc.weight, net.fc.weight)
    with pytest.raises(BadCheckpoint, match=r"a\.teacher, a\.student; name one: t\.ckpt#a\.student"):
        load_weights(fresh, tmp_path / "t.ckpt#a")
    torch.save({**weights(net), "ema": other(net)}, path)
    with pytest.raises(BadCheckpoint, match="the outermost"):
        load_weights(fresh, path)
    load_weights(fresh, tmp_path / "t.ckpt#")
    assert torch.equal(fresh.fc.weight, net.fc.weight)


def test_a_file_with_a_sharp_in_its_name_is_itself(net: Net, tmp_path: Path):
    path = tmp_path / "run#3.ckpt"
    assert file_and_name(path) == (tmp_path / "run", "3.ckpt")
    torch.save(weights(net), path)
    assert file_and_name(path) == (path, None)
    load_weights(Net(), path)


def test_a_deeper_net_of_the_same_names_is_another(net: Net, tmp_path: Path):
    """A ResNet-34 has every tensor of a ResNet-18, in the same shapes."""
    deeper = weights(net) | {name.replace("1.0.", "1.1."): value for name, value in weights(net).items()}
    for state in (deeper, under("model.", deeper), {"state_dict": under("module.", deeper)}):
        torch.save(state, tmp_path / "t.ckpt")
        with pytest.raises(BadCheckpoint, match=r"unknown layer1\.1\.0\.weight and 6 more"):
            load_weights(Net(), tmp_path / "t.ckpt")


def test_two_classifiers_outside_of_the_backbone_are_not_chosen_from(net: Net, tmp_path: Path):
    state = under("backbone.", {k: v for k, v in weights(net).items() if not k.startswith("fc.")})
    head = {"weight": net.fc.weight, "bias": net.fc.bias}
    torch.save(
        {**state, **{f"{name}.{key}": value for name in ("a", "b") for key, value in head.items()}}, tmp_path / "t"
    )
    with pytest.raises(BadCheckpoint, match=r"lacks fc\.weight"):
        load_weights(Net(), tmp_path / "t")


def test_a_mapping_that_holds_itself_ends(net: Net, tmp_path: Path):
    around: dict[str, object] = {"model": weights(net)}
    around["self"] = around
    torch.save(around, tmp_path / "t.ckpt")
    fresh = Net()
    load_weights(fresh, tmp_path / "t.ckpt")
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_what_holds_no_weights_is_refused_in_one_line(tmp_path: Path, net: Net):
    path, good = tmp_path / "other.ckpt", tmp_path / "good.ckpt"
    torch.save(net.state_dict(), good)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", b"0")
    writers = {
        "a tensor": lambda: torch.save(torch.zeros(3), path),
        "a list": lambda: torch.save([torch.zeros(3)], path),
        "nothing in a key": lambda: torch.save({"state_dict": {}}, path),
        "text": lambda: path.write_text("these are not weights"),
        "no bytes": lambda: path.write_bytes(b""),
        "truncated": lambda: path.write_bytes(good.read_bytes()[:3_000]),
        "as safetensors begin": lambda: path.write_bytes((20).to_bytes(8, "little") + b'{"a": 1}'),
        "an archive of other things": lambda: path.write_bytes((tmp_path / "photos.zip").read_bytes()),
    }
    for what, write in writers.items():
        write()
        with pytest.raises(BadCheckpoint) as caught:
            load_weights(Net(), path)
        assert str(path) in str(caught.value), what
        assert "\n" not in str(caught.value), what
