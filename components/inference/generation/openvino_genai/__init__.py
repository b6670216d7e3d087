"""Generation by openvino-genai on CPUs: the graph of a decoder, its weights, and the engine."""
