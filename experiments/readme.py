"""Write the tables of README.md and docs/results.md, and draw their figures, from the results.

Run:    python -m experiments.readme
Expect: experiments/results/NAME.png for each plateau_*.json there, and an example page where
        NAME_examples.npz lies beside it; in both texts each block ``<!-- results: NAME -->`` up to
        ``<!-- end -->`` holds the table of NAME.json, ``<!-- recipes: DATA -->`` the recipes,
        ``<!-- curve: NAME -->`` the curve of Ours, ``<!-- deltas: NAME -->`` what it saves and
        ``<!-- efficacy: NAME -->`` Table 2 of CVR, ``<!-- layers: NAME -->`` and
        ``<!-- packings: NAME -->`` VCM's Tables I and II, ``<!-- splits: NAME -->`` MTC's example,
        ``<!-- aggregation: NAME -->``, ``<!-- human_vision: NAME -->``,
        ``<!-- transferability: NAME -->`` and ``<!-- unseen: NAME -->`` Tables 4 to 7 of CVR, ours
        and the paper's, ``<!-- grouping: NAME -->`` ours after a search for groups,
        ``<!-- refinement: NAME -->`` what refinement saves, and ``<!-- variable_rate: NAME -->``
        one model for any priority, from NAME.json
"""

import re
from collections.abc import Sequence
from pathlib import Path

from experiments import (
    aggregation,
    efficacy,
    feature_coding,
    grouping,
    harness,
    human_vision,
    image_vs_feature,
    paper,
    rate_performance,
    refinement,
    transferability,
    unseen,
    variable_rate,
)
from vcmjax.evaluate import plots, tables

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
TEXTS = (ROOT / "README.md", ROOT / "docs" / "results.md")
_TABLES = {
    "results": tables.markdown,
    "deltas": rate_performance.deltas,
    "efficacy": efficacy.table,
    "layers": feature_coding.table_1,
    "packings": feature_coding.table_2,
    "splits": image_vs_feature.table,
    "aggregation": lambda results: f"{aggregation.table(results)}\n{paper.TABLE_4}",
    "grouping": aggregation.table,
    "human_vision": lambda results: f"{human_vision.table(results)}\n{paper.TABLE_5}",
    "transferability": lambda results: f"{transferability.table(results)}\n{paper.TABLE_6}",
    "unseen": lambda results: f"{unseen.table(results)}\n{paper.TABLE_7}",
    "refinement": refinement.table,
    "variable_rate": variable_rate.table,
}
_DRAWN = (
    feature_coding,
    image_vs_feature,
    aggregation,
    grouping,
    human_vision,
    transferability,
    unseen,
    refinement,
    variable_rate,
)
"""Experiments of which each results file gives one figure."""
_BLOCK = re.compile(
    rf"<!-- ({'|'.join(['recipes', 'curve', *_TABLES])}): (\w+) -->\n.*?<!-- end -->", re.DOTALL
)
RECIPES = {
    "one conditioned model, network's output": "recipe_{}_network.json",
    "one conditioned model, labels": "recipe_{}_labels.json",
    "one model per λ, labels (as in the paper)": "recipe_{}_separate.json",
}


def recipes(name: str) -> str:
    """Markdown: validation mIoU of Ours by recipe and λ, its interval, and the bits it took."""
    found = {
        recipe: tables.read(RESULTS / pattern.format(name)) for recipe, pattern in RECIPES.items()
    }
    lams = next(iter(found.values()))["config"]["lams"]
    lines = ["| recipe | " + " | ".join(f"λ = {lam:g}" for lam in lams) + " |"]
    lines.append("|---" * (1 + len(lams)) + "|")
    for recipe, results in found.items():
        cells = [
            f"{_miou(row)} at {8 * row['bytes_total']:.0f} bits"
            for row in results["rows"]
            if (row["split"], row["method"], row["seed"]) == ("val", "ours", None)
        ]
        lines.append(f"| {recipe} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curve(name: str) -> str:
    """Markdown: bits and headline score of Ours on both splits, at every λ."""
    results = tables.read(RESULTS / f"{name}.json")
    lines = ["| λ | Val. bits | Val. mIoU, % | Test bits | Test mIoU, % |", "|---|---|---|---|---|"]
    found: dict[float, list[str]] = {}
    for row in results["rows"]:
        if row["method"] == "ours" and row["seed"] is None:
            cells = [f"{8 * row['bytes_total']:.0f}", _miou(row)]
            found.setdefault(row["lam"], []).extend(cells)
    lines += [f"| {lam:g} | " + " | ".join(cells) + " |" for lam, cells in found.items()]
    return "\n".join(lines)


def _miou(row: dict) -> str:
    """In per cent, with its interval."""
    return tables.cell(row["metrics"]["miou"], row["ci"]["miou"], 100, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite both texts in place and redraw their figures."""
    del arguments
    for results in sorted(RESULTS.glob("plateau_*.json")):
        content = tables.read(results)
        plots.rate_performance(content, results.with_suffix(".png"))
        examples = results.with_name(f"{results.stem}_examples.npz")
        if examples.exists():
            plots.examples(examples, content, examples.with_suffix(".png"))
        if content.get("comparisons"):
            rate_performance.bubbles(content, results.with_name(f"{results.stem}_bubbles.png"))
        if content.get("comparisons") and any(
            spec["kind"] == "segment" for spec in content["tasks"].values()
        ):
            efficacy.radar(content, results.with_name(f"{results.stem}_radar.png"))
    for experiment in _DRAWN:
        name = experiment.__name__.rpartition(".")[2]
        for results in sorted(RESULTS.glob(f"{name}_*.json")):
            experiment.draw(harness.read_json(results), results.with_suffix(".png"))
    for path in TEXTS:
        path.write_text(filled(path.read_text()))


def filled(text: str) -> str:
    """`text` with every block holding the table of its results."""

    def block(match: re.Match) -> str:
        kind, name = match.groups()
        if kind in _TABLES:
            made = _TABLES[kind](harness.read_json(RESULTS / f"{name}.json"))
        else:
            made = recipes(name) if kind == "recipes" else curve(name)
        return f"<!-- {kind}: {name} -->\n{made}\n<!-- end -->"

    return _BLOCK.sub(block, text)


if __name__ == "__main__":
    main()
