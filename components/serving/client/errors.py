"""Errors of a request to an endpoint, part of the tree of `raypath.RaypathError`.

UserError
  RequestError       rejected: no valid key, a body that does not fit, an unknown model (400, 401, 403, 404, 413, 422)
Unavailable          no response: connection refused or broken, timeout, server error
  TooManyRequests    429: too much work is queued, or the key's rate or quota is used up
"""

from __future__ import annotations

from typing import Any

from raypath.components.core.errors import Unavailable, UserError


class RequestError(UserError):
    """The endpoint rejected the request; sending it again would not help.

    status: HTTP status code.
    """

    def __init__(self, what: str, *, fix: str = "", step: str = "", status: int = 0) -> None:
        super().__init__(what, fix=fix, step=step)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), {"status": self.status})


class TooManyRequests(Unavailable):
    """The endpoint rejected the request for now, and the time to wait exceeds the client's timeout.

    retry_after: seconds after which the endpoint accepts requests again; 0 where it did not say.
    """

    def __init__(self, what: str, *, fix: str = "", step: str = "", retry_after: float = 0.0) -> None:
        super().__init__(what, fix=fix, step=step)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), {"retry_after": self.retry_after})
