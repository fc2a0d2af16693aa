"""An analysis as a document: the findings of all runs next to each other, then the method."""

import shlex
from collections.abc import Sequence

from localearn.analysing import plots
from localearn.analysing.findings import Findings, Similarity
from localearn.analysing.measures import RIDGE
from localearn.reporting import formatting
from localearn.reporting.document import (
    Block,
    Bullets,
    Cell,
    Commands,
    Document,
    Figure,
    Figures,
    Line,
    Paragraph,
    Section,
    Table,
    cell,
)

MOST_NAMED = 3  # seen classes that an unseen one's ensemble shares most with


def assemble(
    findings: Sequence[Findings], alike: Sequence[Similarity], threshold: float, title: str, command: str
) -> tuple[Document, list[Figure]]:
    """Return the document and its figures.

    Args:
        findings: one for each run.
        alike: the blocks' similarities.
        threshold: by which the ensembles were found.
        title: the document's.
        command: the command that makes it again.

    """
    styles = plots.rule_styles(findings)
    depth = max(len(finding.blocks) for finding in findings)
    sections = [
        Section("Runs", (_runs(findings),)),
        Section("Sparsity and dead units", tuple(_sparsity(findings, styles, depth))),
        Section("What a linear probe reads", tuple(_probes(findings, styles, depth))),
        Section("Class ensembles", tuple(_ensembles(findings, threshold, depth))),
    ]
    if any(finding.unseen for finding in findings):
        sections.append(Section("Classes left out of training", tuple(_unseen(findings))))
    similar = [plots.similarity_figure(number, group) for number, group in enumerate(alike, start=1)]
    text = (
        "Runs whose test rows differ, as those on other data sets do, are not compared."
        if len(alike) > 1
        else "1 where one block's activities are another's, rotated and scaled; 0 where nothing in them goes together."
    )
    sections.append(Section("Similarity of blocks", (Paragraph(text), Figures(tuple(similar)))))
    sections.append(Section("Alignment over training", tuple(_alignment(findings))))
    sections.append(Section("How it was measured", (Bullets(tuple(_method(findings, threshold))),)))
    sections.append(Section("Command that repeats it", (Commands((command,)),)))
    figures = [
        figure
        for section in sections
        for block in section.blocks
        if isinstance(block, Figures)
        for figure in block.figures
    ]
    sets = ", ".join(dict.fromkeys(finding.dataset for finding in findings))
    subtitle = f"{len(findings)} trained net{'s' if len(findings) > 1 else ''} · {sets}"
    return Document(title, subtitle, tuple(sections)), figures


def percent(share: float | None) -> str:
    """Return a share as per cent, a dash where there is none.

    Args:
        share: 0 to 1, or None.

    """
    return "–" if share is None else f"{100 * share:.1f} %"


def number(value: float | None) -> str:
    """Return a number with three digits after the point, a dash where there is none.

    Args:
        value: the number, or None.

    """
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _runs(findings: Sequence[Findings]) -> Table:
    rows = []
    for finding in findings:
        left = ", ".join(finding.class_names[k] for k in finding.unseen) or "none"
        sizes = ", ".join(str(block.units) for block in finding.blocks)
        rows.append(
            (
                cell(finding.label),
                cell(f"{finding.algo} · {finding.net} · {finding.dataset}"),
                cell(sizes),
                cell(left),
                (Line(percent(finding.accuracy)), Line(f"{finding.rows[1]:,} rows", "label")),
                cell(finding.folder or "not from a folder"),
            )
        )
    columns = ("Run", "Rule · net · data", "Units by block", "Classes left out", "Test accuracy", "Folder")
    return Table("What was looked at; accuracy is of the classes that were trained on", columns, tuple(rows))


def _by_block(
    caption: str, findings: Sequence[Findings], depth: int, cells: Sequence[Sequence[Cell]], first: Sequence[Cell] = ()
) -> Table:
    """Return a table of a row a run and a column a block; first: a column before that of block 1, the input's."""
    columns = ("Run", *(("Input",) if first else ()), *(f"Block {k + 1}" for k in range(depth)))
    rows = []
    for i, (finding, of_blocks) in enumerate(zip(findings, cells, strict=True)):
        missing = [cell("–")] * (depth - len(of_blocks))
        rows.append((cell(finding.label), *first[i : i + 1], *of_blocks, *missing))
    return Table(caption, columns, tuple(rows))


def _sparsity(findings: Sequence[Findings], styles: plots.Styles, depth: int) -> list[Block]:
    cells = []
    for finding in findings:
        of_run = []
        for block in finding.blocks:
            lines = [Line(number(block.hoyer)), Line(f"dead {block.dead} of {block.units} units", "label")]
            if block.silent:
                lines.append(Line(f"{percent(block.silent)} of rows all zero", "flag"))
            of_run.append(tuple(lines))
        cells.append(of_run)
    table = _by_block("Hoyer's sparsity, 0 where all units are as active and 1 where one is", findings, depth, cells)
    figure = plots.by_block(
        "sparsity", findings, styles, lambda finding: [block.hoyer for block in finding.blocks], "Hoyer's sparsity",
        "Hoyer's sparsity of a block's output, the mean over test rows.",
    )  # fmt: skip
    return [table, Figures((figure,))] if figure else [table]


