"""Make the pictures of the documentation from a real run of the default workflow.

    python -m docs.pictures [HOME [SETTING ...]]

HOME is the Raypath home of the run, a temporary one by default; steps that are done there are reused. Each SETTING is a
KEY=VALUE for the run, such as finetune.method=head, which takes a fifth of the time.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.pictures.browser import photograph
from docs.pictures.graph import draw
from docs.pictures.terminal import run_and_record

IMAGES = Path(__file__).parent.parent / "images"
RAYPATH = Path(sys.executable).with_name("raypath")
WORKFLOW = "text_classification"


def main(home: Path, settings: list[str]) -> None:
    draw(WORKFLOW, IMAGES / "workflow.svg")
    run = run_and_record(WORKFLOW, settings, home, IMAGES / "live-view.svg")
    photograph(home, run, IMAGES)
    [confusion] = Path(run.step("evaluate").artifact["uri"]).rglob("confusion*.png")
    shutil.copy(confusion, IMAGES / "confusion.png")
    for picture in IMAGES.glob("*.png"):
        subprocess.run(["pngquant", "--force", "--skip-if-larger", "--ext", ".png", "64", picture], check=False)
        print(f"{picture.name:<20} {picture.stat().st_size / 1024:.0f} KiB")


if len(sys.argv) > 1:
    home = Path(sys.argv[1]).absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    main(home, sys.argv[2:])
else:
    with tempfile.TemporaryDirectory() as folder:
        try:
            main(Path(folder), [])
        finally:
            subprocess.run(
                [Path(sys.executable).with_name("raypath"), "down"], env={"RAYPATH_HOME": folder}, check=False
            )
