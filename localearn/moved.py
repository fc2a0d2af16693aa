"""Former names of modules and of what they have, usable for one release with a FutureWarning that names the new one."""

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# The new module of each former one; all names of a former module are in its new one.
MOVED = {
    "localearn.arguments": "localearn.cli.options",
    "localearn.data.archive": "localearn.data.files",
    "localearn.data.augmentation": "localearn.data.transforms",
    "localearn.data.fingerprint": "localearn.data.base",
    "localearn.data.items": "localearn.data.checks",
    "localearn.data.loading": "localearn.data.sources",
    "localearn.data.normalization": "localearn.data.transforms",
    "localearn.data.regression": "localearn.data.embedded",
    "localearn.data.splits": "localearn.data.partition",
    "localearn.energy.carbon": "localearn.energy.codecarbon",
    "localearn.energy.card": "localearn.energy.nvml",
    "localearn.energy.check.bench": "localearn.energy.selftest",
    "localearn.energy.check.checks": "localearn.energy.selftest",
    "localearn.energy.check.load": "localearn.energy.selftest_load",
    "localearn.energy.check.neighbour": "localearn.energy.selftest_load",
    "localearn.energy.check.outcome": "localearn.energy.selftest",
    "localearn.energy.check.page": "localearn.energy.selftest_page",
    "localearn.energy.clock": "localearn.energy.sources",
    "localearn.energy.counter": "localearn.energy.sources",
    "localearn.energy.fake": "localearn.testing.energy",
    "localearn.energy.idle": "localearn.energy.sources",
    "localearn.energy.power": "localearn.energy.sources",
    "localearn.energy.ticker": "localearn.energy.sources",
    "localearn.doorway": "localearn.cli.errors",
    "localearn.locks": "localearn.records.folder",
    "localearn.nets.aggregation": "localearn.nets.gnn",
    "localearn.nets.attention": "localearn.nets.transformer",
    "localearn.nets.cnn": "localearn.nets.conv",
    "localearn.nets.edges": "localearn.nets.gnn",
    "localearn.nets.initialization": "localearn.nets.layers",
    "localearn.nets.lenet": "localearn.nets.conv",
    "localearn.nets.linear_maps": "localearn.nets.introspection",
    "localearn.nets.mixer": "localearn.nets.patches",
    "localearn.nets.noise_schedules": "localearn.nets.denoiser",
    "localearn.nets.resnet": "localearn.nets.conv",
    "localearn.nets.sequential": "localearn.nets.block",
    "localearn.nets.statistics": "localearn.nets.introspection",
    "localearn.nets.systems": "localearn.nets.physical",
    "localearn.nets.vit": "localearn.nets.patches",
    "localearn.outcome": "localearn.jobs",
    "localearn.quiet": "localearn.extras",
    "localearn.records.checksums": "localearn.records.folder",
    "localearn.records.energy": "localearn.records.reading",
    "localearn.reporting.assemble": "localearn.reporting.writing",
    "localearn.reporting.data": "localearn.reporting.writing",
    "localearn.reporting.depth": "localearn.reporting.plots",
    "localearn.reporting.likeness": "localearn.reporting.settings",
    "localearn.reporting.markdown": "localearn.reporting.document",
    "localearn.reporting.metric_energy": "localearn.reporting.plots",
    "localearn.reporting.page": "localearn.reporting.document",
    "localearn.reporting.plain_text": "localearn.reporting.runs",
    "localearn.reporting.prose": "localearn.reporting.verdict",
    "localearn.reporting.reading": "localearn.reporting.runs",
    "localearn.testing.phases": "localearn.testing.conformance",
    "localearn.trainers.estimators.local_guess": "localearn.trainers.estimators.forward_gradient",
    "localearn.trainers.feedback.feedback_alignment": "localearn.trainers.feedback.alignment",
    "localearn.trainers.feedback.sign_symmetry": "localearn.trainers.feedback.alignment",
    "localearn.trainers.feedback.weight_mirror": "localearn.trainers.feedback.pepita",
    "localearn.trainers.local.sparsemax": "localearn.trainers.local.losses",
    "localearn.training.alignment": "localearn.training.diagnostics",
    "localearn.training.device": "localearn.training.runtime",
    "localearn.training.parallel": "localearn.training.distributed",
    "localearn.training.parallel.data": "localearn.training.distributed.data",
    "localearn.training.parallel.joined_ranks": "localearn.training.distributed.ranks",
    "localearn.training.parallel.joining": "localearn.training.distributed.launch",
    "localearn.training.parallel.layers": "localearn.training.distributed.pipeline",
    "localearn.training.parallel.normalization": "localearn.training.distributed.normalization",
    "localearn.training.parallel.ranks": "localearn.training.distributed.ranks",
    "localearn.training.recording": "localearn.training.capture",
    "localearn.training.schedules": "localearn.training.optimization",
    "localearn.training.tensorboard": "localearn.training.loggers",
    "localearn.training.update": "localearn.training.step",
    "localearn.tuning.aside": "localearn.tuning.search",
}

