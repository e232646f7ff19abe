"""config/prometheus/alerts.yml, by Prometheus's own tool: every alert has a case in which it fires and one, as near to it as can
be, in which it must not. Where a runbook is named, and which metrics a rule may ask for, is checked too."""

import os
import re
import subprocess

import pytest
import yaml

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
RULES = os.path.join(ROOT, "config", "prometheus", "alerts.yml")
with open(RULES, encoding="utf-8") as f:
    ALERTS = {rule["alert"]: rule for group in yaml.safe_load(f)["groups"] for rule in group["rules"]}

# Two instances of a namespace where nothing is wrong, a sample a minute; a case changes some of them. "a+bxn": a, then n steps of b.
CALM = {
    'up{job="livenps-consumer",instance="a"}': "1x120",
    'up{job="livenps-consumer",instance="b"}': "1x120",
    'livenps_aggregator_active{namespace="n",instance="a"}': "1x120",
    'livenps_aggregator_active{namespace="n",instance="b"}': "0x120",
    'livenps_redis_up{namespace="n",instance="a",connection="commit"}': "1x120",
    'livenps_redis_up{namespace="n",instance="a",connection="aggregate"}': "1x120",
    'livenps_redis_up{namespace="n",instance="b",connection="commit"}': "1x120",
    'livenps_state_reloads_total{namespace="n",instance="a",reason="broken"}': "0x120",
    'livenps_state_reloads_total{namespace="n",instance="a",reason="lease"}': "0x120",
    'livenps_republishes_total{namespace="n",instance="a"}': "0x120",
    'livenps_positions_went_back_total{namespace="n",instance="b"}': "0x120",
    'livenps_namespace_genesis{namespace="n",instance="a"}': "1x120",
    'livenps_namespace_lag_seconds{namespace="n",instance="a"}': "0.3x120",
    'livenps_namespace_complete{namespace="n",instance="a"}': "1x120",
    'livenps_records_consumed_total{namespace="n",instance="a"}': "0+600x120",
    'livenps_records_consumed_total{namespace="n",instance="b"}': "0+600x120",
    'livenps_records_rejected_total{namespace="n",instance="a",reason="malformed"}': "0x120",
    'livenps_records_total{namespace="n",instance="a",fate="late"}': "0x120",
    'livenps_quarantine_pending_records{namespace="n",instance="a"}': "0x120",
    'livenps_commits_total{namespace="n",instance="a",result="conflict"}': "0x120",
    'livenps_rebalances_total{namespace="n",instance="a"}': "2x120",
    'livenps_namespace_log_bytes{namespace="n",instance="a"}': "1000x120",
    'livenps_namespace_log_max_bytes{namespace="n",instance="a"}': "268435456x120",
    'livenps_namespace_gap_offsets{namespace="n",instance="a"}': "0x120",
    'livenps_topic_restarts_total{namespace="n",instance="a"}': "0x120",
    'livenps_snapshots_total{namespace="n",instance="a",store="kafka"}': "0+1x120",
    'livenps_snapshots_total{namespace="n",instance="a",store="redis"}': "0+6x120",
    'livenps_namespace_capped{namespace="n",instance="a"}': "0x120",
    'livenps_producer_records_failed_total{instance="p"}': "0x120",
}

SILENT = {'livenps_records_consumed_total{namespace="n",instance="a"}': "9x120",
          'livenps_records_consumed_total{namespace="n",instance="b"}': "9x120"}
GONE = {'livenps_aggregator_active{namespace="n",instance="a"}': None,
        'livenps_aggregator_active{namespace="n",instance="b"}': None}

