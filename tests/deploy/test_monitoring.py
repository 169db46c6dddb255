"""Prometheus and Grafana against the services and the metrics of the code."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.deploy.support import DEPLOY, faults_of, read_yaml

from pushfleet_workers.settings import Settings

SERVICES = read_yaml(DEPLOY / "compose.yaml")["services"]
PROMETHEUS = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")
RULES: list[dict[str, Any]] = [
    rule for group in read_yaml(DEPLOY / "prometheus" / "alerts.yml")["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "pushfleet.json").read_text(encoding="utf-8"))
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
JOBS = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}


def test_every_process_of_the_fleet_is_scraped_on_its_port() -> None:
    scraped = {}
    for job in JOBS.values():
        for static in job.get("static_configs", ()):
            scraped |= dict(target.split(":") for target in static["targets"])
        for looked_up in job.get("dns_sd_configs", ()):
            scraped |= dict.fromkeys(looked_up["names"], str(looked_up["port"]))
    ports = {
        name: service["environment"]["PUSHFLEET_API__PORT" if name == "api" else "PUSHFLEET_METRICS__PORT"]
        for name, service in SERVICES.items()
        if service["image"] == "pushfleet"
    }
    assert scraped == ports


def test_the_rule_files_exist() -> None:
    for name in PROMETHEUS["rule_files"]:
        assert (DEPLOY / "prometheus" / name).is_file()
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_exported_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert faults_of(rule["expr"]) == []
    assert set(rule["annotations"]) == {"summary", "action"}
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert {
        "PushfleetPushesAreLate",
        "PushfleetAccountIsPaused",
        "PushfleetDeadLetters",
        "PushfleetAccountBacklog",
    } <= set(names)


def test_backlog_alerts_come_at_half_of_what_is_refused() -> None:
    queries = {rule["alert"]: rule["expr"] for rule in RULES}
    limits = {
        "PushfleetIngressBacklog": Settings().ingress.length_max,
        "PushfleetAccountBacklog": Settings().router.account_backlog_max,
    }
    for alert, limit in limits.items():
        assert int(queries[alert].rpartition(">")[2]) == limit // 2


def test_the_down_alert_means_jobs_that_there_are() -> None:
    (query,) = [rule["expr"] for rule in RULES if rule["alert"] == "PushfleetProcessDown"]
    assert query == 'up{job=~"pushfleet-.*"} == 0'
    assert all(name.startswith("pushfleet-") for name in JOBS)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_a_panel_asks_for_what_is_exported(query: str) -> None:
    assert faults_of(query) == []


def test_the_ends_that_are_asked_for_are_ends() -> None:
    queries = [*QUERIES.values(), *(rule["expr"] for rule in RULES)]
    asked = {end for query in queries for end in re.findall(r'\bend="([a-z]+)"', query)}
    assert asked
    assert asked <= {"sent", "suppressed", "dropped", "dead"}


def test_dashboard_and_data_source_find_each_other() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = read_yaml(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert host in SERVICES
    assert port == "9090"
    used = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]}
    used |= {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    used |= {variable["datasource"]["uid"] for variable in DASHBOARD["templating"]["list"]}
    assert used == {source["uid"]}
    (provider,) = read_yaml(provisioning / "dashboards" / "pushfleet.yaml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/pushfleet.json"


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & places, panel["title"]
        places |= own
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_a_query_with_a_fault_is_found() -> None:
    assert faults_of("sum(rate(pushfleet_nothing_total[1m]))") == ["no metric pushfleet_nothing_total"]
    assert faults_of('pushfleet_backlog{colour="red"}') == ["pushfleet_backlog has no label colour"]
    assert faults_of("sum by (colour) (pushfleet_backlog)") == ["nothing in the query has label colour"]
