"""The commands that bring a student elsewhere: `bantam export` and `bantam quantize`."""

from pathlib import Path
from typing import Annotated

import typer

from bantam.cli.options import (
    DataOption,
    JsonOption,
    RunArgument,
    SideOption,
    WidthOption,
    print_json,
    whole,
)
from bantam.recipes.kinds import EPOCHS


def export(
    run: RunArgument,
    data: DataOption,
    to: Annotated[str, typer.Option(help="onnx, onnx-int8, torchscript, or executorch (an extra).")] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; by default student.onnx, ... in the run's folder.")
    ] = None,
    width: WidthOption = None,
    size: SideOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's student for another runtime, if it answers there as in PyTorch on the validation images."""
    from dataclasses import asdict

    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.deliver.export.forms import Material, target_of
    from bantam.deliver.export.forms import export as exported
    from bantam.deliver.predict import load_whole_way
    from bantam.pipeline import run as pipeline

    target = target_of(to)
    net, shipped = load_whole_way(run, width, size)
    splits = pipeline.open_data(pipeline.recipe_of(run), data, Bar(Console(stderr=True)))
    switch = ("" if width is None else f"-{width:g}") + ("" if size is None else f"-{size}px")
    path = out or run / f"student{switch}{'-int8' if to == 'onnx-int8' else ''}{target.suffix}"
    parity = exported(Material(run, net, shipped, splits), to, path)
    weight = path.stat().st_size
    if as_json:
        print_json({"file": str(path), "bytes": weight, **asdict(parity)})
    else:
        typer.echo(f"{path}: {weight:,} bytes\n{parity.text()}")


def quantize(
    run: RunArgument,
    data: DataOption,
    epochs: Annotated[
        int,
        typer.Option(
            parser=whole("--epochs", 0, EPOCHS),
            metavar="N",
            help="Epochs of quantization-aware training for int8 and for int4; 0 for none.",
        ),
    ] = 3,
    as_json: JsonOption = False,
) -> None:
    """Quantize a run's student to int8 and int4, after training and in training; compare all with fp32."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.studies.quantize import quantize as quantized
    from bantam.studies.quantize import table

    result = quantized(run, data, epochs, Bar(Console(stderr=True)))
    typer.echo(table(result)) if not as_json else print_json(result)
