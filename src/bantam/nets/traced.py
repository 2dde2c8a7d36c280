"""The quick way to a net's ONNX graph: traced once, in a thirtieth of the time of torch's newer exporter.

That one first imports torch's compiler and interprets the net symbolically, which takes some ten seconds for any net. A
trace is as good where the graph has no size of a batch in it: where it is made of the operations of PLAIN alone, and
every weight is in it by its name. Any other net goes the long way (`bantam.nets.portable.onnx_model`).
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

TRACED = 20
"""The newest operator set that traces are written in. From there to 21 the operations of PLAIN have not changed."""

CHUNK = "prim::ConstantChunk"
"""What a trace calls `tensor.chunk`."""

PLAIN = {
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "MaxPool",
    "Mul", "ReduceMean", "Relu", "Sigmoid", "Split", "Sub",
}  # fmt: skip
"""Operations whose attributes and constants say all about them but their inputs."""


def traced_model(
    net: nn.Module, example: Tensor, names: tuple[str, str], weights: Sequence[str], opset: int
) -> onnx.ModelProto | None:
    """The graph of `net`, whose input and output have `names` and a dynamic first axis; None where a trace will not do.

    `weights` are the names in the state_dict that its initializers must have.
    """
    file = io.BytesIO()
    batch = {name: {0: "batch"} for name in names}
    try:
        # Of a net that it cannot write it prints the whole graph.
        with chunks_of_known_sizes(), contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                net, (example,), file, dynamo=False,  # pyright: ignore[reportArgumentType]  # any file will do
                dynamic_axes=batch, input_names=names[:1], output_names=names[1:],
                opset_version=TRACED,
            )  # fmt: skip
    except (RuntimeError, torch.onnx.errors.OnnxExporterError):
        return None
    model = onnx.load_from_string(file.getvalue())
    graph = model.graph
    keep_constants(graph)
    known = {item.name for item in graph.initializer}
    if not known.issuperset(weights) or any(node.op_type not in PLAIN for node in graph.node):
        return None
    model.opset_import[0].version = opset
    model.ir_version = 10
    shorten(graph, names)
    return model


def keep_constants(graph: onnx.GraphProto) -> None:
    """Make initializers of constants, and of weights that are written down as equal to others."""
    constants = {item.name: item for item in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            made = numpy_helper.from_array(numpy_helper.to_array(node.attribute[0].t), node.output[0])
        elif node.op_type == "Identity" and node.input[0] in constants:
            made = numpy_helper.from_array(numpy_helper.to_array(constants[node.input[0]]), node.output[0])
        else:
            nodes.append(node)
            continue
        constants[made.name] = made
        graph.initializer.append(made)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def shorten(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Number what is computed in between, whose names repeat where in the net it was."""
    kept = {*names, *(item.name for item in graph.initializer)}
    short = {name: f"v{number}" for number, name in enumerate(n for node in graph.node for n in node.output)}
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [name if name in kept else short.get(name, name) for name in field]


@contextlib.contextmanager
def chunks_of_known_sizes() -> Iterator[None]:
    """Within it `tensor.chunk` along an axis of known length is traced as a Split into known lengths."""
    from torch.onnx import symbolic_helper, symbolic_opset11  # as slow to import as a trace is

    def chunk(g: Any, data: Any, chunks: int, dim: int) -> Any:
        length = symbolic_helper._get_tensor_dim_size(data, dim)
        if length is None:
            return symbolic_opset11.prim_constant_chunk(g, data, chunks, dim)  # pyright: ignore[reportPrivateImportUsage]
        step = -(-length // chunks)
        sizes = [min(step, length - start) for start in range(0, length, step)]
        parts = g.op("Split", data, g.op("Constant", value_t=torch.tensor(sizes)), axis_i=dim, outputs=len(sizes))
        return list(parts) if len(sizes) > 1 else [parts]

    torch.onnx.register_custom_op_symbolic(CHUNK, chunk, TRACED)  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(CHUNK, TRACED)  # pyright: ignore[reportPrivateImportUsage]
