"""Makes the ONNX graph of the food model that comes with Bantam, from its weights, and records its SHA-256.

    python benchmarks/food_model.py

`bantam predict PHOTO` answers by it, without torch.
"""

from bantam.deliver.export.forms import float_onnx
from bantam.deliver.graph_classifier import FOOD11
from bantam.files import replacing, sha256_of
from bantam.runs import runfolder
from bantam.runs.finished import load_shipped
from bantam.runs.student_graph import GRAPH, RECORD


def main() -> None:
    path = FOOD11 / GRAPH
    encoded = float_onnx(*load_shipped(FOOD11)).SerializeToString()
    with replacing(path) as temporary:
        temporary.write_bytes(encoded)
    runfolder.write(FOOD11 / runfolder.STUDENT, {**runfolder.student(FOOD11), RECORD: sha256_of(path)})
    print(f"{path.name}: {len(encoded):,} bytes")


if __name__ == "__main__":
    main()
