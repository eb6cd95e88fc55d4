"""The dashboard file: made from its source, in a grid without overlaps, each panel saying what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import dashboards

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
DASHBOARD: dict[str, Any] = json.loads((dashboards.FOLDER / "concurrency.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_the_file_is_what_its_source_makes_and_the_bytes_are_stable() -> None:
    assert dashboards.concurrency() == dashboards.concurrency()
    assert dashboards.main("check") == 0


def test_drift_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(dashboards, "FOLDER", tmp_path)
    assert dashboards.main("check") == 1
    assert dashboards.main("write") == 0
    assert dashboards.main("check") == 0
    path = tmp_path / "concurrency.json"
    path.write_text(path.read_text().replace("Slots", "Slits"))
    assert dashboards.main("check") == 1
    assert "python -m tools.dashboards write" in capsys.readouterr().out


def test_every_id_is_its_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) and all(isinstance(one, int) for one in ids)
    assert DASHBOARD["uid"] == "pitstop-concurrency"


def test_no_panel_covers_another_or_leaves_the_grid() -> None:
    taken: dict[tuple[int, int], int] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= dashboards.COLUMNS and place["h"] > 0
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["id"]) == panel["id"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_to_do_and_asks_the_chosen_source(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 30 or "same" in panel["description"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["fieldConfig"]["defaults"]["unit"]
    names = [target["refId"] for target in panel["targets"]]
    assert names and len(names) == len(set(names))
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["instant"] == (panel["type"] == "stat")
        assert not re.search(r"\[\d+[smh]\]", target["expr"]), "use $__rate_interval"
        if "pool" in labels_of(target["expr"]):
            assert 'pool=~"$pool"' in target["expr"], "ignores the chosen pool"


def labels_of(expr: str) -> set[str]:
    return {name.strip() for group in re.findall(r"by \(([^)]*)\)", expr) for name in group.split(",")}


def test_fleet_gauges_are_not_summed_over_schedulers() -> None:
    fleet = ("pitstop_slots", "pitstop_slots_in_use", "pitstop_runs_waiting", "pitstop_queue_oldest_timestamp_seconds")
    found = 0
    for panel in PANELS:
        for target in panel["targets"]:
            for name in fleet:
                uses = re.findall(rf"{name}\{{", target["expr"])
                held = re.findall(rf"max by \((?:pool|pool, use)\) \({name}\{{", target["expr"])
                assert len(uses) == len(held), target["expr"]
                found += len(uses)
    assert found >= len(fleet)


def test_the_variables_are_there() -> None:
    by_name = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert (by_name["datasource"]["type"], by_name["datasource"]["query"]) == ("datasource", "prometheus")
    assert by_name["pool"]["query"] == "label_values(pitstop_slots, pool)"
    assert by_name["pool"]["allValue"] == ".*"


def test_grafana_and_prometheus_find_each_other() -> None:
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/pitstop.yml").read_text())
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (prometheus,) = source["datasources"]
    assert prometheus["type"] == "prometheus"
    assert prometheus["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert [one["type"] for one in provider["providers"]] == ["file"]
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    assert jobs == {f"pitstop-{name}" for name in ("scheduler", "sandbox", "relay", "janitor")}
