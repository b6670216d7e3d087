"""Section of a model card that says how to open the files."""

from __future__ import annotations

TRANSFORMERS = """```python
import transformers

tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
model = transformers.{name}.from_pretrained(FOLDER)
```"""
PEFT = """```python
import peft
import transformers

tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
base = transformers.{auto}.from_pretrained(BASE)
model = peft.PeftModel.from_pretrained(base, FOLDER)
```"""
GGUF = """```bash
ollama create {name} -f Modelfile
ollama run {name}
```

With llama.cpp: `llama-cli -m {file}`."""
ONNX = """```python
import onnxruntime
import transformers

tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
session = onnxruntime.InferenceSession(FOLDER + "/model.onnx")
rows = tokenizer(["A lovely cup of tea"], return_tensors="np", padding=True, truncation=True)
inputs = {{each.name: rows[each.name] for each in session.get_inputs()}}
print(session.run(["{output}"], inputs)[0])
```"""
ENCODER = """```python
with raypath.Client(URL, KEY) as client:
    print(client.predict_encrypted(["A lovely cup of tea"], base=FOLDER))
```"""
