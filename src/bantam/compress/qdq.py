"""Quantized students as ONNX: integer weights, and QuantizeLinear / DequantizeLinear pairs around what is computed.

ONNX Runtime fuses the pairs into integer kernels where it has them, and computes in float32 with the same numbers where
it has not, so the file means the same everywhere.
"""

import itertools
import string
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bantam.compress.integers import QuantizedLayer, layers_of

Integers = NDArray[np.int8]

MIDDLE = 128
"""What is added to 8-bit weights, which are written as uint8 with this zero point.

Processors without VNNI (AVX2) multiply uint8 with int8 by an instruction that saturates at 16 bits, which silently
changes answers; uint8 with uint8 is exact everywhere."""


def quantized_model(plain: onnx.ModelProto, net: nn.Module, prefix: str = "net.") -> onnx.ModelProto:
    """`plain` with the layers of the quantized `net` on integers.

    `plain` is the ONNX of `bantam.compress.integers.unquantized(net)`, whose initializers are named as in the
    state_dict, behind `prefix`. Raises RuntimeError where a layer of `net` is not in the graph under its name.
    """
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    writer = Writer(model.graph)
    layers = {f"{prefix}{name}.weight": layer for name, layer in layers_of(net).items()}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    written: set[str] = set()
    for node in nodes:
        layer = layers.get(node.input[1]) if node.op_type in ("Conv", "Gemm") else None
        if layer is not None:
            written.add(node.input[1])
            writer.layer(node, layer)
        model.graph.node.append(node)
    if missing := layers.keys() - written:
        raise RuntimeError(f"the exported graph has no layer with the weights {', '.join(sorted(missing))}")
    writer.drop_unused()
    shorten_names(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def shorten_names(graph: onnx.GraphProto) -> None:
    """Give all tensors but the inputs and outputs of `graph` names of a letter or a few, and the nodes none.

    Of a student of 60,000 parameters in 8 bits, names from its modules are a sixth of the file.
    """
    given = {item.name for item in (*graph.input, *graph.output)}
    tensors = [*(item.name for item in graph.initializer), *(name for node in graph.node for name in node.output)]
    short = (name for name in short_names() if name not in given)
    new = {name: next(short) for name in dict.fromkeys(tensors) if name and name not in given}
    for item in graph.initializer:
        item.name = new.get(item.name, item.name)
    for node in graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    del graph.value_info[:]


def short_names() -> Iterator[str]:
    """a, b, ... z, aa, ab, ..., without end."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))


class Writer:
    """Appends what a quantized layer needs to `graph`, each tensor once."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.plain = {item.name: item for item in graph.initializer}
        self.made: dict[str, str] = {}

    def layer(self, node: onnx.NodeProto, layer: QuantizedLayer) -> None:
        """Put integers before `node`, which computes `layer`."""
        scale = layer.weight_scale.double().numpy()  # [O]
        weight = node.input[1]
        if layer.quantizes_input:
            step = np.float32(float(layer.input_scale))
            bias = node.input[2] if len(node.input) > 2 and node.input[2] else ""
            node.input[0] = self.pair(node.input[0], step, int(layer.input_zero))
            if bias:
                integers = layer.bias_integers(torch.from_numpy(self.array(bias)))
                node.input[2] = self.bias(f"{bias}.{weight}", integers.numpy(), layer.bias_scale().numpy())
        node.input[1] = self.weight(weight, layer.integers().numpy(), scale, layer.bits)

    def array(self, name: str) -> NDArray[np.float64]:
        return numpy_helper.to_array(self.plain[name]).astype(np.float64)

    def pair(self, tensor: str, scale: np.float32, zero: int) -> str:
        """The name of `tensor` rounded to the grid of `scale` and `zero`; layers of the same grid share it."""
        name = f"{tensor}.{scale.tobytes().hex()}.{zero}"
        if name not in self.made:
            self.constant(numpy_helper.from_array(np.asarray(scale), f"{name}.s"))
            self.constant(numpy_helper.from_array(np.asarray(zero, dtype=np.uint8), f"{name}.z"))
            grid = [f"{name}.s", f"{name}.z"]
            self.graph.node.append(helper.make_node("QuantizeLinear", [tensor, *grid], [f"{name}.q"]))
            self.graph.node.append(helper.make_node("DequantizeLinear", [f"{name}.q", *grid], [f"{name}.d"]))
            self.made[name] = f"{name}.d"
        return self.made[name]

    def weight(self, name: str, integers: Integers, scale: NDArray[np.float64], bits: int) -> str:
        """The name of the weights as `integers` [O, ...] of `bits` bits times `scale` [O]."""
        if name not in self.made:
            if bits == 4:
                stored = TensorProto(
                    name=f"{name}.q", data_type=TensorProto.INT4, dims=integers.shape, raw_data=packed(integers)
                )
                self.dequantized(name, stored, scale)
            else:
                unsigned = (integers.astype(np.int16) + MIDDLE).astype(np.uint8)
                self.dequantized(name, numpy_helper.from_array(unsigned, f"{name}.q"), scale, MIDDLE)
        return self.made[name]

    def bias(self, name: str, integers: NDArray[np.int32], scale: NDArray[np.float32]) -> str:
        """The name of the bias as `integers` [O] times `scale` [O], the product of the input's and the weight's."""
        if name not in self.made:
            self.dequantized(name, numpy_helper.from_array(integers, f"{name}.q"), scale)
        return self.made[name]

    def dequantized(self, name: str, stored: TensorProto, scale: NDArray[Any], zero: int = 0) -> None:
        inputs = [stored.name, f"{name}.s"]
        self.constant(stored)
        self.constant(numpy_helper.from_array(scale.astype(np.float32), f"{name}.s"))
        if zero:
            self.constant(numpy_helper.from_array(np.full(len(scale), zero, np.uint8), f"{name}.z"))
            inputs.append(f"{name}.z")
        self.graph.node.append(helper.make_node("DequantizeLinear", inputs, [f"{name}.d"], axis=0))
        self.made[name] = f"{name}.d"

    def constant(self, tensor: TensorProto) -> None:
        self.graph.initializer.append(tensor)

    def drop_unused(self) -> None:
        """Take out the constants that no node reads any more: the float weights."""
        read = {name for node in self.graph.node for name in node.input}
        kept = [item for item in self.graph.initializer if item.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def packed(integers: Integers) -> bytes:
    """4-bit two's complement, two to a byte, the first in the lower half; an odd count ends with a 0."""
    flat = integers.ravel().astype(np.uint8) & 0xF
    if len(flat) % 2:
        flat = np.append(flat, np.uint8(0))
    return (flat[::2] | flat[1::2] << 4).astype(np.uint8).tobytes()


def unpacked(data: bytes, count: int) -> Integers:
    """The first `count` integers of what `packed` wrote, int8 [count]."""
    pairs = np.frombuffer(data, dtype=np.uint8)
    flat = np.stack((pairs & 0xF, pairs >> 4), 1).ravel()[:count].astype(np.int8)
    return np.where(flat > 7, flat - 16, flat).astype(np.int8)
