"""Convolutions whose outputs are split, as one convolution for each part: a split copies every number that there is.

In ONNX Runtime it also ends the blocked layout in which convolutions hand their results on (`padding`).
"""

from collections import Counter
from itertools import pairwise

import onnx
from onnx import numpy_helper


def whole(node: onnx.NodeProto, name: str, default: int) -> int:
    """What `node` says of its attribute `name`, a whole number."""
    return next((item.i for item in node.attribute if item.name == name), default)


def bounds(node: onnx.NodeProto, channels: int, constants: dict[str, onnx.TensorProto]) -> list[tuple[int, int]] | None:
    """Start and end of each part in which the Split `node` cuts this many channels; None where it cuts otherwise."""
    _, *sizes = node.input
    if whole(node, "axis", 0) != 1 or not all(name in constants for name in sizes):
        return None
    # Without sizes there are as many equal parts as outputs, and the last one has what is left.
    step = -(-channels // len(node.output))
    lengths = numpy_helper.to_array(constants[sizes[0]]).tolist() if sizes else [step] * (len(node.output) - 1)
    cuts = [min(sum(lengths[:number]), channels) for number in range(len(node.output))]
    return list(pairwise([*cuts, channels]))


def separate(graph: onnx.GraphProto) -> None:
    """Separate, in place, the dense convolutions of float32 weights whose outputs one split reads and nobody else."""
    constants = {item.name: item for item in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(item.name for item in graph.output)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        source = made_by.get(node.input[0])
        if node.op_type != "Split" or source is None or source.op_type != "Conv" or readers[source.output[0]] > 1:
            nodes.append(node)
            continue
        weights = [constants.get(name) for name in source.input[1:]]
        arrays = [numpy_helper.to_array(weight) for weight in weights if weight is not None]
        parts = bounds(node, len(arrays[0]), constants) if len(arrays) == len(weights) else None
        if parts is None or whole(source, "group", 1) > 1:
            nodes.append(node)
            continue
        nodes = [other for other in nodes if other.output[0] != source.output[0]]
        for output, (start, end) in zip(node.output, parts, strict=True):
            part = onnx.NodeProto()
            part.CopyFrom(source)
            part.name, part.output[0] = "", output
            for place, array in enumerate(arrays, 1):
                part.input[place] = f"{output}.{source.input[place]}"
                graph.initializer.append(numpy_helper.from_array(array[start:end].copy(), part.input[place]))
            nodes.append(part)
    replace_nodes(graph, nodes)


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make `nodes` those of `graph`, and take out the constants that none of them reads."""
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
