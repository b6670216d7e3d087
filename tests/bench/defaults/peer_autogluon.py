"""AutoGluon's default text classifier on the base and the splits of a set; it needs an environment of its own.

`pip install autogluon.multimodal==1.6.3`, then `python peer_autogluon.py FOLDER BASE SECONDS`: FOLDER has train.csv,
valid.csv and test.csv, BASE is the folder of a base model, SECONDS the limit of time or 0. It prints a JSON line.
"""

import json
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path


def main(folder: Path, base: str, limit: float) -> None:
    """Train with AutoGluon's own settings, apart from the base; print its metrics on test and its cost."""
    import torch

    # PyPI's torchvision is built for CUDA: beside torch for CPUs it lacks its operators, none of which a text needs.
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    # By name, since Raypath does not depend on AutoGluon, and has pandas without types.
    multimodal, pandas = import_module("autogluon.multimodal"), import_module("pandas")
    train, valid, test = (pandas.read_csv(folder / f"{name}.csv", dtype=str) for name in ("train", "valid", "test"))
    with tempfile.TemporaryDirectory() as out:
        began, used = time.perf_counter(), time.process_time()
        predictor = multimodal.MultiModalPredictor(
            label="label", problem_type="multiclass", path=f"{out}/model", verbosity=1
        )
        settings = {"model.hf_text.checkpoint_name": base, "model.names": ["hf_text"], "env.num_workers": 0}
        predictor.fit(train, tuning_data=valid, time_limit=limit or None, hyperparameters=settings, seed=0)
        seconds, used = time.perf_counter() - began, time.process_time() - used
        scores = predictor.evaluate(test, metrics=["accuracy", "f1_macro"])
    facts = {"seconds": round(seconds, 1), "cpu_seconds": round(used, 1), "limit": limit}
    print(json.dumps({"peer": "autogluon", "set": folder.name, **scores, **facts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
