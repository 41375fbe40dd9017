"""Read the arguments of an activity, or find that other code is needed to read them."""

from __future__ import annotations

from typing import Any

from orchestra.activities import Activity
from orchestra.codec import decoder
from orchestra.engine.messages import ActivityFailure, RunActivity
from orchestra.error_info import error_info
from orchestra.errors import ErrorInfo, PayloadUnreadable
from orchestra.fingerprint import fingerprint
from orchestra.telemetry import library_version

__all__ = ["ArgumentsUnread", "activity_fingerprint", "read_arguments"]


class ArgumentsUnread(Exception):
    """This node's code cannot read the arguments of an activity, and did not call it. ``failure``
    says why.
    """

    def __init__(self, failure: ActivityFailure) -> None:
        super().__init__(failure.error.message)
        self.failure = failure


def activity_fingerprint(activity: Activity[..., Any]) -> str:
    """Return a fingerprint of everything that reads an activity's arguments: its code, its
    parameters and this library.
    """
    signature, function = activity.signature, activity.function
    assert signature is not None
    assert function is not None
    parts = [library_version().encode(), str(signature.parameters).encode()]
    for name, annotation in signature.annotations.items():
        parts += [name.encode(), decoder(annotation).schema()]
    return fingerprint(function, *parts)


def read_arguments(
    activity: Activity[..., Any], request: RunActivity, subject: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments of an attempt.

    Raises:
        ArgumentsUnread: they do not fit this node's function: another release of it wrote them.
    """
    signature = activity.signature
    assert signature is not None
    try:
        args, kwargs = signature.decode(request.arguments, subject=f"arguments of {subject}")
        if kwargs or len(args) not in signature.arity:
            signature.parameters.bind(*args, **kwargs)
    except Exception as error:
        # A sealed value is no fault of the code; another node may have the key.
        code = None if isinstance(error, PayloadUnreadable) else activity_fingerprint(activity)
        cause = error_info(error)
        told = ErrorInfo(
            "orchestra.ArgumentsUnread",
            f"a worker could not read the arguments of activity {activity.name!r}, and handed "
            f"it back untried: {cause.type}: {cause.message}",
        )
        failure = ActivityFailure(told, (told.type,), untried=True, unread=code)
        raise ArgumentsUnread(failure) from error
    return args, kwargs