# Names that have changed, or moved to another module, while their former module remains: the new place of each, by it.
# The former module ends with `__getattr__ = former_names(__name__)`.
MOVED_NAMES: dict[str, dict[str, str]] = {
    "localearn.analysing.plots": {
        "Looks": "localearn.analysing.plots.Styles",
        "rule_looks": "localearn.analysing.plots.rule_styles",
    },
    "localearn.benching.parallel": {
        "Found": "localearn.benching.parallel.ParallelBench",
        "PINGS": "localearn.benching.rank.PINGS",
        "WARM_UP": "localearn.benching.rank.WARM_UP",
        "Way": "localearn.benching.rank.Way",
        "costs": "localearn.benching.rank.costs",
        "inputs_of_blocks": "localearn.benching.rank.inputs_of_blocks",
        "measure": "localearn.benching.rank.measure",
        "measured": "localearn.benching.parallel.run_ranks",
        "run_rank": "localearn.benching.rank.run_rank",
    },
    "localearn.benching.workload": {
        "built": "localearn.benching.workload.build_rule_on_data",
        "made_up": "localearn.benching.workload.random_batches",
    },
    "localearn.cli.errors": {
        "Door": "localearn.cli.errors.Command",
        "run_door": "localearn.cli.errors.run_command",
        "told": "localearn.cli.errors.run_reporting_errors",
    },
    "localearn.cli.options": {
        "overrides_of": "localearn.composition.overrides_of",
    },
    "localearn.data.arrays": {
        "FOLDS": "localearn.data.partition.FOLDS",
        "check_fraction": "localearn.data.partition.check_fraction",
        "check_seed": "localearn.data.partition.check_seed",
        "fold_of": "localearn.data.partition.fold_of",
        "held_size": "localearn.data.partition.held_out_size",
        "hold_out": "localearn.data.partition.hold_out",
    },
    "localearn.data.base": {
        "as_array": "localearn.data.checks.as_array",
        "as_pair": "localearn.data.checks.as_pair",
        "leaves_out_last": "localearn.data.base.drops_last",
    },
    "localearn.data.coordinates": {
        "encoded": "localearn.data.coordinates.positional_encoding",
    },
    "localearn.data.files": {
        "FAILURES": "localearn.data.downloads.FAILURES",
        "TIMEOUT_S": "localearn.data.downloads.TIMEOUT_S",
        "absent": "localearn.data.downloads.unavailable",
        "download_folder": "localearn.data.downloads.download_folder",
        "downloading": "localearn.data.downloads.downloading",
        "keep": "localearn.data.files.store",
        "names": "localearn.data.files.array_names",
    },
    "localearn.data.graphs": {
        "NPZ_GRAPHS": "localearn.data.npz_graphs.NPZ_GRAPHS",
        "PLANETOID": "localearn.data.planetoid.PLANETOID",
        "npz_graph": "localearn.data.npz_graphs.npz_graph",
        "planetoid": "localearn.data.planetoid.planetoid",
    },
    "localearn.data.partition": {
        "held_size": "localearn.data.partition.held_out_size",
    },
    "localearn.data.targets": {
        "flat_labels": "localearn.data.labels.flat_labels",
        "numbered": "localearn.data.labels.numbered",
        "of_classes": "localearn.data.targets.targets_are_labels",
    },
    "localearn.data.views": {
        "encoded": "localearn.data.coordinates.positional_encoding",
    },
    "localearn.energy.codecarbon": {
        "RAM_LOOK_S": "localearn.energy.codecarbon.RAM_INTERVAL_S",
    },
    "localearn.energy.meter": {
        "LONG_PERIODS": "localearn.energy.tally.LONG_PERIODS",
        "LOSSES": "localearn.energy.part.LOSSES",
        "SEAM_NOTE": "localearn.energy.meter.RESUME_NOTE",
    },
    "localearn.energy.nvml": {
        "LOOK_S": "localearn.energy.nvml.CONDITIONS_S",
    },
    "localearn.energy.selftest": {
        "BESIDE_S": "localearn.energy.selftest.NEIGHBOUR_S",
        "BURST_S": "localearn.energy.selftest_load.BURST_S",
        "MatrixLoad": "localearn.energy.selftest_load.MatrixLoad",
        "NEIGHBOUR_START_LIMIT_S": "localearn.energy.selftest_load.NEIGHBOUR_START_LIMIT_S",
        "READY": "localearn.energy.selftest_load.READY",
        "SIZES": "localearn.energy.selftest_load.SIZES",
        "load_until_end": "localearn.energy.selftest_load.load_until_end",
        "loaded_by_another": "localearn.energy.selftest_load.loaded_by_another",
    },
    "localearn.nets.block": {
        "chained": "localearn.nets.block.merge_blocks",
        "joined": "localearn.nets.block.merge_stem",
        "parts": "localearn.nets.block.sequential_parts",
    },
    "localearn.nets.deepfm": {
        "Beside": "localearn.nets.deepfm.PassThrough",
        "Embeddings": "localearn.nets.deepfm.ColumnEmbeddings",
    },
    "localearn.nets.denoiser": {
        "Embeddings": "localearn.nets.denoiser.ClassEmbeddings",
    },
    "localearn.nets.gnn": {
        "kept": "localearn.nets.gnn.cached",
    },
    "localearn.nets.introspection": {
        "Replaced": "localearn.nets.introspection.LinearInterceptor",
    },
    "localearn.nets.layers": {
        "check_classes": "localearn.nets.checks.check_classes",
        "check_image": "localearn.nets.checks.check_image",
        "check_row": "localearn.nets.checks.check_row",
        "check_widths": "localearn.nets.checks.check_widths",
    },
    "localearn.nets.net": {
        "modes_kept": "localearn.nets.layers.preserve_modes",
    },
    "localearn.nets.patches": {
        "Patches": "localearn.nets.patches.PatchEmbedding",
        "first_and_last": "localearn.nets.patches.add_patches_and_norm",
        "places": "localearn.nets.patches.sincos_positions",
    },
    "localearn.nets.recurrent": {
        "differentiated": "localearn.nets.recurrent.use_derivatives",
    },
    "localearn.nets.through_time": {
        "through_time": "localearn.nets.through_time.derivative_by_name",
    },
    "localearn.nets.torchvision": {
        "Patches": "localearn.nets.torchvision.VisionTransformerStem",
        "parts": "localearn.nets.block.sequential_parts",
    },
    "localearn.nets.transformer": {
        "reading": "localearn.nets.transformer.choose_view",
    },
    "localearn.printing": {
        "load_forward_mode": "localearn.extras.load_forward_mode",
        "torch_geometric": "localearn.extras.torch_geometric",
    },
    "localearn.records.fields": {
        "shown": "localearn.records.fields.abbreviated",
    },
    "localearn.records.folder": {
        "Held": "localearn.records.folder.LockedError",
    },
    "localearn.records.record": {
        "BESIDE": "localearn.records.record.NOT_IN_JSON",
    },
    "localearn.reporting.comparison": {
        "FORMER_MONITOR": "localearn.reporting.settings.FORMER_MONITOR",
    },
    "localearn.reporting.drawing": {
        "Look": "localearn.reporting.drawing.PlotStyle",
        "MADE_BY": "localearn.reporting.drawing.CREATOR",
        "looks": "localearn.reporting.drawing.plot_styles",
    },
    "localearn.reporting.metrics": {
        "shown": "localearn.reporting.metrics.with_unit",
    },
    "localearn.reporting.plots": {
        "Looks": "localearn.reporting.plots.Styles",
        "rule_looks": "localearn.reporting.plots.rule_styles",
    },
    "localearn.reporting.writing": {
        "place": "localearn.reporting.writing.write_files",
    },
    "localearn.trainers.base": {
        "follow": "localearn.trainers.base.accumulate_grad",
    },
    "localearn.trainers.estimators.base": {
        "Gaussian": "localearn.trainers.estimators.noise.Gaussian",
        "Kind": "localearn.trainers.estimators.noise.Kind",
        "NOISES": "localearn.trainers.estimators.noise.NOISES",
        "Noise": "localearn.trainers.estimators.noise.Noise",
        "Sobol": "localearn.trainers.estimators.noise.Sobol",
    },
    "localearn.trainers.feedback.backward_path": {
        "FeedbackTrainer": "localearn.trainers.feedback.base.FeedbackTrainer",
        "SentBack": "localearn.trainers.feedback.paths.PathFunction",
        "around": "localearn.trainers.feedback.paths.apply_along_path",
        "drawn_like": "localearn.trainers.feedback.paths.uniform_like",
        "mixed": "localearn.trainers.feedback.paths.combined_matrix",
        "scale_of": "localearn.trainers.feedback.paths.rms",
    },
    "localearn.trainers.feedback.passes": {
        "still_buffers": "localearn.trainers.feedback.passes.preserve_buffers",
    },
    "localearn.trainers.local.cafo": {
        "mean_over": "localearn.trainers.local.losses.mean_over",
        "sparsemax": "localearn.trainers.local.losses.sparsemax",
        "sparsemax_loss": "localearn.trainers.local.losses.sparsemax_loss",
        "squared_error": "localearn.trainers.local.losses.squared_error",
    },
    "localearn.trainers.local.forward_forward": {
        "EPS": "localearn.trainers.local.normalization.EPS",
    },
    "localearn.trainers.local.heads": {
        "MADE": "localearn.trainers.local.heads.BUILDERS",
        "Read": "localearn.trainers.local.heads.HeadInput",
    },
    "localearn.trainers.local.labels": {
        "beside_itself": "localearn.trainers.local.labels.duplicate_context",
    },
    "localearn.trainers.local.top_down": {
        "SETTLING": "localearn.trainers.local.top_down.BURN_IN",
    },
    "localearn.trainers.paired.counter_current": {
        "Shape": "localearn.trainers.paired.opposite.Shape",
    },
    "localearn.training.callbacks": {
        "Bar": "localearn.training.progress.Bar",
        "Illustration": "localearn.training.illustration.Illustration",
        "Lines": "localearn.training.progress.Lines",
        "describe": "localearn.training.progress.describe",
        "make_progress": "localearn.training.progress.make_progress",
    },
    "localearn.training.distributed": {
        "joined": "localearn.training.distributed.join_process_group",
        "normalises_jointly": "localearn.training.distributed.uses_sync_batch_norm",
    },
    "localearn.training.distributed.data": {
        "Adds": "localearn.training.distributed.normalization.AllReduce",
        "normalise_jointly": "localearn.training.distributed.normalization.sync_batch_norm",
        "normalises_jointly": "localearn.training.distributed.normalization.uses_sync_batch_norm",
    },
    "localearn.training.distributed.launch": {
        "joined": "localearn.training.distributed.launch.join_process_group",
    },
    "localearn.training.distributed.pipeline": {
        "balanced": "localearn.training.distributed.pipeline.balance",
    },
    "localearn.training.distributed.ranks": {
        "JoinedRanks": "localearn.training.distributed.ranks.ProcessGroupRanks",
        "shared": "localearn.training.distributed.ranks.shared_error",
    },
    "localearn.training.evaluate": {
        "EarlyStopping": "localearn.training.early_stopping.EarlyStopping",
        "FORMER_DEFAULT": "localearn.training.early_stopping.FORMER_DEFAULT",
        "monitored": "localearn.training.early_stopping.monitored",
    },
    "localearn.training.experiment": {
        "BEFORE": "localearn.training.loading.BEFORE",
        "load_net": "localearn.training.loading.load_net",
        "load_rule": "localearn.training.loading.load_rule",
        "resumed": "localearn.training.loading.resumed",
    },
    "localearn.training.fit": {
        "check": "localearn.training.checks.check",
    },
    "localearn.training.identity": {
        "EXTENDING": "localearn.training.resume.EXTENDING",
        "FREE": "localearn.training.resume.FREE",
        "check_extension": "localearn.training.resume.check_extension",
        "check_resumed": "localearn.training.resume.check_resumed",
        "complete_rule": "localearn.training.identity.upgrade_configuration",
        "first_change": "localearn.training.resume.first_change",
        "schedule_class": "localearn.training.resume.schedule_class",
    },
    "localearn.training.layout": {
        "lay_out": "localearn.training.layout.apply_memory_format",
        "like_their_parameters": "localearn.training.layout.match_memory_format",
    },
    "localearn.training.memory": {
        "full_memory_told": "localearn.training.memory.out_of_memory_error",
    },
    "localearn.training.runtime": {
        "PeakMemory": "localearn.training.memory.PeakMemory",
        "full_memory_told": "localearn.training.memory.out_of_memory_error",
        "lay_out": "localearn.training.layout.apply_memory_format",
        "like_their_parameters": "localearn.training.layout.match_memory_format",
        "live_tensor_bytes": "localearn.training.memory.live_tensor_bytes",
    },
    "localearn.training.step": {
        "CompiledUpdate": "localearn.training.capture.CompiledUpdate",
        "CudaGraph": "localearn.training.capture.CudaGraph",
        "Graph": "localearn.training.capture.Graph",
        "GraphUpdate": "localearn.training.capture.GraphUpdate",
        "Recorded": "localearn.training.capture.GraphedCallable",
        "SHAPES": "localearn.training.capture.SHAPES",
        "WARM_UP": "localearn.training.capture.WARM_UP",
        "captured": "localearn.training.capture.captured",
        "captured_measure": "localearn.training.capture.captured_measure",
        "keep_on_device": "localearn.training.capture.keep_on_device",
        "on_any_device": "localearn.training.capture.on_any_device",
    },
    "localearn.tuning.plan": {
        "FIELDS": "localearn.tuning.space.FIELDS",
        "altered": "localearn.tuning.space.altered",
        "ends": "localearn.tuning.space.ends",
        "read_space": "localearn.tuning.space.read_space",
        "shown": "localearn.tuning.space.as_override",
    },
    "localearn.tuning.search": {
        "Pruning": "localearn.tuning.trial.Pruning",
        "QUIET": "localearn.tuning.trial.QUIET",
        "remembered": "localearn.tuning.trial.remembered",
        "set_broken_aside": "localearn.tuning.trial.set_broken_aside",
        "values_of": "localearn.tuning.trial.values_of",
    },
}


