"""MLServer: the V2 inference protocol, whose tensors are rectangular.

A request holds prediction and target as FP64 [series, elements], padded with zeros, and lengths as
INT64 [series]; the outputs it names ("mae", "mae.gradient") say what to compute.

mlserver start FOLDER  (the runner writes the two settings files into it)
"""

import asyncio

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from scoring import score

GRADIENT = ".gradient"


class Scoring(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        wanted = [one.name for one in payload.outputs]
        names = tuple(name for name in wanted if not name.endswith(GRADIENT))
        p, y, lengths = inputs["prediction"], inputs["target"], inputs["lengths"].ravel()
        real = np.arange(p.shape[1]) < lengths[:, None]
        values, slopes = await asyncio.to_thread(
            score, names, p[real], y[real], lengths, gradients=len(names) < len(wanted)
        )
        outputs = [NumpyCodec.encode_output(name, value) for name, value in values.items()]
        for name, slope in slopes.items():
            padded = np.zeros_like(p)
            padded[real] = slope
            outputs.append(NumpyCodec.encode_output(name + GRADIENT, padded))
        return InferenceResponse(model_name=self.name, outputs=outputs)
