"""Comparison of rules with their baseline: runs are grouped, averaged over seeds, and compared where they are alike."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from localearn.moved import Renamed, former_names
from localearn.records import Reading
from localearn.reporting.metrics import full
from localearn.reporting.quantities import Quantity, common_level, quantities
from localearn.reporting.runs import Run, Runs
from localearn.reporting.settings import (
    Settings,
    data_of,
    option_differences,
    options,
    setting_differences,
    settings,
    stopping,
)
from localearn.reporting.statistics import (
    Estimate,
    difference_interval,
    geometric_mean,
    mean_interval,
    ratio_interval,
)
from localearn.reporting.tunings import Tuning, Tunings, tuning_notes
from localearn.tasks import Metric

TRUSTED_SEEDS = 3  # below this no interval is called a finding


@dataclass(frozen=True, slots=True)
class Value:
    """A mean over the seeds whose numbers have one reading.

    Attributes:
        estimate: the mean with its interval.
        reading: the numbers' label; None where the quantity needs none.

    """

    estimate: Estimate
    reading: Reading | None


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity of one rule.

    Attributes:
        quantity: which.
        values: one per reading, none where the quantity is absent.
        missing: the number of the rule's runs that do not hold it.
        flags: what the meter flagged, and in how many runs.
        ratio: to the baseline, a difference where the quantity is compared by that; None where there is a `refusal`.
        refusal: why there is no ratio.
        paired: whether the ratio's numbers come from equal seeds.

    """

    quantity: Quantity
    values: tuple[Value, ...]
    missing: int
    flags: tuple[tuple[str, int], ...]
    ratio: Estimate | None
    refusal: str | None
    paired: bool

    @property
    def differs(self) -> bool:
        """Whether the difference to the baseline is larger than its interval, on seeds enough to say so."""
        neutral = 1.0 if self.quantity.compared == "ratio" else 0.0
        return self.ratio is not None and self.ratio.n >= TRUSTED_SEEDS and self.ratio.excludes(neutral)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's runs under one set of settings, a seed each, and their measures.

    Attributes:
        label: its name in the report.
        algo: the rule's.
        runs: a seed each.
        baseline: whether this is the baseline itself.
        unlike: the settings in which the runs differ from the baseline's, as text; empty where they may be compared.
        measures: of each quantity.

    """

    label: str
    algo: str
    runs: tuple[Run, ...]
    baseline: bool
    unlike: tuple[str, ...]
    measures: tuple[Measure, ...]

    def measure(self, key: str) -> Measure | None:
        """Return the measure of a quantity, None where this group does not have it.

        Args:
            key: the quantity's.

        """
        return next((measure for measure in self.measures if measure.quantity.key == key), None)


@dataclass(frozen=True, slots=True)
class Group:
    """The rules that ran on one net and one data set under one protocol, judged by one metric; the baseline first.

    Attributes:
        protocol: its name, if the runs have one.
        dataset: the data set's name.
        net: the net's.
        metric: the one that judges.
        rules: the baseline first.
        common: the figure of the metric that all runs reached on the validation split.
        names_metric: whether another group has the same data, net and protocol by name, and another metric.

    """

    protocol: str | None
    dataset: str
    net: str
    metric: Metric
    rules: tuple[Rule, ...]
    common: float | None
    names_metric: bool = False

    apart = Renamed("names_metric")

    @property
    def key(self) -> tuple[str | None, ...]:
        """The names that separate the group from others."""
        return self.dataset, self.net, self.protocol, *([full(self.metric)] if self.names_metric else [])

    @property
    def name(self) -> str:
        """Return the group's name, for its heading and its figures."""
        parts = [self.dataset, self.net, *([f"{self.protocol} protocol"] if self.protocol else [])]
        return " · ".join([*parts, *([full(self.metric)] if self.names_metric else [])])


