# loss-scoring with CUDA:       docker build -t loss-scoring:cuda .
#              for the CPU:     docker build -t loss-scoring:cpu --build-arg VARIANT=cpu .
# deploy/README.md says what is in the image, and why; `make image-test` builds and tries both.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG VARIANT=cuda
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
# The oldest processor that runs the image: with AVX2. What is compiled here is then valid on all nodes.
ARG CPU_NAME=x86-64-v3
ARG CPU_FEATURES=""
WORKDIR /src

# Triton compiles its launcher in C. It is done here, once, so that the image needs no compiler.
# hadolint ignore=DL3008 # whatever the base image's release has; none of it leaves this stage
RUN if [ "${VARIANT}" = cuda ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev \
        && rm -rf /var/lib/apt/lists/*; \
    fi

COPY deploy/locks deploy/locks
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r deploy/locks/build.txt \
    && python3 -m venv --without-pip /opt/venv \
    && if [ "${VARIANT}" = cpu ] && [ -n "${TORCH_CPU_INDEX}" ]; then \
        export PIP_EXTRA_INDEX_URL="${TORCH_CPU_INDEX}"; \
    fi \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir \
        --require-hashes --only-binary :all: -r "deploy/locks/${VARIANT}.txt"

COPY pyproject.toml README.md LICENSE VERSION ./
COPY core core
COPY service service
COPY loss_scoring loss_scoring
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-index --no-deps /wheels/*.whl

# Caches, since the container can write none: numba's in the package, Triton's beside it.
# Without its second variable numba adds what this very machine has to that processor.
ENV NUMBA_CPU_NAME=${CPU_NAME} \
    NUMBA_CPU_FEATURES=${CPU_FEATURES}
RUN mkdir /opt/triton \
    && set -- compile \
    && if [ "${VARIANT}" = cuda ]; then set -- compile --gpu 0; fi \
    && TRITON_CACHE_DIR=/opt/triton TRITON_STORE_BINARY_ONLY=1 /opt/venv/bin/loss-scoring "$@"

# What no running code loads: headers, static libraries, wheels' own tests, profilers, and copies of
# libraries that torch does not link. The last line would fail if one was missed.
RUN site="$(echo /opt/venv/lib/python3*/site-packages)" \
    && find "${site}" -name '*.a' -delete \
    && find "${site}/torch/bin" -type f ! -name torch_shm_manager -delete \
    && rm -rf "${site}/torch/include" "${site}/pyarrow/include" "${site}"/nvidia/*/include \
        "${site}"/nvidia/cu13/lib/libcusolverMg.* "${site}"/nvidia/cu13/lib/*.alt.so.* \
        "${site}/triton/backends/nvidia/lib/cupti" "${site}/triton/_C/libproton.so" \
    && for package in numba numpy pyarrow sympy; do \
        find "${site}/${package}" -type d -name tests -prune -exec rm -rf {} +; \
    done \
    && /opt/venv/bin/loss-scoring losses

FROM ${BASE_IMAGE}
ARG CPU_NAME=x86-64-v3
ARG CPU_FEATURES=""
ARG REVISION=unknown
LABEL org.opencontainers.image.title="loss-scoring" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.description="Scores forecasts over HTTP: losses per series, with gradients"
COPY --from=build /opt/triton /opt/triton
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    LOSS_SCORING_HOST=0.0.0.0 \
    NUMBA_CPU_NAME=${CPU_NAME} \
    NUMBA_CPU_FEATURES=${CPU_FEATURES} \
    NUMBA_CACHE_LOCATOR_CLASSES=loss_scoring.core.compiled.PackagedCache \
    TRITON_CACHE_MANAGER=loss_scoring.core.kernels.ahead:SeededCache \
    TRITON_SEED_DIR=/opt/triton \
    TRITON_CACHE_DIR=/tmp/triton
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-m", "loss_scoring.service.health"]
ENTRYPOINT ["loss-scoring"]
CMD ["serve"]
