"""The model as MLflow loads it ("models from code"): this file travels with every registered version.

It stands alone, on transformers, torch, numpy and pandas: who loads a version has no `components` on the path.
The transformers folder is the artifact `model`, so `artifacts/model` of a version also opens with `from_pretrained`.
"""

import json
from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.pyfunc import PythonModel

TOKENS = 1_536
"""Tokens in one forward pass, padding included."""


class TextClassifier(PythonModel):  # type: ignore[misc]
    """One text a row in, its label and the label's probability out."""

    def load_context(self, context: Any) -> None:
        """Open the folder; called once by `mlflow.pyfunc.load_model`."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = context.artifacts["model"]
        self.card = json.loads((Path(folder) / "raypath.json").read_text(encoding="utf-8"))
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype="float32", trust_remote_code=False, local_files_only=True
        ).eval()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A table with the column `text` -> a table `label`, `score` in the same order."""
        texts = [str(text) for text in model_input["text"]]
        probabilities = self._probabilities(texts)  # float64 [B, K]
        labels = [self._as_given(self.card["labels"][n]) for n in probabilities.argmax(axis=1)]
        return pd.DataFrame({"label": labels, "score": probabilities.max(axis=1)})

    def _probabilities(self, texts: list[str]) -> Any:
        import torch

        rows = self.tokenizer(texts, truncation=True, max_length=self.card["max_length"])["input_ids"] if texts else []
        found = np.zeros((len(rows), len(self.card["labels"])))
        with torch.inference_mode():
            for group in _groups(rows):
                batch = self.tokenizer.pad({"input_ids": [rows[n] for n in group]}, return_tensors="pt")
                found[group] = torch.softmax(self.model(**batch).logits.double(), dim=-1).numpy()
        return found

    def _as_given(self, label: str) -> Any:
        kind = self.card.get("label_kind", "string")
        if kind == "int":
            return int(label)
        return label == "true" if kind == "bool" else label


def _groups(rows: list[list[int]]) -> list[list[int]]:
    """Row numbers by length, a bounded number of tokens a group."""
    groups: list[list[int]] = []
    for n in sorted(range(len(rows)), key=lambda n: len(rows[n])):
        if groups and (len(groups[-1]) + 1) * len(rows[n]) <= TOKENS:
            groups[-1].append(n)
        else:
            groups.append([n])
    return groups


mlflow.models.set_model(TextClassifier())
