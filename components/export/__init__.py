"""Export of a model to the formats of other programs: transformers, peft, GGUF and ONNX."""