@dataclass(frozen=True, slots=True)
class Comparison:
    """The content of a report, before it is written as text, tables and plots.

    Attributes:
        groups: of rules that can be compared.
        excluded: the runs that did not complete.
        notes: of the reading and the grouping.
        baseline: the algorithm that the others are compared with.
        allow_unlike: whether unlike runs are compared.
        tunings: the searches that found the rules' options.

    """

    groups: tuple[Group, ...]
    excluded: tuple[Run, ...]  # the runs that did not complete
    notes: tuple[str, ...]
    baseline: str
    allow_unlike: bool
    tunings: tuple[Tuning, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """Return the runs that were averaged."""
        return [run for group in self.groups for rule in group.rules for run in rule.runs]


@dataclass(frozen=True, slots=True)
class _Row:
    """A rule's runs under one set of settings, before they are measured."""

    protocol: str | None
    settings: Settings
    algo: str
    options: tuple[tuple[str, str], ...]
    by_seed: dict[int, Run]
    splits: dict[object, str | None]  # the data's fingerprint for each seed of their split


def compare(
    runs: Runs, baseline: str = "backprop", allow_unlike: bool = False, tunings: Tunings | None = None
) -> Comparison:
    """Group the completed runs by protocol, data set and net, and compare every rule with the baseline.

    Runs that differ from the baseline's in more than the rule get no ratio, unless `allow_unlike`.

    Args:
        runs: what `read_runs` returned.
        baseline: the algorithm that the others are compared with.
        allow_unlike: whether to compare unlike runs.
        tunings: the searches that found the rules' options.

    """
    tunings = tunings or Tunings()
    notes = [*runs.notes, *tunings.notes, *tuning_notes(tunings.tunings)]
    completed = [run for run in runs if run.record.status == "completed"]
    rows = _rows(completed, notes)
    groups = defaultdict(list)
    for row in rows:
        groups[(*_place(row), full(row.settings.metric))].append(row)
    metrics = Counter(key[:-1] for key in groups)
    comparison = Comparison(
        groups=tuple(
            replace(_group(groups[key], rows, baseline, allow_unlike), names_metric=metrics[key[:-1]] > 1)
            for key in sorted(groups, key=_natural)
        ),
        excluded=tuple(run for run in runs if run.record.status != "completed"),
        notes=(),
        baseline=baseline,
        allow_unlike=allow_unlike,
        tunings=tunings.tunings,
    )
    return replace(comparison, notes=(*notes, *_remarks(comparison)))


def _place(row: _Row) -> tuple[str, str, str]:
    return row.settings.dataset, row.settings.net, row.protocol or ""


def _natural(names: tuple[str, ...]) -> list[list[int | str]]:
    """Return a key that sorts mlp_4x512 before mlp_16x512."""
    return [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] for name in names]


def _rows(runs: Iterable[Run], notes: list[str]) -> list[_Row]:
    """Put runs into rows, by their rule with its options, their settings and their data.

    Of two that differ in nothing but their time the later is taken, and noted. Data are the same where they were
    prepared alike and no split of one seed has two fingerprints.
    """
    rows: dict[tuple[object, ...], list[_Row]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.finished, run.folder)):
        shared, chosen = settings(run), options(run)
        prepared, split = data_of(run)
        alike = rows[run.record.protocol, shared, run.algo, chosen, prepared]
        same = (row for row in alike if row.splits.get(split, run.fingerprint) == run.fingerprint)
        row = next(same, None)
        if row is None:
            row = _Row(run.record.protocol, shared, run.algo, chosen, {}, {})
            alike.append(row)
        row.splits[split] = run.fingerprint
        by_seed = row.by_seed
        if run.record.seed in by_seed:
            notes.append(
                f"{run.algo}, seed {run.record.seed}, was run more than once: {run.folder} finished last and is used, "
                f"{by_seed[run.record.seed].folder} is left out."
            )
        by_seed[run.record.seed] = run
    grouped = [row for alike in rows.values() for row in alike]
    return [replace(row, by_seed=dict(sorted(row.by_seed.items()))) for row in grouped]


def _group(rows: list[_Row], everywhere: list[_Row], baseline: str, allow_unlike: bool) -> Group:
    first = rows[0]
    ordered = sorted(rows, key=lambda row: (row.algo != baseline, *_order(row)))
    metric = first.settings.metric
    common = common_level(metric, [run for row in rows for run in row.by_seed.values()])
    rules = [_rule(row, rows, everywhere, baseline, allow_unlike, quantities(metric, common)) for row in ordered]
    return Group(first.protocol, first.settings.dataset, first.settings.net, metric, tuple(rules), common)


def _rule(
    row: _Row, group: list[_Row], everywhere: list[_Row], baseline: str, allow_unlike: bool, columns: list[Quantity]
) -> Rule:
    against = None if row.algo == baseline else _nearest(row, everywhere, baseline)
    unlike = tuple(_differences(row, against)) if against else ()
    refusal = None
    if against is None and row.algo != baseline:
        refusal = f"no {baseline} to compare with"
    elif unlike and not allow_unlike:
        refusal = "not comparable"
    compared = against if refusal is None else None
    return Rule(
        label=_label(row, group),
        algo=row.algo,
        runs=tuple(row.by_seed.values()),
        baseline=row.algo == baseline,
        unlike=unlike,
        measures=tuple(_measure(quantity, row, compared, refusal) for quantity in columns),
    )


def _nearest(row: _Row, rows: list[_Row], baseline: str) -> _Row | None:
    """Return the baseline's runs under the same protocol that differ from these in the fewest settings."""
    candidates = [other for other in rows if other.algo == baseline and other.protocol == row.protocol]
    return min(candidates, key=lambda other: (len(_differences(row, other)), repr(other.settings)), default=None)


def _differences(row: _Row, other: _Row) -> list[str]:
    differing = setting_differences(row.settings, other.settings)
    seeds = row.by_seed.keys() & other.by_seed.keys()
    ours = {row.by_seed[seed].fingerprint for seed in seeds or row.by_seed}
    theirs = {other.by_seed[seed].fingerprint for seed in seeds or other.by_seed}
    split_alike = all(row.by_seed[seed].fingerprint == other.by_seed[seed].fingerprint for seed in seeds)
    if row.settings.dataset == other.settings.dataset and (ours != theirs or not split_alike):
        differing.append(f"data {row.settings.dataset} with another fingerprint")
    return differing


