"""SetFit on the rows of standard input (JSON): prints accuracy and CPU seconds of training as JSON.

It runs with the Python of an environment that has SetFit, and imports nothing of Raypath.
"""

import json
import sys
import tempfile
import time
from importlib import import_module
from typing import Any


def main() -> None:
    """Train and predict."""
    given: dict[str, Any] = json.load(sys.stdin)
    setfit, datasets = import_module("setfit"), import_module("datasets")
    model = setfit.SetFitModel.from_pretrained(given["base"])
    model.model_body.max_seq_length = given["length"]
    rows = given["rows"]
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"report_to": "none", "save_strategy": "no", "show_progress_bar": False}
        arguments = setfit.TrainingArguments(output_dir=folder, seed=given["seed"], **quiet, **given["settings"])
        train = datasets.Dataset.from_dict({"text": rows["train"], "label": rows["train_targets"]})
        trainer = setfit.Trainer(model=model, args=arguments, train_dataset=train)
        start = time.process_time()
        trainer.train()
        seconds = time.process_time() - start
    predicted = [int(label) for label in model.predict(rows["test"])]
    right = [one == other for one, other in zip(predicted, rows["test_targets"], strict=True)]
    print(json.dumps({"accuracy": sum(right) / len(right), "seconds": seconds}))


if __name__ == "__main__":
    main()
