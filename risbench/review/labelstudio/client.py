"""HTTP calls to a Label Studio, one at a time: every outcome is named, every answer's shape is checked.

A failed call is one of three: not done (an InputError or MissingRequirementError), done or not, nobody knows
(`OutcomeUnknownError`), or the server is not there at all (BusyError). Who calls decides what may be sent twice. Reading is tried
again by itself; nothing that changes the server is.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests

from risbench.core.errors import BusyError, InputError, MissingRequirementError, OptionError, printable

_READ_AGAIN_S: Final = (0.5, 1.0, 2.0, 4.0)
_TIMEOUT_S: Final = 120.0
_KINDS: Final[dict[type, str]] = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}
_T = TypeVar("_T")


class OutcomeUnknownError(BusyError):
    """The call was sent, and whether the server did it is not known."""


class NotThere(InputError):
    """What the call is about is not on the server (any more)."""


class Client:
    """A Label Studio's address and the token to it. Neither token nor header is ever part of a message."""

    def __init__(self, url: str, token: str, *, remote: bool = False) -> None:
        """Know a server; `remote` is true of one that somebody else runs.

        Raises:
            OptionError: the address cannot be one, or holds a password.
            MissingRequirementError: the token cannot be one, or the server refuses it.
        """
        check_url(url)
        check_token(token, "the access token")
        self.url, self._token, self.remote, self._session = url.rstrip("/"), token, remote, requests.Session()
        self._session.trust_env = False  # a proxy of the environment would see the token
        self._authorize()

    def _authorize(self) -> None:
        if self._token.count(".") != 2:
            self._session.headers["Authorization"] = f"Token {self._token}"
            return
        # a personal access token is a refresh token: it buys short-lived ones
        self._session.headers.pop("Authorization", None)
        try:
            found = self._once("POST", "/api/token/refresh/", {"json": {"refresh": self._token}})
        except _Unauthorized:
            raise self._refused() from None
        self._session.headers["Authorization"] = f"Bearer {self.value(found, 'access', str, '/api/token/refresh/')}"

    def get(self, path: str, **params: Any) -> Any:
        """Return what the server answers to a question; a question may be asked again."""
        for pause in (*_READ_AGAIN_S, None):
            try:
                return self._call("GET", path, {"params": params})
            except BusyError:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def change(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Return what the server answers to a change, sent once.

        Raises:
            OutcomeUnknownError: the change may have been made or not.
        """
        return self._call(method, path, {"json": body, "params": params})

    def _call(self, method: str, path: str, more: dict[str, Any]) -> Any:
        try:
            return self._once(method, path, more)
        except _Unauthorized:
            if self._token.count(".") == 2:
                self._authorize()
                try:
                    return self._once(method, path, more)
                except _Unauthorized:
                    pass
            raise self._refused() from None

    def _refused(self) -> MissingRequirementError:
        if self.remote:
            return MissingRequirementError(
                f"{self.url}: the access token is refused; set RISBENCH_LABEL_STUDIO_TOKEN to a valid one of its admin, "
                f"and run `risbench review connect {self.url}` again"
            )
        return MissingRequirementError(
            f"{self.url}: the access token is refused; put a valid one into the file `token` of the review folder"
        )

    def _to_do(self) -> str:
        if self.remote:
            return "is Label Studio running, and does this machine reach it? `risbench review connect URL` names another address"
        return "is Label Studio running? Start it with `risbench review serve` and leave it running"

    def _once(self, method: str, path: str, more: dict[str, Any]) -> Any:
        what = f"{method} {path}"
        try:
            answer = self._session.request(method, self.url + path, timeout=(10, _TIMEOUT_S), allow_redirects=False, **more)
        except requests.exceptions.ConnectTimeout:
            raise BusyError(f"{self.url}: does not answer; {self._to_do()}") from None
        except requests.ConnectionError as error:
            if "refused" in str(error) or "Name or service" in str(error) or "unreachable" in str(error):
                raise BusyError(f"{self.url}: connection refused; {self._to_do()}") from None
            raise OutcomeUnknownError(f"{self.url}: {what}: the connection broke; run the same command again") from None
        except requests.RequestException as error:
            raise OutcomeUnknownError(f"{self.url}: {what}: {type(error).__name__}; run the same command again") from None
        return _checked(answer, f"{self.url}: {what}")

    def value(self, found: Any, name: str, kind: type[_T], where: str) -> _T:
        """Return a value of an answer.

        Raises:
            OutcomeUnknownError: the answer has none of this type, as where a proxy answers in the server's place.
        """
        value = found.get(name) if isinstance(found, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.odd(where, f"{name} is to be {_KINDS[kind]}", found)
        return value

    def odd(self, where: str, wanted: str, found: Any) -> OutcomeUnknownError:
        """Return the error for an answer of another shape."""
        return OutcomeUnknownError(f"{self.url}: {where}: answered {printable(found, 60)}, where {wanted}; run the same command again")


def check_url(url: str) -> None:
    """Raise where an address is none of a server, or holds what must not be printed.

    Raises:
        OptionError: it says which; a password is not repeated.
    """
    try:
        parts = urlsplit(url)
        held = "@" in (parts.netloc or url)
        there = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        held, there = "@" in url, False
    if held:
        raise OptionError(
            "the server's URL: holds a user name or a password; give it without, as https://HOST: the access token is the login"
        )
    if not there or not url.isprintable():
        raise OptionError(f"{printable(url)}: is no URL of a server; it must begin with http:// or https:// and name a host")


def check_token(token: str, what: str) -> None:
    """Raise where a token cannot be sent: it stands in a header, which holds printable ASCII.

    Raises:
        MissingRequirementError: it names the first character that cannot be, and no other.
    """
    if not token:
        raise MissingRequirementError(f"{what}: is empty")
    wrong = next((place for place, letter in enumerate(token) if not "!" <= letter <= "~"), None)
    if wrong is not None:
        raise MissingRequirementError(
            f"{what}: character {wrong + 1} is {printable(token[wrong])!r}; a token has only ASCII letters, digits and signs: copy it again"
        )


class _Unauthorized(Exception):
    pass


def _checked(answer: requests.Response, what: str) -> Any:
    """Return an answer's JSON, or raise what it means."""
    code = answer.status_code
    if code == 401:
        raise _Unauthorized
    if code == 404:
        raise NotThere(f"{what}: is not on the server")
    if code == 429 or code >= 500:
        raise OutcomeUnknownError(f"{what}: the server answered {code}; run the same command again")
    if not 200 <= code < 300:
        raise InputError(f"{what}: refused with {code}: {_reason(answer)}")
    if code == 204 or not answer.content:
        return None
    try:
        return answer.json()
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, or nested without end
        raise OutcomeUnknownError(f"{what}: answered with something that is not JSON: {printable(answer.text, 60)}") from None


def _reason(answer: requests.Response) -> str:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return printable(answer.text, 120)
    if not isinstance(found, dict):
        return printable(json.dumps(found), 200)
    return printable(json.dumps(found.get("validation_errors") or found.get("detail") or found), 300)
