"""Fine-tune a classifier with any number of labels per text, and serve it if it beats the champion.

read -> split -> configure -> preprocess -> extract -> tune -> finetune -> evaluate -> register -> serve
                           -> inspect
"""

from raypath.components import Artifact, workflow
from raypath.components.finetune import FinetuneParams
from raypath.components.read import ReadParams
from raypath.components.register import RegisterParams
from raypath.components.split import SplitParams
from raypath.components.tasks.objectives.params import ObjectiveParams
from raypath.workflows.text_classification import TextClassification, text_classification


class MultiLabel(TextClassification):
    """Settings for texts with sets of labels; the sample is films with their genres."""

    read: ReadParams = ReadParams(uri="sample://movies", text="title", label="genres", kind="set")
    split: SplitParams = SplitParams(valid=0.1, test=0.1)
    finetune: FinetuneParams = FinetuneParams(objective=ObjectiveParams(threshold="valid"))
    registry: RegisterParams = RegisterParams(name="genres", better_on="micro_f1")


@workflow
def multi_label(p: MultiLabel) -> Artifact:
    """Run the steps of `text_classification`."""
    return text_classification.fn(p)
