"""Settings of an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from raypath.components.core.params import NonNegative, Params, Positive, Seconds

if TYPE_CHECKING:
    pass


class ServeParams(Params):
    """How a model is served, and what a client may ask of it."""

    route: Annotated[str, Field(pattern=r"^/([\w.-]+(/[\w.-]+)*)?$")] | None = None
    """Path below the endpoint's address, such as /topics; none takes / while it is free, else /NAME of the model."""
    replicas: NonNegative = 1
    """Copies of the model, each in a process of its own; with max_replicas the fewest, and 0 then is allowed."""
    max_replicas: NonNegative = 0
    """Most copies: as many run as the load takes; 0 keeps `replicas`."""
    target_requests: Annotated[float, Field(gt=0.0)] = 16.0
    """Requests that a copy is to hold at a time, by which max_replicas counts how many it takes."""
    idle_seconds: Seconds = 300.0
    """How long a copy more than is needed is kept."""
    cpus: Annotated[float, Field(ge=0.0)] = 0.0
    """CPUs reserved per replica; 0 shares them, as a laptop wants."""
    gpus: Annotated[float, Field(ge=0.0)] = 0.0
    """GPUs reserved per replica; a fraction shares one."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of torch in a replica; 0 takes the CPU cores at hand."""
    batch: Positive = 32
    """Texts in one pass through the model."""
    max_queue_seconds: Annotated[float, Field(gt=0.0)] = 3.0
    """Seconds of work that may wait; what comes on top is refused with 429 and told when to try again."""
    max_items: Positive = 256
    """Texts in one request; more are refused with 422."""
    max_characters: Positive = 20_000
    """Characters in one text; longer ones are refused with 422."""
    max_body: Positive = 4_194_304
    """Bytes in a request's body; larger ones are refused with 413."""
    canary: Annotated[str, Field(pattern=r"^[\w-]+:\d+(\.\d+)?$")] | None = None
    """ALIAS:PERCENT, such as challenger:5: the version under this alias answers that share of the requests."""
    shadow: Annotated[str, Field(pattern=r"^[\w-]+$")] | None = None
    """Alias of a version that is asked too when nobody waits; its answers are compared and never returned."""
    also: tuple[str, ...] = ()
    """Names of other registered models, whose champions this service answers with at /models/NAME."""
    log_requests: bool = False
    """Log every request as a line of JSON, without its texts; errors of the server are always logged."""
    log_predictions: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the requests whose predictions are kept as Parquet in .raypath/predictions."""
    log_texts: bool = False
    """Keep the texts of those requests too."""
    open: bool = False
    """Answer whoever asks, without a key; on this machine alone."""
    max_ongoing: Positive = 256
    """Requests that a replica holds at once, waiting or worked on; further ones are refused with 429."""
    request_timeout: Annotated[float, Field(gt=0.0)] = 30.0
    """Seconds until a request is given up with 504."""
    body_timeout: Annotated[float, Field(gt=0.0)] = 10.0
    """Seconds in which a request's body has to arrive."""
    start_timeout: Seconds = 180.0
    """Seconds to wait for the endpoint to answer."""
