"""A student as one graph that needs nothing of Bantam: photographs' pixels in, logits out.

The input is float32 RGB [N, 3, size, size] in 0..1, with any N; mean and standard deviation are part of the graph. They
cannot be folded into the first convolution: its zero padding stands for the mean colour, not for black.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from bantam.nets.traced import traced_model

INPUT, OUTPUT = "images", "logits"

OPSET = 21
"""The first ONNX operator set with 4-bit tensors; ONNX Runtime reads it from version 1.20 on, on the web as well."""


class Portable(nn.Module):
    """`net` behind its normalisation: RGB [N, 3, size, size] in 0..1 to logits [N, K].

    `mean` and `std` are three numbers each on the scale where white is 1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        deviation = torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", (1 / deviation).float()[:, None, None])  # [3, 1, 1]
        self.register_buffer("shift", (-torch.tensor(mean, dtype=torch.float64) / deviation).float()[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images * self.scale + self.shift)


def metadata(
    classes: Sequence[str], size: int, mean: Sequence[float], std: Sequence[float], about: dict[str, Any]
) -> dict[str, str]:
    """What travels inside an exported file, as texts: "classes" and "preprocessing" as JSON, and the items of `about`.

    "preprocessing" is what whoever calls the graph has to do; mean and std are told, but already done by the graph.
    """
    preprocessing = {
        "input": INPUT,
        "dtype": "float32",
        "layout": "NCHW",
        "colour": "RGB",
        "range": [0.0, 1.0],
        "size": [size, size],
        "resize": "shorter side to size (bicubic, antialiased), centre crop",
        "normalisation": {"inside_the_graph": True, "mean": list(mean), "std": list(std)},
        "output": f"{OUTPUT}: before the softmax, one for each class in the order of classes",
    }
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    return {"classes": json.dumps(list(classes)), "preprocessing": json.dumps(preprocessing), **texts}


def onnx_model(portable: Portable, size: int, about: dict[str, str]) -> onnx.ModelProto:
    """The graph of `portable` as ONNX with a dynamic batch; `about` becomes the model's metadata_props.

    The initializers that are weights keep the names of the state_dict, which start with "net.".
    """
    example = torch.zeros(2, 3, size, size)
    weights = [name for name in floats(portable) if name.startswith("net.")]
    with quiet():
        model = traced_model(portable.eval(), example, (INPUT, OUTPUT), weights, OPSET)
        model = model or exported_model(portable, example)
    without_traces(model)
    describe(model, about)
    onnx.checker.check_model(model, full_check=True)
    return model


def exported_model(portable: Portable, example: Tensor) -> onnx.ModelProto:
    """The graph by torch's newer exporter, which follows sizes through the net: any net, in some ten seconds."""
    program = torch.onnx.export(
        portable,
        (example,),
        dynamo=True,
        dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def floats(portable: Portable) -> dict[str, Tensor]:
    """The weights of `portable`, and its statistics, by name."""
    return {name: value for name, value in portable.state_dict().items() if value.is_floating_point()}


def with_weights(model: onnx.ModelProto, portable: Portable, about: dict[str, str]) -> onnx.ModelProto:
    """The graph of `portable`, whose architecture is that of the exported `model`; much faster than another export.

    Where the exporter has melted weights together, so that their names are not in the graph, it is another export.
    """
    state = floats(portable)
    places = {item.name: item for item in model.graph.initializer}
    needed = {name for name in state if name.startswith("net.")}
    if not needed <= places.keys():
        return onnx_model(portable, size_of(model), about)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for item in copied.graph.initializer:
        if item.name in needed:
            item.CopyFrom(onnx.numpy_helper.from_array(state[item.name].detach().contiguous().numpy(), item.name))
    describe(copied, about)
    return copied


def size_of(model: onnx.ModelProto) -> int:
    """The side of the input in pixels."""
    return model.graph.input[0].type.tensor_type.shape.dim[2].dim_value


def describe(model: onnx.ModelProto, about: dict[str, str]) -> None:
    """Make `about` the metadata of `model`."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, about)
    model.producer_name, model.producer_version = "bantam", ""


def without_traces(model: onnx.ModelProto) -> None:
    """Take out what the exporter says of itself (source lines, paths of files): it is larger than a small net."""
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    graph.doc_string, graph.name = "", "student"
    for number, node in enumerate(graph.node):
        node.name = f"n{number}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's warnings about itself off the screen."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)
