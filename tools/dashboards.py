"""Makes deploy/grafana/dashboards/*.json. `python -m tools.dashboards [write|check]`; `check` fails on drift.

The same panels give the same bytes: ids are in the data, places follow from its order, keys are sorted.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tools.concurrency_panels import ROWS, Panel, Query

with warnings.catch_warnings():  # the SDK wants dashboards v2, which no Grafana before 12 can read from a file
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common as common_builders
    from grafana_foundation_sdk.builders import dashboard as dashboards
    from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common, dashboard
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER: Final = Path(__file__).parent.parent / "deploy" / "grafana" / "dashboards"
COLUMNS: Final = 24
_SOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")


def concurrency() -> str:
    """The concurrency dashboard as JSON text."""
    made = (
        dashboards.Dashboard("Pitstop: concurrency")
        .uid("pitstop-concurrency")
        .description("Slots, queue, debug sessions and what the janitor frees. Made by tools/dashboards.py.")
        .tags(["pitstop"])
        .editable()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboards.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_pool())
    )
    y = 0
    for row in ROWS:
        made.with_row(dashboards.Row(row.title).id(row.id).grid_pos(dashboard.GridPos(h=1, w=COLUMNS, x=0, y=y)))
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            made.with_panel(_panel(panel, dashboard.GridPos(h=panel.height, w=panel.width, x=x, y=y)))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _pool() -> dashboards.QueryVariable:
    return (
        dashboards.QueryVariable("pool")
        .label("Pool")
        .datasource(_SOURCE)
        .query("label_values(pitstop_slots, pool)")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _panel(panel: Panel, place: dashboard.GridPos) -> Any:
    made: Any = _KINDS[panel.kind]()
    made.id(panel.id).title(panel.title).description(panel.description).grid_pos(place)
    made.datasource(_SOURCE).unit(panel.unit)
    if panel.limits is not None:
        yellow, red = panel.limits
        steps = [(None, "green"), (yellow, "yellow"), (red, "red")]
        made.thresholds(
            dashboards.ThresholdsConfig()
            .mode(dashboard.ThresholdsMode.ABSOLUTE)
            .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
        )
    for number, query in enumerate(panel.queries):
        made.with_target(_target(query, chr(ord("A") + number), panel.kind))
    return made


def _target(query: Query, name: str, kind: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(name).datasource(_SOURCE).expr(query.expr).legend_format(query.legend)
    if kind == "stat":
        target.instant()
    else:
        target.range()
    return target.format(PromQueryFormat.HEATMAP if kind == "heatmap" else PromQueryFormat.TIME_SERIES)


def _stat() -> Any:
    reduce = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    return stat.Panel().reduce_options(reduce).graph_mode(common.BigValueGraphMode.NONE)


def _timeseries() -> Any:
    legend = (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    return timeseries.Panel().min(0).fill_opacity(10).legend(legend)


def _stacked() -> Any:
    stacking = common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
    # The number of slots is a limit, not a part of the sum.
    slots = [
        dashboard.DynamicConfigValue(id_val="custom.stacking", value={"mode": "none"}),
        dashboard.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
    ]
    return _timeseries().stacking(stacking).fill_opacity(40).override_by_name("slots", slots)


def _heatmap() -> Any:
    return heatmap.Panel()


_KINDS: Final[dict[str, Callable[[], Any]]] = {
    "stat": _stat, "timeseries": _timeseries, "stacked": _stacked, "heatmap": _heatmap,
}  # fmt: skip
DASHBOARDS: Final[dict[str, Callable[[], str]]] = {"concurrency.json": concurrency}


def main(verb: str) -> int:
    """`write` the files, or `check` that they are as this would write them. The exit status."""
    status = 0
    for name, make in DASHBOARDS.items():
        path, text = FOLDER / name, make()
        if verb == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path} is not what tools/dashboards.py makes: run `python -m tools.dashboards write`")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "write"))
