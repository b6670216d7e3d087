"""Settings of an endpoint, and checks across them."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Literal

from pydantic import Field

from raypath.components.core.errors import ParamsError
from raypath.components.core.params import NonNegative, Params, Positive, Seconds

Origin = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^\s/?#@A-Z*]+)$")]
"""Origin as browsers send it: scheme, host in lower case and port, without a path."""


class ServeParams(Params):
    """Route, scaling, request limits and logging of an endpoint."""

    route: Annotated[str, Field(pattern=r"^/([\w.-]+(/[\w.-]+)*)?$")] | None = None
    """Path of the endpoint, such as /topics; None takes / if it is free, else /NAME of the model."""
    replicas: NonNegative = 1
    """Number of replicas, each a process; with max_replicas the minimum, which may then be 0."""
    max_replicas: NonNegative = 0
    """Maximum number of replicas when scaling with the load; 0 disables autoscaling."""
    target_requests: Annotated[float, Field(gt=0.0)] = 16.0
    """Target number of ongoing requests per replica, used by autoscaling."""
    target_tokens: Annotated[float, Field(gt=0.0)] = 4_096.0
    """Target number of waiting tokens per replica, used by autoscaling of language models in place of target_requests:
    of prompts that are not read, and those that responses are expected to have yet."""
    idle_seconds: Seconds = 300.0
    """Seconds before a surplus replica is stopped."""
    cpus: Annotated[float, Field(ge=0.0)] = 0.0
    """CPUs reserved per replica; 0 reserves none, for a shared machine."""
    gpus: Annotated[float, Field(ge=0.0)] = 0.0
    """GPUs reserved per replica; a fraction shares one GPU."""
    tensor_parallel_size: Positive = 1
    """GPUs over which vLLM divides a language model that one does not hold; serve.gpus is the same number."""
    gpu_memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.45
    """Share of the memory of a replica's GPU, or of its part of one, that vLLM takes for a version. Below a half, so
    that the next version loads beside it at a promotion; more where versions are replaced with their replicas."""
    threads: Annotated[int, Field(ge=0)] = 0
    """PyTorch threads per replica; 0 divides the available CPU cores."""
    batch: Positive = 32
    """Maximum number of texts in a forward pass."""
    max_queue_seconds: Annotated[float, Field(gt=0.0)] = 3.0
    """Queued work, in seconds, above which new requests are rejected with 429 and Retry-After. Of a language model: the
    estimated seconds by which a response would be delayed by the others."""
    max_items: Positive = 256
    """Maximum number of texts in a request for predictions (422)."""
    max_embeddings: Positive = 2_048
    """Maximum number of inputs in a request for embeddings (422); OpenAI's clients send up to 2,048."""
    token_ids: bool = False
    """Accept token ids as inputs for embeddings. They must be those of the model's tokenizer: LangChain and other
    clients send those of OpenAI's, which are different words here."""
    max_characters: Positive = 20_000
    """Maximum length of a text, or of the messages of a request together, in characters (422, 400)."""
    max_new_tokens: Positive = 1_024
    """Maximum number of tokens of a language model's response where the request names none."""
    max_choices: Positive = 16
    """Maximum number of responses to one request to a language model, `n` for each prompt (400)."""
    max_body: Positive = 4_194_304
    """Maximum size of a request body in bytes (413)."""
    filter_output: Literal["off", "secrets", "all"] = "off"
    """Replace keys, tokens and passwords in the responses of a language model, or also personal data that patterns
    find; of a stream the end is held back while an item may go on there."""
    canary: Annotated[str, Field(pattern=r"^[\w-]+:\d+(\.\d+)?$")] | None = None
    """ALIAS:PERCENT, such as challenger:5: share of requests served by the version with this alias."""
    shadow: Annotated[str, Field(pattern=r"^[\w-]+$")] | None = None
    """Alias of a version that receives shadow traffic when the replica is idle; its predictions are only compared."""
    decide: bool = False
    """Decide on the canary or shadow by live requests: promote the version, or send it back."""
    decide_requests: Positive = 1_000
    """Requests that both versions have answered, before the version can be promoted."""
    decide_agreement: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """Share of inputs for which both versions have to predict the same. Of language models the agreement is reported,
    and decides nothing: two good responses may differ."""
    decide_latency: Annotated[float, Field(gt=0.0)] = 1.1
    """Latency that the version may have, relative to the champion's; of a language model, for each token."""
    decide_tokens: Annotated[float, Field(gt=0.0)] = 1.25
    """Length that the responses of a language model may have, relative to the champion's."""
    decide_errors: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Rate of errors that the version may have above the champion's; 0.01 is one more in 100 requests."""
    decide_chance: Annotated[float, Field(ge=0.0, le=1.0)] = 0.75
    """Chance of being better on the test rows (see `registry.confidence`) from which live requests may promote a
    version: they have no labels, so that quality is known from the test rows alone."""
    extra_models: tuple[str, ...] = ()
    """Names of further registered models, whose champions are served at /models/NAME."""
    merge_adapters: bool = False
    """Serve language models that are adapters merged with their base, each in the engine that was measured when it was
    registered: faster, with a copy of the base for each. By default an endpoint of several models has each base once,
    and answers requests to different adapters together."""
    tasks: tuple[str, ...] = ()
    """Tasks of your own, package.module:Class, that served models may have in addition to that of the workflow."""
    encrypted: bool = False
    """Predict on encrypted features too (`Client.predict_encrypted`), for models with a linear head; needs the extra
    he."""
    log_requests: bool = False
    """Log every request as a line of JSON, without its texts; server errors are always logged."""
    log_predictions: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of requests whose predictions are logged as Parquet in .raypath/predictions."""
    log_texts: bool = False
    """Include the texts in the prediction log."""
    origins: tuple[Origin, ...] = ()
    """Origins of web pages that may send requests (CORS), such as https://app.example.com; * for any."""
    open: bool = False
    """Disable API keys; allowed on this machine only."""
    max_ongoing: Positive = 256
    """Maximum number of ongoing requests per replica, queued ones included (429)."""
    max_ongoing_per_key: NonNegative = 0
    """Maximum number of ongoing requests of an API key per replica (429); 0 takes half of max_ongoing."""
    request_timeout: Annotated[float, Field(gt=0.0)] = 30.0
    """Seconds until a request times out (504)."""
    body_timeout: Annotated[float, Field(gt=0.0)] = 10.0
    """Seconds in which a request body has to arrive (408)."""
    start_timeout: Seconds = 180.0
    """Seconds to wait until the endpoint is ready."""

    @property
    def max_open(self) -> int:
        """Maximum number of ongoing requests of a key per replica."""
        return self.max_ongoing_per_key or max(self.max_ongoing // 2, 1)


def check_scale(serve: ServeParams) -> None:
    """Raise ParamsError if the minimum number of replicas exceeds the maximum, or if both are 0."""
    most = serve.max_replicas or serve.replicas
    if most < max(serve.replicas, 1):
        fix = "set max_replicas to at least replicas; replicas=0 needs max_replicas"
        raise ParamsError(f"replicas={serve.replicas} with max_replicas={serve.max_replicas}", fix=fix)


def check_decide(serve: ServeParams) -> None:
    """Raise ParamsError if live requests are to decide, and no version is tested on them."""
    if serve.decide and not (serve.canary or serve.shadow):
        fix = "set serve.shadow=challenger or serve.canary=challenger:5"
        raise ParamsError("serve.decide needs a canary or a shadow", fix=fix)


def check_encrypted(serve: ServeParams) -> None:
    """Raise ParamsError if predictions on encrypted features are to be served without TenSEAL, or by replicas that do
    not share the evaluation keys of clients: their folder is that of the API keys."""
    if serve.encrypted and importlib.util.find_spec("tenseal") is None:
        raise ParamsError("serve.encrypted needs the Python package tenseal", fix="pip install 'raypath[he]'")
    if serve.encrypted and serve.open and max(serve.replicas, serve.max_replicas) > 1:
        what = "replicas share the evaluation keys of clients beside the API keys, which serve.open does without"
        raise ParamsError(what, fix="leave serve.open unset, or set serve.replicas=1")


def check_language(serve: ServeParams) -> None:
    """Raise ParamsError for settings that an endpoint of a language model does not have, or that disagree."""
    if serve.tensor_parallel_size > 1 and serve.gpus != serve.tensor_parallel_size:
        what = f"serve.tensor_parallel_size={serve.tensor_parallel_size} with serve.gpus={serve.gpus:g}"
        raise ParamsError(what, fix=f"set serve.gpus={serve.tensor_parallel_size}")
    if serve.log_predictions:
        what = "serve.log_predictions logs predictions, and a language model has none"
        raise ParamsError(what, fix="leave serve.log_predictions unset; serve.shadow and serve.canary compare versions")


def with_threads(serve: ServeParams, cores: int) -> ServeParams:
    """Return the settings with `threads` resolved: an equal share of this machine's cores for each replica."""
    threads = serve.threads or max(1, cores // max(serve.replicas, serve.max_replicas, 1))
    return serve.model_copy(update={"threads": threads})
