"""What a first afternoon gives: FastAPI, a pydantic model of the body, torch series by series.

uvicorn naive_app:app --workers 2
"""

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from scoring import TERMS  # only the formula of one element; nothing vectorised over series


class Series(BaseModel):
    prediction: list[float]
    target: list[float]


class Request(BaseModel):
    losses: list[str]
    gradients: bool = False
    series: list[Series]


class Answer(BaseModel):
    losses: dict[str, list[float]]
    gradients: dict[str, list[list[float]]] | None = None


app = FastAPI()


@app.post("/score")
def score(request: Request) -> Answer:
    answer = Answer(losses={name: [] for name in request.losses})
    if request.gradients:
        answer.gradients = {name: [] for name in request.losses}
    for one in request.series:
        target = torch.tensor(one.target, dtype=torch.float64)
        for name in request.losses:
            prediction = torch.tensor(
                one.prediction, dtype=torch.float64, requires_grad=request.gradients
            )
            loss = TERMS[name](prediction, target).mean()
            answer.losses[name].append(loss.item())
            if answer.gradients is not None:
                loss.backward()
                answer.gradients[name].append(prediction.grad.tolist())
    return answer
