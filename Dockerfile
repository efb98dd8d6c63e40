# The service on CUDA where the node has a GPU, else on the CPU: torch's wheel holds both.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --upgrade 'pip>=25.1'
COPY constraints.txt pyproject.toml README.md ./
COPY core core
COPY service service
RUN /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt .
# Compiled ahead into the package's own cache: the running container cannot write there.
RUN cd / && /opt/venv/bin/python -c "import torch, core, service.codecs.json as json; core.warm_up(torch.device('cpu')); json.warm_up()"

FROM ${BASE_IMAGE}
COPY --from=build /opt/venv /opt/venv
USER 10001:10001
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 LOSS_SCORING_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD \
    ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["loss-scoring"]
CMD ["serve"]
