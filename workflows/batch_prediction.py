"""Predict every row of a dataset with a registered model.

read -> predict
"""

from raypath.components import Dataset, NonNegative, Params, workflow
from raypath.components.predict import PredictParams, predict
from raypath.components.read import ReadParams, read


class BatchPrediction(Params):
    """From texts to predictions."""

    read: ReadParams = ReadParams(uri="sample://reviews", text="review", label=None)
    predict: PredictParams = PredictParams(model="models:/reviews@champion")
    seed: NonNegative = 0
    """Every step's random numbers start here."""


@workflow
def batch_prediction(p: BatchPrediction) -> Dataset:
    """Read, predict."""
    return predict(read(p.read), p.predict)
