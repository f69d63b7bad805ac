"""The command lines of mmfss: a class for each command, of which tyro makes the parser and help.

A field is an option, one marked Positional an argument; what it is stands in the docstring. Nothing
here imports torch, mmengine or mmseg, so that ``--help`` and wrong options are answered at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import tyro
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

from mmfss import labelling
from mmfss.commands.assignments import assigned
from mmfss.configs import DEMO_CONFIG
from mmfss.webui.limits import Limits

if TYPE_CHECKING:
    from mmfss.datasets.grey_values import GreyValues

T = TypeVar('T')
Launcher = Literal['none', 'pytorch', 'slurm', 'mpi']
"""As :data:`mmfss.compat.LAUNCHERS`."""


def parse(arguments: type[T], argv: Sequence[str] | None = None, prog: str | None = None) -> T:
    """Make of a command line what a command runs with.

    Args:
        arguments: One of the classes below.
        argv: The command line without the program; None takes the process's.
        prog: Name of the program in messages; None takes the process's.

    Raises:
        SystemExit: With status 2 for a wrong command line, whose fault is told; with 0 after
            ``--help``.
    """
    config = (
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.DisallowNone,  # 'None' is a text as any other
        tyro.conf.HelptextFromCommentsOff,
        tyro.conf.PositionalMetavarFromFieldName,
    )
    description = getattr(arguments, 'description', None)
    given = sys.argv[1:] if argv is None else list(argv)
    return tyro.cli(arguments, prog=prog, description=description, args=given, config=config)


# ------------------------------------------------------------------------------ kinds of options
def _unset(metavar: str) -> Any:
    """An option that is None where it is left out."""
    return arg(metavar=metavar, help_behavior_hint='')


def _several(kind: Callable[[str], Any], least: int = 1) -> PrimitiveConstructorSpec:
    """One value or more, or any number; None where an option is left out."""

    def read(texts: list[str]) -> list[Any]:
        if len(texts) < least:
            raise ValueError('at least one value is needed')
        return [kind(text) for text in texts]

    return PrimitiveConstructorSpec(
        nargs='*',
        metavar='',
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, (list, tuple)),
        str_from_instance=lambda value: [str(one) for one in value or ()],
    )


def _two(kind: Callable[[str], Any]) -> PrimitiveConstructorSpec:
    """Two values; None where an option is left out."""
    return PrimitiveConstructorSpec(
        nargs=2,
        metavar='',
        instance_from_str=lambda texts: [kind(text) for text in texts],
        is_instance=lambda value: value is None or isinstance(value, (list, tuple)),
        str_from_instance=lambda value: [str(one) for one in value or ()],
    )


_Assignments = Annotated[
    dict[str, Any],
    PrimitiveConstructorSpec(
        nargs='*',
        metavar='KEY=VALUE [KEY=VALUE ...]',
        instance_from_str=assigned,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [f'{key}={one}' for key, one in value.items()],
    ),
]


def _merged(cfg_options: UseAppendAction[tuple[_Assignments, ...]] = ()) -> dict[str, Any]:
    """Of an option that is given several times the values add up.

    Args:
        cfg_options: Override entries of the config, e.g. train_dataloader.batch_size=4.
    """
    return {key: value for options in cfg_options for key, value in options.items()}


CfgOptions = Annotated[Mapping[str, Any], arg(constructor=_merged, name='')]
_Resume = PrimitiveConstructorSpec(
    nargs=(0, 1),
    metavar='[CHECKPOINT]',
    instance_from_str=lambda texts: texts[0] if texts else 'auto',
    is_instance=lambda value: value is None or isinstance(value, str),
    str_from_instance=lambda value: [] if value is None else [value],
)


_Folds = Annotated[Sequence[int] | None, _several(int), _unset('FOLD [FOLD ...]')]
_Seeds = Annotated[Sequence[int] | None, _several(int), _unset('SEED [SEED ...]')]
_Shots = Annotated[Sequence[int] | None, _several(int), _unset('K [K ...]')]


# -------------------------------------------------------------------------------------- commands
@dataclass(frozen=True)
class ConfigArguments:
    """What all share that read a config.

    Args:
        config: Config file, or its name among those of mmfss.
        method: Instead of METHOD: of configs/_base_/methods.
        benchmark: Instead of BENCHMARK: of configs/_base_/benchmarks.
        fold: Instead of FOLD.
        cfg_options: Overrides, ``{'train_dataloader.batch_size': 4}``.
    """

    config: Positional[str]
    _: KW_ONLY
    method: Annotated[str | None, _unset('NAME')] = None
    benchmark: Annotated[str | None, _unset('NAME')] = None
    fold: Annotated[str | None, _unset('FOLD')] = None
    cfg_options: CfgOptions = field(default_factory=dict)


@dataclass(frozen=True)
class RuntimeArguments:
    """What runs the frozen part of encoders on a CPU; docs/runtimes.md.

    Args:
        runtime: auto, torch or openvino (default: the config's, else auto: the faster one, in
            fp32, for large encoders where OpenVINO is installed).
        precision: fp32, bf16 or int8, the latter two by OpenVINO.
        calibration: Folder of photos that int8 is fitted to; of a benchmark, base takes images of
            its training classes.
    """

    _: KW_ONLY
    runtime: Annotated[
        Literal['auto', 'torch', 'openvino'] | None, _unset('{auto,torch,openvino}')
    ] = None
    precision: Annotated[Literal['fp32', 'bf16', 'int8'] | None, _unset('{fp32,bf16,int8}')] = None
    calibration: Annotated[str | None, _unset('DIR')] = None

    def encoder_runtime(self) -> dict[str, Any] | None:
        """What ``model.encoder_runtime`` is to be; None where none of the three is given.

        Raises:
            ValueError: They contradict each other.
        """
        from mmfss.encoders.runtimes import asked  # with torch

        return asked(self.runtime, self.precision, self.calibration)


@dataclass(frozen=True)
class RunArguments(ConfigArguments, RuntimeArguments):
    """What all share that run a model on the data of a config.

    Args:
        work_dir: Folder of logs and checkpoints.
        feature_cache: Keep there what the frozen encoders give for an image; none: keep nothing.
        amp: Run under bfloat16 autocast, as the published code trains and validates.
        launcher: Of several processes.
        local_rank: Set by launchers.
    """

    _: KW_ONLY
    work_dir: Annotated[str | None, _unset('DIR')] = None
    feature_cache: Annotated[str | None, _unset('DIR')] = None
    amp: bool = False
    launcher: Launcher = 'none'
    local_rank: int = 0


@dataclass(frozen=True)
class TrainArguments(RunArguments):
    """Train a few-shot segmentor; FOLD=0..3 in the environment sets the fold, FOLD=all trains on
    all classes, for a model to label with.

    Args:
        resume: Go on from this checkpoint; without a path from the latest one in the work dir, if
            there is one (give it after CONFIG).
    """

    _: KW_ONLY
    resume: Annotated[str | None, _Resume, arg(help_behavior_hint='')] = None


@dataclass(frozen=True)
class Request(RunArguments):
    """Test a few-shot segmentor; FOLD=0..3 in the environment sets the fold. With --folds, --seeds
    and --shots: the table of a paper.

    Args:
        checkpoints: Checkpoints of tools/train.py, of the same fold (none for a method that has
            nothing to train); {fold} and wildcards may stand in one and must match one file per
            fold: 'work_dirs/run/fold{fold}/best_*.pth'; of several each gets a row.
        folds: Instead of FOLD; of several each gets its own folder in the work dir.
        seeds: Of the episodes.
        shots: Of any checkpoint.
        episodes: Number per run, e.g. 1000, 4000, 20000.
        sampler: image_list, uniform_class, balanced, fs_sam2 or fs_sam2_by_class.
        csv: Write the episodes of each run there.
        out: Write NAME.json, NAME.md and NAME.txt; called again with the same settings, runs that
            are in NAME.json are not repeated.
        cost: Measure what an episode costs too: parameters, operations, time, memory.
    """

    checkpoints: Annotated[
        Positional[Sequence[str]],
        _several(str, least=0),
        arg(metavar='[CHECKPOINT ...]', help_behavior_hint=''),
    ]
    _: KW_ONLY
    folds: _Folds = None
    seeds: _Seeds = None
    shots: _Shots = None
    episodes: Annotated[int | None, _unset('NUMBER')] = None
    sampler: Annotated[str | None, _unset('NAME')] = None
    csv: Annotated[str | None, _unset('DIR')] = None
    out: Annotated[str | None, _unset('NAME')] = None
    cost: bool = False

    @property
    def base(self) -> str | None:
        """``out`` without suffix."""
        return None if self.out is None else re.sub(r'\.(json|md|txt)$', '', self.out)


@dataclass(frozen=True)
class CompareArguments:
    """Compare two results or more on the same episodes: paired bootstrap intervals and permutation
    tests of their differences.

    Args:
        results: Of tools/test.py: files of --out (NAME.json), or folders or files of --csv;
            METHOD=FILE says what tables call it, and the same METHOD again is another training of
            it. A file of several checkpoints gives a method for each.
        trainings: Checkpoints of one file are trainings of one method.
        shots: Compare these alone.
        folds: Compare these alone.
        seeds: Compare these alone.
        classes: Print the differences of each class too.
        out: Write NAME.json, NAME.md, NAME.txt, NAME.tex and NAME.csv.
    """

    results: Annotated[
        Positional[Sequence[str]],
        _several(str),
        arg(metavar='[METHOD=]RESULT ...', help_behavior_hint=''),
    ]
    _: KW_ONLY
    trainings: bool = False
    shots: _Shots = None
    folds: _Folds = None
    seeds: _Seeds = None
    classes: bool = False
    out: Annotated[str | None, _unset('NAME')] = None


@dataclass(frozen=True)
class TableArguments(RuntimeArguments):
    """Test several methods alike and compare them: methods x folds x shots x seeds, with paired
    tests, in one table.

    Args:
        config: Config file, or its name among those of mmfss, of methods that are given by name.
        methods: Of configs/_base_/methods, or config files of their own; =CHECKPOINT behind one
            that is trained, in which {fold} and wildcards may stand, and of several trainings of it
            all, with commas: fssam=a/fold{fold}/best_*.pth,b/fold{fold}/best_*.pth.
        out: Folder of the results, METHOD.json and table.json, .md, .txt, .tex, .csv; called again,
            runs that are there are not repeated.
        benchmark: Of configs/_base_/benchmarks.
        folds: Default: FOLD of the environment.
        seeds: Of the episodes.
        shots: Of any method.
        episodes: Number per run.
        sampler: image_list, uniform_class, balanced, fs_sam2 or fs_sam2_by_class.
        amp: Run under bfloat16 autocast.
        feature_cache: Keep there what the frozen encoders give for an image.
        cfg_options: Overrides for all of them.
    """

    config: Positional[str]
    methods: Annotated[
        Positional[Sequence[str]],
        _several(str),
        arg(metavar='METHOD[=CHECKPOINT] ...', help_behavior_hint=''),
    ]
    _: KW_ONLY
    out: Annotated[str, arg(metavar='DIR')]
    benchmark: Annotated[str | None, _unset('NAME')] = None
    folds: _Folds = None
    seeds: _Seeds = None
    shots: _Shots = None
    episodes: Annotated[int | None, _unset('NUMBER')] = None
    sampler: Annotated[str | None, _unset('NAME')] = None
    amp: bool = False
    feature_cache: Annotated[str | None, _unset('DIR')] = None
    cfg_options: CfgOptions = field(default_factory=dict)


@dataclass(frozen=True)
class PicturesArguments:
    """Draw episodes for a paper, methods side by side: those that a method does worst or best, or
    in which methods differ most, or named ones. PDF and SVG have masks and text as vectors.

    Args:
        config: Config file, or its name among those of mmfss: of the checkpoints that follow, and
            of methods that are given by name.
        columns: Checkpoints of the config; or methods as in `mmfss table`, of
            configs/_base_/methods or config files of their own, with =CHECKPOINT behind one that is
            trained.
        pick: Episodes: worst:N, best:N, median:N (nearest to it) by the first column, differ:N by
            all of them, number:3,17, class:NAME:N (its first ones); several of these add up.
        out: Files to write: .pdf, .svg, .png.
        results: To pick by, of each column in their order: what tools/test.py or `mmfss table`
            wrote of it, .json of --out, or files or folders of --csv (default: tested now).
        benchmark: Of configs/_base_/benchmarks.
        fold: Instead of FOLD.
        shots: Of any method (default: the config's).
        seed: Of the episodes (default: the config's).
        episodes: Number of those that are tested and picked from.
        sampler: image_list, uniform_class, balanced, fs_sam2 or fs_sam2_by_class.
        maps: Draw what led to the predictions, too, as far as a method gives it.
        errors: Colour hits, extra and missed pixels in the place of predictions.
        width: Of a panel, inches.
        amp: Run under bfloat16 autocast.
        feature_cache: Keep there what the frozen encoders give for an image.
        work_dir: For the logs.
        cfg_options: Overrides for all of them.
    """

    config: Positional[str]
    columns: Annotated[
        Positional[Sequence[str]],
        _several(str, least=0),
        arg(metavar='[CHECKPOINT | METHOD[=CHECKPOINT] ...]', help_behavior_hint=''),
    ]
    _: KW_ONLY
    pick: Annotated[Sequence[str], _several(str), arg(metavar='PICK [PICK ...]')]
    out: Annotated[Sequence[str], _several(str), arg(metavar='FILE [FILE ...]')]
    results: Annotated[Sequence[str], _several(str), _unset('FILE [FILE ...]')] = ()
    benchmark: Annotated[str | None, _unset('NAME')] = None
    fold: Annotated[str | None, _unset('FOLD')] = None
    shots: Annotated[int | None, _unset('K')] = None
    seed: Annotated[int | None, _unset('SEED')] = None
    episodes: Annotated[int | None, _unset('NUMBER')] = None
    sampler: Annotated[str | None, _unset('NAME')] = None
    maps: bool = False
    errors: bool = False
    width: Annotated[float, arg(metavar='INCHES')] = 1.2
    amp: bool = False
    feature_cache: Annotated[str | None, _unset('DIR')] = None
    work_dir: Annotated[str, arg(metavar='DIR')] = 'work_dirs/pictures'
    cfg_options: CfgOptions = field(default_factory=dict)


@dataclass(frozen=True)
class FreezeArguments(ConfigArguments):
    """Write the test episodes of a config to a file, which
    test_dataloader.dataset.episodes_file=FILE replays on the same data anywhere.

    Args:
        file: JSON file; {fold}, {shots} and {seed} in it are filled in.
        folds: Instead of FOLD.
        shots: Default: the config's.
        seed: Default: the config's.
        episodes: Number; default: the config's.
        published: Take them from this .npz file, which FS-SAM2's fixed test episodes come as, see
            docs/benchmarking.md; nothing is drawn.
        sampler: image_list, uniform_class, balanced, fs_sam2 or fs_sam2_by_class.
    """

    file: Positional[str]
    _: KW_ONLY
    folds: _Folds = None
    shots: _Shots = None
    seed: Annotated[int | None, _unset('SEED')] = None
    episodes: Annotated[int | None, _unset('NUMBER')] = None
    sampler: Annotated[str | None, _unset('NAME')] = None
    published: Annotated[str | None, _unset('FILE')] = None


@dataclass(frozen=True)
class SupportOptions:
    """How SUPPORT is read where its files do not say it: the options of tools/prepare.py folder.

    Args:
        layout: Layout of SUPPORT (default: as its files say).
        annotations: Its file of annotations, of COCO, VIA or CVAT, if not found in SUPPORT.
        support_images: Where its images are, if not below SUPPORT.
        object_value: Value of the object in masks of two values (default: 1 if any has it, else
            255); 0: black is the object.
        exif: Which pixels of photos that EXIF turns are marked (default: those shown, where sizes
            do not say other).
        crowd: What COCO's annotations of iscrowd 1 are (default: objects).
        units: What coordinates of annotations are counted in (default: pixels).
    """

    layout: Annotated[str | None, _unset('LAYOUT')] = None
    annotations: Annotated[Path | None, _unset('FILE')] = None
    support_images: Annotated[Path | None, _unset('DIR')] = None
    object_value: Annotated[Literal[0, 1, 255] | None, _unset('{0,1,255}')] = None
    exif: Annotated[Literal['upright', 'stored'] | None, _unset('{upright,stored}')] = None
    crowd: Annotated[Literal['object', 'ignored'] | None, _unset('{object,ignored}')] = None
    units: Annotated[
        Literal['pixels', 'percent', 'relative'] | None, _unset('{pixels,percent,relative}')
    ] = None


@dataclass(frozen=True)
class PhotoArguments:
    """How photos are read.

    Args:
        bit_depth: Values of photos of more than 8 bits are 0..2^N - 1 (default: what the file
            states, 16 bits mostly).
        percentiles: Or black and white are these percentiles of each photo, e.g. 1 99.
        value_range: Or these values, in all photos; floats and 32-bit integers need one of the
            three.
    """

    _: KW_ONLY
    bit_depth: Annotated[int | None, _unset('N')] = None
    percentiles: Annotated[Sequence[float] | None, _two(float), _unset('LOW HIGH')] = None
    value_range: Annotated[Sequence[float] | None, _two(float), _unset('LOW HIGH')] = None

    def grey_values(self) -> GreyValues:
        """How grey values are read; what is lost of them is said on stderr.

        Raises:
            ValueError: Out of range, or more than one of the three.
        """
        from mmfss.datasets.grey_values import GreyValues  # with numpy

        return GreyValues(self.bit_depth, self.percentiles, self.value_range, say_note)


def say_note(text: str) -> None:
    """A line on stderr, beside a progress bar."""
    from tqdm import tqdm

    tqdm.write(f'note: {text}', file=sys.stderr)


@dataclass(frozen=True)
class LabelArguments(PhotoArguments, RuntimeArguments):
    """Label a folder of images, given a few marked ones.

    Args:
        support: Folder of marked images (layouts of tools/prepare.py folder, and prompts), or a
            support file.
        images: Folder of images, with the folders below it, or a text file with a path on each
            line, relative ones to its own folder.
        out: Output folder; where it has results of an interrupted run with the same values, this
            one goes on.
        method: Of configs/_base_/methods (default: one that needs no training, on official weights
            where `mmfss weights fetch default` has put them, else on a small network; it is said
            which).
        config: Name or path of a config, in the place of the method.
        weights: Checkpoint of a method that is trained.
        device: E.g. 'cpu', 'cuda:1' (default: a GPU if there is one).
        threshold: Of the object score, for all classes or one; may be repeated (default: what the
            self-check finds for a class, else the config's).
        self_check: Do not check the supports before the run, each predicted from the others, and
            take the config's threshold; the check takes about as long as an image for each support.
        amp: bfloat16 autocast.
        batch_size: Images that go through the model together; more of them keep a GPU busy. With 1
            neither interruptions nor the number of processes change a byte; with more, last digits
            of scores and single pixels on borders may differ then.
        pairs: Number of pairs of image and class that are segmented at once, at most; more take
            more memory (default: 1 on a CPU, 16 elsewhere).
        feature_cache: Keep the features of all images there, about 9 MB an image at 512 pixels, to
            label them again with other supports or thresholds without encoding them; with a batch
            size of 1 it changes no byte of the results.
        tiles: Look at images through windows of this side in pixels, at their own resolution, each
            as a photo of its own, e.g. 1024: for orthomosaics and other photos of up to 268
            megapixels. The batch size is of windows then.
        overlap: Of the windows in pixels, at least; there they are blended (default: an eighth of
            their side).
        instances: Annotate objects in annotations.json, not whole classes: what the method itself
            keeps apart (gf_sam), else connected parts.
        format: Write the labels in these forms, too: coco-polygons, labelme, labelme-masks, yolo,
            label-studio, label-studio-polygons, voc; each in a folder of OUT of its name. The same
            command again adds one to labels that are there.
        tolerance: How far outlines in these may leave the border of a mask, in pixels: fewer
            corners to correct by hand; 0 keeps every pixel.
        keep_scores: Keep what labels were decided by in OUT/scores, about 0.6 MB for an image and
            class at 512 pixels, for --rescore.
        rescore: Decide the labels of OUT anew with other thresholds, from what --keep-scores kept;
            no model is loaded and SUPPORT is not read. Those of the run count for classes that
            --threshold does not name.
        overlays: Write no overlays; images that are labelled already get none later.
        overwrite: Remove what an earlier run left in OUT, labels corrected by hand too, and start
            anew.
        accept_prompts: Use masks that came from prompts; look at OUT/support.png first.
        prompt_weights: Whose heads turn prompts into masks: 'official', which works with every
            config, or a file of tools/train_prompts.py (default: prompts.pth beside the weights,
            else the model's own, else official ones that are at hand). Boxes of which they make
            nothing go to GrabCut.
        launcher: Several processes share the images.
        local_rank: Set by launchers.
        reading: How SUPPORT is read.
    """

    #: the tables of what is written, indented so that their lines stay
    description: ClassVar[str] = indent(labelling.__doc__ or '', '  ').strip() + (
        '\n\nExit status: 0 all images are labelled, 1 some failed, 2 wrong arguments or input, or '
        'nothing can be written, 3 supports have masks from prompts that are to be looked at '
        'first, 130 after ctrl-C, 143 after SIGTERM.'
    )

    support: Positional[str]
    images: Positional[str]
    out: Positional[str]
    _: KW_ONLY
    method: Annotated[str | None, _unset('NAME')] = None
    config: Annotated[str | None, _unset('CONFIG')] = None
    weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    device: Annotated[str | None, _unset('DEVICE')] = None
    threshold: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar='NUMBER|CLASS=NUMBER', help_behavior_hint=''),
    ] = ()
    self_check: Annotated[bool, arg(help_behavior_hint='')] = True
    amp: bool = False
    batch_size: Annotated[int, arg(metavar='IMAGES')] = 1
    pairs: Annotated[int | None, _unset('NUMBER')] = None
    feature_cache: Annotated[str | None, _unset('DIR')] = None
    tiles: Annotated[int | None, _unset('PIXELS')] = None
    overlap: Annotated[int | None, _unset('PIXELS')] = None
    instances: bool = False
    format: Annotated[Sequence[str] | None, _several(str), _unset('FORMAT [FORMAT ...]')] = None
    tolerance: Annotated[float, arg(metavar='PIXELS')] = 0.0
    keep_scores: bool = False
    rescore: bool = False
    overlays: Annotated[bool, arg(help_behavior_hint='')] = True
    overwrite: bool = False
    accept_prompts: bool = False
    prompt_weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    launcher: Launcher = 'none'
    local_rank: int = 0
    reading: OmitArgPrefixes[SupportOptions] = SupportOptions()


@dataclass(frozen=True)
class WeightsArguments:
    """Official weights of SAM 2, DINOv2, SAM and DINOv3, which methods start from: list them, fetch
    them, or say where they belong. Without anything: the list.

    Args:
        action: What to do: list; fetch, which goes on with what was interrupted and checks what
            came; where, the address and the path of each file, to put it there by hand.
        names: Of weights as listed, of a method (what its config takes), or 'default' (what the
            default method takes); none: all, but for fetch.
    """

    action: Annotated[
        Positional[Literal['list', 'fetch', 'where']],
        arg(metavar='[list|fetch|where]', help_behavior_hint=''),
    ] = 'list'
    names: Annotated[
        Positional[tuple[str, ...]],
        _several(str, least=0),
        arg(metavar='[NAME ...]', help_behavior_hint=''),
    ] = ()


@dataclass(frozen=True)
class CheckArguments(PhotoArguments, RuntimeArguments):
    """Check a support set, before anything is labelled: each support is predicted from the others
    of its class and looked for by the other classes. Prints the IoU to expect of each class, the
    threshold of its object score, supports to look at, and which method suits these photos.

    Exit status: 0 it is checked, whatever was found; 2 wrong arguments or input.

    Args:
        support: As for mmfss label.
        methods: Methods to compare (default: those that need no training and whose weights are at
            hand); the table is that of the first, or of the one that mmfss label takes.
        config: Config of a method that is trained, for the table.
        weights: Its checkpoint.
        device: E.g. 'cpu' (default: the first GPU, else the CPU).
        amp: bfloat16 autocast.
        prompt_weights: As for mmfss label.
        reading: How SUPPORT is read.
    """

    support: Positional[str]
    _: KW_ONLY
    methods: Annotated[Sequence[str] | None, _several(str), _unset('NAME [NAME ...]')] = None
    config: Annotated[str | None, _unset('CONFIG')] = None
    weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    device: Annotated[str | None, _unset('DEVICE')] = None
    amp: bool = False
    prompt_weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    reading: OmitArgPrefixes[SupportOptions] = SupportOptions()


@dataclass(frozen=True)
class RuntimesArguments(PhotoArguments, RuntimeArguments):
    """Compare what OpenVINO gives with what torch gives: features, masks, seconds; on photos, or
    without SUPPORT and IMAGES on the test episodes of a config, with mIoU. docs/runtimes.md.

    The runtime is that of --runtime and --precision (default: openvino, fp32), against torch in
    fp32. Exit status: 1 where the mean IoU of the masks is below --least; 2 wrong arguments or
    input.

    Args:
        support: As for mmfss label.
        images: Folder of photos.
        config: Config of the method, or of the benchmark.
        method: As for mmfss label; of a benchmark instead of METHOD.
        weights: Checkpoint of a method that is trained.
        benchmark: Instead of BENCHMARK: of configs/_base_/benchmarks.
        fold: Instead of FOLD.
        episodes: Number; default: the config's.
        least: Mean IoU of masks below which the status is 1.
        out: JSON file of what was found.
    """

    support: Annotated[Positional[str | None], arg(help_behavior_hint='')] = None
    images: Annotated[Positional[str | None], arg(help_behavior_hint='')] = None
    _: KW_ONLY
    config: Annotated[str | None, _unset('CONFIG')] = None
    method: Annotated[str | None, _unset('NAME')] = None
    weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    benchmark: Annotated[str | None, _unset('NAME')] = None
    fold: Annotated[str | None, _unset('FOLD')] = None
    episodes: Annotated[int | None, _unset('NUMBER')] = None
    least: float = 0.0
    out: Annotated[str | None, _unset('FILE')] = None


@dataclass(frozen=True)
class ExportArguments(PhotoArguments):
    """Write a method as graphs of OpenVINO or ONNX, with a runner that labels photos without torch.

    Exit status: 0 it is written; 2 wrong arguments or input, or OUT cannot be written.

    Args:
        config: Config, its name among those of mmfss, or the name of a method.
        weights: Checkpoint; none: of a method that has nothing to train.
        out: Folder to write, which is not there or empty.
        format: 'openvino' or 'onnx'.
        shots: Number of supports of a class that the graph of the supports takes (default: 1); with
            --support every class must have as many.
        support: Classes to put into the graph, as for mmfss label: one graph from a photo to N maps
            and scores. Without it: encoder, supports and light pass, as a graph each.
        threshold: Of the object score, for all classes or one; may be repeated (default: as mmfss
            label has it).
        self_check: As for mmfss label.
        prompt_weights: As for mmfss label.
        cfg_options: Overrides, ``{'model.refine': None}``.
        reading: How SUPPORT is read.
    """

    config: Positional[str]
    weights: Positional[str]
    out: Positional[str]
    _: KW_ONLY
    format: Annotated[str, arg(metavar='FORMAT')] = 'openvino'
    shots: Annotated[int | None, _unset('K')] = None
    support: Annotated[str | None, _unset('SUPPORT')] = None
    threshold: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar='NUMBER|CLASS=NUMBER', help_behavior_hint=''),
    ] = ()
    self_check: Annotated[bool, arg(help_behavior_hint='')] = True
    prompt_weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    cfg_options: CfgOptions = field(default_factory=dict)
    reading: OmitArgPrefixes[SupportOptions] = SupportOptions()


@dataclass(frozen=True)
class WebuiArguments(PhotoArguments, RuntimeArguments):
    """A web page to mark objects, label images and take masks away.

    Args:
        method: As for mmfss label.
        config: Name or path of a config, in the place of the method.
        weights: Checkpoint of a method that is trained.
        prompt_weights: For masks from boxes and points: 'official' or a file.
        device: E.g. cuda:1 (default: the first GPU, else 'cpu').
        host: Address to listen on, by default this machine only.
        port: 0: any free one.
        allowed_host: A further host name that the page answers to, e.g. that of a server before it.
        max_upload_mb: Of a file.
        max_pixels: Width x height of an image.
        sessions: Folder in which sessions stay over reloads and restarts (default:
            ~/.local/state/mmfss/webui/PORT).
        forget: Keep nothing: sessions end with the page.
    """

    _: KW_ONLY
    method: Annotated[str | None, _unset('NAME')] = None
    config: Annotated[str | None, _unset('CONFIG')] = None
    weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    prompt_weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    device: Annotated[str | None, _unset('DEVICE')] = None
    host: str = '127.0.0.1'
    port: int = 7860
    allowed_host: Annotated[
        UseAppendAction[tuple[str, ...]], arg(metavar='NAME', help_behavior_hint='')
    ] = ()
    max_upload_mb: int = Limits.max_upload_mb
    max_pixels: int = Limits.max_pixels
    sessions: Annotated[Path | None, _unset('DIR')] = None
    forget: bool = False


@dataclass(frozen=True)
class ServeArguments(PhotoArguments, RuntimeArguments):
    """A service behind Label Studio and X-AnyLabeling: it learns from what is marked there, and
    marks the rest. docs/serve has a page for each program.

    Args:
        method: As for mmfss label.
        config: Name or path of a config, in the place of the method.
        weights: Checkpoint of a method that is trained.
        prompt_weights: For masks from boxes and points: 'official' or a file.
        device: E.g. cuda:1 (default: the first GPU, else 'cpu').
        threshold: Of the object score, in 0..1 (default: the config's).
        amp: bfloat16 autocast.
        data: What is marked is kept there, with the features of images (default:
            ~/.local/share/mmfss/serve).
        features_gb: Room for those features on the disk.
        max_shots: Supports of a class, the latest ones.
        host: Address to listen on, by default this machine only.
        port: 0: any free one.
        allowed_host: A further host name that the service answers to, e.g. host.docker.internal.
        token: That requests must have; better in MMFSS_TOKEN, where other users do not see it.
        max_upload_mb: Of a photo.
        max_pixels: Width x height of a photo.
        label_studio: Address of Label Studio, where uploads are fetched, with the token in
            LABEL_STUDIO_API_KEY, else the one that it sends.
        local_files: Folder that its local files are in (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT), to
            read them from the disk.
        image_host: A further host that photos may be fetched from.
        folder: A folder of X-AnyLabeling, and the name that its model gets; may be repeated.
    """

    _: KW_ONLY
    method: Annotated[str | None, _unset('NAME')] = None
    config: Annotated[str | None, _unset('CONFIG')] = None
    weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    prompt_weights: Annotated[str | None, _unset('CHECKPOINT')] = None
    device: Annotated[str | None, _unset('DEVICE')] = None
    threshold: Annotated[float | None, _unset('NUMBER')] = None
    amp: bool = False
    data: Annotated[Path | None, _unset('DIR')] = None
    features_gb: Annotated[float, arg(metavar='GB')] = 10.0
    max_shots: int = 10
    host: str = '127.0.0.1'
    port: int = 9090
    allowed_host: Annotated[
        UseAppendAction[tuple[str, ...]], arg(metavar='NAME', help_behavior_hint='')
    ] = ()
    token: Annotated[str | None, _unset('TOKEN')] = None
    max_upload_mb: int = Limits.max_upload_mb
    max_pixels: int = Limits.max_pixels
    label_studio: Annotated[str, arg(metavar='URL')] = 'http://localhost:8080'
    local_files: Annotated[Path | None, _unset('DIR')] = None
    image_host: Annotated[
        UseAppendAction[tuple[str, ...]], arg(metavar='NAME', help_behavior_hint='')
    ] = ()
    folder: Annotated[
        UseAppendAction[tuple[str, ...]], arg(metavar='NAME=DIR', help_behavior_hint='')
    ] = ()


@dataclass(frozen=True)
class PromptArguments:
    """Train heads for box, point and scribble prompts on the base classes of a config.

    For models whose SAM 2 has no official weights, as that of the demo; others take
    ``checkpoint='official'``. The file is taken by itself where it lies beside the weights as
    prompts.pth. Nothing of the model changes.

        python tools/train_prompts.py                       the model of make demo, fold 0
        FOLD=1 python tools/train_prompts.py CONFIG WEIGHTS

    The defaults take two to three minutes on a CPU core.

    Args:
        config: Name or path.
        weights: Checkpoint; may be left out for the default config after `make demo`.
        out: File to write (default: prompts.pth beside the weights).
        iterations: Of training.
        objects: To train on.
        batch_size: Objects of an iteration.
        lr: Learning rate.
        seed: Of the drawn prompts.
        device: E.g. 'cpu' (default: the first GPU, else the CPU).
    """

    config: Positional[str] = DEMO_CONFIG
    weights: Annotated[Positional[str | None], arg(help_behavior_hint='')] = None
    _: KW_ONLY
    out: Annotated[Path | None, _unset('FILE')] = None
    iterations: int = 500
    objects: int = 1600
    batch_size: int = 16
    lr: float = 1e-3
    seed: int = 0
    device: Annotated[str | None, _unset('DEVICE')] = None


@dataclass(frozen=True)
class ConvertArguments:
    """Turn a published FSSAM checkpoint into one of mmfss.

    SRC holds one state dict with the keys ``sam2.*`` and ``dino.*``. The config says which SAM 2
    and which DINOv2 they are of, and with the fold the classes it was trained on; that goes into
    DST, so that testing it on them is refused. Every weight must fit. See docs/checkpoints.md.

    Args:
        src: Published checkpoint.
        dst: File to write.
        config: Config of the same arch and benchmark, see configs/.
        fold: Fold that it was trained on.
        shots: K of its training (default: the config's).
        prior_encoder: Official DINOv2 weights, for a checkpoint that was saved without its own.
        overwrite: Replace DST if it exists.
        cfg_options: Overrides, ``{'model.sam2.arch': 'sam2_large'}``.
    """

    src: Positional[str]
    dst: Positional[str]
    _: KW_ONLY
    config: str
    fold: int
    shots: Annotated[int | None, _unset('K')] = None
    prior_encoder: Annotated[str | None, _unset('PATH')] = None
    overwrite: bool = False
    cfg_options: CfgOptions = field(default_factory=dict)


@dataclass(frozen=True)
class ConvertAdaptersArguments:
    """Turn published SANSA adapters into a checkpoint of mmfss.

    SRC holds the adapters alone, and is read without running code from it. The config says which
    SAM 2 they belong to, in which stages they are and how wide, and with the fold the classes they
    were trained on. DST holds the adapters and the digest of the official weights beside them,
    which must be there. See docs/checkpoints.md.

    Args:
        src: Published file.
        dst: File to write.
        config: Config of the same SAM 2 and benchmark, such as configs/sansa_coco_1shot.py.
        fold: Fold that they were trained on.
        shots: K of their training (default: the config's).
        all_classes: They were trained on all classes of the benchmark, as the generalist was.
        whole: Write the weights of SAM 2 into DST too.
        overwrite: Replace DST if it exists.
        cfg_options: Overrides, ``{'model.sam2.arch': 'sam2_tiny'}``.
    """

    src: Positional[str]
    dst: Positional[str]
    _: KW_ONLY
    config: str
    fold: int
    shots: Annotated[int | None, _unset('K')] = None
    all_classes: bool = False
    whole: bool = False
    overwrite: bool = False
    cfg_options: CfgOptions = field(default_factory=dict)


@dataclass(frozen=True)
class ConvertFSSAM2Arguments:
    """Turn a checkpoint of FS-SAM2's own code (best_model.pt) into one of mmfss.

    SRC holds SAM 2 with LoRA under the names of PEFT. The config says of which SAM 2 and LoRA, and
    with the fold the classes it was trained on; that goes into DST, so that testing it on them is
    refused. Every weight must fit. See docs/checkpoints.md.

    Args:
        src: Checkpoint of FS-SAM2.
        dst: File to write.
        config: Config of the same arch and benchmark, e.g. configs/fs_sam2_pascal_1shot.py.
        fold: Fold that it was trained on.
        overwrite: Replace DST if it exists.
        cfg_options: Overrides, ``{'model.sam2.arch': 'sam2.1_small'}``.
    """

    src: Positional[str]
    dst: Positional[str]
    _: KW_ONLY
    config: str
    fold: int
    overwrite: bool = False
    cfg_options: CfgOptions = field(default_factory=dict)


@dataclass(frozen=True)
class FoldArguments:
    """Add LoRA of a trained model to the weights that it belongs to: the same results up to
    rounding, without LoRA's cost.

    Args:
        config: Config of its training, or its name among those of mmfss.
        src: Checkpoint of tools/train.py or of a converter.
        dst: File to write; its config is the same with --cfg-options model.lora=None.
        fold: Instead of FOLD.
        overwrite: Replace DST if it exists.
        cfg_options: Overrides, ``{'model.sam2.arch': 'sam2.1_small'}``.
    """

    config: Positional[str]
    src: Positional[str]
    dst: Positional[str]
    _: KW_ONLY
    fold: Annotated[str | None, _unset('FOLD')] = None
    overwrite: bool = False
    cfg_options: CfgOptions = field(default_factory=dict)


@dataclass(frozen=True)
class CurvesArguments:
    """Draw the training curves of runs, no server.

    Args:
        work_dirs: Work directories of runs.
        out: .png, .pdf or .svg.
        keys: Scalars to draw, e.g. loss mIoU 'IoU/*' (default: loss, lr, metrics without classes).
        smooth: Moving average of the loss over so many points; 1: none, 0: a twentieth.
    """

    work_dirs: Annotated[
        Positional[Sequence[str]],
        _several(str),
        arg(metavar='WORK_DIR [WORK_DIR ...]', help_behavior_hint=''),
    ]
    _: KW_ONLY
    out: str = 'curves.png'
    keys: Annotated[Sequence[str], _several(str), _unset('KEY [KEY ...]')] = ()
    smooth: Annotated[int, arg(metavar='POINTS')] = 0


@dataclass(frozen=True)
class DemoArguments:
    """The main job on a small network: generate Shapes-5i in data/shapes5i, pretrain a small
    SAM 2 and train FSSAM on one fold, test it on classes it never saw, draw some episodes, all
    below work_dirs. Uses what is already there: a finished training is not repeated, an interrupted
    one goes on. FOLD in the environment is the fold (default: 0)."""
