"""Risks of a project, from evidence, usage and its answers about costs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from raypath.components.compliance.evidence import Evidence
from raypath.components.compliance.regime import Severity, load_regime, regime_names
from raypath.components.compliance.review import review as review_by
from raypath.components.risk.assess import assess
from raypath.components.risk.assessment import Assessment, Facts, OpenItems
from raypath.components.risk.costs import Costs, Metered, business
from raypath.deploy.api.project import home_folder, private_process
from raypath.deploy.api.security.compliance import read_profile
from raypath.deploy.api.security.evidence.collect import collect
from raypath.deploy.execution.overrides import from_file
from raypath.deploy.store.audit.log import read

ANSWERS = "risk.yaml"
"""File of the answers about costs, beside the home or in the current folder."""
WINDOW = timedelta(days=30)


def risk(
    changes: Mapping[str, Any] | None = None,
    *,
    answers: str | Path | None = None,
    home: str | Path | None = None,
) -> Assessment:
    """Assess the risks of a project: technical, business, legal, data and team, the worst first.

    Nothing is started and nothing is changed. Business figures follow from the usage of the last 30 days.

    Args:
        changes: Answers by name, such as `{"machine_hour": 0.4}`, over those of the file.
        answers: YAML file with them; default risk.yaml beside the home, or here.
        home: Home folder of the project; default $RAYPATH_HOME, else .raypath here.

    Raises:
        ParamsError: Unknown answer.
        UserError: A folder that is no home.

    Example:
        found = raypath.risk({"machine_hour": 0.4})
        print([(each.id, each.remedy) for each in found.at_least(6)])
    """
    folder = home_folder(home)
    costs = Costs().override({**from_file(_file(folder, answers)), **(changes or {})})
    with private_process():
        evidence = collect(folder)
        usage = metered(folder / "access" / "usage", evidence.at)
        facts = Facts(
            evidence=evidence,
            costs=costs,
            usage=usage,
            business=business(costs, usage),
            open_items=tuple(_open_items(folder, evidence, costs.regimes)),
            accounts=len({(each.actor.sudo_user or each.actor.user) for each in read(folder)}),
        )
    return assess(facts)


def metered(folder: Path, at: datetime) -> Metered:
    """Return the usage of the last days before a time; of fewer days where the first request is younger."""
    from raypath.components.serving.metering.usage import read_usage

    since = at - WINDOW
    by_day = read_usage(folder, since, by="day") if folder.is_dir() else []
    if not by_day:
        return Metered(days=WINDOW.days)
    first = max(since, datetime.fromisoformat(by_day[0].what).replace(tzinfo=UTC))
    keys = [each for each in read_usage(folder, since, by="key") if each.sums.requests]
    revenue, requests = sum(each.sums.price for each in keys), sum(each.sums.requests for each in keys)
    shares = [((each.sums.price / revenue if revenue else each.sums.requests / requests), each.name) for each in keys]
    share, name = max(shares, default=(0.0, ""))
    return Metered(
        days=max((at - first) / timedelta(days=1), 1 / 24),
        requests=requests,
        errors=sum(each.sums.errors for each in by_day),
        rejected=sum(each.sums.rejected for each in by_day),
        tokens=sum(each.sums.tokens for each in by_day),
        compute_seconds=sum(each.sums.compute_seconds for each in by_day),
        revenue=revenue,
        largest_client=share,
        largest_name=name,
    )


def _open_items(home: Path, evidence: Evidence, regimes: tuple[str, ...]) -> list[OpenItems]:
    profile = read_profile(home, None, {})
    found = []
    for name in regimes or regime_names():
        items = [each for each in review_by(load_regime(name), evidence, profile).items if each.outcome.is_open]
        high = sum(each.severity is Severity.HIGH for each in items)
        found.append(OpenItems(regime=name, high=high, all=len(items)))
    return found


def _file(home: Path, file: str | Path | None) -> Path | None:
    if file:
        return Path(file)
    return next((each for each in (home.parent / ANSWERS, Path(ANSWERS)) if each.is_file()), None)
