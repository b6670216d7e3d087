"""MLflow pyfunc model ("models from code"); this file is stored with every registered version.

It depends on transformers, torch, numpy and pandas only: Raypath need not be installed to load a version. The
transformers folder is the artifact `model`, so `artifacts/model` of a version also opens with `from_pretrained`.

With $RAYPATH_PUBLIC_KEYS (PEM, a file, or a folder with *.pub) the folder's signature is checked before it is opened.
That finds altered files; it cannot find an altered copy of this file, nor the files of another version:
`raypath models --verify` checks both, and so should whoever loads a version this way.
"""

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.pyfunc import PythonModel

TOKENS = 1_536
"""Tokens in one forward pass, padding included."""


class TextModel(PythonModel):  # type: ignore[misc]
    """Text model; `model_config` selects the output columns, see `predict`."""

    def load_context(self, context: Any) -> None:
        """Load the model; called once by `mlflow.pyfunc.load_model`."""
        import transformers

        folder, config = context.artifacts["model"], context.model_config or {}
        if keys := os.environ.get("RAYPATH_PUBLIC_KEYS"):
            _check_signature(Path(folder), keys)
        self.metadata = json.loads((Path(folder) / "raypath.json").read_text(encoding="utf-8"))
        if self.metadata.get("redaction"):
            raise ValueError("its training data was redacted; open it with raypath.load, which redacts requests too")
        self.answer = {"label": self._label, "labels": self._labels, "values": self._values}.get(
            config.get("answer", "label"), self._outputs
        )
        auto = getattr(transformers, config.get("auto", "AutoModelForSequenceClassification"))
        here: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        # As in training, [SEP] in a text is text.
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, split_special_tokens=True, **here)
        self.model = auto.from_pretrained(folder, dtype="float32", use_safetensors=True, **here).eval()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict a table with the model's input columns, or a dict of lists; returns a table in the same order.

        A model of one text has the column `text`. Raises ValueError for a missing text.

        Its columns are `label` and `score`; or `labels` and `scores` (lists, with a score for every class); or one
        column per target; or `outputs` (lists of logits).
        """
        columns = self.metadata.get("columns")
        texts = _rendered(model_input, columns, self.metadata["form"]) if columns else _texts(model_input, "text")
        return pd.DataFrame(self.answer(self._logits(texts)))

    def _label(self, logits: Any) -> dict[str, Any]:
        wide = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = wide / wide.sum(axis=1, keepdims=True)
        predicted = probabilities.argmax(axis=1)
        if self.metadata.get("thresholds"):
            predicted = (probabilities[:, 1] >= self.metadata["thresholds"][0]).astype(int)
        labels = [self._as_given(self.metadata["labels"][n]) for n in predicted]
        return {"label": labels, "score": probabilities[np.arange(len(predicted)), predicted]}

    def _labels(self, logits: Any) -> dict[str, Any]:
        probabilities = 0.5 * (1 + np.tanh(0.5 * logits))  # the sigmoid, without overflow
        chosen = probabilities >= np.array(self.metadata.get("thresholds") or 0.5)
        labels = [[self.metadata["labels"][n] for n in np.flatnonzero(row)] for row in chosen]
        return {"labels": labels, "scores": probabilities.tolist()}

    def _values(self, logits: Any) -> dict[str, Any]:
        values = logits * np.array(self.metadata.get("scales") or 1.0) + np.array(self.metadata.get("means") or 0.0)
        return {name: values[:, n] for n, name in enumerate(self.metadata["labels"])}

    def _outputs(self, logits: Any) -> dict[str, Any]:
        return {"outputs": logits.tolist()}

    def _logits(self, texts: list[Any]) -> Any:
        """Return the logits of each text or pair of texts, float64 [B, K]."""
        import torch

        known = self.tokenizer(texts, truncation=True, max_length=self.metadata["max_length"]) if texts else {}
        names = [name for name in ("input_ids", "token_type_ids") if name in known]
        rows = known["input_ids"] if texts else []
        found = np.zeros((len(rows), len(self.metadata["labels"])))
        with torch.inference_mode():
            for group in _groups(rows):
                padded = {name: [known[name][n] for n in group] for name in names}
                batch = self.tokenizer.pad(padded, return_tensors="pt")
                found[group] = self.model(**batch).logits.double().numpy()
        return found

    def _as_given(self, label: str) -> Any:
        kind = self.metadata.get("label_kind", "string")
        if kind == "int":
            return int(label)
        return label == "true" if kind == "bool" else label


def _texts(table: Any, column: str) -> list[str]:
    """Return the texts of a column; MLflow makes one row of lists of a dict of lists. Raises ValueError."""
    cells = [table[column]] if isinstance(table[column], str) else list(table[column])
    if len(cells) == 1 and isinstance(cells[0], list | tuple | np.ndarray):
        cells = list(cells[0])
    for row, cell in enumerate(cells):
        if not isinstance(cell, str):
            found = f"is a {type(cell).__name__}" if np.ndim(cell) or not pd.isna(cell) else "is missing"
            raise ValueError(f"{column} of row {row} {found}; wanted a text in every row")
    return cells


def _rendered(table: pd.DataFrame, columns: list[dict[str, str]], form: str) -> list[Any]:
    """Render rows with several input columns as texts or pairs of texts, as Raypath's data/rendering.py does."""
    names = [column["name"] for column in columns]
    if absent := [name for name in names if name not in table]:
        raise ValueError(f"column {absent[0]} is missing; wanted {', '.join(names)}")
    cells = [list(table[name]) for name in names]
    if all(len(column) == 1 and isinstance(column[0], list | tuple | np.ndarray) for column in cells):
        cells = [list(column[0]) for column in cells]  # MLflow makes one row of lists of a dict of lists
    parts = [[_render(cell, column["kind"]) for cell in each] for each, column in zip(cells, columns, strict=True)]
    rows = list(zip(*parts, strict=True))
    if form == "text":
        return [row[0] for row in rows]
    if form == "pair":
        return rows
    return ["\n".join(f"{n}: {part}" for n, part in zip(names, row, strict=True) if part) for row in rows]


