"""The triage page on loopback, behind an address that nobody can guess."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from risbench.core.errors import InputError
from risbench.review.labelstudio.page import page_config
from risbench.review.pages.triage_sheets import Triage


class Done(BaseModel):
    """What the page sends when a sheet is done."""

    model_config = ConfigDict(extra="forbid")

    sheet: str
    doubted: list[int]
    seconds: float = Field(ge=0, allow_inf_nan=False)


def application(triage: Triage, secret: str) -> FastAPI:
    """Return the ASGI application; every address begins with the secret."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get(f"/{secret}/", response_class=HTMLResponse)
    def page() -> str:
        return page_config("triage.html")

    @app.get(f"/{secret}/next")
    def following() -> dict[str, Any]:
        return triage.next()

    @app.get(f"/{secret}/tile/{{number}}")
    def tile(number: int, sheet: str) -> Response:
        try:
            return Response(triage.tile(sheet, number), media_type="image/jpeg", headers={"Cache-Control": "no-store"})
        except InputError as error:
            raise HTTPException(404, str(error)) from None

    @app.post(f"/{secret}/done")
    def done(answer: Done) -> dict[str, bool]:
        try:
            triage.answer(answer.sheet, answer.doubted, answer.seconds)
        except InputError as error:
            raise HTTPException(409, str(error)) from None
        return {"stored": True}

    return app
