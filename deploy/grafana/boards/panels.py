"""What the dashboards are made of: panels with a unit, legends and a word on what to do."""

import json
from collections.abc import Iterable
from itertools import count
from urllib.parse import quote

from deploy.grafana.boards.queries import RATE, Query, rate, within
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.timeseries import Panel as TimeseriesPanel
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
PER_ROW = 3
WIDTH, HEIGHT = 24 // PER_ROW, 8
Panels = tuple[TimeseriesPanel | StatPanel, ...]

_TRACES = {
    "a": {
        "datasource": "jaeger",
        "queries": [{"refId": "A", "queryType": "search", "service": "servery-gateway", "limit": 50}],
        "range": {"from": "FROM", "to": "TO"},
    }
}


def graph(
    title: str,
    description: str,
    unit: str,
    queries: Iterable[Query],
    *,
    exemplars: bool = False,
    stacked: bool = False,
    highest: float | None = None,
) -> TimeseriesPanel:
    """Return a panel with lines over time. ``exemplars``: dots of traced requests, and a way to Jaeger."""
    panel = (
        TimeseriesPanel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .span(WIDTH)
        .height(HEIGHT)
        .line_width(1)
        .fill_opacity(25 if stacked else 5)
        .legend(
            VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if stacked:
        panel = panel.stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if highest is not None:
        panel = panel.max(highest)
    if exemplars:
        panel = panel.data_links([_to_traces()])
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(number, query).exemplar(exemplars))
    return panel


def number(
    title: str, description: str, unit: str, query: str, *, warn: float | None = None, low: bool = False
) -> StatPanel:
    """Return a panel with one number, red beyond ``warn``; below it if ``low``."""
    good, bad = ("red", "green") if low else ("green", "red")
    steps = [Threshold(value=None, color=good if warn is not None else "green")]
    if warn is not None:
        steps.append(Threshold(value=warn, color=bad))
    return (
        StatPanel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .span(4)
        .height(4)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(_target(0, Query(query, "")).instant())
    )


def refusals(description: str, selector: str = "") -> TimeseriesPanel:
    """Return the panel of what gateways answered themselves."""
    refused = rate("servery_gateway_rejections_total", selector, "reason", "{{reason}}")
    return graph("Refusals by reason", description, "reqps", [refused], stacked=True)


def requests_under_way(title: str, description: str, selector: str = "", *, held: str) -> TimeseriesPanel:
    """Return the panel of requests that are not answered yet; ``held`` is what those are called that wake an entity."""
    states = {"in_flight": "at replicas", "queued": "waiting", "held": held}
    counted = [
        Query(f"sum(servery_gateway_requests_{state}{within(selector)})", name)
        for state, name in states.items()
    ]
    return graph(title, description, "short", counted)


def processes(
    selector: str, legend: str, *, processors: str, memory: str
) -> tuple[TimeseriesPanel, TimeseriesPanel]:
    """Return the panels of what our own processes use; ``processors`` and ``memory`` are what is said of each."""
    used = Query(f"rate(process_cpu_seconds_total{within(selector)}[{RATE}])", legend)
    resident = Query(f"process_resident_memory_bytes{within(selector)}", legend)
    return graph("Processors", processors, "short", [used]), graph("Memory", memory, "bytes", [resident])


def board(title: str, uid: str, description: str) -> Dashboard:
    """Return an empty dashboard of ours."""
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["servery"])
        .readonly()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            DashboardLink("Servery")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["servery"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
    )


def variable(name: str, label: str, query: str, *, several: bool = False) -> QueryVariable:
    """Return a choice of one label's values, or of several of them."""
    made = (
        QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    return made.multi(True).include_all(True).all_value(".*") if several else made


def with_rows(
    made: Dashboard, rows: Iterable[tuple[str, Iterable[TimeseriesPanel | StatPanel]]]
) -> Dashboard:
    """Add titled rows of panels."""
    # Links to a panel name it by its number.
    numbers = count(1)
    for title, panels in rows:
        made = made.with_row(Row(title).id(next(numbers)))
        for panel in panels:
            made = made.with_panel(panel.id(next(numbers)))
    return made


def _target(number: int, query: Query) -> Dataquery:
    return Dataquery().ref_id(chr(ord("A") + number)).expr(query.expression).legend_format(query.legend)


def _to_traces() -> DashboardLink:
    panes = quote(json.dumps(_TRACES, separators=(",", ":")))
    panes = panes.replace("FROM", "${__from}").replace("TO", "${__to}")
    link = DashboardLink("Traces of this time in Jaeger")
    return link.url(f"/explore?schemaVersion=1&panes={panes}").target_blank(True)