def _probes(findings: Sequence[Findings], styles: plots.Styles, depth: int) -> list[Block]:
    cells = [[cell(percent(block.probe)) for block in finding.blocks] for finding in findings]
    first = [cell(percent(finding.probe_of_input)) for finding in findings]
    caption = "Test accuracy of a linear classifier of a block's units, trained on training rows"
    figure = plots.by_block(
        "probes", findings, styles,
        lambda finding: [
            None if share is None else 100 * share
            for share in (finding.probe_of_input, *(block.probe for block in finding.blocks))
        ],
        "probe's test accuracy (%)", "Linear probes: what of the class can be read from a block by a line.", first=0,
    )  # fmt: skip
    table = _by_block(caption, findings, depth, cells, first)
    return [table, Figures((figure,))] if figure else [table]


def _ensembles(findings: Sequence[Findings], threshold: float, depth: int) -> list[Block]:
    text = (
        f"A class's ensemble is the units whose mean activity for it is more than {threshold:g} of the largest mean "
        "that a unit has for it. Two ensembles share the units in both over those in either; by chance is what sets of "
        "these sizes would."
    )
    cells = []
    for finding in findings:
        of_run = []
        for block in finding.blocks:
            sizes = [block.sizes[k] for k in finding.classes]
            mean = sum(sizes) / len(sizes)
            shared, chance = (
                block.mean_shared(finding.classes),
                block.mean_shared(finding.classes, block.by_chance),
            )
            of_run.append(
                (
                    Line(f"{formatting.plain(mean, 3)} units, {percent(mean / block.units)}"),
                    Line(f"{min(sizes)} to {max(sizes)}", "label"),
                    Line(f"share {number(shared)}, by chance {number(chance)}", "label"),
                    Line(f"{percent(block.exclusive(finding.classes))} of them in one class alone", "label"),
                )
            )
        cells.append(of_run)
    table = _by_block("Ensembles of the classes that were trained on: mean size and overlap", findings, depth, cells)
    drawn = tuple(plots.shared_figure(i, finding) for i, finding in enumerate(findings, start=1))
    return [Paragraph(text), table, Figures(drawn)]


def _unseen(findings: Sequence[Findings]) -> list[Block]:
    text = (
        "No row of these classes was trained on. Their test rows still call up ensembles: of units that stand for seen "
        "classes, or of units that are in none of the seen classes' ensembles, which are new."
    )
    rows, drawn = [], []
    for i, finding in enumerate(findings, start=1):
        for unseen in finding.unseen:
            name = finding.class_names[unseen]
            mistaken = list(finding.predicted[unseen].items())[:MOST_NAMED]
            mistaken_as = ", ".join(f"{finding.class_names[k]} {percent(share)}" for k, share in mistaken)
            for k, block in enumerate(finding.blocks):
                called = block.called_up(unseen, finding.classes)[:MOST_NAMED]
                among = ", ".join(f"{finding.class_names[j]} {number(share)}" for j, share in called)
                seen_shared = block.mean_shared(finding.classes)
                rows.append(
                    (
                        (Line(finding.label), Line(f"class {name}, block {k + 1}", "label")),
                        (
                            Line(f"{block.sizes[unseen]} units"),
                            Line(f"{percent(block.new(unseen, finding.classes))} new", "label"),
                        ),
                        (Line(among or "–"), Line(f"seen classes among each other {number(seen_shared)}", "label")),
                        cell(mistaken_as or "–"),
                    )
                )
            drawn.append(plots.unseen_figure(i, finding, unseen))
    columns = ("Run, class and block", "Its ensemble", "Shares most with", "Is predicted as")
    return [
        Paragraph(text),
        Table("Which ensembles an unseen class calls up", columns, tuple(rows)),
        Figures(tuple(drawn)),
    ]


def _alignment(findings: Sequence[Findings]) -> list[Block]:
    drawn = [plots.angles_figure(i, finding) for i, finding in enumerate(findings, start=1)]
    figures = tuple(figure for figure in drawn if figure)
    if not figures:
        return [
            Paragraph(
                "No run has angles: they are taken while it trains, by diagnose=alignment, which a rule refuses that "
                "predicts by more than its net."
            )
        ]
    without = [finding.label for finding, figure in zip(findings, drawn, strict=True) if figure is None]
    text = [Paragraph(f"Trained without diagnose=alignment: {', '.join(without)}.")] if without else []
    return [*text, Figures(figures)]


def _method(findings: Sequence[Findings], threshold: float) -> list[str]:
    rows = max(finding.rows[1] for finding in findings)
    return [
        f"Everything is measured on test rows (at most {rows:,}, drawn, the same for all runs), with the rule's own "
        "hidden states: those that its prediction has, a label in the input or normalised lengths included.",
        "Of maps a unit is a channel and of a sequence a feature, its activity the mean over places or positions; "
        "sparsity is of all values of a block's output, and rows of zeros, which have none, are counted apart.",
        "A unit is dead where its activity is the same for every test row: a rectified one that no row turns on.",
        f"Ensembles hang on a threshold, which is a choice: {threshold:g} here. A finding holds at others, too.",
        f"Probes are ridge regressions of one-hot labels on standardised units (ridge {RIDGE:g}), solved on at most "
        f"{max(run.rows[0] for run in findings):,} training rows and measured on test rows of classes that were "
        "trained on; nothing is chosen by them.",
        "Each figure is of one trained net. How far it differs from seed to seed only more runs tell.",
        "Ensembles follow Tosato et al., arXiv 2305.18353, who look at rows that are predicted rightly alone; sparsity "
        "is Hoyer's, JMLR 5 (2004); linear CKA is Kornblith et al.'s, arXiv 1905.00414.",
    ]


def command_line(folders: Sequence[str], options: Sequence[str]) -> str:
    """Return the command that makes the page again.

    Args:
        folders: the runs'.
        options: KEY=VALUE of the command.

    """
    return shlex.join(["python", "-m", "localearn.analyse", *folders, *options])
