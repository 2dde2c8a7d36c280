"""Teachers: classifiers of torchvision and timm, always from scratch, with the face that students have."""

import difflib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.errors import BadCheckpoint, BadRecipe
from bantam.nets.output import Output
from bantam.nets.weights import Say, Unfit, classifier_of, fits, is_of, load_weights, quiet

Channels = tuple[float, float, float]
"""One number per colour, red, green, blue, on the scale where pixels lie in 0..1."""


def _torchvision(name: str) -> Callable[[int], nn.Module]:
    """Return the builder of a torchvision classifier."""

    def build(classes: int) -> nn.Module:
        import torchvision  # Brings torch's compiler with it: seconds, which students do without.

        # These two have a second classifier, which in train mode would make them return a pair.
        single = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, weights=None, num_classes=classes, **single)

    return build


def _timm(name: str) -> Callable[[int], nn.Module]:
    """Return the builder of a timm classifier."""

    def build(classes: int) -> nn.Module:
        import timm  # Slow to import, and most runs need none of it.

        return timm.create_model(name, pretrained=False, num_classes=classes)

    return build


TEACHERS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": _torchvision("resnet18"),  # He et al., 2015, arXiv:1512.03385
    "resnet34": _torchvision("resnet34"),
    "resnet50": _torchvision("resnet50"),
    "densenet121": _torchvision("densenet121"),  # Huang et al., 2016, arXiv:1608.06993
    "regnet_y_800mf": _torchvision("regnet_y_800mf"),  # Radosavovic et al., 2020, arXiv:2003.13678
    "efficientnet_b0": _torchvision("efficientnet_b0"),  # Tan and Le, 2019, arXiv:1905.11946
    "resnet26d": _timm("resnet26d"),  # He et al., Bag of Tricks, 2018, arXiv:1812.01187
    "resnet50d": _timm("resnet50d"),
}
"""Teachers that train well from scratch; `build_teacher` also takes every other torchvision or timm name."""

USUAL = (
    *("resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d", "densenet169", "densenet201"),
    *(
        "vgg11",
        "vgg11_bn",
        "vgg13_bn",
        "vgg16",
        "vgg16_bn",
        "vgg19",
        "vgg19_bn",
        "alexnet",
        "googlenet",
        "inception_v3",
    ),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "shufflenet_v2_x1_0", "squeezenet1_1", "mnasnet1_0"),
    *("efficientnet_b1", "efficientnet_b2", "efficientnet_v2_s", "convnext_tiny", "vit_b_16", "swin_t"),
)
"""Others that people have weights of; with TEACHERS, what is looked through to say whose weights a file holds."""


def build_teacher(name: str, classes: int) -> nn.Module:
    """Build a classifier of `classes` logits from scratch: one of TEACHERS, of torchvision or of timm.

    Raises BadRecipe, with the nearest names, if none of the three has `name`.
    """
    if name in TEACHERS:
        return TEACHERS[name](classes)
    import torchvision

    others = torchvision.models.list_models(module=torchvision.models)
    if name in others:
        return _torchvision(name)(classes)
    import timm

    # Only names from the list: timm would take a name with a scheme, such as hf-hub:, as an address.
    others += timm.list_models()
    if name in others:
        return _timm(name)(classes)
    nearest = difflib.get_close_matches(name, dict.fromkeys([*TEACHERS, *others]), n=3, cutoff=0.0)
    raise BadRecipe(f"no teacher {name!r} in torchvision or timm: the nearest names are {', '.join(nearest)}")


