"""The assistant as Label Studio calls it: /health, /setup and /predict behind basic authentication."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, HTTPException
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from risbench.core.errors import InputError, OptionError
from risbench.review.pages.assist_model import USER, Helper

_SCHEME: Final = HTTPBasic()


def application(helper: Helper, secret: str) -> FastAPI:
    """Return the ASGI application; whoever does not hold the secret gets 401 and learns nothing."""

    def allowed(given: Annotated[HTTPBasicCredentials, Depends(_SCHEME)]) -> None:
        name = secrets.compare_digest(given.username.encode(), USER.encode())
        if not secrets.compare_digest(given.password.encode(), secret.encode()) or not name:
            raise HTTPException(401)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(allowed)])

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "risbench"}

    @app.post("/setup")
    async def setup() -> dict[str, str]:
        return {"model_version": helper.name}

    @app.post("/predict")
    async def predict(request: dict[str, Any]) -> dict[str, Any]:
        tasks = request.get("tasks") or []
        drawn = ((request.get("params") or {}).get("context") or {}).get("result") or []
        if not isinstance(tasks, list) or len(tasks) != 1 or not isinstance(tasks[0], dict) or not isinstance(drawn, list):
            return {"results": [{"result": [], "model_version": helper.name} for _ in tasks]}
        try:
            result = await run_in_threadpool(helper.answer, tasks[0], drawn)
        except (InputError, OptionError) as error:
            raise HTTPException(400, str(error)) from None
        return {"results": [{"result": result, "score": result[0]["score"] if result else 0.0, "model_version": helper.name}]}

    return app
