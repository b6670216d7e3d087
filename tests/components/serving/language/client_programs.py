"""Programs that use a language model's endpoint by LiteLLM and LlamaIndex. Arguments: base URL, response to `hi`.

They run in processes of their own: LiteLLM leaves event loops behind, and LlamaIndex imports a package `workflows`,
which this repository's folder of that name would be.
"""

LITELLM = """
import asyncio, os, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise fetched at the import
import litellm

base, text = sys.argv[1:]
place = {"model": "openai/m", "api_base": base, "api_key": "none", "temperature": 0}
ask = {**place, "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
assert litellm.completion(**ask).choices[0].message.content == text
chunks = list(litellm.completion(**ask, stream=True, stream_options={"include_usage": True}))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
assert chunks[-1].usage.completion_tokens == 8
assert asyncio.run(litellm.acompletion(**ask)).choices[0].message.content == text
parameters = {"type": "object", "properties": {"name": {"enum": ["gull", "owl"]}}, "required": ["name"]}
tools = [{"type": "function", "function": {"name": "look", "parameters": parameters}}]
longer = {**ask, "max_tokens": 300, "tools": tools, "tool_choice": "required"}
[call] = litellm.completion(**longer).choices[0].message.tool_calls
assert call.function.name == "look"
found = litellm.responses(**place, input="hi", max_output_tokens=16)  # which is the least that it sends
assert found.output[0].content[0].text.startswith(text)
for wrong, kind in (({"max_tokens": 5_000}, litellm.BadRequestError), ({"model": "openai/x"}, litellm.NotFoundError)):
    try:
        litellm.completion(**{**ask, **wrong})
    except kind:
        continue
    raise AssertionError(wrong)
"""
LLAMA_INDEX = """
import asyncio, sys
from typing import Literal
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

base, text = sys.argv[1:]
made = {"model": "m", "api_base": base, "api_key": "none", "temperature": 0}
model = OpenAILike(**made, is_chat_model=True, max_tokens=8)
ask = [ChatMessage(role="user", content="hi")]
assert model.chat(ask).message.content == text
assert "".join(each.delta or "" for each in model.stream_chat(ask)) == text
assert asyncio.run(model.achat(ask)).message.content == text
assert OpenAILike(**made, is_chat_model=False, max_tokens=4).complete("saw an").text

def look(name: Literal["gull", "owl"]) -> str:
    "Look at a bird."

longer = OpenAILike(**made, is_chat_model=True, is_function_calling_model=True, max_tokens=300)
found = longer.chat_with_tools([FunctionTool.from_defaults(look)], "hi", tool_required=True)
assert [call.tool_name for call in longer.get_tool_calls_from_response(found)] == ["look"]
"""