class Teacher(nn.Module):
    """Any classifier, behind the face that students have: it looks at the student's view and answers.

    The student's view is resized to `size` x `size` pixels (bilinear, align_corners=False, no antialiasing)
    and its normalisation, `view_mean` and `view_std`, changed into the classifier's own, `mean` and `std`.

    The classifier is frozen for good: its parameters lose requires_grad, it is always in eval mode, and its
    answers carry no gradient. `observe` gives the input of its last linear layer as the embedding, or where
    there is none the mean of its last map, and as features one map per stage; a transformer has few or none.
    With `autocast`, a type of torch's such as bfloat16, its layers compute in that; what it gives is float32.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        net: nn.Module,
        size: int,
        mean: Channels,
        std: Channels,
        view_mean: Channels,
        view_std: Channels,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.net = net.requires_grad_(False)
        self.size = size
        self.autocast = autocast
        # (x * view_std + view_mean - mean) / std, as one multiplication and one addition.
        mean_, std_, view_mean_, view_std_ = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std, view_mean, view_std)
        )
        self.register_buffer("scale", view_std_ / std_, persistent=False)
        self.register_buffer("shift", (view_mean_ - mean_) / std_, persistent=False)
        self.renormalises = (mean, std) != (view_mean, view_std)
        self._maps: list[Tensor] = []
        self._embedding: Tensor | None = None
        stages, self._merges = _stages(net)
        for stage in stages:
            stage.register_forward_hook(self._keep_map)
        if classifier := classifier_of(net):
            net.get_submodule(classifier).register_forward_pre_hook(self._keep_embedding)
        self.eval()

    def extra_repr(self) -> str:
        """What the answers depend on besides the weights; they are cached under a hash of this."""
        return "" if self.autocast is None else f"autocast={self.autocast}"

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode, whatever `mode` the surrounding module is put into."""
        return super().train(False)

    @torch.no_grad()
    def observe(self, images: Tensor) -> Output:
        """Answer to the student's normalised view [N, 3, H, W], without gradients."""
        if self.renormalises:
            images = images * self.scale + self.shift
        if images.shape[-2:] != (self.size, self.size):
            images = functional.interpolate(  # [N, 3, H, W] -> [N, 3, size, size]
                images, (self.size, self.size), mode="bilinear", align_corners=False, antialias=False
            )
        self._maps, self._embedding = [], None
        with self.casting(images.device.type):
            logits = self.net(images)
        maps, embedding = self._maps, self._embedding
        self._maps, self._embedding = [], None
        if self._merges:
            maps = _last_of_each_size(maps)
        if embedding is None:
            embedding = maps[-1].mean((2, 3)) if maps else logits
        if self.autocast is not None:
            logits, embedding, maps = logits.float(), embedding.float(), [one.float() for one in maps]
        return Output(logits, embedding, tuple(maps))

    def casting(self, device: str) -> AbstractContextManager[object]:
        """Within it the layers compute in `autocast` on that kind of device."""
        return nullcontext() if self.autocast is None else torch.autocast(device, self.autocast)

    def forward(self, images: Tensor) -> Tensor:
        """Map the student's normalised view [N, 3, H, W] to logits [N, K], without gradients."""
        return self.observe(images).logits

    def _keep_map(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            # Swin and its like keep channels last; the input is square, so height and width are equal.
            channels_last = output.shape[1] == output.shape[2] != output.shape[3]
            self._maps.append(output.permute(0, 3, 1, 2) if channels_last else output)

    def _keep_embedding(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._embedding = inputs[0].flatten(1)  # [N, D]


Mean = Literal["probabilities", "logits"]


def mean_answer(logits: Tensor, mean: Mean) -> Tensor:
    """One answer [N, K] of several, logits [E, N, K].

    The mean of "probabilities", at T = 1, given as its logarithm, keeps what a single teacher is unsure of; the mean of
    "logits" is the normalised geometric mean of the probabilities, which is sharper where teachers agree.
    """
    if mean == "logits":
        return logits.float().mean(0)
    return logits.float().log_softmax(2).logsumexp(0) - math.log(len(logits))


class Ensemble(nn.Module):
    """Several teachers that answer as one: the `mean` of their probabilities or of their logits.

    The embedding is all of theirs side by side, [N, D1 + D2 + ...]; there are no common feature maps.
    """

    def __init__(self, teachers: Sequence[Teacher], mean: Mean = "probabilities") -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        self.mean: Mean = mean
        self.size = max(teacher.size for teacher in teachers)

    def extra_repr(self) -> str:
        """What the answers depend on besides the weights; they are cached under a hash of this."""
        sizes = [teacher.size for teacher in self.teachers]  # pyright: ignore
        return f"mean={self.mean}, sizes={sizes}"

    def train(self, mode: bool = True) -> "Ensemble":
        """Stay in eval mode, whatever `mode` the surrounding module is put into."""
        return super().train(False)

    @torch.no_grad()
    def observe(self, images: Tensor) -> Output:
        """Answer to the student's normalised view [N, 3, H, W], without gradients."""
        outputs: list[Output] = [teacher.observe(images) for teacher in self.teachers]  # pyright: ignore
        logits = torch.stack([output.logits for output in outputs])  # [E, N, K]
        embedding = torch.cat([output.embedding for output in outputs], dim=1)
        return Output(mean_answer(logits, self.mean), embedding, ())

    def forward(self, images: Tensor) -> Tensor:
        """Map the student's normalised view [N, 3, H, W] to logits [N, K], without gradients."""
        return self.observe(images).logits


class Mirrored(nn.Module):
    """A teacher that looks at a view and at its mirror image: the mean of both answers.

    The maps of the mirror image are turned back before they are averaged.
    """

    def __init__(self, teacher: Teacher | Ensemble, mean: Mean = "probabilities") -> None:
        super().__init__()
        self.teacher = teacher
        self.mean: Mean = mean
        self.size = teacher.size

    def extra_repr(self) -> str:
        """What the answers depend on besides the weights; they are cached under a hash of this."""
        return f"mean={self.mean}"

    def train(self, mode: bool = True) -> "Mirrored":
        """Stay in eval mode, whatever `mode` the surrounding module is put into."""
        return super().train(False)

    @torch.no_grad()
    def observe(self, images: Tensor) -> Output:
        """Answer to the student's normalised view [N, 3, H, W], without gradients."""
        seen, mirrored = self.teacher.observe(images), self.teacher.observe(images.flip(3))
        logits = mean_answer(torch.stack([seen.logits, mirrored.logits]), self.mean)
        maps = [(one + other.flip(3)) / 2 for one, other in zip(seen.features, mirrored.features, strict=True)]
        return Output(logits, (seen.embedding + mirrored.embedding) / 2, tuple(maps))

    def forward(self, images: Tensor) -> Tensor:
        """Map the student's normalised view [N, 3, H, W] to logits [N, K], without gradients."""
        return self.observe(images).logits


AnyTeacher = Teacher | Ensemble | Mirrored


def joint(teachers: Sequence[Teacher], mean: Mean, flip: bool) -> AnyTeacher:
    """One or several teachers as one, which with `flip` also looks at the mirror image."""
    one = teachers[0] if len(teachers) == 1 else Ensemble(teachers, mean)
    return Mirrored(one, mean) if flip else one


def load_teacher(path: Path, architecture: str, classes: int, say: Say = quiet) -> nn.Module:
    """Build `architecture` and load the weights in `path`, FILE or FILE#NAME, into it; returns it in eval mode.

    `say` is told in one line what had to be unwrapped. Raises BadRecipe for an unknown architecture, and BadCheckpoint
    if the file holds no weights, would run code when read, is damaged, or belongs to another number of classes or to
    another architecture, which is named where it is a usual one.
    """
    net = build_teacher(architecture, classes)
    try:
        load_weights(net, path, say)
    except Unfit as error:
        other = architecture_of(error.held)
        if other is None:
            raise
        raise BadCheckpoint(f'{error}; they fit "{other}"') from error
    return net.eval()


def recognised(path: Path, classes: int, say: Say = quiet) -> tuple[str, nn.Module]:
    """The first of TEACHERS and USUAL whose weights the file `path` holds, and that net with them, in eval mode.

    Raises BadCheckpoint as `load_teacher` does.
    """
    usual = next(iter(TEACHERS))
    net = build_teacher(usual, classes)
    try:
        load_weights(net, path, say)
        return usual, net.eval()
    except Unfit as error:
        name = architecture_of(error.held)
        if name is None or name == usual:
            raise
    return name, load_teacher(path, name, classes, say)


def architecture_of(held: Any) -> str | None:
    """The first of TEACHERS and USUAL whose names and shapes are those of weights in `held`, for any classes."""
    for name in (*TEACHERS, *USUAL):
        try:
            with torch.device("meta"):
                net = build_teacher(name, 2)
        except NotImplementedError:  # a few read values while they are built, which have none there
            net = build_teacher(name, 2)
        expected, classifier = net.state_dict(), classifier_of(net)
        fitting = (fit.unlike(expected) for fit in fits(held, expected, classifier))
        if any(all(is_of(other, classifier) for other in unlike) for unlike in fitting):
            return name
    return None


def _stages(net: nn.Module) -> tuple[list[nn.Module], bool]:
    """Return the modules whose outputs are the stages, and whether several of them may make up one stage."""
    children = dict(net.named_children())
    resnet = ["layer1", "layer2", "layer3", "layer4"]
    if all(name in children for name in resnet):
        return [children[name] for name in resnet], False
    modules = dict(net.named_modules())
    described = [info["module"] for info in getattr(net, "feature_info", [])]  # timm's own list of stages
    if described and all(name in modules for name in described):
        return [modules[name] for name in described], False
    layers: list[nn.Module] = []
    for child in children.values():
        layers += child.children() if isinstance(child, nn.Sequential | nn.ModuleList) else [child]
    return layers, True


def _last_of_each_size(maps: list[Tensor]) -> list[Tensor]:
    """Keep the last of the maps at each resolution, in order, which is where a stage ends."""
    maps = [here for here in maps if here.shape[-2:] != (1, 1)]  # one pixel: the pooled embedding, not a map
    return [
        here
        for here, after in zip(maps, [*maps[1:], None], strict=True)
        if after is None or after.shape[-2:] != here.shape[-2:]
    ]
