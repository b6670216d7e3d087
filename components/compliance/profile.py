"""A project's own answers on what it does, by which requirements apply: compliance.yaml, or `-s`."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from raypath.components.core.params import Params, Positive

Answered = bool | None
"""True, False, or None for a question that is not answered; what depends on it then applies."""


class Profile(Params):
    """Answers of a project."""

    personal_data: Answered = None
    """Data about persons is used for training, evaluation or in requests."""
    special_data: Answered = None
    """Data on health, beliefs, biometrics, finances, location and the like is used: special categories of the GDPR,
    sensitive personal information of the PIPL."""
    health_data: Answered = None
    """Protected health information of the HIPAA is used."""
    children: Answered = None
    """Data of children is used, or the service is meant for them."""
    automated_decisions: Answered = None
    """Decisions with legal or similarly significant effects on persons follow from predictions without a human."""
    transfers: Answered = None
    """Personal data leaves the country or the economic area where it was collected."""
    processors: Answered = None
    """Others process the data on the project's behalf: hosting, clouds, labelling, APIs."""
    generation: Answered = None
    """A language model writes texts that people read. None: known from the runs."""
    public: Answered = None
    """The service is open to the public, or to people outside of the organisation."""
    high_risk: Answered = None
    """The use is in annex III of the EU AI Act, or the model is a safety component of a regulated product."""
    backup_days: Positive = 7
    """Days within which a backup has to be made."""
    verify_days: Positive = 90
    """Days within which a backup has to be verified."""
    forget_days: Positive = 30
    """Days after a forgotten subject in which models that were trained on its data have to be replaced."""
    log_days: Annotated[int, Field(ge=0)] = 183
    """Days for which logs have to be kept, at least."""


CONDITIONS = tuple(name for name, field in Profile.model_fields.items() if type(None) in get_args(field.annotation))
"""Questions on which an item may depend."""
