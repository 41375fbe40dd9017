"""The transforms: what is sealed opens as it was, at its place alone, and tampered bytes never."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra import Compress, DirectoryStorage, Encrypt, External, InvalidArgument, Keys, Pipeline
from orchestra.codec import Payload
from orchestra.codec.sealed import HEADER, read_header
from orchestra.payloads.pipeline import Opening, Problem, Sealing
from orchestra.store.values import Place
from tests.support.examples import examples

KEYS = Keys({"k1": b"1" * 32, "k2": b"2" * 32}, current="k1")
MEMORY: dict[str, bytes] = {}


class InMemory:
    def put(self, key, data):
        MEMORY[key] = data

    def get(self, key):
        return MEMORY[key]


PIPELINES = {
    "zlib": Pipeline(Compress(0)),
    "zstd": Pipeline(Compress(0, method="zstd")),
    "aes": Pipeline(Encrypt(KEYS)),
    "both": Pipeline(Compress(64), Encrypt(KEYS)),
    "outside": Pipeline(External(InMemory(), over=100)),
    "all": Pipeline(Compress(64, method="zstd"), Encrypt(KEYS), External(InMemory(), over=100)),
}
ENCRYPTED = ["aes", "both", "all"]
PLACE = Place("i", ("state", 3), 3)

# No JSON and no packed facts begin with the byte of a seal.
values = st.binary(max_size=300).map(lambda data: b"[" + data) | st.text(max_size=40).map(
    lambda text: text.encode() * 20
)
places = st.builds(
    Place,
    st.text(max_size=3),
    st.lists(st.text(max_size=3) | st.integers(0, 99) | st.none(), max_size=3).map(tuple),
)


def sealed(pipeline, value, place=PLACE):
    sealing = Sealing(pipeline)
    payload = sealing.payload(Payload(value), place)
    sealing.store()
    return payload


def opened(pipeline, payload, place=PLACE):
    return Opening(pipeline).payload(payload, place)


@pytest.mark.parametrize("name", PIPELINES)
@settings(max_examples=examples(60))
@given(value=values, place=places)
def test_what_is_sealed_opens_as_it_was_and_the_header_tells_its_length(name, value, place):
    pipeline = PIPELINES[name]
    payload = sealed(pipeline, value, place)
    assert opened(pipeline, payload, place) == Payload(value)
    if payload.encoding != 1:
        header = read_header(payload.data)
        assert header.size == len(value)
        assert header.key_id == ("k1" if name in ENCRYPTED else "")


@pytest.mark.parametrize("name", ENCRYPTED)
@settings(max_examples=examples(60))
@given(value=values, place=places, other=places)
def test_at_another_place_it_does_not_open(name, value, place, other):
    payload = opened(PIPELINES[name], sealed(PIPELINES[name], value, place), other)
    is_same = (place.instance, place.item) == (other.instance, other.item)
    assert (payload == Payload(value)) == is_same


@pytest.mark.parametrize("name", ENCRYPTED)
@settings(max_examples=examples(100))
@given(value=values, data=st.data())
def test_tampered_bytes_never_open(name, value, data):
    payload = sealed(PIPELINES[name], value)
    whole = bytearray(payload.data)
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), payload.data[:cut] + payload.data[cut + 1 :]):
        if damaged == payload.data:
            continue
        with pytest.raises(Problem):
            PIPELINES[name].open(damaged, PLACE, MEMORY.__getitem__)


@settings(max_examples=examples(60))
@given(damage=st.binary(max_size=80))
def test_no_bytes_crash_a_reader(damage):
    for name in PIPELINES:
        opening = Opening(PIPELINES[name])
        opening.payload(Payload(b"\xff" + damage, 2), PLACE)
        opening.packed(b"\xff\x01" + damage, PLACE)
        opening.text("[sealed with key k1] " + base64.b64encode(damage).decode(), PLACE)


@settings(max_examples=examples(40))
@given(text=st.text())
def test_a_text_comes_back_and_says_its_key_to_those_without_it(text):
    pipeline = PIPELINES["aes"]
    stored = Sealing(pipeline).text(text, PLACE)
    assert stored.startswith("[sealed with key k1] ") or not text
    assert Opening(pipeline).text(stored, PLACE) == text
    assert Sealing(pipeline).text(stored, PLACE) == stored


def test_two_values_never_look_the_same():
    assert sealed(PIPELINES["aes"], b"1").data != sealed(PIPELINES["aes"], b"1").data


def test_each_instance_has_keys_of_its_own():
    # Else one place name could be forged from another by what ends the one and begins the other.
    one, other = Place("a", ("b",)), Place("a\x00", ("b",))
    payload = sealed(PIPELINES["aes"], b"1", one)
    assert opened(PIPELINES["aes"], payload, other).encoding == 2


def test_a_header_that_promises_less_memory_than_the_body_needs_is_refused():
    payload = sealed(PIPELINES["zlib"], b"a" * 100_000)
    smaller = payload.data[: HEADER - 4] + (10).to_bytes(4, "big") + payload.data[HEADER:]
    with pytest.raises(Problem):
        PIPELINES["zlib"].open(smaller, PLACE, MEMORY.__getitem__)


def test_small_values_and_those_that_do_not_shrink_stay_as_they_are():
    pipeline = Pipeline(Compress(100))
    assert sealed(pipeline, b"a" * 99).encoding == 1
    assert sealed(pipeline, bytes(range(256))).encoding == 1
    assert len(sealed(pipeline, b"a" * 100).data) < 60


def test_a_directory_keeps_a_value_whole_under_its_digest(tmp_path):
    storage = DirectoryStorage(tmp_path / "values")
    pipeline = Pipeline(Encrypt(KEYS), External(storage, over=100))
    payload = sealed(pipeline, b"a" * 1000)
    ((key, _),) = storage.objects()
    assert len(payload.data) < 100
    assert opened(pipeline, payload) == Payload(b"a" * 1000)
    sealed_outside = storage.get(key)
    storage.put(key, sealed_outside)
    assert len(list(storage.objects())) == 1
    (tmp_path / "values" / key[:2] / key).write_bytes(sealed_outside[:-1])
    assert "has other content" in opened(pipeline, payload).why
    storage.delete(key)
    storage.delete(key)
    assert "has no object" in opened(pipeline, payload).why
    with pytest.raises(KeyError):
        storage.get(key)


def test_keys_are_checked_and_never_shown(tmp_path):
    for keys, current in [
        ({}, None),
        ({"k": b"short"}, None),
        ({"k" * 17: b"1" * 32}, None),
        ({"k k": b"1" * 32}, None),
        ({"a": b"1" * 32, "b": b"2" * 32}, None),
        ({"a": b"1" * 32}, "b"),
    ]:
        with pytest.raises(InvalidArgument):
            Keys(keys, current)
    secret = Keys.generate()
    keys = Keys({"k1": secret})
    shown = repr(Pipeline(Compress(), Encrypt(keys)))
    assert "k1" in shown
    assert repr(secret) not in shown
    with pytest.raises(InvalidArgument, match="another key has the id"):
        keys.add("k1", Keys.generate())
    with pytest.raises(InvalidArgument):
        keys.remove("k1")
    keys.add("k2", Keys.generate())
    keys.use("k2")
    keys.remove("k1")
    assert (keys.ids, keys.current) == (("k2",), "k2")
    with pytest.raises(InvalidArgument, match="came from no file"):
        keys.reload()
    path = tmp_path / "keys.json"
    path.write_text(f'{{"keys": {{"k9": "{base64.b64encode(secret).decode()}"}}}}')
    from_file = Keys.from_file(path)
    assert from_file.current == "k9"
    path.write_text("[]")
    with pytest.raises(InvalidArgument, match="holds no keys"):
        from_file.reload()
    assert from_file.ids == ("k9",)


def test_the_parts_of_a_pipeline_are_checked():
    encrypt = Encrypt(KEYS)
    for parts in [(encrypt, Compress()), (encrypt, encrypt), (object(),)]:
        with pytest.raises(InvalidArgument):
            Pipeline(*parts)
    for make in [
        lambda: Compress(-1),
        lambda: Compress(method="lzma"),
        lambda: Compress(level=99),
        lambda: Encrypt({"k1": b"1" * 32}),
        lambda: Encrypt(KEYS, plain="perhaps"),
        lambda: External(object()),
        lambda: External(InMemory(), over=1),
    ]:
        with pytest.raises(InvalidArgument):
            make()
