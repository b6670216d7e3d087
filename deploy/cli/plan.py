"""Print a plan: `raypath run --dry-run`."""

from __future__ import annotations

from raypath.deploy.api.results import Plan, PlannedStep
from raypath.deploy.console.live_view import clock
from raypath.deploy.console.run_report import console

MARKS = {"run": ("▸", "cyan"), "reuse": ("=", "blue"), "depends": ("?", "yellow")}


def show_plan(plan: Plan) -> None:
    """Print each step with what would happen, where, the estimate, and the reason."""
    console.print(f"[bold]{plan.workflow}[/]  dry run on {plan.on}")
    for step in plan.steps:
        mark, style = MARKS[step.action]
        console.print(f"[{style}]{mark}[/] {step.name:<12} {step.action:<8} {_time(step):>8}  ", end="")
        console.print(f"{step.where}: {step.reason}" if step.action != "reuse" else step.reason, markup=False)
    left = [step for step in plan.steps if step.action != "reuse"]
    if not left:
        console.print(f"\nnothing to do, {len(plan.steps)} of {len(plan.steps)} steps would be reused")
        return
    total = "unknown" if plan.seconds is None else f"at most {clock(plan.seconds)}"
    console.print(f"\n{len(left)} of {len(plan.steps)} steps would run or may run; time, by the run history: {total}")


def _time(step: PlannedStep) -> str:
    if step.action == "reuse":
        return ""
    return "?" if step.seconds is None else clock(step.seconds)