def _render(value: Any, kind: str) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(map(str, value))
    if value is None or value != value:
        return ""
    if kind == "number":
        return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    if kind == "boolean":
        return "yes" if value else "no"
    if kind == "time":
        when = pd.Timestamp(value)
        when = when.tz_localize("UTC") if when.tzinfo is None else when.tz_convert("UTC")
        return str(when.strftime("%Y-%m-%d" if (when.hour, when.minute) == (0, 0) else "%Y-%m-%d %H:%M"))
    if ":" in kind:
        raise ValueError(f"an input column is of the kind {kind}, which only Raypath opens: use raypath.load")
    return str(value).strip() if kind == "category" else str(value)


def _check_signature(folder: Path, given: str) -> None:
    """Raise ValueError unless one of these keys has signed exactly the files of the folder (signature.json)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    text = given
    if not given.startswith("-----BEGIN "):
        place = Path(given)
        text = "".join(path.read_text() for path in (sorted(place.glob("*.pub")) if place.is_dir() else [place]))
    pems = re.findall(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", text, re.DOTALL)
    signed = folder / "signature.json"
    envelope = json.loads(signed.read_text(encoding="utf-8"))["dsseEnvelope"] if signed.is_file() else None
    if envelope is None:
        raise ValueError(f"{folder} is not signed; RAYPATH_PUBLIC_KEYS is set, so only signed models are opened")
    payload, kind = base64.b64decode(envelope["payload"]), "application/vnd.in-toto+json"
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    for pem in pems:
        try:
            key: Any = serialization.load_pem_public_key(pem.encode())
            key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), message, ec.ECDSA(hashes.SHA256()))
            break
        except InvalidSignature:
            continue
    else:
        raise ValueError(f"{folder} is not signed by a key in RAYPATH_PUBLIC_KEYS")
    wanted = {each["name"]: each["digest"] for each in json.loads(payload)["predicate"]["resources"]}
    paths = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file() and path != signed
    }
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}
    if different := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        raise ValueError(f"{folder}: {different[0]} is not as it was signed; fetch the version again")


def _groups(rows: list[list[int]]) -> list[list[int]]:
    """Group row indices by length, with a bounded number of tokens per group."""
    groups: list[list[int]] = []
    for n in sorted(range(len(rows)), key=lambda n: len(rows[n])):
        if groups and (len(groups[-1]) + 1) * len(rows[n]) <= TOKENS:
            groups[-1].append(n)
        else:
            groups.append([n])
    return groups


mlflow.models.set_model(TextModel())
