"""A quantized student in one small file: 4-bit weights two to a byte, for storage and transport.

    b"BANTAM4\\n", uint32 length of the header, header (JSON, UTF-8), then the tensors one after another

The header has "student", the description of the shipped student, and "tensors": name, kind, shape and bits of each;
"content" is the SHA-256 of the tensors, and "sha256" that of the header.
Kinds: "integers" (weights, packed at 4 bits, one byte each at 8), "scales" (float32, one for each output channel) and
"plain" (float32: biases, and what is not quantized). Loading runs no code.
"""

import hashlib
import json
import math
import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bantam.compress.integers import layers_of
from bantam.compress.qdq import packed, unpacked
from bantam.errors import BadCheckpoint
from bantam.files import sealed, unsealed
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.nets.students import Student

MAGIC = b"BANTAM4\n"


def dumps(net: nn.Module, description: dict[str, Any]) -> bytes:
    """The weights of `net`, whose layers are quantized, with the `description` that `Student.to_json` made."""
    layers = layers_of(net)
    weights = {f"{name}.layer.weight": layer for name, layer in layers.items()}
    tensors: list[dict[str, Any]] = []
    blobs: list[bytes] = []

    def add(name: str, kind: str, shape: tuple[int, ...], bits: int, data: bytes) -> None:
        tensors.append({"name": name, "kind": kind, "shape": list(shape), "bits": bits})
        blobs.append(data)

    for name, value in net.state_dict().items():
        plain = name.replace(".layer.", ".")
        if name in weights:
            layer = weights[name]
            integers = layer.integers().numpy()
            data = packed(integers) if layer.bits == 4 else integers.tobytes()
            add(plain, "integers", integers.shape, layer.bits, data)
            add(plain, "scales", tuple(layer.weight_scale.shape), 32, raw(layer.weight_scale))
        elif name.rsplit(".", 1)[-1] not in ("weight_scale", "input_scale", "input_zero"):
            add(plain, "plain", tuple(value.shape), 32, raw(value))
    content = b"".join(blobs)
    told = {"student": description, "tensors": tensors, "content": hashlib.sha256(content).hexdigest()}
    header = json.dumps(sealed(told), separators=(",", ":")).encode()
    return b"".join((MAGIC, struct.pack("<I", len(header)), header, content))


def loads(data: bytes) -> tuple[StagedNet, dict[str, Any]]:
    """The plain float32 net, in eval mode, with the weights that the integers stand for; and the description.

    Raises BadCheckpoint for anything that `dumps` did not write.
    """
    try:
        if not data.startswith(MAGIC):
            raise ValueError("it does not begin as such a file does")
        (length,) = struct.unpack_from("<I", data, len(MAGIC))
        start = len(MAGIC) + 4
        header, content = unsealed(data[start : start + length]), data[start + length :]
        if header.get("content") not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("its numbers were changed, their SHA-256 does not fit")
        state = tensors_of(header["tensors"], content)
        description = header["student"]
        student = Student.from_json(description)
        net = deploy(student.build())
        net.load_state_dict(state)
    except BadCheckpoint:
        raise
    except Exception as error:  # damage shows itself as any kind of error; each means that the file is no such net
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpoint(f"not a packed student: {reason}; write it again with `bantam quantize RUN`") from error
    return net.eval(), description


def tensors_of(listed: list[dict[str, Any]], data: bytes) -> dict[str, Tensor]:
    """The tensors that `listed` describes, by name, integers multiplied with their scales."""
    state: dict[str, Tensor] = {}
    place = 0
    for item in listed:
        shape, bits = tuple(item["shape"]), item["bits"]
        count = math.prod(shape)
        size = (count * bits + 7) // 8
        part = data[place : place + size]
        if len(part) != size:
            raise ValueError("it ends too early")
        place += size
        name = item["name"]
        if item["kind"] == "integers":
            integers = unpacked(part, count) if bits == 4 else np.frombuffer(part, np.int8)
            state[name] = torch.from_numpy(integers.astype(np.float32)).reshape(shape)
            continue
        values = torch.from_numpy(np.frombuffer(part, "<f4").copy()).reshape(shape)
        if item["kind"] == "scales":
            state[name] = state[name] * values.reshape(-1, *[1] * (state[name].ndim - 1))
        else:
            state[name] = values
    if place != len(data):
        raise ValueError("it has more bytes than tensors")
    return state


def raw(values: Tensor) -> bytes:
    """The values as little-endian float32."""
    return values.detach().contiguous().numpy().astype("<f4").tobytes()