class Finder(MetaPathFinder, Loader):
    """Find a former module where no other finder has: an empty module that looks its names up in its new place."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a former module, None for any other name.

        Args:
            name: The module's absolute name.
            path: Unused, as is `target`; `importlib` passes both.
            target: See `path`.

        """
        return ModuleSpec(name, self, is_package=_has_parts(name)) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None: `importlib` creates an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Warn of the move and forward every name to the new module."""
        former, place = module.__name__, MOVED[module.__name__]
        message = f"{former} has moved: import {place}"
        package = _has_parts(former)  # imported on the way to its modules too, which warn themselves
        if not package:
            warnings.warn(message, FutureWarning, stacklevel=2)
        source = importlib.import_module(place)

        def forward(name: str) -> Any:
            if package and not name.startswith("__"):
                warnings.warn(message, FutureWarning, stacklevel=2)
            try:
                return getattr(source, name)
            except AttributeError:
                raise AttributeError(f"module {former!r}, now {place!r}, has no attribute {name!r}") from None

        module.__doc__ = f"Moved to `{place}`."
        module.__getattr__ = forward  # type: ignore[method-assign]


def _has_parts(name: str) -> bool:
    return any(former.startswith(f"{name}.") for former in MOVED)


def former_names(module: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module some of whose names have moved: it warns, and forwards to the new place.

    Args:
        module: The module's name, a key of `MOVED_NAMES`.

    """

    def forward(name: str) -> Any:
        place = MOVED_NAMES.get(module, {}).get(name)  # a module that `python -m` runs is called "__main__"
        if place is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} has moved: use {place}", FutureWarning, stacklevel=2)
        source, _, present = place.rpartition(".")
        return getattr(importlib.import_module(source), present)

    return forward


class Renamed:
    """Former name of an attribute or a method: a descriptor that warns, and forwards to the present name.

    Args:
        present: The present name.

    Example:
        class Loop:
            saves = True
            kept = Renamed("saves")

    """

    def __init__(self, present: str):
        self.present = present
        self._former = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._former = f"{owner.__name__}.{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        self._warn()
        return getattr(instance, self.present)

    def __set__(self, instance: Any, value: Any) -> None:
        self._warn()
        setattr(instance, self.present, value)

    def _warn(self) -> None:
        warnings.warn(f"{self._former} is deprecated: use {self.present}", FutureWarning, stacklevel=3)


def install() -> None:
    """Install the finder of former names; a second call does nothing."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
