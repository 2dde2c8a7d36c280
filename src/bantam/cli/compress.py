"""The commands that make a student smaller: `bantam prune` and `bantam quantize`."""

from pathlib import Path
from typing import Annotated

import typer

from bantam.cli.options import (
    ImagesOption,
    JsonOption,
    RunArgument,
    RunDataOption,
    VerboseOption,
    next_step,
    one_of,
    print_json,
    print_study,
    remark_refit,
    whole,
)
from bantam.errors import BadData
from bantam.recipes.keys import LARGEST, PARAMETERS
from bantam.recipes.kinds.pruning import IMPORTANCES
from bantam.recipes.kinds.training import EPOCHS

SourceArgument = Annotated[
    Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A finished run, or a teacher's state_dict.")
]
METHODS = ("unstructured-global", "unstructured-layer", *(f"structured-{name}" for name in IMPORTANCES))
"""Those of `bantam.compress.pruning_curve`, named before torch is loaded."""

RatiosOption = Annotated[
    str, typer.Option(metavar="SHARES", help="Shares of the parameters to remove: first:last:step, or a,b,c.")
]
MethodsOption = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="unstructured-global, unstructured-layer, structured-magnitude, structured-taylor, structured-bn_scale.",
        show_default="all of them",
    ),
]
ImportanceOption = Annotated[
    str,
    typer.Option(
        parser=one_of("--importance", IMPORTANCES),
        metavar="NAME",
        help="For --to-params: magnitude, taylor or bn_scale.",
    ),
]
FinetuneOption = Annotated[
    int | None,
    typer.Option(
        parser=whole("--finetune", 0, EPOCHS),
        metavar="N",
        help="Epochs of training after each pruning.",
        show_default="0; with --to-params as the run",
    ),
]
FinetuneImagesOption = Annotated[
    int,
    typer.Option(
        "--finetune-images",
        parser=whole("--finetune-images", 0, 10**9),
        metavar="N",
        help="Training images of each fine-tuning, drawn evenly; 0 for all.",
    ),
]
ToParamsOption = Annotated[
    int | None,
    typer.Option(
        parser=whole("--to-params", 1, PARAMETERS), metavar="N", help="Instead: prune to N parameters, train, ship."
    ),
]
SideOfStateDictOption = Annotated[
    int,
    typer.Option(
        "--size", parser=whole("--size", 1, LARGEST), metavar="N", help="Input of a state_dict's net, pixels."
    ),
]


def prune(
    source: SourceArgument,
    data: RunDataOption = None,
    ratios: RatiosOption = "0:0.95:0.05",
    methods: MethodsOption = "",
    images: ImagesOption = 0,
    finetune: FinetuneOption = None,
    finetune_images: FinetuneImagesOption = 0,
    to_params: ToParamsOption = None,
    importance: ImportanceOption = "taylor",
    architecture: Annotated[str, typer.Option(metavar="NAME", help="What a state_dict belongs to.")] = "resnet18",
    size: SideOfStateDictOption = 96,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Folder for what this makes.",
            show_default="RUN/pruning/student, or NAME-pruned",
        ),
    ] = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prune a trained net: the curve of ratio against accuracy, or down to an exact budget; a killed call goes on."""
    if not source.exists():
        raise BadData(f"{source} does not exist; give a run's folder, or a file of weights")
    named = [name.strip() for name in methods.split(",") if name.strip()]
    for name in named:
        one_of("--methods", METHODS)(name)

    from rich.console import Console

    from bantam.cli.screen import Bar, run_table
    from bantam.compress.pruning_curve import curve_text, ratios_of
    from bantam.studies.prune import Source, curve_out, default_out, prune_curve, prune_to_budget

    where = Source(source, architecture, size)
    if data is None and not where.is_run:
        raise BadData(f"{source} is no run, which would remember its photographs; say where they are with --data DIR")
    root = data or where.run.photographs()
    folder = out or (curve_out if to_params is None else default_out)(where)
    console = Console(stderr=as_json)
    if to_params is not None:
        metrics = prune_to_budget(where, root, to_params, importance, finetune, folder, Bar(console, verbose))
        if as_json:
            print_json(metrics)
            return
        console.print(run_table(metrics))
        runs = [source, folder] if where.is_run else [folder]
        typer.echo(f"run folder: {folder}\n{next_step('bantam', 'bench', 'cost', *runs, why='what runs cost')}")
        return
    points = prune_curve(
        where, root, ratios_of(ratios), named, images, finetune or 0, folder, Bar(console), finetune_images
    )
    if where.is_run:
        remark_refit(where.run, as_json)
    if as_json:
        print_json([point.to_json() for point in points])
        return
    half = max(point.parameters for point in points) // 2
    of = [] if where.is_run else ["--architecture", architecture, "--size", size]
    words = ["bantam", "prune", source, *of, "--data", root, "--to-params", half]
    typer.echo(
        f"{curve_text(points)}\ncurve: {folder / 'curve.csv'}, curve.svg, curve.png\n"
        + next_step(*words, why="prunes to a budget, trains and ships")
    )


def quantize(
    run: RunArgument,
    data: RunDataOption = None,
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
    from bantam.studies.quantize import quantize as quantized
    from bantam.studies.quantize import table

    print_study(run, data, lambda opened, root, watcher: quantized(opened, root, epochs, watcher), table, as_json)
