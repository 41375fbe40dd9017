"""A text that names a store: the same for services, scripts and the command line."""

import subprocess
import sys

import pytest

import orchestra.providers
from orchestra import InvalidArgument, SqliteProvider, StoreUnavailable
from orchestra.providers import from_url
from orchestra.providers.postgres import PostgresProvider
from orchestra.providers.urls import without_secrets


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_a_path_or_a_url_of_a_file_is_a_store_in_a_file(tmp_path, form):
    path = tmp_path / "app.db"
    provider = from_url(form.format(path))
    assert isinstance(provider, SqliteProvider)
    provider.open()
    provider.close()
    assert path.exists()


def test_a_dsn_is_a_store_on_a_server():
    for dsn in ("postgresql://app@db/orders", "postgres://db", "host=db password=geheim"):
        provider = from_url(dsn, schema="loops")
        assert isinstance(provider, PostgresProvider)
        assert "geheim" not in repr(provider)


def test_what_names_no_store_is_refused_without_its_password(tmp_path):
    with pytest.raises(InvalidArgument) as error:
        from_url("mysql://ann:geheim@db/orders")
    assert "geheim" not in str(error.value)
    with pytest.raises(InvalidArgument, match="schema"):
        from_url(str(tmp_path / "app.db"), schema="loops")
    with pytest.raises(StoreUnavailable, match="no such file"):
        from_url(str(tmp_path / "app.db"), migrate=False)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:geheim@db/orders?sslmode=require",
        "postgresql://db/orders?user=ann&password=geheim",
        "postgresql://db/orders?sslpassword=geheim",
        "host=db password=geheim user=ann",
        "host=db password = 'geheim zwei' user=ann",
        "host=db sslpassword=geheim",
        "could not connect to postgresql://ann:geheim@db: refused",
    ],
)
def test_no_form_of_a_secret_is_shown(text):
    assert "geheim" not in without_secrets(text)


@pytest.mark.slow
def test_it_is_imported_only_when_it_is_used():
    program = (
        "import sys, orchestra.providers; assert 'orchestra.providers.urls' not in sys.modules;"
        "orchestra.providers.from_url; assert 'psycopg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert orchestra.providers.__all__ == ["from_url"]
    with pytest.raises(AttributeError):
        orchestra.providers.to_url  # noqa: B018
