"""How tests reach the web application."""

import httpx


def reach(app, host="127.0.0.1", **options):
    """Return an HTTP client in front of an application, from a host."""
    transport = httpx.ASGITransport(app, client=(host, 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", **options)


async def submit(http, path, data, **options):
    """Send a form of the dashboard, with the token of its site."""
    if "csrf_token" not in http.cookies:
        await http.get("/")
    return await http.post(path, data={**data, "csrf_token": http.cookies["csrf_token"]}, **options)
