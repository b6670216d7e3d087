"""Fine-tune a model that predicts a number from a text, and serve it if it beats the champion.

read -> split -> configure -> preprocess -> extract -> tune -> finetune -> evaluate -> register -> serve
                           -> inspect
"""

from raypath.components import Artifact, workflow
from raypath.components.finetune import FinetuneParams
from raypath.components.read import ReadParams
from raypath.components.register import RegisterParams
from raypath.components.split import SplitParams
from raypath.workflows.text_classification import TextClassification, text_classification


class Regression(TextClassification):
    """Settings for texts with a number each; the sample is posts and the log10 of their number of reposts."""

    read: ReadParams = ReadParams(uri="sample://tweets", text="text", label="log10_retweet_count", kind="number")
    split: SplitParams = SplitParams(valid=0.05, test=0.1)
    finetune: FinetuneParams = FinetuneParams(task="regression")
    registry: RegisterParams = RegisterParams(name="retweets", better_on="r2")


@workflow
def regression(p: Regression) -> Artifact:
    """Run the steps of `text_classification`."""
    return text_classification.fn(p)
