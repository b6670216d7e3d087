"""What holds for every test."""

import os

# Exact figures are compared, which a processor with bfloat16 would round: what bf16 does is asked for by name.
os.environ["RAYPATH_PRECISION"] = "fp32"
