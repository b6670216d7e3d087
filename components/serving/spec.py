"""What a replica is told when it is made."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from raypath.components.core.labels import LabelKind


class EndpointSpec(BaseModel):
    """What a replica needs to know; changing it replaces the replicas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str = "text_classification"
    label_kind: LabelKind = LabelKind.STRING
    """With the task, what a request and its answer look like."""
    tracking: str
    """MLflow server."""
    url: str
    """Where the application answers, without a slash at the end."""
    route: str
    threads: int
    """Of torch; 0 leaves them to torch."""
    limits: Limits
    access: str = ""
    """Folder of the keys, which every replica has to see; "" asks for none."""
    usage: str = ""
    """Folder that the meter writes to; "" takes one below `access`."""
    follow: float = 0.0
    """Seconds between two looks at the registry's aliases, which then say what is held; 0: a ReplicaPlan alone does."""
    canary: str = ""
    """ALIAS:PERCENT of the version that answers some of the requests."""
    shadow: str = ""
    """Alias of the version that is asked too, and never heard."""
    also: tuple[str, ...] = ()
    """Names of other models, whose champions answer at /models/NAME."""
    log_requests: bool = False
    """Log every request, not only those that ended in an error of the server."""
    predictions: str = ""
    """Folder of the prediction log; "" keeps none."""
    share: float = 0.0
    """Of the requests, whose predictions are kept."""
    texts: bool = False
    """Keep their texts too."""
    options: dict[str, Any]
    """Of the Serve deployment."""

    @property
    def replicas(self) -> int:
        """Most that answer at a time."""
        most = self.options.get("autoscaling_config", {}).get("max_replicas", 1)
        return int(self.options.get("num_replicas", most))


class Limits(BaseModel):
    """Bounds of one request and of what waits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: int
    """Texts in a request."""
    characters: int
    """Length of a text."""
    body: int
    """Bytes of a request's body."""
    seconds: float
    """From the whole request read to the answer."""
    batch: int
    """Texts in one pass through the model."""
    max_queue_seconds: float
    """Seconds of work that may wait; what comes on top is refused."""
    arrival: float = 10.0
    """Seconds in which a body has to arrive."""