# alert: (minute, what differs when it fires, the labels it has then, what differs when it must not)
CASES = {
    "LivenpsInstanceDown": (10, {'up{job="livenps-consumer",instance="b"}': "1x5 0x120"}, {"job": "livenps-consumer", "instance": "b"},
                            {'up{job="livenps-consumer",instance="b"}': "1x8 0x120"}),
    "LivenpsAggregatorAbsent": (10, {'livenps_aggregator_active{namespace="n",instance="a"}': "1x5 0x120"}, {"namespace": "n"},
                                # A change of instances.
                                {'livenps_aggregator_active{namespace="n",instance="a"}': "1x5 0x120",
                                 'livenps_aggregator_active{namespace="n",instance="b"}': "0x5 1x120"}),
    "LivenpsAggregatorAbsent ": (10, GONE, {}, {}),
    "LivenpsAggregatorTwice": (10, {'livenps_aggregator_active{namespace="n",instance="b"}': "1x120"}, {"namespace": "n"},
                               {'livenps_aggregator_active{namespace="m",instance="b"}': "1x120"}),
    "LivenpsRedisAway": (10, {'livenps_redis_up{namespace="n",instance="b",connection="commit"}': "1x5 0x120"},
                         {"namespace": "n", "instance": "b"},
                         {'livenps_redis_up{namespace="n",instance="b",connection="commit"}': "1x5 0 1x120"}),
    "LivenpsRedisRollback": (20, {'livenps_state_reloads_total{namespace="n",instance="a",reason="broken"}': "0x10 1x120"}, {"namespace": "n"},
                             {'livenps_state_reloads_total{namespace="n",instance="a",reason="lease"}': "0x10 1x120"}),
    "LivenpsRedisRollback ": (20, {'livenps_republishes_total{namespace="n",instance="a"}': "0x10 1x120"}, {"namespace": "n"},
                              {'livenps_republishes_total{namespace="n",instance="a"}': "1x120"}),
    "LivenpsRedisRollback  ": (20, {'livenps_positions_went_back_total{namespace="n",instance="b"}': "0x10 2x120"}, {"namespace": "n"},
                               {'livenps_positions_went_back_total{namespace="n",instance="b"}': "2x120"}),
    "LivenpsNamespaceBegunAnew": (30, {'livenps_namespace_genesis{namespace="n",instance="a"}': "1x20 2x120"}, {"namespace": "n"},
                                  # Another instance aggregates: the same number from elsewhere.
                                  {'livenps_namespace_genesis{namespace="n",instance="a"}': "1x20",
                                   'livenps_namespace_genesis{namespace="n",instance="b"}': "_x20 1x120"}),
    "LivenpsLag": (20, {'livenps_namespace_lag_seconds{namespace="n",instance="a"}': "0x5 61x120"}, {"namespace": "n"},
                   {'livenps_namespace_lag_seconds{namespace="n",instance="a"}': "0x5 61x3 0x120"}),
    "LivenpsIncomplete": (20, {'livenps_namespace_complete{namespace="n",instance="a"}': "1x5 0x120"}, {"namespace": "n"},
                          {'livenps_namespace_complete{namespace="n",instance="a"}': "1x5 0x6 1 0x120"}),
    "LivenpsSilence": (40, SILENT, {"namespace": "n"}, {'livenps_records_consumed_total{namespace="n",instance="a"}': "9x120"}),
    "LivenpsRejects": (30, {'livenps_records_rejected_total{namespace="n",instance="a",reason="malformed"}': "0+100x120"},
                       {"namespace": "n"}, {'livenps_records_rejected_total{namespace="n",instance="a",reason="malformed"}': "0+50x120"}),
    "LivenpsLate": (70, {'livenps_records_total{namespace="n",instance="a",fate="late"}': "0+100x120"}, {"namespace": "n"},
                    {'livenps_records_total{namespace="n",instance="a",fate="late"}': "0+50x120"}),
    "LivenpsQuarantineStuck": (20, {'livenps_quarantine_pending_records{namespace="n",instance="a"}': "0x5 7x120"},
                               {"namespace": "n", "instance": "a"},
                               {'livenps_quarantine_pending_records{namespace="n",instance="a"}': "0x5 7x8 0 7x3"}),
    "LivenpsConflicts": (30, {'livenps_commits_total{namespace="n",instance="a",result="conflict"}': "0+3x120"}, {"namespace": "n"},
                         {'livenps_commits_total{namespace="n",instance="a",result="conflict"}': "0+1x120"}),
    "LivenpsRebalancing": (30, {'livenps_rebalances_total{namespace="n",instance="a"}': "0+2x120"}, {"namespace": "n", "instance": "a"},
                           {'livenps_rebalances_total{namespace="n",instance="a"}': "0+1x120"}),
    "LivenpsLogFilling": (20, {'livenps_namespace_log_bytes{namespace="n",instance="a"}': "0x5 220000000x120"}, {"namespace": "n"},
                          {'livenps_namespace_log_bytes{namespace="n",instance="a"}': "0x5 210000000x120"}),
    "LivenpsGap": (30, {'livenps_namespace_gap_offsets{namespace="n",instance="a"}': "3x20 10x120"}, {"namespace": "n"},
                   {'livenps_namespace_gap_offsets{namespace="n",instance="a"}': "3x120"}),
    "LivenpsTopicRestarted": (30, {'livenps_topic_restarts_total{namespace="n",instance="a"}': "0x20 1x120"}, {"namespace": "n"},
                              {'livenps_topic_restarts_total{namespace="n",instance="a"}': "1x120"}),
    "LivenpsSnapshotOld": (90, {'livenps_snapshots_total{namespace="n",instance="a",store="kafka"}': "7x120"}, {"namespace": "n"},
                           # Nothing to keep.
                           {'livenps_snapshots_total{namespace="n",instance="a",store="kafka"}': "7x120", **SILENT}),
    "LivenpsCapped": (20, {'livenps_namespace_capped{namespace="n",instance="a"}': "0x5 1x120"}, {"namespace": "n"},
                      {'livenps_namespace_capped{namespace="n",instance="a"}': "0x5 1x3 0x120"}),
    "LivenpsProducerFailing": (20, {'livenps_producer_records_failed_total{instance="p"}': "0x17 4x120"}, {"instance": "p"},
                               {'livenps_producer_records_failed_total{instance="p"}': "4x120"}),
}