def _order(row: _Row) -> tuple[str, ...]:
    return row.algo, repr(row.settings), repr(row.options), str(list(row.splits.values()))


def _label(row: _Row, group: list[_Row]) -> str:
    """Return the rule's name, with what distinguishes it where a group holds it under several settings."""
    others = [other for other in group if other.algo == row.algo and other is not row]
    if not others:
        return row.algo
    differing = {difference for other in others for difference in setting_differences(row.settings, other.settings)}
    own = sorted({difference.split(" against ")[0] for difference in differing if " against " in difference})
    own += sorted({option for other in others for option in option_differences(row.options, other.options)})
    twins = sorted((other for other in group if other.algo == row.algo), key=_order)
    if not own and any(other.splits != row.splits for other in others):
        own = [f"data {str(next(iter(row.splits.values()))).removeprefix('sha256:')[:8]}"]
    return f"{row.algo} ({', '.join(own) or f'variant {twins.index(row) + 1}'})"


def _measure(quantity: Quantity, row: _Row, against: _Row | None, refusal: str | None) -> Measure:
    runs = list(row.by_seed.values())
    numbers: dict[Reading | None, list[float]] = defaultdict(list)
    for run in runs:
        value = quantity.value(run)
        if value is not None:
            numbers[_reading(quantity, run)].append(value)
    flags = Counter(flag for run in runs for flag in run.energy.flags) if _metered(quantity) else Counter()
    ratio, paired = None, False
    if against is not None:
        ratio, refusal, paired = _ratio(quantity, row, against)
    return Measure(
        quantity=quantity,
        values=tuple(Value(mean_interval(values), reading) for reading, values in numbers.items()),
        missing=len(runs) - sum(map(len, numbers.values())),
        flags=tuple(sorted(flags.items())),
        ratio=ratio,
        refusal=refusal if ratio is None else None,
        paired=paired,
    )


def _ratio(quantity: Quantity, row: _Row, against: _Row) -> tuple[Estimate | None, str | None, bool]:
    """Return the ratio (or difference) to the baseline, or the reason why there is none, and whether it is paired."""
    ours, theirs = _values_by_seed(quantity, row), _values_by_seed(quantity, against)
    if not ours or not theirs:
        return None, "absent" if not ours else f"absent in {against.algo}", False
    seeds = sorted(ours.keys() & theirs.keys())
    paired = bool(seeds)
    our_seeds, their_seeds = (seeds, seeds) if paired else (sorted(ours), sorted(theirs))
    readings = {_reading(quantity, row.by_seed[seed]) for seed in our_seeds}
    readings |= {_reading(quantity, against.by_seed[seed]) for seed in their_seeds}
    if len(readings) > 1:
        return None, "not comparable: " + " against ".join(sorted(map(str, readings))), False
    mine, base = [ours[seed] for seed in our_seeds], [theirs[seed] for seed in their_seeds]
    if quantity.compared != "ratio":
        return (difference_interval(mine, base) if paired else _unpaired_difference(mine, base)), None, paired
    if min(*mine, *base) <= 0:
        return None, "not comparable: a ratio needs numbers above 0", False
    if paired:
        return ratio_interval(mine, base), None, True
    return Estimate(geometric_mean(mine) / geometric_mean(base), None, None, 0), None, False


def _unpaired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    return Estimate(mean_interval(ours).mean - mean_interval(theirs).mean, None, None, 0)


def _values_by_seed(quantity: Quantity, row: _Row) -> dict[int, float]:
    values = {seed: quantity.value(run) for seed, run in row.by_seed.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def _reading(quantity: Quantity, run: Run) -> Reading | None:
    return quantity.reading(run) if quantity.reading else None


def _metered(quantity: Quantity) -> bool:
    return quantity.reading is not None and quantity.unit == "J"


def _remarks(comparison: Comparison) -> list[str]:
    """Return the remarks on the runs for a careful reader: unlike settings, budgets, versions, resumed runs."""
    notes = []
    for group in comparison.groups:
        for rule in group.rules:
            if rule.unlike:
                done = "compared nevertheless, as asked" if comparison.allow_unlike else "not compared"
                notes.append(
                    f"{group.name}: {rule.label} is {done}: it differs from {comparison.baseline} in "
                    f"{'; '.join(rule.unlike)}."
                )
        passes = {run.passes for rule in group.rules for run in rule.runs}
        if group.protocol == "matched" and len(passes) > 1:
            notes.append(f"{group.name}: the budgets are not matched, the runs made unequal numbers of passes.")
        endings = {stopping(run) for rule in group.rules for run in rule.runs}
        if group.protocol == "converged" and len(endings) > 1:
            listed = "; ".join(sorted(endings))
            notes.append(f"{group.name}: the runs were not stopped alike: {listed}.")
    resumed = [run.folder for run in comparison.runs if run.resumed]
    if resumed:
        notes.append(f"Interrupted and resumed, the joules of the parts added: {', '.join(resumed)}.")
    return notes


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
