"""Every error of the library can be pickled, copied, and sent through a process pool, and so can
what users derive from it.
"""

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

import orchestra
from orchestra import NonRetryable, OrchestraError
from orchestra.errors import Attempt, ErrorInfo, InstanceNotFound, StoreUnavailable, Unwind
from orchestra.portable import Portable, Unpicklable

for module in pkgutil.walk_packages(orchestra.__path__, "orchestra."):
    importlib.import_module(module.name)

WAYS = {
    **{
        f"pickle {number}": lambda error, number=number: pickle.loads(pickle.dumps(error, number))
        for number in range(6)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def classes(root):
    """Return a class and all that derive from it."""
    return {root}.union(*map(classes, root.__subclasses__()))


def own(root):
    return {cls for cls in classes(root) if cls.__module__.startswith("orchestra")}


def value(annotation, name):
    """Return a value of an annotation that no default has."""
    info = ErrorInfo("shop.Refused", f"the {name} of it", "Traceback ...")
    samples = {
        str: f"the {name}",
        int: 4711,
        bool: True,
        ErrorInfo: info,
        datetime: datetime(2026, 11, 28, tzinfo=UTC),
        timedelta: timedelta(seconds=7),
        typing.Any: {name: [1, 2]},
        object: {name: [1, 2]},
    }
    if annotation in samples:
        return samples[annotation]
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)[-1]
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return value(typing.get_args(annotation)[0], name)
    if typing.get_origin(annotation) in {Sequence, tuple, list}:
        item = typing.get_args(annotation)[0]
        one = Attempt(3, samples[datetime], info) if item is Attempt else value(item, name)
        return (one,) if typing.get_origin(annotation) is tuple else [one]
    if typing.get_origin(annotation) in {dict, Mapping}:
        return {name: value(typing.get_args(annotation)[1], name)}
    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        needed = [field.name for field in dataclasses.fields(annotation) if field.init]
        return annotation(**{name: value(hints[name], name) for name in needed})
    if inspect.isclass(annotation):
        return annotation()
    raise AssertionError(f"teach this test to make a {annotation}")


def made(cls):
    """Return an exception of a class, each of its attributes with a value of its own."""
    if not inspect.isfunction(cls.__init__):
        return cls("what happened, to which thing, and what to do next")
    hints = typing.get_type_hints(cls.__init__)
    args, kwargs = [], {}
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        given = value(hints[parameter.name], parameter.name)
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = given
        else:
            args.append(given)
    return cls(*args, **kwargs)


def seen(error):
    """Return what can be seen of an exception."""
    slots = [name for cls in type(error).__mro__ for name in getattr(cls, "__slots__", ())]
    return (
        type(error),
        str(error),
        error.args,
        repr(vars(error)),
        [getattr(error, name, None) for name in slots],
    )


def chain(error):
    """Return an exception with its causes and contexts."""
    if error is None:
        return None
    return seen(error), chain(error.__cause__), chain(error.__context__), error.__suppress_context__


def raised(error, cause=None):
    """Return an exception as it is caught: with a traceback, and a cause."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_the_walk_finds_the_whole_tree():
    found = own(Portable)
    assert own(OrchestraError) | own(Unwind) | own(NonRetryable) < found
    assert len(found) > 50


def test_every_exception_that_leaves_the_library_is_portable():
    exported = [getattr(orchestra, name) for name in orchestra.__all__]
    exceptions = [
        one for one in exported if inspect.isclass(one) and issubclass(one, BaseException)
    ]
    assert [one for one in exceptions if not issubclass(one, Portable)] == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "cls", sorted(own(Portable) - {Portable}, key=lambda cls: cls.__qualname__)
)
def test_an_error_comes_back_as_it_was(cls, way):
    error = raised(made(cls), raised(made(InstanceNotFound), raised(KeyError("deep"))))
    error.add_note("while paying order 7")
    back = WAYS[way](error)
    assert back is not error
    assert chain(back) == chain(error)


# --- what users derive ---


class Refused(OrchestraError):
    """As users write it: keyword-only, with an attribute that `__init__` does not take, and another
    text than its first.
    """

    def __init__(self, *, code, details=None):
        super().__init__(f"refused with {code}")
        self.code = code
        self.details = details
        self.hints = [code]


class Slotted(Refused):
    __slots__ = ("extra",)

    def __init__(self, code, /, *, extra):
        super().__init__(code=code)
        self.extra = extra


class Missing(OSError, Refused):
    """A built-in class first, which has a way of its own to be pickled."""

    def __init__(self, path, *, code):
        OSError.__init__(self, 2, "not there", path)
        self.code = code


class Tidy(Refused):
    """Leaves out what cannot travel."""

    def __init__(self, *, code):
        super().__init__(code=code)
        self.connection = open

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "connection"}


class Own(Refused):
    """Says itself how it is rebuilt."""

    def __reduce__(self):
        return _own, (self.code,)


def _own(code):
    return Own(code=code)


class Useless(NonRetryable):
    def __init__(self, *, until):
        super().__init__(until)
        self.until = until


class Late(TimeoutError, OrchestraError): ...


class Grouped(OrchestraError, ExceptionGroup): ...


DERIVED = [
    Refused(code=402, details={"bank": "b"}),
    Slotted(402, extra={"a": 1}),
    Missing("/tmp/x", code=5),
    Own(code=3),
    Useless(until="tomorrow"),
    Late(110, "late"),
    Grouped("both", [ValueError("a"), KeyError("b")]),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", DERIVED, ids=lambda error: type(error).__name__)
def test_what_users_derive_comes_back_as_it_was(error, way):
    back = WAYS[way](error)
    assert seen(back)[:2] == seen(error)[:2]
    assert repr(vars(back)) == repr(vars(error))
    assert (
        getattr(back, "errno", None),
        getattr(back, "filename", None),
        getattr(back, "extra", None),
    ) == (
        getattr(error, "errno", None),
        getattr(error, "filename", None),
        getattr(error, "extra", None),
    )


def test_a_class_that_leaves_out_what_cannot_travel_is_obeyed():
    back = pickle.loads(pickle.dumps(Tidy(code=1)))
    assert (back.code, hasattr(back, "connection")) == (1, False)


def test_a_deep_copy_shares_nothing_and_a_copy_shares_its_values():
    error = Refused(code=1, details={"bank": ["b"]})
    assert copy.deepcopy(error).details is not error.details
    assert copy.copy(error).details is error.details


# --- chains ---


class Demanding(Exception):
    """Of other code: it can be pickled, and not be rebuilt."""

    def __init__(self, *, code):
        super().__init__(code)


class Closed(Exception):
    """Of other code: it cannot be pickled."""

    def __reduce__(self):
        raise TypeError("not this one")


class Mute(Closed):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("cause", "message"), [(Demanding(code=9), "9"), (Closed("no"), "no"), (Mute(), "")]
)
def test_a_cause_that_cannot_travel_arrives_as_its_text(cause, message):
    error = raised(StoreUnavailable("gone"), raised(cause))
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, StoreUnavailable)
    stand_in = back.__cause__
    assert type(stand_in) is Unpicklable
    assert stand_in.type.endswith(f".{type(cause).__name__}")
    assert stand_in.message == message
    assert "in raised" in stand_in.traceback


def test_a_copy_keeps_a_cause_that_cannot_travel():
    cause = Closed("no")
    error = raised(StoreUnavailable("gone"), cause)
    assert copy.copy(error).__cause__ is cause
    assert copy.deepcopy(error).__cause__ is cause


def test_a_cause_of_a_library_that_the_reader_lacks_arrives_as_its_text(monkeypatch):
    error = raised(StoreUnavailable("gone"), Vanishing("driver error"))
    data = pickle.dumps(error)
    monkeypatch.delitem(globals(), "Vanishing")
    back = pickle.loads(data)
    assert (back.__cause__.type, back.__cause__.message) == (
        f"{__name__}.Vanishing",
        "driver error",
    )


class Vanishing(Exception): ...


def test_a_long_chain_is_cut_and_a_circle_is_opened():
    error = None
    for number in range(3_000):
        link = StoreUnavailable(str(number))
        link.__context__ = error
        error = link
    back, length = pickle.loads(pickle.dumps(error)), 0
    assert str(back) == "2999"
    while back is not None:
        back, length = back.__context__, length + 1
    assert 10 <= length <= 100

    one, two = StoreUnavailable("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    again = pickle.loads(pickle.dumps(one))
    assert (str(again.__cause__), again.__cause__.__cause__) == ("two", None)


def test_a_suppressed_context_stays_suppressed():
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise StoreUnavailable("outer") from None
    except StoreUnavailable as error:
        back = pickle.loads(pickle.dumps(error))
    assert back.__suppress_context__
    assert isinstance(back.__context__, KeyError)


# --- process pools ---

POOL = """
import concurrent.futures, multiprocessing
from orchestra import DecodeError, NonRetryable, OrchestraError

class Refused(OrchestraError):
    def __init__(self, *, code):
        super().__init__(f"refused with {code}")
        self.code = code

class Useless(NonRetryable):
    def __init__(self, *, until):
        super().__init__(until)

class Demanding(Exception):
    def __init__(self, *, code):
        super().__init__(code)

def job(number):
    if number == 0:
        raise DecodeError("it does not fit", subject="input of 'watch'", field=".url") from Demanding(code=1)
    raise Refused(code=402) if number == 1 else Useless(until="tomorrow")

if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for number in range(3):
            print(repr(pool.submit(job, number).exception(60)))
        print(pool.submit(len, "alive").result(60))
"""


@pytest.mark.slow
def test_a_process_pool_outlives_every_error_that_a_job_raises(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=90)
    assert ran.stdout.splitlines() == [
        "DecodeError('it does not fit')",
        "Refused('refused with 402')",
        "Useless('tomorrow')",
        "5",
    ], ran.stderr