def promtool_case(alert, minute, differs, labels):
    series = {name: values for name, values in {**CALM, **differs}.items() if values is not None}
    wanted = []
    if labels is not None:
        whole = {"alertname": alert, "alertstate": "firing", **ALERTS[alert]["labels"], **labels}
        wanted = [{"labels": "ALERTS{%s}" % ",".join('%s="%s"' % item for item in sorted(whole.items())), "value": 1}]
    return {"interval": "1m", "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [{"expr": 'ALERTS{alertname="%s",alertstate="firing"}' % alert, "eval_time": "%dm" % minute,
                                  "exp_samples": wanted}]}


def promtool(*args, **more):
    return subprocess.run(["promtool", *args], capture_output=True, text=True, timeout=500, **more)


def test_every_alert_has_its_cases():
    assert {name.strip() for name in CASES} == set(ALERTS)


def test_each_fires_and_is_silent(tmp_path):
    tests = []
    for name, (minute, fires, labels, silent) in CASES.items():
        alert = name.strip()
        tests += [promtool_case(alert, minute, fires, labels), promtool_case(alert, minute, silent, None)]
    # Where nothing is wrong, nothing fires at all.
    calm = promtool_case("-", 100, {}, None)
    calm["promql_expr_test"][0]["expr"] = "ALERTS"
    path = tmp_path / "cases.yml"
    path.write_text(yaml.safe_dump({"rule_files": [RULES], "evaluation_interval": "1m", "tests": tests + [calm]}))
    result = promtool("test", "rules", str(path))
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_cases_can_fail(tmp_path):
    """A rule that says nothing, and one that always does."""
    with open(RULES, encoding="utf-8") as f:
        rules = yaml.safe_load(f)
    for expression, case in (("vector(0) > 1", promtool_case("LivenpsLag", 20, CASES["LivenpsLag"][1], {"namespace": "n"})),
                             ("vector(1)", promtool_case("LivenpsLag", 20, CASES["LivenpsLag"][3], None))):
        for rule in rules["groups"][0]["rules"]:
            if rule["alert"] == "LivenpsLag":
                rule["expr"] = expression
        (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
        path = tmp_path / "cases.yml"
        path.write_text(yaml.safe_dump({"rule_files": [str(tmp_path / "rules.yml")], "evaluation_interval": "1m", "tests": [case]}))
        assert promtool("test", "rules", str(path)).returncode != 0


def test_files_are_valid():
    for command, name in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        result = promtool("check", command, os.path.join(ROOT, "config", "prometheus", name))
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alert_is_for_a_person(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["runbook"] == "docs/operating.md#" + name.lower()
    assert rule["annotations"]["summary"] and rule["annotations"]["description"]


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_metrics_of_rules_exist(name):
    """By the tables of docs/metrics.md, which tests/system/test_metrics.py compares with the programs."""
    with open(os.path.join(ROOT, "docs", "metrics.md"), encoding="utf-8") as f:
        known = set(re.findall(r"^\| `(\w+)` \|", f.read(), re.M))
    used = set(re.findall(r"\blivenps_\w+", ALERTS[name]["expr"]))
    assert used <= known, used - known
