"""Predict every row of a dataset with a registered model.

read -> predict
"""

from raypath.components import Dataset, NonNegative, Params, workflow
from raypath.components.predict import PredictParams, predict
from raypath.components.read import ReadParams, read


class BatchPrediction(Params):
    """Settings of a batch prediction."""

    read: ReadParams = ReadParams(uri="sample://reviews", text="review", label=None)
    predict: PredictParams = PredictParams(model="models:/reviews@champion")
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def batch_prediction(p: BatchPrediction) -> Dataset:
    """Read and predict."""
    return predict(read(p.read), p.predict)
