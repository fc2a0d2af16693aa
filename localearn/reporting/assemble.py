"""Put a report together: verdict first, then each group's tables and plots, then how, where and with what."""

from collections.abc import Iterable

from localearn.reporting import prose, tables
from localearn.reporting.comparison import Comparison, Group
from localearn.reporting.document import Block, Bullets, Commands, Document, Figure, Figures, Paragraph, Section
from localearn.reporting.metrics import written
from localearn.reporting.tunings import tuning_table
from localearn.reporting.verdict import verdict


def assemble(
    comparison: Comparison,
    figures: dict[str, list[Figure]],
    depth: list[Figure],
    title: str,
    command: str | None,
) -> Document:
    """Return the whole report; `figures` holds each group's plots by the group's name."""
    sections = [Section("Verdict", tuple(_verdicts(comparison)))]
    sections += [Section(group.name, tuple(_group(group, figures.get(group.name, [])))) for group in comparison.groups]
    if depth:
        sections.append(Section("Memory against depth", (Figures(tuple(depth)),)))
    if comparison.tunings:
        told = "Each search saw the validation split alone. Its cost is no part of the training's, and of no ratio."
        sections.append(Section("Tuning", (Paragraph(told), tuning_table(comparison.tunings))))
    if comparison.excluded:
        table = tables.excluded_table(comparison)
        sections.append(Section("Not completed", (Paragraph("These runs are in no mean, ratio or plot."), table)))
    if comparison.notes:
        sections.append(Section("Notes", (Bullets(comparison.notes),)))
    sections.append(Section("How to read the numbers", (Bullets(tuple(prose.reading_guide(comparison))),)))
    sections.append(Section("Method", (Bullets(tuple(prose.method(comparison))),)))
    if comparison.runs:
        machine = (prose.machine_table(comparison), prose.versions_table(comparison))
        sections.append(Section("Machine and versions", tuple(table for table in machine if table.rows)))
        sections.append(Section("Commands that repeat it", (Commands(tuple(_commands(comparison, command))),)))
    return Document(title, prose.subtitle(comparison), tuple(sections))


def _verdicts(comparison: Comparison) -> Iterable[Block]:
    if not comparison.groups:
        yield Paragraph("No run completed, so there is nothing to compare. The runs are listed below.", lead=True)
    for group in comparison.groups:
        words = verdict(group, comparison.baseline)
        yield Paragraph(words if len(comparison.groups) == 1 else f"{group.name}. {words}", lead=True)


def _group(group: Group, figures: list[Figure]) -> Iterable[Block]:
    yield from tables.rule_tables(group)
    if figures:
        yield Figures(tuple(figures))
    if not any(run.energy.train_j is not None for rule in group.rules for run in rule.runs):
        yield Paragraph(
            f"No run of this group has energy, so {written(group.metric)} against energy is not drawn: "
            "it is absent, not zero."
        )
    if not any(run.epochs for rule in group.rules for run in rule.runs):
        yield Paragraph("No run of this group has a readable metrics.jsonl, so there are no learning curves.")
    yield tables.window_table(group)
    absent = tables.absent_parts(group)
    if absent:
        yield Paragraph(absent)


def _commands(comparison: Comparison, command: str | None) -> list[str]:
    lines = [command] if command else []
    for group in comparison.groups:
        lines += [line for line in prose.repeat_commands(group) if line not in lines]
    return lines
