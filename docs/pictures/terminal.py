"""Run a workflow and keep its live view, in the middle of fine-tuning, as SVG."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from raypath.deploy.console.live_view import LiveView
from raypath.deploy.execution.progress import read_progress
from raypath.deploy.execution.run_history import Run, StepStatus, load_runs

COLUMNS = 92
# Rich's own format fetches its font from a CDN.
FORMAT = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def run_and_record(workflow: str, settings: list[str], home: Path, path: Path) -> Run:
    """Run the workflow to its end and write the live view to `path`. Returns the run."""
    options = [word for setting in settings for word in ("-s", setting)]
    command = [str(Path(sys.executable).with_name("raypath")), "run", workflow, *options]
    process = subprocess.Popen(command, env={**os.environ, "RAYPATH_HOME": str(home)}, cwd=home)
    while process.poll() is None:
        time.sleep(0.2)
        runs = [run for run in load_runs(home) if run.workflow == workflow]
        if runs and (step := _busy_step(home, runs[-1])):
            path.write_text(_svg(home, runs[-1]), encoding="utf-8")
            if step == "finetune":
                break
    if process.wait():
        raise SystemExit(process.returncode)
    return next(run for run in reversed(load_runs(home)) if run.workflow == workflow)


def _busy_step(home: Path, run: Run) -> str | None:
    """Return the step of the search or the training that is past its first third."""
    for step in run.steps:
        if step.name in ("tune", "finetune") and step.status is StepStatus.RUNNING:
            done, total, _ = read_progress(home, step.key)
            if total and done / total > 0.33:
                return step.name
    return None


def _svg(home: Path, run: Run) -> str:
    console = Console(record=True, force_terminal=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    console.print(LiveView(home, console)._render(run))
    return console.export_svg(title=f"raypath run {run.workflow}", code_format=FORMAT, unique_id="live")
