"""Let a registered language model respond to every row of a file.

read_prompts -> generate
"""

from raypath.components import Dataset, NonNegative, Params, workflow
from raypath.components.generate import GenerateParams, generate
from raypath.components.read_prompts import ReadPromptsParams, read_prompts


class BatchGeneration(Params):
    """Settings of a batch generation."""

    read: ReadPromptsParams = ReadPromptsParams()
    generate: GenerateParams = GenerateParams(model="models:/chat@champion")
    seed: NonNegative = 0
    """Seed of the random generators of every step."""


@workflow
def batch_generation(p: BatchGeneration) -> Dataset:
    """Read and respond."""
    return generate(read_prompts(p.read), p.generate)
